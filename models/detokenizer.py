"""Turns generated tokens into text that may be shown: whole characters only, nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Joins the bytes of tokens into text; a character split over tokens comes out whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, piece: bytes) -> str:
        """Text that became certain with this piece; bytes that cannot be UTF-8 become U+FFFD."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is left of an unfinished character, as U+FFFD. Call once, at the end."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Lets text pass until a stop string is complete, holding back what may yet become one.

    The stop that is complete first counts, and of those complete together the longest. How the text is cut into
    pushes makes no difference.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Returns (text to show, whether a stop string was met). After a stop, push no more."""
        if not self._stops:
            return text, False
        pending = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := pending.find(stop)) >= 0]
        if found:
            self._held = ""
            return pending[: min(found)[1]], True
        n_held = max((_overlap(pending, stop) for stop in self._stops), default=0)
        cut = len(pending) - n_held
        self._held = pending[cut:]
        return pending[:cut], False

    def flush(self) -> str:
        """What was held back and was no stop string after all. Call once, at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``stop``, and not all of it."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-n:]):
            return n
    return 0
