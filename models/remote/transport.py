"""One exchange with the server: attempts, time limits, size limits. httpx is imported here alone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from hearth.models.errors import EngineError
from hearth.models.remote.answer import parse
from hearth.models.remote.failures import RETRIED_STATUS, from_exception, from_status
from hearth.models.remote.options import MAX_BACKOFF_S, RemoteOptions

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("hearth.remote")
MAX_ERROR_BYTES = 64 << 10
MAX_LIST_BYTES = 8 << 20
AFTER_END_S = 5.0
WRITE_S = 60.0  # how long the server may refuse to take a part of a request


class Transport:
    """Connections to one server. All methods are of one event loop."""

    def __init__(self, options: RemoteOptions) -> None:
        import httpx

        self._options = options
        headers = {"User-Agent": "hearth"}
        if options.key is not None:
            headers["Authorization"] = f"Bearer {options.key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            follow_redirects=False,  # the key and the words go to the address that was named and to no other
            trust_env=not options.is_loopback,  # a proxy has no part in what stays on this machine
            timeout=httpx.Timeout(None, connect=options.connect_s, write=WRITE_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON object. Raises EngineError, RequestError."""
        async with self._answer("GET", path, None, self._options.between_s) as response:
            return parse(await self.read(response, MAX_LIST_BYTES))

    def post(self, path: str, body: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        """The response to ``body``, a JSON text, with status 200; its content is yet to be read."""
        return self._answer("POST", path, body, self._options.first_byte_s)

    async def pieces(
        self, response: httpx.Response, is_over: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[bytes]:
        """The content as it comes. Raises EngineError if it pauses for too long or the connection breaks.

        Once ``is_over`` little patience is left for the rest.
        """
        import httpx

        limit_s = self._options.first_byte_s
        stream = response.aiter_bytes()
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    piece = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise EngineError(
                    f"{self._options.host} has sent nothing for {limit_s:g} s; look at its log, and ask again"
                ) from error
            except (httpx.HTTPError, httpx.StreamError) as error:
                raise from_exception(error, self._options.host, "reading the answer of") from error
            if piece:
                yield piece
                limit_s = AFTER_END_S if is_over() else self._options.between_s

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: bytes | None, patience_s: float
    ) -> AsyncIterator[httpx.Response]:
        """Asks up to ``attempts`` times: what failed before the first byte of an answer is asked again."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        request = self._client.build_request(method, self._options.url + path, content=body, headers=headers)
        async with AsyncExitStack() as stack:
            for attempt in range(1, self._options.attempts + 1):
                is_last = attempt == self._options.attempts
                response = await self._ask(stack, request, patience_s, is_last=is_last)
                if response is not None and response.status_code == 200:
                    yield response
                    return
                if response is not None and (is_last or response.status_code not in RETRIED_STATUS):
                    content = await self.read(response, MAX_ERROR_BYTES, whole=False)
                    raise from_status(response.status_code, content, self._options.host)
                pause_s = self._pause_s(attempt, response)
                if response is not None:
                    await response.aclose()
                log.info("%s: attempt %d of %d failed, next in %.1f s", path, attempt, self._options.attempts, pause_s)
                await asyncio.sleep(pause_s)

    async def _ask(
        self, stack: AsyncExitStack, request: httpx.Request, patience_s: float, *, is_last: bool
    ) -> httpx.Response | None:
        """The response, or None if there was none and it may be asked again."""
        import httpx

        host = self._options.host
        try:
            async with asyncio.timeout(patience_s):
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise EngineError(
                f"{host} did not begin to answer within {patience_s:g} s; look at its log, or raise engine_timeout_s"
            ) from error
        except httpx.ConnectTimeout as error:
            if is_last:
                raise EngineError(
                    f"{host} took no connection within {self._options.connect_s:g} s; check that the server runs and "
                    "engine_url is right"
                ) from error
            return None
        except (httpx.TransportError, OSError) as error:
            if is_last:
                raise from_exception(error, host, "connecting to") from error
            return None
        stack.push_async_callback(response.aclose)
        return response

    def _pause_s(self, attempt: int, response: httpx.Response | None) -> float:
        """Before the next attempt: as long as the server says, or twice the last one, a little at random."""
        asked = response.headers.get("retry-after", "") if response is not None else ""
        if asked.isascii() and asked.isdigit():
            return float(min(int(asked[:6]), MAX_BACKOFF_S))
        return min(self._options.backoff_s * 2.0 ** (attempt - 1), MAX_BACKOFF_S) * random.uniform(0.75, 1.25)

    async def read(self, response: httpx.Response, limit_bytes: int, *, whole: bool = True) -> bytes:
        """The content up to a limit. Raises EngineError for more, if it must be ``whole``."""
        found = bytearray()
        async for piece in self.pieces(response):
            found += piece
            if len(found) > limit_bytes:
                if whole:
                    raise EngineError(f"{self._options.host} sends more than {limit_bytes >> 20} MiB; check engine_url")
                break
        return bytes(found[:limit_bytes])
