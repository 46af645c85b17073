"""Conversations and their messages, in the order they were said, found again by their words."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from hearth.models.errors import RequestError
from hearth.store.blobs import BlobStore
from hearth.store.database import Database
from hearth.store.errors import NotFoundError, StoreError
from hearth.store.identifiers import new_id
from hearth.store.records import Attachment, Conversation, Message, Role
from hearth.store.words import index_text, match_term, query_terms, storable

ROLES = ("system", "user", "assistant")
MAX_QUERY_TERMS = 8  # of a search in the list; each one narrows it
_POSITION_BITS = 20  # a message's number is its conversation's and its position: the word index alone tells the chat
_WITH_WORD = f"""number IN (SELECT rowid FROM titles_words WHERE titles_words MATCH ?
    UNION SELECT rowid >> {_POSITION_BITS} FROM messages_words WHERE messages_words MATCH ?)"""
_ATTACHMENTS = """SELECT a.*, m.id AS message_id FROM attachments a JOIN messages m ON m.number = a.message_number
    WHERE m.conversation_number = ? ORDER BY a.message_number, a.position"""

# ConversationStore.list hides the built-in name from annotations
Conversations = list[Conversation]
Messages = list[Message]


class ConversationStore:
    """All methods may be called from any thread. Every change is on the disk, whole or not at all, on return."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        # entered with the id before anything of a conversation is deleted, left when it is gone or could not be
        self.while_deleting: Callable[[str], AbstractContextManager[object]] = nullcontext

    def create(self, title: str = "") -> Conversation:
        """A new, empty conversation. Raises StoreError."""
        now = time.time()
        made = Conversation(new_id(), storable(title), now, now, 0)
        with self._database.write() as transaction:
            cursor = transaction.execute(
                "INSERT INTO conversations (id, title, created_at, updated_at) VALUES (?, ?, ?, ?)",
                (made.id, made.title, now, now),
            )
            _index_title(transaction, cursor.lastrowid, made.title)
        return made

    def get(self, conversation_id: str) -> Conversation:
        """Raises NotFoundError."""
        with self._database.read() as connection:
            return _conversation(_row_of(connection, conversation_id))

    def list(self, *, query: str = "", limit: int = 50, offset: int = 0) -> Conversations:
        """Conversations, the last used first; with ``query`` those whose title and messages have all its words.

        A word of the query also finds longer words that begin with it. Raises RequestError, StoreError.
        """
        if limit < 0 or offset < 0:
            raise RequestError(f"limit = {limit}, offset = {offset}: must be 0 or more")
        terms = [match_term(term, prefix=True) for term in query_terms(query)[:MAX_QUERY_TERMS]]
        if query.strip() and not terms:
            return []  # nothing but punctuation
        condition = " AND ".join([_WITH_WORD] * len(terms)) or "1"
        words = [term for term in terms for _ in range(2)]  # in titles, in messages
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM conversations WHERE {condition} ORDER BY updated_at DESC, id DESC LIMIT ? OFFSET ?",
                (*words, limit, offset),
            )
            return [_conversation(row) for row in rows]

    def rename(self, conversation_id: str, title: str) -> Conversation:
        """Gives a conversation another title. Raises NotFoundError, StoreError."""
        title = storable(title)
        with self._database.write() as transaction:
            row = _row_of(transaction, conversation_id)
            _unindex_title(transaction, row)
            transaction.execute("UPDATE conversations SET title = ? WHERE number = ?", (title, row["number"]))
            _index_title(transaction, row["number"], title)
            transaction.execute("INSERT INTO titles_words (titles_words) VALUES ('optimize')")
        return self.get(conversation_id)

    def delete(self, conversation_id: str) -> int:
        """Deletes a conversation, its messages and the blobs that nothing else names; returns how many blobs.

        On return the words are in no file of the database any more. Raises NotFoundError, StoreError, and what
        ``while_deleting`` raises before: then all is still there.
        """
        self.get(conversation_id)
        with self.while_deleting(conversation_id), self._database.writer_lock:
            with self._database.write() as transaction:
                row = _row_of(transaction, conversation_id)
                attachments = transaction.execute(_ATTACHMENTS, (row["number"],)).fetchall()
                _unindex_title(transaction, row)
                _unindex_messages(transaction, row["number"])
                transaction.execute("DELETE FROM conversations WHERE number = ?", (row["number"],))
                # FTS5 only marks words as deleted until its segments are merged
                for index in ("titles_words", "messages_words"):
                    transaction.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")
            n_blobs = self._blobs.remove_unused(attachment["sha256"] for attachment in attachments)
            self._database.checkpoint()
        return n_blobs

    def messages(self, conversation_id: str) -> Messages:
        """The messages in their order. Raises NotFoundError, StoreError."""
        with self._database.read() as connection:
            number = _row_of(connection, conversation_id)["number"]
            attachments: dict[int, list[Attachment]] = {}
            for row in connection.execute(_ATTACHMENTS, (number,)):
                attachments.setdefault(row["message_number"], []).append(_attachment(row))
            rows = connection.execute(
                "SELECT * FROM messages WHERE conversation_number = ? ORDER BY position", (number,)
            ).fetchall()
        return [_message(row, conversation_id, tuple(attachments.get(row["number"], ()))) for row in rows]

    def append(
        self,
        conversation_id: str,
        role: Role,
        text: str,
        *,
        attachments: Sequence[Attachment] = (),
        citations: Sequence[Mapping[str, Any]] = (),
        frozen: str | None = None,
        fingerprint: str | None = None,
        reply: Mapping[str, Any] | None = None,
    ) -> Message:
        """Adds a message at the end. ``citations`` and ``reply`` must be JSON-ready.

        Raises NotFoundError (no such conversation, or an attachment's blob was not put), RequestError, StoreError.
        """
        if role not in ROLES:
            raise RequestError(f"role {role!r}: must be one of {', '.join(ROLES)}")
        now = time.time()
        attached = tuple(attachments)
        with self._database.writer_lock:  # no blob goes away between the check and the insertion
            for attachment in attached:
                self._blobs.path(attachment.sha256)
            with self._database.write() as transaction:
                row = _row_of(transaction, conversation_id)
                message = Message(
                    id=new_id(),
                    conversation_id=conversation_id,
                    position=row["n_messages"],
                    role=role,
                    text=storable(text),
                    attachments=attached,
                    citations=tuple(dict(citation) for citation in citations),
                    frozen=frozen,
                    fingerprint=fingerprint,
                    reply=None if reply is None else dict(reply),
                    created_at=now,
                )
                _insert(transaction, row["number"], message)
            self._blobs.named(*(attachment.sha256 for attachment in attached))
        return message

    def refreeze(self, message_id: str, frozen: str | None, fingerprint: str | None) -> None:
        """Replaces a message's piece of the prompt. Raises NotFoundError, StoreError."""
        with self._database.write() as transaction:
            changed = transaction.execute(
                "UPDATE messages SET frozen = ?, fingerprint = ? WHERE id = ?", (frozen, fingerprint, message_id)
            )
            if not changed.rowcount:
                raise NotFoundError(f"message {message_id!r}: not in the store")


