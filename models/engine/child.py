"""EngineProcess: one engine process as its parent sees it, from its start to its end. Restarting is process.py's.

A thread reads what the process sends and ends with it; another keeps the last of its standard error. A process whose
parent is gone reads the end of its pipe and leaves by itself.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from hearth.models.engine import messages
from hearth.models.engine.last_words import LastWords, manner_of_death
from hearth.models.errors import EngineError, HearthError, RequestError
from hearth.models.types import (
    EngineEvent,
    Failed,
    Finished,
    GenerationRequest,
    MediaEmbeddings,
    MediaSegment,
    ModelInfo,
)

logger = logging.getLogger("hearth.engine.process")

LOOK_S = 0.02  # how often a loading parent looks whether it was cancelled
CLOSE_S = 35.0  # the engine allows the last KV blocks 30 s on their way to the disk
TERMINATE_S = 1.0
EMBED_JOIN_S = 1.0  # an encoder cannot be interrupted; its thread ends when it does
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[2:]; "
    "from hearth.models.engine.worker import main; main(sys.argv[1])"
)


class ProcessEnded(EngineError):
    """The engine process ended before it answered, or was closed."""


def embed_elsewhere() -> MediaEmbeddings:
    """Stands in for ``embed`` on the way to the process, which puts its own in its place."""
    raise EngineError("the embeddings of this picture are in another process")


class ProcessHandle:
    """The submitter's end of a request (types.RequestHandle)."""

    def __init__(self, process: EngineProcess, serial: int, request: GenerationRequest) -> None:
        self._process = process
        self._serial = serial
        self.segments = request.segments
        self.inbox: SimpleQueue[EngineEvent] = SimpleQueue()
        self.embed_error: HearthError | None = None

    def events(self) -> Iterator[EngineEvent]:
        """Yields until the terminal event, which is yielded too. Blocks; may be iterated once, from any thread."""
        while True:
            event = self.inbox.get()
            yield event
            if isinstance(event, Finished | Failed):
                return

    def cancel(self) -> None:
        """Ends the request with Finished(reason="cancelled"), in prefill too. Any thread, any time."""
        self._process.send_if_alive(messages.Cancel(self._serial))


