"""RemoteEngine: answers by a server elsewhere. A thread with an event loop, on which every request is one task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hearth.models.errors import EngineError, HearthError
from hearth.models.remote.answer import AnswerReader, parse
from hearth.models.remote.body import check_chat, encode_request
from hearth.models.remote.chat import ChatRequest, RemoteModel
from hearth.models.remote.event_stream import EventStream, ServerEvent
from hearth.models.remote.failures import NotServedError, from_error_body, without_key
from hearth.models.remote.options import RemoteOptions
from hearth.models.remote.transport import Transport
from hearth.models.types import (
    CacheReport,
    EngineEvent,
    EngineTimings,
    Failed,
    Finished,
    FinishReason,
    TextDelta,
)

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("hearth.remote")
CLOSE_S = 5.0
LOOK_S = 0.05  # how often a waiting caller looks whether it was cancelled
MAX_WHOLE_BYTES = 64 << 20
MAX_NAMED = 8
MAX_N_CTX = 1 << 32
_NOT_FOR_CHATS = {"embedding", "embeddings", "rerank", "stt", "tts", "transcription", "image", "audio"}


class RemoteHandle:
    """A submitted request (types.RequestHandle)."""

    def __init__(self, seed: int) -> None:
        self.queue: SimpleQueue[EngineEvent] = SimpleQueue()
        self.reader = AnswerReader()
        self.cancelled = False
        self._seed = seed
        self._start_s = time.monotonic()
        self._first_s: float | None = None
        self._stop: Callable[[], object] = lambda: None

    def events(self) -> Iterator[EngineEvent]:
        """Yields until the terminal event, which is yielded too. Blocks; may be iterated once, from any thread."""
        while True:
            event = self.queue.get()
            yield event
            if isinstance(event, Finished | Failed):
                return

    def cancel(self) -> None:
        """Ends the request by closing its connection, in whatever phase it is. Any thread, any time."""
        self.cancelled = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._stop()

    def stopped_by(self, stop: Callable[[], object]) -> None:
        """Tells how to stop what runs; a cancel that came before is carried out now."""
        self._stop = stop
        if self.cancelled:
            stop()

    def show(self, text: str) -> None:
        if text:
            if self._first_s is None:
                self._first_s = time.monotonic()
            self.queue.put(TextDelta(text))

    def end(self, event: Finished | Failed) -> None:
        self.queue.put(event)

    def finished(self, reason: FinishReason) -> Finished:
        usage, now = self.reader.usage, time.monotonic()
        first = self._first_s
        decode_s = now - first if first is not None else 0.0
        n_decoded = usage.completion_tokens - 1
        timings = EngineTimings(
            ttft_s=first - self._start_s if first is not None else 0.0,
            decode_s=decode_s,
            decode_tokens_per_s=n_decoded / decode_s if n_decoded > 0 and decode_s > 0 else 0.0,
        )
        cache = CacheReport(memory_tokens=usage.cached_tokens)
        return Finished(reason, self.reader.text, (), usage, timings, self._seed, cache)


class RemoteEngine:
    """A server's model that generates. Methods may be called from any thread.

    The same events as of an engine on this machine, except that nobody tells how far a prompt is read, that
    ``Finished.tokens`` is empty and ``Finished.seed`` is 0 unless the request has one.
    """

    def __init__(self, options: RemoteOptions) -> None:
        """Starts the thread; nothing is asked yet. Use ``RemoteEngine.connect``."""
        self._options = options
        self._closed = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hearth-remote", daemon=True)
        self._thread.start()
        self._transport: Transport | None = None
        self.model = RemoteModel(options.model or "", options.n_ctx, bool(options.sees), bool(options.hears))

    @classmethod
    def connect(cls, options: RemoteOptions, cancelled: Callable[[], bool] = lambda: False) -> RemoteEngine:
        """Asks the server for its models. Raises EngineError: not there, no key, several models and none chosen."""
        engine = cls(options)
        asked = asyncio.run_coroutine_threadsafe(engine._find_model(), engine._loop)
        try:
            while not futures.wait([asked], timeout=LOOK_S).done:
                if cancelled():
                    raise EngineError(f"asking {options.host} for its models was stopped")
            engine.model = asked.result()
        except HearthError as error:
            engine.close()
            raise without_key(error, options.key) from None
        except BaseException:
            engine.close()
            raise
        log.info("the engine is %s at %s", engine.model.name, options.host)
        return engine

    def submit(self, request: ChatRequest) -> RemoteHandle:
        """Sends a request. Raises RequestError (bad parameter), EngineError (closed)."""
        check_chat(request)
        handle = RemoteHandle(request.sampling.seed or 0)
        with self._lock:
            if self._closed:
                raise EngineError("the engine is closed; ask again")
            self._loop.call_soon_threadsafe(self._start, request, handle)
        return handle

    def close(self) -> None:
        """Cancels what runs and ends the thread. Idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            try:
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CLOSE_S)
            except TimeoutError:
                log.warning("a connection to %s could not be closed in time", self._options.host)
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if first and not self._thread.is_alive():
            self._loop.close()

    # on the loop

    def _start(self, request: ChatRequest, handle: RemoteHandle) -> None:
        task = self._loop.create_task(self._run(request, handle))
        task.add_done_callback(lambda ended: self._settle(ended, handle))
        handle.stopped_by(lambda: self._loop.call_soon_threadsafe(task.cancel))

    def _settle(self, ended: asyncio.Task[None], handle: RemoteHandle) -> None:
        """Sends the last event of a request whose task has ended."""
        if ended.cancelled():
            handle.end(handle.finished("cancelled"))
            return
        error = ended.exception()
        if error is None:
            handle.end(handle.finished(handle.reader.reason))
        elif isinstance(error, HearthError):
            handle.end(Failed(without_key(error, self._options.key)))
        else:
            log.error("a request to %s failed", self._options.host, exc_info=error)
            handle.end(Failed(EngineError(f"unexpected {type(error).__name__}: {error}; the log has the details")))

    async def _run(self, request: ChatRequest, handle: RemoteHandle) -> None:
        """Raises HearthError."""
        body = await asyncio.to_thread(encode_request, request, self.model.name)
        async with self._connected().post("/chat/completions", body) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "application/json":  # a server that does not stream
                content = await self._connected().read(response, MAX_WHOLE_BYTES)
                handle.show(handle.reader.take(parse(content)))
                if not handle.reader.ended:
                    raise handle.reader.cut_off()
            elif kind in ("text/event-stream", "text/plain", ""):
                await self._take_stream(response, handle)
            else:
                raise EngineError(
                    f"{self._options.host} answers with {kind[:60]!r} instead of an event stream; check engine_url, "
                    "which usually ends with /v1"
                )

    async def _take_stream(self, response: httpx.Response, handle: RemoteHandle) -> None:
        stream, reader = EventStream(), handle.reader
        try:
            async for piece in self._connected().pieces(response, lambda: reader.ended):
                for event in stream.push(piece):
                    handle.show(_take(reader, event))
                    if reader.done:
                        return
            for event in stream.flush():
                handle.show(_take(reader, event))
        except EngineError:
            if not reader.ended:  # after the end only the counts of tokens are missing
                raise
        if not reader.ended:
            raise reader.cut_off()

    async def _find_model(self) -> RemoteModel:
        try:
            listed = (await self._connected().get("/models")).get("data")
        except NotServedError:
            if self._options.model is None:
                raise
            listed = []  # a server without a list
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        name, entry = _choose(entries, self._options)
        takes = _modalities(entry)
        given = self._options
        return RemoteModel(
            name,
            given.n_ctx or _context(entry),
            sees=given.sees if given.sees is not None else takes is None or "image" in takes,
            hears=given.hears if given.hears is not None else takes is not None and "audio" in takes,
        )

    def _connected(self) -> Transport:
        if self._transport is None:
            self._transport = Transport(self._options)
        return self._transport

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._transport is not None:
            await self._transport.close()
        await self._loop.shutdown_default_executor()


