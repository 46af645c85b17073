"""The routes of the API: who may ask, how much, and in which form errors come back."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hearth.api.bodies import Bodies
from hearth.api.chat_call import Call, read_chat_call, read_text_call
from hearth.api.embeddings import embed
from hearth.api.errors import ApiError, ClientGone, error_response
from hearth.api.fields import parse_object
from hearth.api.jobs import Jobs, Stop
from hearth.api.models import list_models
from hearth.api.options import ApiOptions
from hearth.api.service import Service
from hearth.api.shapes import ChatShape, Ended, Said, Shape, TextShape
from hearth.api.streaming import EventResponse
from hearth.api.transcriptions import missing_file, read_call, transcribe
from hearth.background import Cancelled
from hearth.models.errors import EngineError, HearthError

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import Task
    from hearth.runtime import Runtime

log = logging.getLogger("hearth.api")
GONE_STATUS = 499  # nobody reads it
Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The endpoints under /v1 for one runtime. ``close`` stops what runs."""

    def __init__(self, runtime: Runtime, options: ApiOptions) -> None:
        self._options = options
        self._service = Service(runtime)
        self._jobs = Jobs(options.max_requests)
        self._bodies = Bodies(options)
        self._created = int(time.time())
        self._key_hash = hashlib.sha256(options.key.encode()).digest() if options.key is not None else None

    def close(self) -> None:
        self._jobs.close()

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", include_in_schema=False)
        for path, method, handler in (
            ("/models", "GET", self._list_models),
            ("/models/{name:path}", "GET", self._show_model),
            ("/chat/completions", "POST", self._chat),
            ("/completions", "POST", self._complete),
            ("/embeddings", "POST", self._embed),
            ("/audio/transcriptions", "POST", partial(self._transcribe, task="transcribe")),
            ("/audio/translations", "POST", partial(self._transcribe, task="translate")),
        ):
            router.add_api_route(path, self._guarded(handler), methods=[method], response_model=None)
        every = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
        router.add_api_route("/{path:path}", self._guarded(_nowhere), methods=every, response_model=None)
        return router

    def _guarded(self, handler: Handler) -> Handler:
        """``handler`` behind the key, with errors in OpenAI's shape."""

        async def guarded(request: Request) -> Response:
            try:
                self._check_key(request)
                return await handler(request)
            except (ClientGone, Cancelled):
                return Response(status_code=GONE_STATUS)
            except HearthError as error:
                return error_response(error)
            except Exception as error:  # the request ends, the server goes on
                log.exception("a request failed")
                said = f"unexpected {type(error).__name__}: {error}; the log has the details"
                return error_response(EngineError(said))

        return guarded

    def _check_key(self, request: Request) -> None:
        if self._key_hash is None:
            return
        given = request.headers.get("authorization", "")
        scheme, _, key = given.partition(" ")
        # hashes of one length: the comparison takes as long for every key
        matches = hmac.compare_digest(hashlib.sha256(key.strip().encode()).digest(), self._key_hash)
        if not matches or scheme.lower() != "bearer":
            raise ApiError(
                "the key is missing or wrong; send it as Authorization: Bearer …", code="invalid_api_key", status=401
            )

    async def _list_models(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"object": "list", "data": list_models(self._service.runtime, self._created)})

    async def _show_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        listed = list_models(self._service.runtime, self._created)
        for entry in listed:
            if entry["id"] == name:
                return JSONResponse(entry)
        names = ", ".join(entry["id"] for entry in listed)
        raise ApiError(
            f"the model {name[:80]!r} is not served here; {names} are",
            param="model",
            code="model_not_found",
            status=404,
        )

    async def _chat(self, request: Request) -> Response:
        return await self._answer(
            request,
            read_chat_call,
            lambda call, stop: self._service.answer_chat(call, stop),
            lambda call: ChatShape(call.model, counts=call.include_usage),
        )

    async def _complete(self, request: Request) -> Response:
        return await self._answer(
            request,
            read_text_call,
            lambda call, stop: self._service.answer_text(call, stop),
            lambda call: TextShape(call.model),
        )

    async def _answer(
        self,
        request: Request,
        read: Callable[[dict[str, Any]], Any],
        answer: Callable[[Any, Stop], Any],
        shape_of: Callable[[Any], Shape],
    ) -> Response:
        async with AsyncExitStack() as held:
            body = await held.enter_async_context(self._bodies.json(request))
            # parsing what may be many megabytes of pictures is no work for the event loop
            call: Call = await self._jobs.result(lambda _: read(parse_object(body)), request.receive)
            shape = shape_of(call)
            if call.stream:
                events = EventResponse(
                    self._jobs,
                    lambda stop: answer(call, stop),
                    shape,
                    self._options,
                    include_usage=call.include_usage,
                )
                return _Streamed(events, held.pop_all())
            whole = await self._jobs.result(lambda stop: _collect(answer(call, stop), shape), request.receive)
            return JSONResponse(whole)

    async def _embed(self, request: Request) -> Response:
        async with self._bodies.json(request) as body:
            work: Callable[[Stop], dict[str, Any]] = lambda stop: embed(self._service, parse_object(body), stop)  # noqa: E731
            return JSONResponse(await self._jobs.result(work, request.receive))

    async def _transcribe(self, request: Request, *, task: Task) -> Response:
        async with self._bodies.form(request) as (fields, file):
            if file is None:
                raise missing_file()
            call = read_call(self._service, fields, *file, task)
            return await self._jobs.result(lambda stop: transcribe(self._service, call, stop), request.receive)


class _Streamed(Response):
    """A response for FastAPI that writes itself."""

    def __init__(self, events: EventResponse, held: AsyncExitStack) -> None:
        """``held`` is given back at the end."""
        super().__init__()
        self._events = events
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await self._events(scope, receive, send)


def _collect(items: Any, shape: Shape) -> dict[str, Any]:
    """A whole answer. Raises HearthError, Cancelled."""
    pieces: list[Said] = []
    for item in items:
        if isinstance(item, Ended):
            return shape.whole(pieces, item)
        pieces.append(item)
    raise EngineError("the engine ended a request without a result; ask again")


async def _nowhere(request: Request) -> Response:
    raise ApiError(
        f"{request.method} {request.url.path[:120]} is not served here; served are models, chat/completions, "
        "completions, embeddings, audio/transcriptions and audio/translations",
        status=404,
    )
