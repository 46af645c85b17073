"""What runs in an engine process: loads the model, carries out what the parent asks, streams events back.

The first thread loads and later closes. One reads what the parent sends, and never waits for the engine or the pipe to
the parent. Each call, each cancel and the beginning of each request have a thread of their own; what happens to
requests is written by the engine's, many events at a time when these queue up. The end of the parent, however it comes,
is the end of the pipe that is read here.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, NoReturn

from hearth.models.engine import messages
from hearth.models.errors import EngineError, HearthError
from hearth.models.types import (
    Engine,
    EngineEvent,
    EngineTimings,
    Failed,
    Finished,
    GenerationRequest,
    MediaEmbeddings,
    MediaSegment,
    ModelInfo,
    PrefillProgress,
    RequestHandle,
    Usage,
)

logger = logging.getLogger("hearth.engine.worker")

MAX_BATCH = 256  # messages a frame
PROGRESS_STEP = 0.005
LOOK_S = 2.0  # how often a look is taken whether the parent is still there, should its pipe not tell
ORPHAN_S = 0.7  # from the parent's end to this process's, at most
FLUSH_S = 5.0  # for the last events at an orderly end


class WaitGivenUp(EngineError):
    """The request was cancelled while it waited for embeddings."""


def main(protocol_id: str) -> None:
    """The process, from its start to its end."""
    channel = _claim_pipes()
    if protocol_id != messages.protocol_id():
        sys.exit("Hearth was updated while it ran: end it and start it again")
    faulthandler.enable()
    _write_no_core()
    Worker(channel).run()
    # no teardown: everything was closed or is the system's to take, and native libraries crash in theirs
    os._exit(0)


def _claim_pipes() -> messages.Channel:
    """The channel on what were standard input and output; what native code prints goes to standard error from now."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return messages.Channel(incoming, outgoing, pickle.loads)


def _write_no_core() -> None:
    """The parent learns of a crash when the pipe closes, which is after the memory image was written. A limit of one
    byte, unlike none at all, keeps it also from programs that collect such images."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))


class Outbox:
    """What goes to the parent. Whoever puts a message writes it, and with it what others put meanwhile: a thread for
    that would cost every token the time to wake it."""

    def __init__(self, channel: messages.Channel) -> None:
        self._channel = channel
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._writing = threading.Lock()

    def put(self, message: object) -> None:
        """Returns when the message is in the pipe, or another thread has seen to it or is about to. Never from the
        thread that reads: the parent might be writing too."""
        self.put_all((message,))

    def put_all(self, given: Iterable[object]) -> None:
        """As ``put``, in order."""
        self.hold_all(given)
        self.flush()

    def hold_all(self, given: Iterable[object]) -> None:
        """Messages to go with the next that are put, or with ``flush``."""
        for message in given:
            self._queue.put(message)

    def flush(self) -> None:
        """Returns when all is in the pipe that was put or held, or another thread is about to see to it."""
        # looked at again after every release: somebody may have put a message and found the lock taken
        while not self._queue.empty() and self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Waits until all was written."""
        if self._writing.acquire(timeout=FLUSH_S):
            self._write()

    def _write(self) -> None:
        while not self._queue.empty():
            batch: list[object] = []
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            try:
                self._channel.send(batch)
            except OSError:
                pass  # the parent is gone: the reader notices too
            except Exception:
                _die()  # what cannot be pickled takes its batch along, and somebody would wait for ever


