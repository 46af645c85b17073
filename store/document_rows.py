"""Documents and passages as rows of the database: SQL in one place, no policy.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence

from hearth.store.errors import NotFoundError, StoreError
from hearth.store.records import Document, NewPassage, PassageRecord
from hearth.store.words import index_text, storable

_PASSAGES = "SELECT p.*, d.id AS document_id FROM passages p JOIN documents d ON d.number = p.document_number"
_SEPARATOR = " › "
_HEADING_CHARS = 300  # of a heading that are embedded
_HEADING_WEIGHT = 0.5  # against 1 for the text: a title stands in all passages of its document and tells less
_BY_WORDS = f"""SELECT p.id FROM passages_words w JOIN passages p ON p.number = w.rowid
    JOIN documents d ON d.number = p.document_number
    WHERE passages_words MATCH ?1 AND d.state = 'ready' AND (?3 IS NULL OR d.id IN (SELECT value FROM json_each(?3)))
    ORDER BY bm25(passages_words, {_HEADING_WEIGHT}, 1.0), p.number LIMIT ?2"""


def unknown(document_id: str) -> NotFoundError:
    return NotFoundError(f"document {document_id!r}: not in memory; it may have been forgotten")


def heading(title: str, section: str, page: str = "") -> str:
    """What stands over a passage: title, section (which may begin with the title) and page."""
    path = section.split(_SEPARATOR)
    return _SEPARATOR.join(part for part in (title, *(path[1:] if path[0] == title else path), page) if part)


def embedding_text(title: str, passage: PassageRecord | NewPassage) -> str:
    """What an embedder is given for a passage of the document ``title``: "title › section › page 3", then its text."""
    page = "" if passage.page is None else f"page {passage.page}"
    return f"{heading(title, passage.section, page)[:_HEADING_CHARS]}\n{passage.text}"


def insert_document(transaction: sqlite3.Connection, made: Document) -> None:
    transaction.execute(
        "INSERT INTO documents (id, title, name, kind, mime, sha256, n_pages, state, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            made.id,
            made.title,
            made.name,
            made.kind,
            made.mime,
            made.sha256,
            made.n_pages,
            made.state,
            made.created_at,
        ),
    )


def document(row: sqlite3.Row) -> Document:
    return Document(
        id=row["id"],
        title=row["title"],
        name=row["name"],
        kind=row["kind"],
        mime=row["mime"],
        sha256=row["sha256"],
        n_pages=row["n_pages"],
        n_passages=row["n_passages"],
        state=row["state"],
        detail=row["detail"],
        created_at=row["created_at"],
    )


def require(connection: sqlite3.Connection, document_id: str) -> sqlite3.Row:
    """The document's row. Raises NotFoundError."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM documents WHERE id = ?", (storable(document_id),)
    ).fetchone()
    if row is None:
        raise unknown(document_id)
    return row


def require_ingesting(connection: sqlite3.Connection, document_id: str) -> sqlite3.Row:
    """Raises NotFoundError, StoreError if the document is finished or failed."""
    row = require(connection, document_id)
    if row["state"] != "ingesting":
        raise StoreError(f"document {document_id!r}: is {row['state']} already; begin it again")
    return row


def new_records(document_id: str, passages: Sequence[NewPassage]) -> list[PassageRecord]:
    return [
        PassageRecord(
            id=f"{document_id}-{index:05d}",
            document_id=document_id,
            index=index,
            text=storable(passage.text),
            page=None if passage.page is None else int(passage.page),
            start=int(passage.start),
            end=int(passage.end),
            section=storable(passage.section),
            start_s=passage.start_s,
            end_s=passage.end_s,
        )
        for index, passage in enumerate(passages)
    ]


def make_ready(transaction: sqlite3.Connection, document_id: str, records: Sequence[PassageRecord]) -> None:
    """Stores the passages, their words, and the state. Raises NotFoundError, StoreError if it is not ingesting."""
    row = require_ingesting(transaction, document_id)
    for record in records:
        cursor = transaction.execute(
            'INSERT INTO passages (id, document_number, position, text, page, start, "end", section, start_s, end_s) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                row["number"],
                record.index,
                record.text,
                record.page,
                record.start,
                record.end,
                record.section,
                record.start_s,
                record.end_s,
            ),
        )
        transaction.execute(
            "INSERT INTO passages_words (rowid, heading, text) VALUES (?, ?, ?)",
            (cursor.lastrowid, *_words(row["title"], record.section, record.text)),
        )
    transaction.execute(
        "UPDATE documents SET state = 'ready', detail = '', n_passages = ? WHERE number = ?",
        (len(records), row["number"]),
    )


