"""LlamaEngine: one thread owns the context; requests come in by a queue and each answers through one of its own."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from hearth.models.cpu import physical_cores
from hearth.models.engine.options import DEFAULT_N_CTX_LIMIT, EngineOptions
from hearth.models.engine.prefix_cache import PrefixCache
from hearth.models.engine.prompt import Prompt, count_positions, count_tokens
from hearth.models.engine.runner import Runner
from hearth.models.engine.sampler import MAX_SEED, PENALTY_LAST_N, TokenSampler, check_request
from hearth.models.engine.scheduler import Chunk, Scheduler, TokenChunk
from hearth.models.engine.sequence import Sequence, SequenceHandle
from hearth.models.errors import ContextOverflowError, EngineError, HearthError
from hearth.models.fingerprint import model_fingerprint
from hearth.models.gguf_header import check_gguf
from hearth.models.llama import ContextOptions, DecodeStatus, LlamaContext, LlamaModel, build_id
from hearth.models.types import FinishReason, GenerationRequest, ModelInfo

logger = logging.getLogger("hearth.engine")

LONG_NODES_PER_LAYER = 4
MAX_RUNNING = 1  # requests side by side
SMALL_MODEL_PARAMS = 64_000_000  # below this, waking a second thread costs more than its share of one token


class LlamaEngine:
    """A loaded model that generates (types.Engine). Methods may be called from any thread."""

    def __init__(self, model: LlamaModel, context: LlamaContext, info: ModelInfo) -> None:
        """Takes ownership of both. Use ``LlamaEngine.load``."""
        self._model = model
        self._context = context
        self._info = info
        self._runner = Runner(context)
        self._cache = PrefixCache(context.options.n_seq_max, sliceable=not model.is_recurrent)
        self._scheduler = Scheduler(max_running=MAX_RUNNING, max_chunk_tokens=context.n_batch)
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
        cancelled: Callable[[], bool] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> LlamaEngine:
        """Loads a GGUF and starts the thread. ``cancelled`` is asked and ``on_progress`` told (0..1) while it reads.

        Raises ModelFileError (what is wrong with the file) and EngineError (stopped, or not enough memory).
        """
        options = options or EngineOptions()
        header = check_gguf(path)

        def progress(fraction: float) -> bool:
            if on_progress is not None:
                on_progress(fraction)
            return cancelled is None or not cancelled()

        model = LlamaModel.load(path, n_gpu_layers=options.n_gpu_layers, progress=progress)
        try:
            context = LlamaContext(model, _context_options(model, options))
        except BaseException:
            model.close()
            raise
        settings = (build_id(), options.kv_type, f"flash_attention={options.flash_attention}", "rope=model")
        return cls(model, context, _model_info(model, context, model_fingerprint(header, *settings)))

    @property
    def info(self) -> ModelInfo:
        return self._info

    def submit(self, request: GenerationRequest) -> SequenceHandle:
        """Queues a request.

        Raises RequestError (bad parameter), ContextOverflowError (too long), EngineError (closed).
        """
        check_request(request)
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
            self._commands.put(partial(self._scheduler.add, sequence))
        return SequenceHandle(sequence, self._context.abort.set)

    def tokenize(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        """Token ids of ``text``. Special tokens are recognised in it only with ``parse_special``."""
        with self._lock:
            self._check_open()
            return self._model.tokenize(text, parse_special=parse_special, add_bos=add_bos)

    def detokenize(self, tokens: list[int], *, special: bool = False) -> str:
        """Text of ``tokens``, special ones included with ``special``. Raises EngineError for an id out of range."""
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._info.n_vocab:
            raise EngineError(f"token ids must be within 0..{self._info.n_vocab - 1}")
        with self._lock:
            self._check_open()
            return self._model.detokenize(tokens, special=special)

    def check_integrity(self) -> None:
        """Compares what the prefix cache believes with the KV cache. Raises EngineError if they differ."""
        done: Future[None] = Future()
        with self._lock:
            self._check_open()
            self._commands.put(partial(_settle, done, self._compare_cache))
        done.result()

    def close(self) -> None:
        """Cancels what runs, ends the thread, frees the model. Idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
            if first:
                self._commands.put(_nothing)  # wakes the thread
        self._context.abort.set()
        self._thread.join()
        if first:
            with self._lock:
                self._context.close()
                self._model.close()

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load the model again")

    # From here on: the engine's thread.

    def _loop(self) -> None:
        while True:
            self._take_commands()
            if self._closed:
                break
            if self._scheduler.has_work:
                self._step()
        self._take_commands(wait=False)
        for sequence in list(self._scheduler.running):
            self._end(sequence, "cancelled")
        for sequence in self._scheduler.waiting:
            sequence.fail(EngineError("the engine was closed before this request began"))

    def _take_commands(self, *, wait: bool = True) -> None:
        """Carries out what was asked for; sleeps until something is, if there is nothing else to do."""
        if wait and not self._scheduler.has_work and not self._closed:
            self._commands.get()()
        while not self._commands.empty():
            self._commands.get()()

    def _step(self) -> None:
        # cleared first: whoever cancels marks the request and then sets the flag, so that no cancel is lost
        self._context.abort.clear()
        if self._closed:
            return
        for sequence in list(self._scheduler.running):
            if sequence.cancelled:
                self._end(sequence, "cancelled")
        for sequence in self._scheduler.admit():
            self._start(sequence)
        chunks = self._scheduler.schedule()
        if chunks:
            self._carry_out(chunks)

    def _start(self, sequence: Sequence) -> None:
        """Gives a sequence its place in the KV cache, with as much of its prompt as is there already."""
        try:
            prompt = sequence.prompt
            placement = self._cache.place(prompt.entries)
            if placement is None:
                raise EngineError("more requests run than there are KV sequences")
            slot = sequence.slot = placement.target
            n_positions = prompt.position(placement.n_matched)
            if not self._runner.place(placement.source.seq_id, slot.seq_id, n_positions):
                slot.entries = []
            sequence.num_cached_tokens = count_tokens(slot.entries)
            tail = [entry for entry in prompt.entries[-PENALTY_LAST_N:] if isinstance(entry, int)]
            sequence.sampler = TokenSampler(self._context, sequence.request.sampling, sequence.seed, tail)
            sequence.report_prefill()
        except Exception as error:  # whatever it is, it belongs to this request; the thread goes on
            self._fail([sequence], error)

    def _carry_out(self, chunks: list[Chunk]) -> None:
        sequences = [chunk.sequence for chunk in chunks]
        kv_touched = False
        try:
            self._runner.prepare(chunks)
            kv_touched = True
            started_s = time.monotonic()
            status, rows = self._runner.run(chunks)
            elapsed_s = time.monotonic() - started_s
            if status is DecodeStatus.DONE:
                for chunk, row in zip(chunks, rows, strict=True):
                    self._postprocess(chunk, row, elapsed_s)
            else:
                self._undo(chunks)
                if status is DecodeStatus.NO_CELLS:
                    self._make_room()
        except Exception as error:  # as above
            self._fail(sequences, error, forget=kv_touched)

    def _postprocess(self, chunk: Chunk, row: int, elapsed_s: float) -> None:
        sequence = chunk.sequence
        sequence.computed(list(chunk.tokens) if isinstance(chunk, TokenChunk) else [chunk.span])
        if not sequence.output:
            sequence.prefill_s += elapsed_s
            if isinstance(chunk, TokenChunk):
                # a decode can be interrupted between graph nodes; the longest are a layer's feed-forward products
                self._scheduler.limit_latency(
                    len(chunk.tokens), elapsed_s / (LONG_NODES_PER_LAYER * self._model.n_layer)
                )
            sequence.report_prefill()
        if chunk.wants_logits:
            self._next_token(sequence, row)

    def _next_token(self, sequence: Sequence, row: int) -> None:
        if sequence.sampler is None:
            raise EngineError(f"request {sequence.request.request_id} has no sampler")
        token = sequence.sampler.sample(row)
        if self._model.is_eog(token):
            sequence.note_token(token)
            self._end(sequence, "stop")
        elif sequence.append(token, self._model.piece(token)):
            self._end(sequence, "stop")
        elif len(sequence.output) >= sequence.request.max_tokens or sequence.num_tokens >= self._info.n_ctx:
            self._end(sequence, "length")

    def _undo(self, chunks: list[Chunk]) -> None:
        """Takes back what a decode that did not finish left in the KV cache."""
        for chunk in chunks:
            slot = chunk.sequence.slot
            if slot is not None and not self._runner.truncate(slot.seq_id, chunk.position):
                slot.entries = []

    def _make_room(self) -> None:
        evicted = self._cache.evict()
        if evicted is None:
            raise EngineError(f"the KV cache of {self._info.n_ctx:,} tokens is full; raise n_ctx")
        self._runner.forget(evicted.seq_id)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        self._release(sequence)
        sequence.finish(reason)

    def _fail(self, sequences: list[Sequence], error: Exception, *, forget: bool = False) -> None:
        """Ends requests with an error. ``forget``: what their KV sequences hold is not known any more."""
        if not isinstance(error, HearthError):
            logger.error("request failed", exc_info=error)
            cause, error = error, EngineError(f"the engine failed: {type(error).__name__}: {error}")
            error.__cause__ = cause
        for sequence in sequences:
            if forget and sequence.slot is not None:
                self._runner.forget(sequence.slot.seq_id)
                sequence.slot.entries = []
            self._release(sequence)
            sequence.fail(error)

    def _release(self, sequence: Sequence) -> None:
        """Gives back the KV sequence, which keeps its contents for later prompts, and the sampler."""
        self._scheduler.remove(sequence)
        if sequence.sampler is not None:
            sequence.sampler.close()
            sequence.sampler = None
        if sequence.slot is not None:
            self._cache.release(sequence.slot)
            sequence.slot = None

    def _compare_cache(self) -> None:
        for slot in self._cache.sequences:
            n_believed, n_held = count_positions(slot.entries), self._runner.num_positions(slot.seq_id)
            if n_believed != n_held:
                raise EngineError(f"KV sequence {slot.seq_id} holds {n_held} positions, {n_believed} were expected")


