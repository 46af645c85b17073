"""Bodies of requests, read within limits: of size, of all together, and of a client's pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from hearth.api.errors import ApiError, ClientGone
from hearth.api.options import MIB, ApiOptions

MAX_FORM_FIELDS = 32


class Bodies:
    """All bodies that are in memory at a time. One event loop."""

    def __init__(self, options: ApiOptions) -> None:
        self._options = options
        self._held_bytes = 0

    @asynccontextmanager
    async def json(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as held until the request is done. Raises ApiError, ClientGone."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(f"the body is {kind[:60] or 'of no type'!r}; send application/json", status=415)
        found = bytearray()
        async with self._holding() as hold:
            async for chunk in self._chunks(request, self._options.max_body_bytes):
                hold(len(chunk))
                found += chunk
            yield bytes(found)

    @asynccontextmanager
    async def form(self, request: Request) -> AsyncIterator[tuple[dict[str, Any], tuple[bytes, str] | None]]:
        """Text fields of a multipart form, and its file with its name. Raises ApiError, ClientGone."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise ApiError(f"the body is {kind[:60] or 'of no type'!r}; send multipart/form-data", status=415)
        async with self._holding() as hold:

            async def counted() -> AsyncGenerator[bytes, None]:
                async for chunk in self._chunks(request, self._options.max_upload_bytes):
                    hold(len(chunk))
                    yield chunk

            parser = MultiPartParser(request.headers, counted(), max_files=1, max_fields=MAX_FORM_FIELDS)
            parser.spool_max_size = self._options.max_upload_bytes  # recordings stay off the disk
            try:
                form = await parser.parse()
            except (MultiPartException, KeyError) as error:
                raise ApiError(f"the form cannot be read: {getattr(error, 'message', error)}"[:200]) from None
            async with _closing(form):
                fields: dict[str, Any] = {}
                file: tuple[bytes, str] | None = None
                for name, value in form.multi_items():
                    if isinstance(value, UploadFile):
                        if name != "file":
                            raise ApiError(f"{name[:80]}: the recording is sent as file", param="file")
                        file = (await value.read(), (value.filename or "recording")[:120])
                    elif name in fields:
                        raise ApiError(f"{name[:80]} is given twice; give one", param=name[:80])
                    else:
                        fields[name] = value
                yield fields, file

    async def _chunks(self, request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:18]) > limit_bytes:
            raise _too_large(int(announced[:18]), limit_bytes)
        n_bytes = 0
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(self._options.body_pause_s):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                pause_s = self._options.body_pause_s
                raise ApiError(f"nothing of the body came for {pause_s:g} s; send it again", status=408) from None
            except ClientDisconnect:
                raise ClientGone from None
            n_bytes += len(chunk)
            if n_bytes > limit_bytes:
                raise _too_large(n_bytes, limit_bytes)
            yield chunk

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[Any]:
        held = 0

        def hold(n_bytes: int) -> None:
            nonlocal held
            if self._held_bytes + n_bytes > self._options.max_bodies_bytes:
                limit = self._options.max_bodies_bytes // MIB
                raise ApiError(f"requests of more than {limit} MiB together wait; ask again in a moment", status=429)
            held += n_bytes
            self._held_bytes += n_bytes

        try:
            yield hold
        finally:
            self._held_bytes -= held


@asynccontextmanager
async def _closing(form: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await form.close()


def _too_large(n_bytes: int, limit_bytes: int) -> ApiError:
    size, limit = f"{n_bytes / MIB:.1f} MiB", f"{limit_bytes / MIB:g} MiB"
    return ApiError(f"the body has {size} or more, the limit is {limit}; send less", status=413)