def _take(reader: AnswerReader, event: ServerEvent) -> str:
    if event.name == "error":
        raise from_error_body(_error_body(event.data), None)
    return reader.take_event(event.data)


def _error_body(text: str) -> dict[str, Any]:
    """An event named error: the error itself, or an object with it, or words."""
    try:
        found = parse(text)
    except EngineError:
        return {"error": text}
    return found if "error" in found else {"error": found}


def _choose(entries: list[dict[str, Any]], options: RemoteOptions) -> tuple[str, dict[str, Any]]:
    """The model's name and what the server says of it, maybe nothing. Raises EngineError."""
    if options.model is not None:
        found = next((entry for entry in entries if entry.get("id") == options.model), {})
        if entries and not found:  # some answer to more names than they list
            log.warning("%s does not list the model %s", options.host, options.model)
        return options.model, found
    chats = [entry for entry in entries if str(entry.get("type", "")).lower() not in _NOT_FOR_CHATS]
    chats = [entry for entry in chats if isinstance(entry.get("id"), str) and entry["id"]]
    if len(chats) != 1:
        names = ", ".join(entry["id"][:80] for entry in chats[:MAX_NAMED]) + (" …" if len(chats) > MAX_NAMED else "")
        listed = f"serves {len(chats)} models ({names})" if chats else "lists no model"
        raise EngineError(f"{options.host} {listed}; name one by engine_model")
    return chats[0]["id"], chats[0]


def _modalities(entry: dict[str, Any]) -> list[Any] | None:
    """What the model takes beside text, as llama-server tells; None if the server says nothing."""
    architecture = entry.get("architecture")
    takes = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    return takes if isinstance(takes, list) else None


def _context(entry: dict[str, Any]) -> int | None:
    """Tokens of the model's context, as vLLM and SGLang (max_model_len), llama-server and LM Studio tell."""
    meta = entry.get("meta")
    candidates = [entry.get("max_model_len"), entry.get("loaded_context_length"), entry.get("context_length")]
    candidates.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    for candidate in candidates:
        if isinstance(candidate, int) and not isinstance(candidate, bool) and 0 < candidate <= MAX_N_CTX:
            return candidate
    return None
