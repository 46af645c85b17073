"""An answer as server-sent events: sent as it is made, ended when its reader goes, and never waited for by others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import Receive, Scope, Send

from hearth.api.errors import error_fields, error_response
from hearth.api.jobs import Jobs, Stop, client_gone
from hearth.api.options import ApiOptions
from hearth.api.shapes import Ended, Said, Shape
from hearth.background import Cancelled
from hearth.models.errors import EngineError, HearthError

log = logging.getLogger("hearth.api")
ALIVE = b": still at it\n\n"  # a comment, which clients skip
_DONE = b"data: [DONE]\n\n"
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]

Answer = Callable[[Stop], Iterator[Said | Ended]]
_Item = Said | Ended | HearthError


class EventResponse:
    """ASGI response of one streamed answer.

    Its thread puts pieces into a queue without waiting, so the engine never waits for a reader; the queue is at most
    as long as the answer. An error before the first piece is an ordinary HTTP error, one after it an event.
    """

    def __init__(self, jobs: Jobs, answer: Answer, shape: Shape, options: ApiOptions, *, include_usage: bool) -> None:
        """Begins the answer. Raises ApiError if too many requests run. Call it within the event loop."""
        self._shape = shape
        self._options = options
        self._include_usage = include_usage
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()
        self._begun = False
        _, self._stop = jobs.start(self._run)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(scope, receive, send))
        gone = asyncio.ensure_future(client_gone(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            gone.cancel()
            if not writing.done():
                writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing

    def _run(self, stop: Stop) -> None:
        """On a thread."""
        try:
            for item in self._answer(stop):
                self._put(item)
        except Cancelled:
            self._put(EngineError("the request was stopped"))
        except HearthError as error:
            self._put(error)
        except Exception as error:  # the request ends, the server goes on
            log.exception("a request failed")
            self._put(EngineError(f"unexpected {type(error).__name__}: {error}; the log has the details"))

    def _put(self, item: _Item) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(self._options.alive_s):
                    item = await self._queue.get()
            except TimeoutError:
                await self._send(send, ALIVE)
                continue
            if isinstance(item, HearthError) and not self._begun:
                await error_response(item)(scope, receive, send)
                return
            data, is_last = self._drain(item)
            await self._send(send, data, more=not is_last)
            if is_last:
                return

    def _drain(self, item: _Item) -> tuple[bytes, bool]:
        """``item`` and what has come behind it meanwhile, as events; and whether that was all."""
        found = bytearray()
        if not self._begun:
            first = self._shape.first()
            found += _event(first) if first is not None else b""
        while True:
            if isinstance(item, HearthError):
                return bytes(found + _event(error_fields(item))), True
            if isinstance(item, Ended):
                found += _event(self._shape.last(item))
                if self._include_usage:
                    found += _event(self._shape.usage(item))
                return bytes(found + _DONE), True
            found += _event(self._shape.piece(item))
            if self._queue.empty():
                return bytes(found), False
            item = self._queue.get_nowait()

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        """Raises CancelledError for a reader that does not read: its connection is given up."""
        try:
            async with asyncio.timeout(self._options.reader_pause_s):
                if not self._begun:
                    self._begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            log.info("a client has not read for %g s; its answer is stopped", self._options.reader_pause_s)
            raise asyncio.CancelledError from None


def _event(fields: dict[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"
    )