class EngineProcess:
    """Methods may be called from any thread. Whatever waits for a process that ends gets ProcessEnded."""

    def __init__(self) -> None:
        """Starts the process. Raises EngineError if that is impossible."""
        self._lock = threading.Lock()  # guards all below
        self._serials = itertools.count(1)
        self._answers: dict[int, Future[bytes]] = {}
        self._requests: dict[int, ProcessHandle] = {}
        self._embedding: set[threading.Thread] = set()
        self._closing = False
        self._end: str | None = None  # why it ended
        self.crashed_s: float | None = None  # time.monotonic() of an end that nobody asked for
        self.manner = ""  # of that end
        self._progress: SimpleQueue[float] = SimpleQueue()
        self._process, self._channel, errors_fd = _start()
        self._last_words = LastWords(errors_fd)
        self._reader = threading.Thread(target=self._read, name="hearth-engine-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._end is None

    def load(
        self,
        load: messages.Load,
        cancelled: Callable[[], bool] | None,
        on_progress: Callable[[float], None] | None,
    ) -> ModelInfo:
        """Has the model loaded; the process is gone if this raises. Raises what loading raises, EngineError if
        ``cancelled`` came true, ProcessEnded, and what ``on_progress`` raises."""
        try:
            answer = self._ask(0, load)
            while True:
                if cancelled is not None and cancelled():
                    raise EngineError(f"loading {load.path.name} was stopped")
                try:
                    result = answer.result(LOOK_S)
                except FutureTimeout:
                    result = None
                while on_progress is not None and not self._progress.empty():
                    on_progress(self._progress.get())
                if result is not None:
                    info: ModelInfo = messages.read_plain(result)
                    return info
        except BaseException:
            self.kill()
            raise

    def submit(self, request: GenerationRequest) -> ProcessHandle:
        """Raises what the engine's ``submit`` raises, and RequestError for a request that cannot be sent."""
        serial = next(self._serials)
        handle = ProcessHandle(self, serial, request)
        segments = tuple(
            replace(segment, embed=embed_elsewhere) if isinstance(segment, MediaSegment) else segment
            for segment in request.segments
        )
        with self._lock:
            self._requests[serial] = handle
        try:
            self._ask(serial, messages.Submit(serial, replace(request, segments=segments))).result()
        except BaseException as error:
            with self._lock:
                self._requests.pop(serial, None)
            if isinstance(error, pickle.PicklingError | TypeError | AttributeError | RecursionError):
                raise RequestError(f"a field of the request is not plain data: {error}") from error
            raise
        return handle

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a method of the engine and returns what it returns, or raises what it raises."""
        serial = next(self._serials)
        return messages.read_plain(self._ask(serial, messages.Call(serial, method, args, kwargs)).result())

    def _ask(self, serial: int, message: object) -> Future[bytes]:
        answer: Future[bytes] = Future()
        with self._lock:
            if self._end is not None:
                raise ProcessEnded(self._end)
            self._answers[serial] = answer
        try:
            self._channel.send(message)
        except OSError:
            pass  # it is gone: the reader will say so to all who wait
        except BaseException:
            with self._lock:
                self._answers.pop(serial, None)
            raise
        return answer

    def send_if_alive(self, message: object) -> None:
        """A process that is gone needs no telling."""
        try:
            self._channel.send(message)
        except OSError:
            logger.debug("not sent, the engine process is gone: %s", type(message).__name__)

    def close(self) -> None:
        """Lets the engine close, then ends the process, by force if need be. Idempotent."""
        with self._lock:
            self._closing = True
        if self.is_alive:
            # on a thread, because a process that hangs may have left the pipe full
            sender = threading.Thread(target=self.send_if_alive, args=(messages.Close(),), daemon=True)
            try:
                sender.start()
            except RuntimeError:  # the interpreter exits: no thread starts any more
                self.send_if_alive(messages.Close())
        self._join((CLOSE_S, self._process.terminate), (TERMINATE_S, self._process.kill))

    def kill(self) -> None:
        """Ends the process at once. Idempotent."""
        with self._lock:
            self._closing = True
        self._join((0.0, self._process.kill))

    def _join(self, *means: tuple[float, Callable[[], None]]) -> None:
        """Waits for the end, in which the reader gives everything back; each of ``means`` after some seconds."""
        if threading.current_thread() is self._reader:
            self._process.kill()
            return
        for patience_s, end in means:
            self._reader.join(patience_s)
            if not self._reader.is_alive():
                break
            end()
        self._reader.join(TERMINATE_S)
        deadline_s = time.monotonic() + EMBED_JOIN_S
        for thread in list(self._embedding):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - time.monotonic()))

    # From here on: the reader's thread, and those of embeddings.

    def _read(self) -> None:
        try:
            while True:
                for message in self._channel.receive():
                    self._take(message)
        except (EOFError, OSError):
            pass
        except Exception:
            logger.exception("the engine process sent what cannot be read; it is ended")
            self._process.kill()
        self._settle()

    def _take(self, message: object) -> None:
        match message:
            case messages.Event(serial, event):
                self._put(serial, event)
            case messages.Failure(serial, record):
                self._put(serial, self._failed(serial, record))
            case messages.Answer(serial, result, record):
                self._answer(serial, result, record)
            case messages.EmbedWanted(serial, index):
                self._start_embedding(serial, index)
            case messages.LogLine():
                _log(message)
            case messages.Progress(fraction):
                self._progress.put(fraction)

    def _put(self, serial: int, event: EngineEvent) -> None:
        handle = self._requests.get(serial)
        if handle is None:
            return
        if isinstance(event, Finished | Failed):
            with self._lock:
                self._requests.pop(serial, None)
        handle.inbox.put(event)

    def _failed(self, serial: int, record: messages.ErrorRecord) -> Failed:
        handle = self._requests.get(serial)
        error = messages.error_of(record)
        if isinstance(error, messages.ParentEmbedError) and handle is not None and handle.embed_error is not None:
            error = handle.embed_error
        return Failed(error)

    def _answer(self, serial: int, result: bytes, record: messages.ErrorRecord | None) -> None:
        with self._lock:
            answer = self._answers.pop(serial, None)
        if answer is None:
            return
        if record is None:
            answer.set_result(result)
        else:
            answer.set_exception(messages.error_of(record))

    def _start_embedding(self, serial: int, index: int) -> None:
        handle = self._requests.get(serial)
        segment = handle.segments[index] if handle is not None else None
        if handle is not None and isinstance(segment, MediaSegment) and not self._closing:
            thread = threading.Thread(
                target=self._embed, args=(handle, serial, index, segment), name="hearth-engine-embed", daemon=True
            )
            self._embedding.add(thread)
            thread.start()

    def _embed(self, handle: ProcessHandle, serial: int, index: int, segment: MediaSegment) -> None:
        reply: messages.Embeddings | messages.EmbedFailed
        try:
            reply = messages.Embeddings(serial, index, messages.pack(segment.embed()))
        except Exception as error:  # whatever it is, it belongs to this request
            handle.embed_error = _as_engine_error(error)
            reply = messages.EmbedFailed(serial, index)
        self.send_if_alive(reply)
        self._embedding.discard(threading.current_thread())

    def _settle(self) -> None:
        """The process is gone or must go: everyone who waits is told why, and everything is given back."""
        try:
            status = self._process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        last_words = self._last_words.collect()
        with self._lock:
            end = "the engine is closed; load the model again"
            if not self._closing:
                self.manner = manner_of_death(status, last_words)
                end = f"the engine process ended unexpectedly ({self.manner}); ask again: the conversation is kept"
                self.crashed_s = time.monotonic()
            self._end = end
            answers, requests = list(self._answers.values()), list(self._requests.values())
            self._answers.clear()
            self._requests.clear()
        for handle in requests:
            handle.inbox.put(Failed(ProcessEnded(end)))
        for answer in answers:
            answer.set_exception(ProcessEnded(end))
        if self.crashed_s is not None:
            logger.error("%s. Process %d, its last words: %s", end, self.pid, " | ".join(last_words) or "none")
        self._channel.close()


def _start() -> tuple[subprocess.Popen[bytes], messages.Channel, int]:
    """The process, the channel to it, and the read end of its standard error."""
    child_in, to_child = os.pipe()
    from_child, child_out = os.pipe()
    errors, child_errors = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, messages.protocol_id(), *sys.path],
            stdin=child_in,
            stdout=child_out,
            stderr=child_errors,
            # a debugger started by ggml_abort would hold up the end by seconds
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, ValueError, TypeError) as error:
        for fd in (to_child, from_child, errors):
            os.close(fd)
        raise EngineError(f"the engine process could not be started with {sys.executable}: {error}") from error
    finally:
        for fd in (child_in, child_out, child_errors):
            os.close(fd)
    return process, messages.Channel(from_child, to_child, messages.read_plain), errors


def _as_engine_error(error: Exception) -> HearthError:
    """What LlamaEngine makes of an error of ``embed``."""
    if isinstance(error, HearthError):
        return error
    logger.error("request failed", exc_info=error)
    wrapped = EngineError(f"the engine failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _log(line: messages.LogLine) -> None:
    target = logging.getLogger(line.name)
    if target.isEnabledFor(line.level):
        fields = {"name": line.name, "levelno": line.level, "levelname": logging.getLevelName(line.level)}
        times = {"created": line.created_s, "msecs": line.created_s % 1 * 1000, "threadName": line.thread}
        target.handle(logging.makeLogRecord({**fields, **times, "msg": line.text, "exc_text": line.exc_text}))