def _row_of(connection: sqlite3.Connection, conversation_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM conversations WHERE id = ?", (storable(conversation_id),)
    ).fetchone()
    if row is None:
        raise NotFoundError(f"conversation {conversation_id!r}: not in the store; it may have been deleted")
    return row


def _insert(transaction: sqlite3.Connection, conversation_number: int, message: Message) -> None:
    if message.position >> _POSITION_BITS:
        raise StoreError(
            f"conversation {message.conversation_id!r}: full at {message.position} messages; start another"
        )
    number = conversation_number << _POSITION_BITS | message.position
    transaction.execute(
        "INSERT INTO messages (number, id, conversation_number, position, role, text, citations, frozen, fingerprint, "
        "reply, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            message.id,
            conversation_number,
            message.position,
            message.role,
            message.text,
            json.dumps(message.citations),
            message.frozen,
            message.fingerprint,
            None if message.reply is None else json.dumps(message.reply),
            message.created_at,
        ),
    )
    transaction.executemany(
        "INSERT INTO attachments (message_number, position, sha256, name, kind, mime, size_bytes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (number, position, part.sha256, storable(part.name), part.kind, part.mime, part.size_bytes)
            for position, part in enumerate(message.attachments)
        ],
    )
    transaction.execute("INSERT INTO messages_words (rowid, text) VALUES (?, ?)", (number, index_text(message.text)))
    transaction.execute(
        "UPDATE conversations SET n_messages = n_messages + 1, updated_at = ? WHERE number = ?",
        (message.created_at, conversation_number),
    )


def _index_title(transaction: sqlite3.Connection, number: int | None, title: str) -> None:
    transaction.execute("INSERT INTO titles_words (rowid, title) VALUES (?, ?)", (number, index_text(title)))


def _unindex_title(transaction: sqlite3.Connection, row: sqlite3.Row) -> None:
    transaction.execute(
        "INSERT INTO titles_words (titles_words, rowid, title) VALUES ('delete', ?, ?)",
        (row["number"], index_text(row["title"])),
    )


def _unindex_messages(transaction: sqlite3.Connection, conversation_number: int) -> None:
    rows = transaction.execute(
        "SELECT number, text FROM messages WHERE conversation_number = ?", (conversation_number,)
    ).fetchall()
    transaction.executemany(
        "INSERT INTO messages_words (messages_words, rowid, text) VALUES ('delete', ?, ?)",
        [(row["number"], index_text(row["text"])) for row in rows],
    )


def _conversation(row: sqlite3.Row) -> Conversation:
    return Conversation(row["id"], row["title"], row["created_at"], row["updated_at"], row["n_messages"])


def _attachment(row: sqlite3.Row) -> Attachment:
    return Attachment(row["sha256"], row["name"], row["kind"], row["mime"], row["size_bytes"])


def _message(row: sqlite3.Row, conversation_id: str, attachments: tuple[Attachment, ...]) -> Message:
    return Message(
        id=row["id"],
        conversation_id=conversation_id,
        position=row["position"],
        role=row["role"],
        text=row["text"],
        attachments=attachments,
        citations=tuple(json.loads(row["citations"])),
        frozen=row["frozen"],
        fingerprint=row["fingerprint"],
        reply=None if row["reply"] is None else json.loads(row["reply"]),
        created_at=row["created_at"],
    )
