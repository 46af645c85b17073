"""Text for people on a terminal: clean lines, errors, JSON, progress."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hearth.models.errors import HearthError

SNIPPET_CHARS: Final = 100
DEBUG_VARIABLE: Final = "HEARTH_DEBUG"
_PROGRESS_STEP_S: Final = 0.1
CLEAR_LINE: Final = "\r\x1b[K"
# Escape sequences in an answer or in a document's title could rewrite the screen or the clipboard.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """``text`` without control characters other than newline and tab."""
    return _CONTROL.sub("", text)


def one_line(text: str, max_chars: int | None = None) -> str:
    """``text`` on one line, without control characters, cut with an ellipsis after ``max_chars``."""
    line = " ".join(printable(text).split())
    return line if max_chars is None or len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def print_json(fields: dict[str, Any]) -> None:
    """One JSON object on one line of standard output."""
    print(json.dumps(fields, ensure_ascii=False))


def aside(text: str) -> None:
    """A word for people, to standard error, only if that is a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def report(error: BaseException) -> None:
    """An error as one line on standard error; its traceback before it if HEARTH_DEBUG is set."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    known = isinstance(error, HearthError)
    text = str(error) if known else f"unexpected {type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where"
    print(f"hearth: {one_line(text)}", file=sys.stderr)


@contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that what runs ends in order; the second interrupts at once."""
    cancelled = threading.Event()

    def interrupt(signum: int, frame: Any) -> None:  # noqa: ARG001
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield cancelled
    finally:
        signal.signal(signal.SIGINT, previous)


class ProgressLine:
    """A line on a terminal that tells how far a file is; silent elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = one_line(name)
        self._last_s = 0.0
        self._shown = False

    def __call__(self, fraction: float) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._last_s >= _PROGRESS_STEP_S:
            self._last_s, self._shown = now, True
            sys.stderr.write(f"{CLEAR_LINE}{self._name} {fraction:.0%}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Takes the line away."""
        if self._shown:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()