def _nothing() -> None:
    pass


def _settle(future: Future[None], function: Callable[[], None]) -> None:
    """Runs a function for another thread, which gets its exception."""
    try:
        function()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(None)


def _context_options(model: LlamaModel, options: EngineOptions) -> ContextOptions:
    n_ctx = options.n_ctx or min(model.n_ctx_train, DEFAULT_N_CTX_LIMIT)
    n_batch = min(options.n_batch, n_ctx)
    n_threads = options.n_threads or physical_cores()
    is_small = options.n_threads is None and model.n_params < SMALL_MODEL_PARAMS
    return ContextOptions(
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_ubatch=min(options.n_ubatch, n_batch),
        n_seq_max=options.n_sequences,
        n_threads=1 if is_small else n_threads,
        n_threads_batch=n_threads,
        kv_type=options.kv_type,
        flash_attention=options.flash_attention,
    )


def _model_info(model: LlamaModel, context: LlamaContext, fingerprint: str) -> ModelInfo:
    return ModelInfo(
        name=model.metadata("general.name") or model.path.stem,
        path=model.path,
        fingerprint=fingerprint,
        n_ctx=context.n_ctx,
        n_ctx_train=model.n_ctx_train,
        n_embd=model.n_embd_inp,  # the width of what embed() gives; wider than the model's own in a few architectures
        n_vocab=model.n_vocab,
        n_params=model.n_params,
        size_bytes=model.size_bytes,
        chat_template=model.chat_template,
        bos_token=model.special_token("bos"),
        eos_token=model.special_token("eos"),
        add_bos=model.add_bos,
    )