class ParentLog(logging.Handler):
    """Sends records to the parent's logging."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text, exc_text = record.getMessage(), record.exc_text
            if record.exc_info and not exc_text:
                exc_text = logging.Formatter().formatException(record.exc_info)
        except Exception:
            self.handleError(record)
            return
        line = messages.LogLine(record.name, record.levelno, text, record.created, record.threadName or "", exc_text)
        self._outbox.put(line)


class Served:
    """A request in this process."""

    def __init__(self, serial: int, outbox: Outbox) -> None:
        self.serial = serial
        self.handle: RequestHandle | None = None
        self._outbox = outbox
        self._lock = threading.Lock()  # guards both below
        self._released = False  # nothing waits for embeddings any more
        self._wanted: dict[int, Future[MediaEmbeddings]] = {}
        self._first: PrefillProgress | None = None

    def embed(self, index: int) -> MediaEmbeddings:
        """Asks the parent for the embeddings of segment ``index``. Raises ParentEmbedError or WaitGivenUp."""
        answer: Future[MediaEmbeddings] = Future()
        with self._lock:
            if self._released:
                raise WaitGivenUp("the request was cancelled before its picture was encoded")
            self._wanted[index] = answer
        self._outbox.put(messages.EmbedWanted(self.serial, index))
        return answer.result()

    def settle(self, index: int, result: MediaEmbeddings | HearthError) -> None:
        """The parent answered; nobody may wait for it any more."""
        with self._lock:
            answer = self._wanted.pop(index, None)
        if answer is None:
            return
        if isinstance(result, HearthError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def cancel(self) -> None:
        """Ends the request."""
        if self.handle is not None:
            self.handle.cancel()
        self.release()

    def release(self) -> None:
        """Whoever waits for embeddings stops waiting."""
        with self._lock:
            self._released = True
            waiting, self._wanted = list(self._wanted.values()), {}
        for answer in waiting:
            answer.set_exception(WaitGivenUp("the request was cancelled while its picture was encoded"))

    def message_of(self, event: EngineEvent) -> messages.Event | messages.Failure:
        if isinstance(event, PrefillProgress) and self._first is None:
            self._first = event
        if not isinstance(event, Failed):
            return messages.Event(self.serial, event)
        if isinstance(event.error, WaitGivenUp) and self._released:
            return messages.Event(self.serial, self._cancelled_while_waiting())
        return messages.Failure(self.serial, messages.record_of(event.error))

    def _cancelled_while_waiting(self) -> Finished:
        """A prompt that was still being read has no output, and a seed nobody used."""
        first = self._first or PrefillProgress(0, 0)
        return Finished("cancelled", "", (), Usage(first.total, first.done, 0), EngineTimings(), 0)


class Worker:
    """The process's own end of the protocol in messages.py."""

    def __init__(self, channel: messages.Channel) -> None:
        self._channel = channel
        self._engine: Engine | None = None
        self._requests: dict[int, Served] = {}
        self._threads: set[threading.Thread] = set()
        self._ending = threading.Event()
        self._reported = 0.0

    def run(self) -> None:
        """Returns when the engine is closed, or could not be loaded, and all was said."""
        load: messages.Load = self._channel.receive()
        self._outbox = Outbox(self._channel)
        _log_to(ParentLog(self._outbox), load.log_levels)
        threading.Thread(target=self._read, name="hearth-reader", daemon=True).start()
        try:
            engine, info = self._load(load)
        except Exception as error:
            self._outbox.put(messages.Answer(0, error=_record(error)))
        else:
            self._engine = engine
            self._outbox.put(messages.Answer(0, pickle.dumps(info)))
            self._wait_for_the_end()
            self._close(engine)
        self._outbox.close()

    def _wait_for_the_end(self) -> None:
        parent = os.getppid()
        while not self._ending.wait(LOOK_S):
            if os.getppid() != parent:  # gone, and something it forked holds the pipe open
                self._leave_an_absent_parent()
                return

    def _load(self, load: messages.Load) -> tuple[Engine, ModelInfo]:
        make = load.make_engine
        if make is None:
            from hearth.models.engine.engine import LlamaEngine

            make = LlamaEngine.load
        engine = make(load.path, load.options, on_progress=self._report, **load.arguments)
        return engine, engine.info

    def _report(self, fraction: float) -> None:
        if fraction >= 1.0 or fraction - self._reported >= PROGRESS_STEP:
            self._reported = fraction
            self._outbox.put(messages.Progress(fraction))

    def _close(self, engine: Engine) -> None:
        for served in list(self._requests.values()):
            served.release()
        engine.close()
        deadline_s = time.monotonic() + FLUSH_S
        for thread in list(self._threads):
            thread.join(max(0.0, deadline_s - time.monotonic()))

    # From here on: the reader's thread.

    def _read(self) -> None:
        """Until the parent says Close, or is gone."""
        try:
            while not isinstance(message := self._channel.receive(), messages.Close):
                self._take(message)
        except (EOFError, OSError):
            self._leave_an_absent_parent()
        except Exception:
            _die()  # nobody would read on
        self._ending.set()

    def _leave_an_absent_parent(self) -> None:
        """The engine may still close, so that what it was writing is whole, but not for long."""
        if self._engine is None:
            os._exit(1)
        timer = threading.Timer(ORPHAN_S, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def _take(self, message: object) -> None:
        match message:
            case messages.Cancel(serial):
                if (served := self._requests.get(serial)) is not None:
                    self._start(served.cancel)  # one that still waits ends with it, and the thread that cancels says so
            case messages.Embeddings(serial, index, packed):
                if (served := self._requests.get(serial)) is not None:
                    served.settle(index, messages.unpack(packed))
            case messages.EmbedFailed(serial, index):
                if (served := self._requests.get(serial)) is not None:
                    served.settle(index, messages.ParentEmbedError("the picture could not be encoded"))
            case messages.Submit(serial, request):
                served = self._requests[serial] = Served(serial, self._outbox)
                self._start(partial(self._serve, served, request))
            case messages.Call():
                self._start(partial(self._call, message))

    def _start(self, function: Any) -> None:
        def run() -> None:
            try:
                function()
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, daemon=True)
        self._threads.add(thread)
        thread.start()

    # From here on: threads of requests and calls.

    def _serve(self, served: Served, request: GenerationRequest) -> None:
        """Submits a request and passes its events on."""
        segments = tuple(
            replace(segment, embed=partial(served.embed, index)) if isinstance(segment, MediaSegment) else segment
            for index, segment in enumerate(request.segments)
        )
        try:
            handle = self._loaded.submit(replace(request, segments=segments))
        except Exception as error:
            self._requests.pop(served.serial, None)
            self._outbox.put(messages.Answer(served.serial, error=_record(error)))
            return
        served.handle = handle
        self._outbox.put(messages.Answer(served.serial))
        deliver_to = getattr(handle, "deliver_to", None)
        if deliver_to is not None:
            # written by the engine's own thread: to wake another would cost its tokens more than to write them
            deliver_to(partial(self._pass_on, served), self._outbox.flush)
            return
        try:
            for event in handle.events():
                self._pass_on(served, [event])
                self._outbox.flush()
        except Exception as error:  # the parent waits for an end, whatever happens here
            self._outbox.put(messages.Failure(served.serial, _record(error)))
        finally:
            self._requests.pop(served.serial, None)

    def _pass_on(self, served: Served, events: list[EngineEvent]) -> None:
        try:
            self._outbox.hold_all([served.message_of(event) for event in events])
        except Exception as error:  # the parent waits for an end, whatever happens here
            self._outbox.put(messages.Failure(served.serial, _record(error)))
        if events and isinstance(events[-1], Finished | Failed):
            self._requests.pop(served.serial, None)

    def _call(self, call: messages.Call) -> None:
        try:
            if call.method not in messages.CALLS:
                raise EngineError(f"{call.method} may not be called through the pipe")
            method = getattr(self._loaded, call.method, None)
            if method is None:
                raise EngineError(f"this engine has no method {call.method}")
            result = method(*call.args, **call.kwargs)
            if call.method == "encode_media":
                result = tuple(map(messages.pack, result))
            answer = messages.Answer(call.serial, pickle.dumps(result))
        except Exception as error:
            answer = messages.Answer(call.serial, error=_record(error))
        self._outbox.put(answer)

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            raise EngineError("the model is not loaded yet")
        return self._engine


def _die() -> NoReturn:
    """After a fault in this module: the parent learns of the exception that is being handled by the exit."""
    traceback.print_exc()
    os._exit(1)


def _record(error: Exception) -> messages.ErrorRecord:
    if not isinstance(error, HearthError):
        logger.error("the engine failed", exc_info=error)
    return messages.record_of(error)


def _log_to(handler: logging.Handler, levels: dict[str, int]) -> None:
    """Everything that the parent would show is sent there, warnings of the ``warnings`` module included."""
    logging.getLogger().addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
