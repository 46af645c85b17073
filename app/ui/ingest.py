"""Files on their way into memory: read one after another on a thread of the server, watched by any page."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hearth.models.errors import HearthError

log = logging.getLogger("hearth.ui.ingest")
KEPT_FAILED = 20  # failures shown until they are cleared or pushed out

AddToMemory = Callable[[Path, Callable[[float], None], Callable[[], bool]], object]
"""Reads one file into memory: (path, on_progress(fraction), cancelled())."""


@dataclass(frozen=True, slots=True)
class IngestState:
    """One file: waiting, being read, or failed. A file that was read leaves the list."""

    number: int
    name: str
    started: bool = False
    fraction: float = 0.0
    error: str | None = None


class IngestQueue:
    """Adds files in the order given. The thread runs only while there is work. Any thread may call."""

    def __init__(self, add: AddToMemory) -> None:
        self._add = add
        self._waiting: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()
        self._states: dict[int, IngestState] = {}
        self._next = 0
        self._changed = threading.Condition()
        self._version = 0
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def submit(self, paths: Sequence[Path]) -> None:
        """Puts files at the end of the queue; failures of earlier files are cleared."""
        with self._changed:
            self._states = {number: state for number, state in self._states.items() if state.error is None}
            for path in paths:
                self._states[self._next] = IngestState(self._next, path.name)
                self._waiting.put((self._next, path))
                self._next += 1
            self._note()
            if self._thread is None and self._states:
                self._thread = threading.Thread(target=self._run, name="hearth-ingest", daemon=True)
                self._thread.start()

    def states(self) -> tuple[int, list[IngestState]]:
        """(version, files that wait, are read, or have failed)."""
        with self._changed:
            return self._version, list(self._states.values())

    def wait(self, version: int, timeout_s: float) -> None:
        """Until something is newer than ``version``, or for ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > version, timeout_s)

    @property
    def busy(self) -> bool:
        """Whether a file is being read or waits."""
        with self._changed:
            return self._thread is not None

    def close(self, timeout_s: float = 5.0) -> None:
        """Stops the file being read and drops those that wait."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed.is_set() or self._waiting.empty():
                    self._thread = None
                    self._note()
                    return
            number, path = self._waiting.get()
            self._set(number, started=True)
            try:
                self._add(path, partial(self._progress, number), self._closed.is_set)
            except HearthError as error:
                self._set(number, error=str(error))
            except Exception as error:  # one file fails, the next is read
                log.exception("adding %s to memory raised", path.name)
                self._set(number, error=f"unexpected {type(error).__name__}: {error}; the log has the details")
            else:
                with self._changed:
                    del self._states[number]
                    self._note()

    def _progress(self, number: int, fraction: float) -> None:
        self._set(number, fraction=fraction)

    def _set(
        self, number: int, *, started: bool = True, fraction: float | None = None, error: str | None = None
    ) -> None:
        with self._changed:
            state = self._states[number]
            kept = state.fraction if fraction is None else min(max(fraction, 0.0), 1.0)
            self._states[number] = replace(state, started=started, fraction=kept, error=error)
            failed = [key for key, value in self._states.items() if value.error is not None]
            for key in failed[:-KEPT_FAILED]:
                del self._states[key]
            self._note()

    def _note(self) -> None:
        self._version += 1
        self._changed.notify_all()
