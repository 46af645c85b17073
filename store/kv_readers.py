"""A few daemon threads that read blocks, started when one is asked for or ahead of that."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

N_THREADS = 4


class Readers:
    """Calls ``read`` for keys on its threads. Daemons: a slow disk does not hold up the end of the program."""

    def __init__(self, read: Callable[[str], bytes | memoryview | None]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._n_threads = 0
        self._closed = False

    def start(self) -> None:
        """Starts all threads; after ``close`` none."""
        with self._lock:
            while not self._closed and self._n_threads < N_THREADS:
                self._start_one()

    def submit(self, key: str) -> Future[bytes | memoryview | None]:
        """Starts a read; after ``close`` its result is None."""
        future: Future[bytes | memoryview | None] = Future()

        def read() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(self._read(key))
            except BaseException as error:  # whoever waits for the result gets it
                future.set_exception(error)

        if not self.run(read):
            future.set_result(None)
        return future

    def run(self, task: Callable[[], None]) -> bool:
        """Has a thread call ``task``, which must not raise. False after ``close``: it is not called."""
        with self._lock:
            if self._closed:
                return False
            if self._n_threads < N_THREADS:
                self._start_one()
            self._tasks.put(task)
        return True

    def close(self) -> None:
        """The threads end when they have done what was submitted. Idempotent."""
        with self._lock:
            self._closed = True
            for _ in range(self._n_threads):
                self._tasks.put(None)
            self._n_threads = 0

    def _start_one(self) -> None:
        self._n_threads += 1
        threading.Thread(target=self._work, name=f"kv-read-{self._n_threads}", daemon=True).start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
