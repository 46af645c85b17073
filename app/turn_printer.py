"""The events of a turn as text: the answer to one stream, phases and asides to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TextIO

from hearth.events import (
    Citation,
    CitationsFound,
    Done,
    MemoryChanged,
    Notice,
    Phase,
    Reply,
    Transcribed,
    TurnEvent,
    TurnFailed,
)
from hearth.models.errors import EngineError
from hearth.models.types import TextDelta
from hearth.multimodal.languages import language_name
from hearth.places import clock, place_in
from hearth.terminal import CLEAR_LINE, SNIPPET_CHARS, one_line, printable

_PHASE_WORDS: Final = {
    "loading": "loading the model",
    "seeing": "looking at the picture",
    "transcribing": "listening",
    "reading": "reading",
    "searching": "searching memory",
    "waiting": "waiting for another answer",
    "prefilling": "taking it in",
    "generating": "",
}


class TurnPrinter:
    """Prints events as they come: the answer to ``out``, phases and asides to ``err``, phases only on a terminal."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._on_terminal = err.isatty()
        self._phase_shown = False
        self._at_line_start = True

    def show(self, event: TurnEvent) -> None:
        """Prints what of ``event`` people want to see. A TurnFailed is the caller's to report."""
        match event:
            case Phase():
                self._show_phase(event)
            case TextDelta(text=text):
                self._show_text(text)
            case Transcribed():
                self._aside(f"heard in {event.attachment}{_language(event)}: {event.text}")
            case MemoryChanged(title=title, n_passages=count):
                self._aside(f"added to memory: {title} ({count} passages)")
            case Notice(text=text):
                self._aside(text, always=True)
            case Done(reply=reply):
                self._finish(reply)
            case CitationsFound():
                pass
            case _:
                self.end_line()

    def end_line(self) -> None:
        """Leaves both streams at the start of a line."""
        self._clear_phase()
        if not self._at_line_start:
            self._out.write("\n")
            self._at_line_start = True
        self._out.flush()

    def _show_phase(self, phase: Phase) -> None:
        words = phase.detail or _PHASE_WORDS[phase.name]
        if phase.done_s is not None and phase.total_s is not None:
            words += f", {clock(phase.done_s)} of {clock(phase.total_s)}"
        if not self._on_terminal or not words or not self._at_line_start:
            return
        percent = "" if phase.fraction is None else f" {phase.fraction:.0%}"
        self._err.write(f"{CLEAR_LINE}\x1b[2m{one_line(words)}{percent} …\x1b[0m")
        self._err.flush()
        self._phase_shown = True

    def _clear_phase(self) -> None:
        if self._phase_shown:
            self._err.write(CLEAR_LINE)
            self._err.flush()
            self._phase_shown = False

    def _show_text(self, text: str) -> None:
        self._clear_phase()
        clean = printable(text)
        self._out.write(clean)
        self._out.flush()
        if clean:
            self._at_line_start = clean.endswith("\n")

    def _aside(self, text: str, *, always: bool = False) -> None:
        if not (always or self._on_terminal):
            return
        self.end_line()
        self._err.write(f"hearth: {one_line(text)}\n")

    def _finish(self, reply: Reply) -> None:
        self.end_line()
        for citation in reply.citations:
            if citation.used:
                self._out.write(citation_line(citation) + "\n")
        self._out.flush()
        if not self._on_terminal:
            return
        if reply.finish_reason == "length":
            self._aside("the answer was cut at the limit of tokens; raise it with --max-tokens")
        self._aside(f"go on with --conversation {reply.conversation_id}")


def citation_line(citation: Citation) -> str:
    """One line of a list of sources: number, title, page and the beginning of the passage."""
    place = place_in(citation.page, citation.start_s)
    return f"[{citation.number}] {one_line(citation.title)}{place}: {one_line(citation.text, SNIPPET_CHARS)}"


def _language(event: Transcribed) -> str:
    if event.language is None or event.language_prob is None:
        return ""
    return f" ({language_name(event.language)}, {event.language_prob:.0%} sure)"


def follow(events: Iterable[TurnEvent], printer: TurnPrinter | None) -> Reply:
    """The reply of a turn, whose events are printed unless ``printer`` is None. Raises the error that ended it."""
    for event in events:
        if printer is not None:
            printer.show(event)
        if isinstance(event, Done):
            return event.reply
        if isinstance(event, TurnFailed):
            raise event.error
    raise EngineError("the turn ended without an answer; ask again")
