"""LlamaEngine: one thread owns the context; requests come in by a queue and each answers through one of its own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from hearth.models.engine.core import EngineCore
from hearth.models.engine.disk_cache import KvStore
from hearth.models.engine.loading import EngineParts, load_parts
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.prompt import Prompt
from hearth.models.engine.request_checks import MAX_SEED, check_request
from hearth.models.engine.sequence import Sequence, SequenceHandle
from hearth.models.errors import ContextOverflowError, EngineError
from hearth.models.mtmd import MediaEncoder
from hearth.models.types import GenerationRequest, MediaEmbeddings, MediaPiece, MediaShape, ModelInfo, TextSegment

T = TypeVar("T")

FLUSH_TIMEOUT_S = 30.0  # for what is to be written when the engine closes


class LlamaEngine:
    """A loaded model that generates (types.Engine). Methods may be called from any thread."""

    def __init__(
        self,
        parts: EngineParts,
        options: EngineOptions,
        store: KvStore | None = None,
    ) -> None:
        """Takes ownership of all. Use ``LlamaEngine.load``."""
        self._parts = parts
        self._model = model = parts.model
        self._info = parts.info
        self._store = store
        self._abort = parts.context.abort
        # a state that can neither be cut nor taken back does not survive a decode that is broken off
        self._interrupt = _nothing if model.is_recurrent or model.is_hybrid else self._abort.set
        self._core = EngineCore(parts, options, store)
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()  # closing against submitting and against reading the vocabulary
        self._thread = threading.Thread(target=self._loop, name="hearth-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        path: Path,
        options: EngineOptions | None = None,
        *,
        store: KvStore | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> LlamaEngine:
        """Loads a GGUF and starts the thread. ``cancelled`` is asked and ``on_progress`` told (0..1) while it reads.

        KV blocks go to ``store``, which is closed with the engine, also when loading fails.
        Raises ModelFileError (what is wrong with the file), RequestError (an option that this model cannot have) and
        EngineError (stopped, or not enough memory).
        """
        options = options or EngineOptions()

        def progress(fraction: float) -> bool:
            if on_progress is not None:
                on_progress(fraction)
            return cancelled is None or not cancelled()

        try:
            parts = load_parts(path, options, progress)
        except BaseException:
            if store is not None:
                store.close()
            raise
        engine = cls(parts, options, store)
        try:
            engine._on_thread(engine._core.warm_up)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def info(self) -> ModelInfo:
        return self._info

    def submit(self, request: GenerationRequest) -> SequenceHandle:
        """Queues a request.

        Raises RequestError (bad parameter), ContextOverflowError (too long), EngineError (closed).
        """
        check_request(request, self._info.n_vocab)
        prompt = Prompt(request.segments, n_vocab=self._info.n_vocab, m_rope=self._model.has_m_rope)
        if prompt.n_tokens + 1 > self._info.n_ctx:
            raise ContextOverflowError(
                f"the prompt has {prompt.n_tokens:,} tokens, the context holds {self._info.n_ctx:,} with the answer; "
                f"shorten the prompt by {prompt.n_tokens + 1 - self._info.n_ctx:,} or raise n_ctx"
            )
        given = request.sampling.seed
        sequence = Sequence(request, prompt, seed=secrets.randbelow(MAX_SEED + 1) if given is None else given)
        with self._lock:
            self._check_open()
            self._commands.put(partial(self._core.add, sequence))
        return SequenceHandle(sequence, self._interrupt)

    def tokenize(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        """Token ids of ``text``. Special tokens are recognised in it only with ``parse_special``."""
        with self._lock:
            self._check_open()
            return self._model.tokenize(text, parse_special=parse_special, add_bos=add_bos)

    def detokenize(self, tokens: list[int], *, special: bool = False) -> str:
        """Text of ``tokens``, special ones included with ``special``. Raises EngineError for an id out of range."""
        self._check_ids(tokens)
        with self._lock:
            self._check_open()
            return self._model.detokenize(tokens, special=special)

    def pieces(self, tokens: list[int]) -> list[bytes]:
        """What each token by itself stands for, special ones too; a piece may be a part of a character. Raises
        EngineError for an id out of range."""
        self._check_ids(tokens)
        return self._on_thread(lambda: [self._model.piece(token, special=True) for token in tokens])

    def _check_ids(self, tokens: list[int]) -> None:
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._info.n_vocab:
            raise EngineError(f"token ids must be within 0..{self._info.n_vocab - 1}")

    def plan_media(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        """What a picture or a sound of this shape becomes in the prompt: tokens, and pieces to be encoded.

        Raises EngineError if the model has no encoder, or none for such media.
        """
        return self._encoder.plan(shape)

    def encode_media(self, media: NDArray[Any]) -> tuple[MediaEmbeddings, ...]:
        """Embeddings of every MediaPiece of ``plan_media``. ``media`` is a picture, uint8 of shape (height, width, 3),
        or a sound, float32 of shape (n,) at the encoder's sample rate. On the caller's thread. Raises EngineError."""
        return self._encoder.encode(media)

    @property
    def _encoder(self) -> MediaEncoder:
        if self._parts.media is None:
            raise EngineError(f"{self._info.name} was loaded without an encoder; name its mmproj file")
        return self._parts.media

    def check_integrity(self) -> None:
        """Compares what the prefix cache believes with the KV cache. Raises EngineError if they differ."""
        self._on_thread(self._core.check_integrity)

    def forget(self, owner: str) -> int:
        """Deletes the saved KV blocks that only ``owner`` uses, and returns how many. They are gone on return."""
        return self._on_thread(lambda: self._core.forget(owner))

    def flush(self) -> None:
        """Returns when all that is to be saved of the KV cache is on disk."""
        self._on_thread(self._core.save_all)
        if self._store is not None:
            self._store.flush()

    def stats(self) -> dict[str, float]:
        """What the engine has done since it was loaded; see EngineCounters."""
        return self._on_thread(self._core.snapshot)

    def _on_thread(self, function: Callable[[], T]) -> T:
        done: Future[T] = Future()
        with self._lock:
            self._check_open()
            self._commands.put(partial(_settle, done, function))
        return done.result()

    def close(self) -> None:
        """Cancels what runs, ends the thread, frees the model. Idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
            if first:
                self._commands.put(_nothing)  # wakes the thread
        self._interrupt()
        self._thread.join()
        if first:
            with self._lock:
                if self._store is not None:
                    self._store.flush(FLUSH_TIMEOUT_S)
                    self._store.close()
                self._parts.close()

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load the model again")

    def _loop(self) -> None:
        """The engine's thread."""
        while True:
            self._take_commands()
            # cleared first: whoever cancels or closes marks that and then sets the flag, so that nothing is missed
            self._abort.clear()
            if self._closed:
                break
            if self._core.has_work:
                try:
                    self._core.step(self._is_wanted)
                except Exception as error:  # a mistake of ours costs the requests that run, not the engine
                    self._core.start_over(error)
        self._take_commands(wait=False)
        self._core.shut_down()

    def _is_wanted(self) -> bool:
        return not self._commands.empty()

    def _take_commands(self, *, wait: bool = True) -> None:
        """Carries out what was asked for; sleeps until something is, if there is nothing else to do."""
        if wait and not self._core.has_work and not self._closed:
            self._commands.get()()
        while not self._commands.empty():
            self._commands.get()()


def _nothing() -> None:
    pass


def _settle(future: Future[T], function: Callable[[], T]) -> None:
    """Runs a function for another thread, which gets its result or exception."""
    try:
        result = function()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