def delete_document(transaction: sqlite3.Connection, document_id: str) -> str:
    """Deletes a document with its passages and words, notes its vectors as strays; returns its blob's SHA-256.

    Raises NotFoundError.
    """
    row = require(transaction, document_id)
    number, was_text = row["number"], row["kind"] == "text"
    passages = transaction.execute("SELECT * FROM passages WHERE document_number = ?", (number,)).fetchall()
    strays = [("text", passage["id"]) for passage in passages] if was_text else [("pictures", document_id)]
    transaction.executemany("INSERT OR IGNORE INTO stray_vectors (space, id) VALUES (?, ?)", strays)
    transaction.executemany(
        "INSERT INTO passages_words (passages_words, rowid, heading, text) VALUES ('delete', ?, ?, ?)",
        [(passage["number"], *_words(row["title"], passage["section"], passage["text"])) for passage in passages],
    )
    transaction.execute("DELETE FROM documents WHERE number = ?", (number,))
    if passages:  # FTS5 only marks words as deleted until its segments are merged
        transaction.execute("INSERT INTO passages_words (passages_words) VALUES ('optimize')")
    return str(row["sha256"])


def delete_failed(transaction: sqlite3.Connection, sha256: str) -> None:
    """Deletes documents of this content that failed."""
    failed = transaction.execute("SELECT id FROM documents WHERE sha256 = ? AND state = 'failed'", (sha256,)).fetchall()
    for row in failed:
        delete_document(transaction, row["id"])


def of_document(connection: sqlite3.Connection, document_id: str) -> list[PassageRecord]:
    return [
        _passage(row) for row in connection.execute(f"{_PASSAGES} WHERE d.id = ? ORDER BY p.position", (document_id,))
    ]


def around(connection: sqlite3.Connection, passage_id: str, before: int, after: int) -> list[PassageRecord]:
    """Raises NotFoundError."""
    row = connection.execute("SELECT document_number, position FROM passages WHERE id = ?", (passage_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"passage {passage_id!r}: not in memory; its document may have been forgotten")
    number, position = row
    found = connection.execute(
        f"{_PASSAGES} WHERE p.document_number = ? AND p.position BETWEEN ? AND ? AND p.position <> ? "
        "ORDER BY p.position",
        (number, position - before, position + after, position),
    )
    return [_passage(one) for one in found]


def passage_ids(connection: sqlite3.Connection, document_ids: Sequence[str]) -> list[str]:
    """Ids of all passages of ready text documents among ``document_ids``."""
    found = connection.execute(
        "SELECT p.id FROM passages p JOIN documents d ON d.number = p.document_number WHERE d.state = 'ready' "
        "AND d.kind = 'text' AND d.id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(document_ids)),),
    )
    return [row["id"] for row in found]


def by_words(
    connection: sqlite3.Connection, expression: str, limit: int, document_ids: Sequence[str] | None
) -> list[str]:
    """Ids of the passages of ready documents that match an FTS5 expression, best by BM25 first."""
    chosen = None if document_ids is None else json.dumps(list(document_ids))
    return [row["id"] for row in connection.execute(_BY_WORDS, (expression, limit, chosen))]


def ready_passages(
    connection: sqlite3.Connection, passage_ids: Collection[str]
) -> dict[str, tuple[Document, PassageRecord]]:
    """The passages of ready documents among ``passage_ids``, with their documents."""
    chosen = json.dumps(list(passage_ids))
    found = [
        _passage(row)
        for row in connection.execute(
            f"{_PASSAGES} WHERE d.state = 'ready' AND p.id IN (SELECT value FROM json_each(?))", (chosen,)
        )
    ]
    documents = {identity: document(require(connection, identity)) for identity in {one.document_id for one in found}}
    return {one.id: (documents[one.document_id], one) for one in found}


def all_ready_texts(connection: sqlite3.Connection) -> Iterator[tuple[str, PassageRecord]]:
    """(title, passage) of every passage of ready text documents."""
    for row in connection.execute(
        "SELECT p.*, d.id AS document_id, d.title AS title FROM passages p JOIN documents d "
        "ON d.number = p.document_number WHERE d.state = 'ready' AND d.kind = 'text' ORDER BY p.number"
    ):
        yield row["title"], _passage(row)


def _words(title: str, section: str, text: str) -> tuple[str, str]:
    return index_text(heading(title, section)), index_text(text)


def _passage(row: sqlite3.Row) -> PassageRecord:
    return PassageRecord(
        id=row["id"],
        document_id=row["document_id"],
        index=row["position"],
        text=row["text"],
        page=row["page"],
        start=row["start"],
        end=row["end"],
        section=row["section"],
        start_s=row["start_s"],
        end_s=row["end_s"],
    )
