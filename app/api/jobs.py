"""Requests on threads of their own, ended when their client goes; and a limit on how many there are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.types import Receive

from hearth.api.errors import ApiError, ClientGone

T = TypeVar("T")


class Stop:
    """Asks a job to end. Any thread, any time."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._then: Callable[[], object] = lambda: None

    def set(self) -> None:
        self._set.set()
        self._then()

    def is_set(self) -> bool:
        return self._set.is_set()

    @contextlib.contextmanager
    def calling(self, then: Callable[[], object]) -> Iterator[None]:
        """Meanwhile ``set`` calls ``then`` too; at once if it was set before."""
        self._then = then
        if self._set.is_set():
            then()
        try:
            yield
        finally:
            self._then = lambda: None


class Jobs:
    """Threads of the API's own, so that its requests cannot take those that the page needs."""

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._pool = ThreadPoolExecutor(max_jobs, thread_name_prefix="hearth-api")
        self._lock = threading.Lock()
        self._running: dict[Future[Any], Stop] = {}
        self._closed = False

    def start(self, work: Callable[[Stop], T]) -> tuple[Future[T], Stop]:
        """Runs ``work`` on a thread. Raises ApiError (429) if too many run, or if the server is stopping."""
        stop = Stop()
        with self._lock:
            if self._closed:
                raise ApiError("the server is stopping; ask again when it runs", status=503)
            if len(self._running) >= self._max_jobs:
                raise ApiError(f"{self._max_jobs} requests are being answered; ask again in a moment", status=429)
            future = self._pool.submit(work, stop)
            self._running[future] = stop
        future.add_done_callback(self._forget)
        return future, stop

    def close(self) -> None:
        """Stops what runs."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for stop in running:
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._running.pop(future, None)

    async def result(self, work: Callable[[Stop], T], receive: Receive) -> T:
        """What ``work`` returns. Raises what it raises, and ClientGone when the client goes before: it is stopped."""
        future, stop = self.start(work)
        done = asyncio.ensure_future(asyncio.wrap_future(future))
        gone = asyncio.ensure_future(client_gone(receive))
        try:
            watched: set[asyncio.Future[Any]] = {done, gone}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise ClientGone
            return done.result()
        finally:
            stop.set()
            gone.cancel()
            done.cancel()


async def client_gone(receive: Receive) -> None:
    """Returns when the client has closed its connection. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
