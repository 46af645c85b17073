"""What the store keeps, as frozen records. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

AttachmentKind = Literal["picture", "sound", "document"]
Role = Literal["system", "user", "assistant"]
DocumentKind = Literal["text", "picture"]
DocumentState = Literal["ingesting", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Times are Unix seconds; ``updated_at`` is that of the last message."""

    id: str
    title: str
    created_at: float
    updated_at: float
    n_messages: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file sent with a message; its bytes are the blob ``sha256``, ``name`` is what the user called it."""

    sha256: str
    name: str
    kind: AttachmentKind
    mime: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, ``position`` counting from 0.

    ``frozen`` is the message's piece of the prompt, made and read by the app alone, and ``fingerprint`` the model it
    is for; ``reply`` holds usage, timings, finish_reason and model of an answer. ``created_at`` is Unix seconds.
    """

    id: str
    conversation_id: str
    position: int
    role: Role
    text: str
    attachments: tuple[Attachment, ...]
    citations: tuple[dict[str, Any], ...]
    frozen: str | None
    fingerprint: str | None
    reply: dict[str, Any] | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Document:
    """A file in the user's memory. ``detail`` says why it is "failed"; ``created_at`` is Unix seconds."""

    id: str
    title: str
    name: str
    kind: DocumentKind
    mime: str
    sha256: str
    n_pages: int
    n_passages: int
    state: DocumentState
    detail: str
    created_at: float


@dataclass(frozen=True, slots=True)
class NewPassage:
    """A passage to be stored; ``start``/``end`` are character offsets in the document's text, pages count from 1.
    ``start_s``/``end_s``: of a recording, when it is said, in seconds."""

    text: str
    page: int | None
    start: int
    end: int
    section: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class PassageRecord:
    """A stored passage, ``index`` counting from 0 within its document."""

    id: str
    document_id: str
    index: int
    text: str
    page: int | None
    start: int
    end: int
    section: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A passage, or a picture when ``passage`` is None.

    ``score``: higher is better, comparable within one search only. ``distance``: cosine distance to the query's
    vector, 0..2, None if there was none to compare. Ranks count from 1; None: not among the candidates of that side.
    """

    document: Document
    passage: PassageRecord | None
    score: float
    distance: float | None
    rank_dense: int | None
    rank_words: int | None
