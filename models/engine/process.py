"""ProcessEngine: an engine in a process of its own, so that a crash in native code costs one answer.

    messages.py    what is said between the two processes
    child.py       one process from its start to its end
    worker.py      what runs in it
    last_words.py  why one ended

The parent never loads native code: the model is loaded, tokenizes and generates in the process.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from hearth.models.engine import messages
from hearth.models.engine.child import EngineProcess, ProcessEnded, ProcessHandle
from hearth.models.engine.options import EngineOptions
from hearth.models.errors import EngineError
from hearth.models.types import GenerationRequest, MediaEmbeddings, MediaPiece, MediaShape, ModelInfo, TextSegment

logger = logging.getLogger("hearth.engine.process")
T = TypeVar("T")

MAX_CRASHES = 3  # within CRASH_WINDOW_S, then no process is started until the window has passed
CRASH_WINDOW_S = 60.0


class ProcessEngine:
    """An engine in a process of its own (types.Engine). Methods may be called from any thread.

    When the process ends by itself, its requests end with Failed, and the next call of any method starts another with
    the same arguments and waits for it.
    """

    def __init__(self, path: Path, options: EngineOptions | None, make_engine: Any, arguments: dict[str, Any]) -> None:
        """Starts nothing. Use ``ProcessEngine.load``."""
        self._path = path
        self._options = options
        self._make_engine = make_engine
        self._arguments = arguments
        self._starting = threading.Lock()  # held while a process starts, which all others wait for
        self._process: EngineProcess | None = None
        self._info: ModelInfo | None = None
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        self._last_crash = ""
        self._closed = False

    @classmethod
    def load(
        cls,
        path: Path,
        options: EngineOptions | None = None,
        *,
        make_engine: messages.EngineFactory | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_progress: Callable[[float], None] | None = None,
        **engine_arguments: Any,
    ) -> ProcessEngine:
        """Starts a process and loads a model there, by ``LlamaEngine.load`` unless ``make_engine`` is given, which
        gets ``engine_arguments``; all of them must pickle. ``cancelled`` is asked and ``on_progress`` told (0..1)
        meanwhile, on the caller's thread.

        Raises what loading raises, and EngineError if it was cancelled or the process ended.
        """
        engine = cls(path, options, make_engine, engine_arguments)
        with engine._starting:
            engine._start(cancelled, on_progress)
        atexit.register(engine.close)
        return engine

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise EngineError("the model is not loaded")
        return self._info

    @property
    def pid(self) -> int | None:
        """Of the process that runs, or ran last."""
        return None if self._process is None else self._process.pid

    def submit(self, request: GenerationRequest) -> ProcessHandle:
        """Queues a request.

        Raises RequestError (bad parameter), ContextOverflowError (too long), EngineError (closed, or no process).
        """
        return self._ask(lambda process: process.submit(request))

    def tokenize(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        """Token ids of ``text``. Special tokens are recognised in it only with ``parse_special``."""
        tokens: list[int] = self.call("tokenize", text, parse_special=parse_special, add_bos=add_bos)
        return tokens

    def detokenize(self, tokens: list[int], *, special: bool = False) -> str:
        """Text of ``tokens``, special ones included with ``special``. Raises EngineError for an id out of range."""
        text: str = self.call("detokenize", tokens, special=special)
        return text

    def pieces(self, tokens: list[int]) -> list[bytes]:
        """What each token by itself stands for, special ones too; a piece may be a part of a character. Raises
        EngineError for an id out of range."""
        pieces: list[bytes] = self.call("pieces", tokens)
        return pieces

    def plan_media(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        """What a picture or a sound of this shape becomes in the prompt: tokens, and pieces to be encoded.

        Raises EngineError if the model has no encoder, or none for such media.
        """
        plan: tuple[TextSegment | MediaPiece, ...] = self.call("plan_media", shape)
        return plan

    def encode_media(self, media: NDArray[Any]) -> tuple[MediaEmbeddings, ...]:
        """Embeddings of every MediaPiece of ``plan_media``. ``media`` is a picture, uint8 of shape (height, width, 3),
        or a sound, float32 of shape (n,) at the encoder's sample rate. Raises EngineError."""
        return tuple(map(messages.unpack, self.call("encode_media", media)))

    def forget(self, owner: str) -> int:
        """Deletes the saved KV blocks that only ``owner`` uses, and returns how many. They are gone on return."""
        n_blocks: int = self.call("forget", owner)
        return n_blocks

    def flush(self) -> None:
        """Returns when all that is to be saved of the KV cache is on disk."""
        self.call("flush")

    def stats(self) -> dict[str, float]:
        """What the engine has done since it was loaded, or started again after a crash."""
        counts: dict[str, float] = self.call("stats")
        return counts

    def check_integrity(self) -> None:
        """Compares what the prefix cache believes with the KV cache. Raises EngineError if they differ."""
        self.call("check_integrity")

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Runs a method of the engine, one of ``messages.CALLS``, and returns its result: plain data."""
        if method not in messages.CALLS:
            raise EngineError(f"{method} may not be called in the engine process; one of {sorted(messages.CALLS)} may")
        return self._ask(lambda process: process.call(method, args, kwargs))

    def close(self) -> None:
        """Cancels what runs, ends the process, by force if it does not end by itself. Idempotent."""
        self._closed = True  # ends a start that is under way
        with self._starting:
            process = self._process
        if process is not None:
            process.close()
        atexit.unregister(self.close)

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, ask: Callable[[EngineProcess], T]) -> T:
        """Asks the process. One that ends before it answers has begun nothing: a new one is asked, once."""
        try:
            return ask(self._running())
        except ProcessEnded:
            return ask(self._running())

    def _running(self) -> EngineProcess:
        """The process, another one if it has ended. Raises what loading raises."""
        process = self._process
        if process is None or not process.is_alive or self._closed:
            with self._starting:
                self._check_open()
                process = self._process
                if process is None or not process.is_alive:
                    self._note_crash(process)
                    self._check_crash_loop()
                    process = self._start(lambda: self._closed, None)
        return process

    def _start(
        self, cancelled: Callable[[], bool] | None, on_progress: Callable[[float], None] | None
    ) -> EngineProcess:
        """Starts a process and has it load the model. Holds ``_starting``."""
        if cancelled is not None and cancelled():
            raise EngineError(f"loading {self._path.name} was stopped")
        started_s = time.monotonic()
        options = self._options
        if options is not None and self._info is not None:
            options = replace(options, kv_resume=False)  # after a crash somebody waits, maybe for another chat
        load = messages.Load(self._path, options, self._make_engine, self._arguments, _log_levels())
        process = EngineProcess()
        try:
            info = process.load(load, cancelled, on_progress)
        except EngineError as error:
            self._check_open()
            if isinstance(error, ProcessEnded):
                self._note_crash(process)
                raise EngineError(
                    f"the engine process ended while it loaded {self._files()} ({process.manner}); choose another "
                    "model, a smaller n_ctx or n_gpu_layers 0"
                ) from error
            raise
        if self._info is not None and info.fingerprint != self._info.fingerprint:
            process.close()
            raise EngineError(f"{self._path} is not the file it was when it was loaded; load the model again")
        self._process, self._info = process, info
        logger.info("engine process %d has %s after %.2f s", process.pid, self._path.name, time.monotonic() - started_s)
        return process

    def _files(self) -> str:
        """The names of all that is loaded: the one that ended the process may be any of them."""
        options = self._options or EngineOptions()
        others = (options.mmproj, options.draft_model, *(adapter.path for adapter in options.lora))
        return ", ".join(Path(path).name for path in (self._path, *others) if path is not None)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load the model again")

    def _note_crash(self, process: EngineProcess | None) -> None:
        if process is not None and process.crashed_s is not None and process.crashed_s not in self._crashes:
            self._crashes.append(process.crashed_s)
            self._last_crash = process.manner

    def _check_crash_loop(self) -> None:
        if len(self._crashes) == MAX_CRASHES:
            wait_s = self._crashes[0] + CRASH_WINDOW_S - time.monotonic()
            if wait_s > 0:
                raise EngineError(
                    f"the engine process ended {MAX_CRASHES} times within {CRASH_WINDOW_S:.0f} s, last with "
                    f"{self._last_crash}; choose another model, a smaller n_ctx or n_gpu_layers 0, or ask again in "
                    f"{wait_s:.0f} s"
                )


def _log_levels() -> dict[str, int]:
    """Levels set in this process: those of our loggers and of the root, by name."""
    loggers = logging.getLogger().manager.loggerDict.items()
    ours = {name: one.level for name, one in loggers if isinstance(one, logging.Logger) and name.startswith("hearth")}
    return {"": logging.getLogger().level, **{name: level for name, level in ours.items() if level}}
