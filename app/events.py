"""The events of one turn. UI, CLI, HTTP and scripts are renderings of this one stream.

``Assistant.stream`` yields any number of Phase, TextDelta, CitationsFound and MemoryChanged events and then exactly
one terminal event: Done or TurnFailed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hearth.models.errors import HearthError
from hearth.models.types import CacheReport, FinishReason, TextDelta, Usage

PhaseName = Literal["loading", "seeing", "transcribing", "reading", "searching", "waiting", "prefilling", "generating"]


@dataclass(frozen=True, slots=True)
class Phase:
    """What the turn is doing now; ``fraction`` in 0..1 when it is known, ``detail`` a few words for people."""

    name: PhaseName
    fraction: float | None = None
    detail: str = ""
    done_s: float | None = None  # of a recording: seconds of sound that are done …
    total_s: float | None = None  # … and all of them


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that was given to the model. ``number`` is the [n] in the answer; ``start``/``end`` are character
    offsets of the passage in the document's text; ``used`` says whether the answer refers to it; ``start_s`` is when it
    is said, of a recording."""

    number: int
    document_id: str
    title: str
    page: int | None
    start: int
    end: int
    text: str
    score: float
    used: bool = False
    start_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transcribed:
    """A recording was turned into text; it becomes part of the user's message.

    ``language`` is a code like "de", with its probability if it was detected; None where the words came from the user.
    """

    attachment: str  # its file name
    text: str
    duration_s: float
    language: str | None = None
    language_prob: float | None = None


@dataclass(frozen=True, slots=True)
class CitationsFound:
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class MemoryChanged:
    """A document was added to memory in this turn."""

    document_id: str
    title: str
    n_passages: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know, though the turn goes on (a scanned page, a passage left out for room)."""

    text: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one turn, from the call to the end; ``ttft_s`` counts from the call to the first text."""

    perceive_s: float = 0.0
    recall_s: float = 0.0
    load_s: float = 0.0  # waiting for the model to load
    queue_s: float = 0.0
    restore_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0
    decode_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The whole answer."""

    text: str
    conversation_id: str
    message_id: str
    finish_reason: FinishReason
    citations: tuple[Citation, ...] = ()
    transcripts: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cache: CacheReport = field(default_factory=CacheReport)
    timings: Timings = field(default_factory=Timings)
    model: str = ""
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, as printed by ``hearth ask --json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Done:
    """The turn ended well, or was stopped by the user (``reply.finish_reason == "cancelled"``)."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The turn ended with an error. The user's message is kept in ``conversation_id``, so nothing typed is lost."""

    error: HearthError
    conversation_id: str | None = None


TurnEvent = Phase | TextDelta | Transcribed | CitationsFound | MemoryChanged | Notice | Done | TurnFailed
