"""A value that is made once, on a thread of its own, while others wait for it and may give up waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_WAIT_S = 0.05  # how often a waiting caller looks whether it was cancelled


class Cancelled(Exception):
    """The caller was cancelled while it waited; the value is still being made for whoever asks next."""


class Background(Generic[T]):
    """Makes a value on first need. A failure is raised to who waited for it; the next caller tries again."""

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self._name = name
        self._make = make
        self._lock = threading.Lock()
        self._done: threading.Event | None = None
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether the value is there."""
        return self._done is not None and self._done.is_set() and self._error is None

    @property
    def started(self) -> bool:
        """Whether the making has begun."""
        return self._done is not None

    @property
    def error(self) -> BaseException | None:
        """Why the last making failed, or None."""
        return self._error

    def start(self) -> threading.Event:
        """Begins making the value if nobody has; the event is set when it is there or has failed."""
        with self._lock:
            if self._done is not None and not (self._done.is_set() and self._error is not None):
                return self._done
            self._error = None
            done = self._done = threading.Event()
            threading.Thread(target=self._run, args=(done,), name=f"hearth-{self._name}", daemon=True).start()
            return done

    def get(self, cancelled: Callable[[], bool] = lambda: False) -> T:
        """The value, waiting for it if need be. Raises what the making raised, or Cancelled."""
        done = self.start()
        while not done.wait(_WAIT_S):
            if cancelled():
                raise Cancelled
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set before the event

    def peek(self) -> T | None:
        """The value if it is there, without waiting or starting."""
        return self._value if self.ready else None

    def settle(self) -> T | None:
        """Waits for a making that is under way and returns its value; None if it failed or was never begun."""
        if self._done is not None:
            self._done.wait()
        return self.peek()

    def _run(self, done: threading.Event) -> None:
        try:
            self._value = self._make()
        except BaseException as error:
            self._error = error
        finally:
            done.set()
