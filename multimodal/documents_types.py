"""What reading a document gives: pages of text with their places, and what every reader needs to make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from hearth.multimodal.errors import PerceptionCancelled

PAGE_SEPARATOR = "\n\n"
SECTION_SEPARATOR = " › "
MAX_CHARS = 20_000_000  # of a document's text

Progress = Callable[[float], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a document: a PDF's page (``number`` counts from 1), or of other documents what stands under one
    heading (``number`` None). ``section`` is the path of headings above it, "Chapter › Part", or ""."""

    number: int | None
    text: str
    section: str = ""


@dataclass(frozen=True)
class DocumentText:
    """A document that was read. ``pages`` holds only those with text, in order; ``scanned_pages`` are numbers of PDF
    pages that show something but hold no text; ``notices`` say so to people. ``sha256`` is the file's, hexadecimal."""

    title: str
    mime: str
    sha256: str
    pages: tuple[Page, ...]
    scanned_pages: tuple[int, ...] = ()
    notices: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        """The pages' texts joined by ``PAGE_SEPARATOR``; all character offsets of passages count in this."""
        return PAGE_SEPARATOR.join(page.text for page in self.pages)

    @cached_property
    def page_starts(self) -> tuple[int, ...]:
        """For each of ``pages``, the offset in ``text`` at which it begins."""
        starts, at = [], 0
        for page in self.pages:
            starts.append(at)
            at += len(page.text) + len(PAGE_SEPARATOR)
        return tuple(starts)


@dataclass(frozen=True, slots=True)
class ReadPages:
    """What a reader of one format returns; ``title`` is None if the document names none."""

    title: str | None
    pages: tuple[Page, ...]
    scanned_pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """Reports progress and obeys cancellation while a document called ``name`` is read."""

    name: str
    on_progress: Progress | None = None
    cancelled: Cancelled | None = None

    def step(self, fraction: float) -> None:
        """Reports ``fraction`` (0 to 1). Raises PerceptionCancelled if the owner wants no more."""
        if self.cancelled is not None and self.cancelled():
            raise PerceptionCancelled(f"reading {self.name} was cancelled; nothing was kept")
        if self.on_progress is not None:
            self.on_progress(min(1.0, max(0.0, fraction)))
