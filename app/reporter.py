"""What the steps of a turn share: telling the listener where they are, and noticing that they were cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from hearth.background import Background, Cancelled
from hearth.events import Notice, Phase, PhaseName, TurnEvent

T = TypeVar("T")


class Reporter:
    """One turn's way to its listener."""

    def __init__(self, emit: Callable[[TurnEvent], None]) -> None:
        self.emit = emit
        self.cancelled = threading.Event()
        self.notices: list[str] = []

    def phase(self, name: PhaseName, fraction: float | None = None, detail: str = "") -> None:
        self.emit(Phase(name, fraction, detail))

    def listening(self, fraction: float, name: str, total_s: float) -> None:
        """How much of the recording ``name``, which lasts ``total_s`` seconds, is transcribed."""
        self.emit(Phase("transcribing", fraction, name, fraction * total_s, total_s))

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self.emit(Notice(text))

    def check(self) -> None:
        """Raises Cancelled if the turn was."""
        if self.cancelled.is_set():
            raise Cancelled

    def wait_for(self, part: Background[T], phase: PhaseName, fraction: float | None = None) -> T:
        """The part, once it is loaded. Raises what its loading raised, or Cancelled."""
        if not part.ready:
            self.phase(phase, fraction)
        return part.get(self.cancelled.is_set)
