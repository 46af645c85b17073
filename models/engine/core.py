"""EngineCore: what an engine does between two looks at its queue. It has no thread and no lock of its own."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

from hearth.models.engine.counters import EngineCounters
from hearth.models.engine.disk_cache import MAX_STEP_S, DiskCache, KvStore
from hearth.models.engine.kv_cells import KvCells, SeparateCells, SharedCells
from hearth.models.engine.kv_room import KvRoom
from hearth.models.engine.loading import EngineParts
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.prefix_cache import CachedSequence, PrefixCache
from hearth.models.engine.prompt import MediaSpan
from hearth.models.engine.runner import Runner
from hearth.models.engine.sampler import TokenSampler
from hearth.models.engine.scheduler import Chunk, MediaChunk, Scheduler, TokenChunk
from hearth.models.engine.sequence import Sequence
from hearth.models.engine.speculation import Speculation, StepCosts
from hearth.models.engine.threads import ThreadChoice
from hearth.models.errors import EngineError, HearthError
from hearth.models.llama_context import DecodeStatus
from hearth.models.types import CacheReport, FinishReason, MediaEmbeddings

logger = logging.getLogger("hearth.engine")

LONG_NODES_PER_LAYER = 4
MAX_BACKGROUND_WAIT_S = 0.02  # how long a cancel may go unnoticed while a picture is encoded or a block read


class EngineCore:
    """The requests of one engine, its KV cache and what happens to both: step() = schedule, run, postprocess.

    All methods are the engine's thread's. No request's error leaves ``step``; what does is a mistake of ours.
    """

    def __init__(self, parts: EngineParts, options: EngineOptions, store: KvStore | None) -> None:
        self._model = model = parts.model
        self._context = context = parts.context
        self._info = info = parts.info
        self._draft = parts.draft
        self._counters = EngineCounters()
        # a state can neither be cut nor taken back: only what extends it finds it, and a decode is never broken off
        self._sliceable = sliceable = not (model.is_recurrent or model.is_hybrid)
        self._runner = Runner(context, interruptible=sliceable)
        self._cells: KvCells = (
            SharedCells(context, scratch_id=options.n_kept, n_swa=model.n_swa if sliceable else 0)
            if options.kv_unified
            else SeparateCells(context)
        )
        self._cache = PrefixCache(options.n_kept, sliceable=sliceable)
        self._disk = (
            DiskCache(
                store,
                info.fingerprint,
                self._cells,
                self._cache,
                sliceable=sliceable,
                n_swa=model.n_swa,
                min_worth_s=options.kv_min_worth_s,
            )
            if store
            else None
        )
        shared = options.kv_unified and not model.is_recurrent
        self._room = KvRoom(self._cells, self._cache, self._disk, info.n_ctx if shared else None)
        self._scheduler = Scheduler(
            max_running=min(options.n_parallel, options.n_kept),
            max_chunk_tokens=context.n_batch,
            interruptible=sliceable,
        )
        self._costs = StepCosts()
        self._threads = ThreadChoice(context.options.n_threads)
        self._encode_s = 0.0  # what the last picture took
        self._looks_up = options.prompt_lookup and sliceable
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="hearth-encode")

    def warm_up(self) -> None:
        """Before the first request: finds out what a token takes, and whether all threads are worth having."""
        n_threads = self._threads.n_threads
        elapsed_s = self._context.warm_up()
        self._scheduler.answers_took(elapsed_s)  # else the first answers would let no prompt be read beside them
        if n_threads == 1:
            return
        self._context.set_threads(1, 1)
        self._threads.compare(elapsed_s, self._context.warm_up())
        self._set_threads()

    def _set_threads(self) -> None:
        options, n_threads = self._context.options, self._threads.n_threads
        is_crowded = n_threads < options.n_threads
        self._context.set_threads(n_threads, n_threads if is_crowded else options.n_threads_batch)
        why = "other programs are busy" if is_crowded else "the machine is quiet"
        logger.info("%s: %d of %d threads", why, n_threads, options.n_threads)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or (self._disk is not None and self._disk.has_work)

    def add(self, sequence: Sequence) -> None:
        """Queues a request."""
        self._scheduler.add(sequence)

    def forget(self, owner: str) -> int:
        """Deletes the saved KV blocks that only ``owner`` uses, and returns how many; its requests save no more."""
        for sequence in (*self._scheduler.running, *self._scheduler.waiting):
            if sequence.request.owner == owner:
                sequence.is_forgotten = True
        return self._disk.forget(owner) if self._disk is not None else 0

    def save_all(self) -> None:
        """Hands the store all that was planned to be saved."""
        if self._disk is not None:
            self._disk.finish()

    def shut_down(self) -> None:
        """Ends all requests, and saves what they came to."""
        for sequence in list(self._scheduler.running):
            self._end(sequence, "cancelled")
        for sequence in self._scheduler.waiting:
            sequence.fail(EngineError("the engine was closed before this request began"))
        self._encoder.shutdown(wait=False, cancel_futures=True)
        self.save_all()

    def step(self) -> None:
        """Does a little of everything there is to do. Returns soon if the context's abort flag is set meanwhile."""
        started_s, native_s = time.perf_counter(), self._runner.native_s
        for sequence in list(self._scheduler.running):
            if sequence.cancelled:
                self._end(sequence, "cancelled")
        for sequence in self._scheduler.admit(self._has_room):
            self._start(sequence)
        self._restore_some()
        draft_s = self._draft.guess_for(self._scheduler.running) if self._draft is not None else 0.0
        chunks = self._scheduler.schedule()
        if chunks:
            self._carry_out(chunks)
            in_native_s = self._runner.native_s - native_s + draft_s
            self._counters.step(time.perf_counter() - started_s, in_native_s, draft_s, chunks)
        if self._disk is not None and self._disk.has_work:
            self._disk.work(MAX_STEP_S)
        if not chunks:
            self._wait_for_background()

    def check_integrity(self) -> None:
        """Compares what the prefix cache believes with the KV cache. Raises EngineError if they differ."""
        self._room.check()

    def snapshot(self) -> dict[str, float]:
        """What was done since the start (EngineCounters), and what there is now."""
        return {
            **self._counters.as_dict(),
            "running": len(self._scheduler.running),
            "waiting": len(self._scheduler.waiting),
            "cells_held": self._cache.cells_held(),
            "cells": self._context.n_ctx,
            "threads": self._threads.n_threads,
        }

    def start_over(self, error: Exception) -> None:
        """After a step failed in a way that nobody foresaw: all requests end, nothing in the KV cache is trusted."""
        if self._disk is not None:
            self._disk.drop_saves()
        self._fail(list(self._scheduler.running), error)
        while self._scheduler.waiting:
            self._scheduler.waiting.popleft().fail(EngineError(f"the engine failed ({error}); ask again"))
        self._room.clear()

    def _has_room(self, sequence: Sequence) -> bool:
        return self._room.is_enough(sequence.entries, len(self._scheduler.running))

    def _start(self, sequence: Sequence) -> None:
        """Gives a sequence its place in the KV cache, with as much of its prompt as is there already."""
        try:
            entries = sequence.entries
            slot = sequence.slot = self._room.place(entries)
            if self._disk is not None:
                sequence.restore = self._disk.begin(entries, len(slot.entries))
            n_passing_cells = sequence.restore.n_passing_cells if sequence.restore is not None else 0
            self._room.free(self._cache.cells_needed(entries) + n_passing_cells)
            if sequence.sampler is None:
                sampling, seen = sequence.request.sampling, sequence.prompt.entries
                sequence.sampler = TokenSampler(self._context, sampling, sequence.seed, seen)
                sequence.found = CacheReport(memory_tokens=slot.n_tokens)
                if self._looks_up or self._draft is not None:
                    sequence.speculation = Speculation(
                        seen,
                        self._costs,
                        lookup=self._looks_up,
                        draft_vocab=self._draft.n_vocab if self._draft is not None else 0,
                        greedy=sampling.temperature == 0,
                    )
            if sequence.restore is None:
                self._begin_prefill(sequence)
        except Exception as error:  # whatever it is, it belongs to this request; the thread goes on
            self._fail([sequence], error)

    def _restore_some(self) -> None:
        for sequence in [running for running in self._scheduler.running if running.restore is not None]:
            restore, slot = sequence.restore, sequence.slot
            assert self._disk is not None
            assert restore is not None
            assert slot is not None
            try:
                alone = len(self._scheduler.running) == 1
                n_tokens = self._disk.advance(restore, slot, sequence.entries, sequence.owner, alone=alone)
                if n_tokens is not None:
                    sequence.restore = None
                    sequence.restore_s += time.monotonic() - restore.started_s
                    if not sequence.output:
                        n_memory = min(sequence.found.memory_tokens, n_tokens)
                        sequence.found = CacheReport(n_memory, n_tokens - n_memory)
                    self._begin_prefill(sequence)
            except Exception as error:  # as above
                self._fail([sequence], error, forget=True)

    def _begin_prefill(self, sequence: Sequence) -> None:
        if not sequence.output:
            found = sequence.found
            self._counters.request(sequence.prompt.n_tokens, found)
            n_found = found.memory_tokens + found.disk_tokens
            if n_found + 1 < sequence.prompt.n_tokens:
                sequence.found = CacheReport(found.memory_tokens, found.disk_tokens, self._why_no_more(n_found))
        sequence.report_prefill()
        sequence.send()
        self._encode_ahead(sequence)

    def _why_no_more(self, n_found: int) -> str:
        if self._sliceable:
            return f"what is cached differs or ends after {n_found:,} tokens" if n_found else "nothing is cached"
        longest = f"the longest that it begins with has {n_found:,} tokens" if n_found else "it begins with none"
        return f"this model's state cannot be cut, so that only whole checkpoints serve a prompt: {longest}"

    def _encode_ahead(self, sequence: Sequence) -> None:
        """Has the next picture of a prompt encoded while the text before it is read."""
        done = sequence.num_computed_entries
        index = next((index for index in sequence.prompt.media if index >= done), None)
        if index is not None and index not in sequence.embeddings:
            media = sequence.prompt.media[index]

            def encode() -> MediaEmbeddings:
                embeddings, elapsed_s = self._runner.embed(media, lambda: sequence.cancelled)
                sequence.encode_s += elapsed_s
                self._encode_s = elapsed_s
                return embeddings

            sequence.embeddings[index] = self._encoder.submit(encode)

    def _wait_for_background(self) -> None:
        """Sleeps until a picture is encoded or a block read, if that is all there is to do."""
        futures: list[Future[Any]] = []
        for sequence in self._scheduler.running:
            if sequence.restore is not None:
                futures += list(sequence.restore.reading)[:1]
            else:
                futures += [future for future in sequence.embeddings.values() if not future.done()]
        if futures:
            wait_for(futures, MAX_BACKGROUND_WAIT_S, "FIRST_COMPLETED")
        elif self._disk is not None and self._disk.has_work and not self._scheduler.running:
            time.sleep(MAX_STEP_S)  # the writers have not kept up; who runs is read for on this thread

    def _carry_out(self, chunks: list[Chunk]) -> None:
        sequences = [chunk.sequence for chunk in chunks]
        first = chunks[0]
        if isinstance(first, MediaChunk):
            error = first.sequence.embeddings[first.index].exception()
            if error is not None:
                self._fail(sequences, error)
                return
        try:
            started_s = time.perf_counter()
            status, rows = self._runner.run(chunks)
            elapsed_s = time.perf_counter() - started_s
        except Exception as error:  # as above
            self._fail(sequences, error, forget=True)
            self._distrust_states(chunks)
            return
        if status is DecodeStatus.DONE:
            self._note_costs(chunks, elapsed_s)
            for chunk, row in zip(chunks, rows, strict=True):
                try:
                    self._postprocess(chunk, row, elapsed_s)
                except Exception as error:  # as above
                    self._fail([chunk.sequence], error, forget=True)
            Sequence.send_all(sequences)
        else:
            self._undo(chunks)
            if status is DecodeStatus.NO_CELLS and not self._drop_guesses(chunks):
                self._make_room(sequences)
            else:
                self._distrust_states(chunks)

    @staticmethod
    def _drop_guesses(chunks: list[Chunk]) -> bool:
        """Has the requests do without guesses for a while, which take cells too. False if there were none."""
        answers = [chunk for chunk in chunks if isinstance(chunk, TokenChunk) and chunk.is_answer]
        guessing = [chunk.sequence.speculation for chunk in answers if len(chunk.tokens) > 1]
        for speculation in guessing:
            if speculation is not None:
                speculation.pause()
        return bool(guessing)

    def _note_costs(self, chunks: list[Chunk], elapsed_s: float) -> None:
        n_guesses = _count_guesses(chunks)
        if n_guesses is None:
            self._scheduler.measured(chunks, elapsed_s)
            self._costs.mixed()
        else:
            self._scheduler.answers_took(elapsed_s)
            self._costs.measured(len(chunks), n_guesses, elapsed_s)
            depth = max(chunk.position for chunk in chunks)
            if self._threads.measured(len(chunks) + n_guesses, depth, elapsed_s):
                self._set_threads()

    def _postprocess(self, chunk: Chunk, row: int, elapsed_s: float) -> None:
        sequence = chunk.sequence
        if isinstance(chunk, TokenChunk) and chunk.is_answer:
            self._go_on(sequence, chunk, row)
            return
        slot = _slot(sequence)
        if isinstance(chunk, TokenChunk):
            self._cache.extend(slot, chunk.tokens)
            # a decode can be interrupted between graph nodes; the longest are a layer's feed-forward products
            self._scheduler.limit_latency(len(chunk.tokens), elapsed_s / (LONG_NODES_PER_LAYER * self._model.n_layer))
        else:
            self._cache.extend(slot, [chunk.span])
            del sequence.embeddings[chunk.index]
            self._encode_ahead(sequence)
        sequence.prefill_s += elapsed_s
        sequence.report_prefill()
        self._save_interim(sequence, slot, chunk)
        if chunk.n_wanted:
            reason = self._take(sequence, self._sample(sequence, row))
            if reason is not None:
                self._end(sequence, reason)

    def _go_on(self, sequence: Sequence, chunk: TokenChunk, row: int) -> None:
        """Samples behind the last token, and behind every guess that came true."""
        tokens = chunk.tokens
        reason: FinishReason | None = None
        n_valid = 0
        while n_valid < len(tokens):
            token = self._sample(sequence, row + n_valid)
            n_valid += 1
            reason = self._take(sequence, token)
            if reason is not None or n_valid == len(tokens) or token != tokens[n_valid]:
                break
        slot = _slot(sequence)
        self._cache.extend(slot, tokens[:n_valid])
        if n_valid < len(tokens):
            self._room.cut(slot, chunk.position + n_valid)
        if sequence.speculation is not None and len(tokens) > 1:
            sequence.speculation.checked(len(tokens) - 1, n_valid - 1)
            self._counters.guessed(len(tokens) - 1, n_valid - 1)
        if reason is not None:
            self._end(sequence, reason)

    @staticmethod
    def _sample(sequence: Sequence, row: int) -> int:
        if sequence.sampler is None:
            raise EngineError(f"request {sequence.request.request_id} has no sampler")
        token = sequence.sampler.sample(row)
        sequence.note_logprobs(sequence.sampler.logprobs(row, token))
        return token

    def _take(self, sequence: Sequence, token: int) -> FinishReason | None:
        """Adds a token to the answer; the reason if that ends it."""
        if sequence.speculation is not None:
            sequence.speculation.note((token,))
        piece = self._model.generated_piece(token)
        if piece is None:
            sequence.note_token(token)
            return "stop"
        if sequence.append(token, piece):
            return "stop"
        if len(sequence.output) >= sequence.request.max_tokens or sequence.num_tokens >= self._info.n_ctx:
            return "length"
        return None

    def _save_interim(self, sequence: Sequence, slot: CachedSequence, chunk: Chunk) -> None:
        """Saves what a prompt has come to, so that a crash in the answer does not lose it."""
        n_new = len(chunk.tokens) if isinstance(chunk, TokenChunk) else chunk.span.n_tokens
        if self._disk is not None and self._disk.due(slot, n_new, at_end=bool(chunk.n_wanted)):
            self._save(sequence, slot, final=False)

    def _save(self, sequence: Sequence, slot: CachedSequence, *, final: bool) -> None:
        if self._disk is not None and not sequence.is_forgotten:
            self._disk.save(slot, sequence.owner, cost_s=self._cost_s(slot), final=final)

    def _cost_s(self, slot: CachedSequence) -> float:
        """What it would take to compute again what a sequence holds, by what was measured."""
        n_pictures = sum(isinstance(entry, MediaSpan) for entry in slot.entries)
        return slot.n_tokens * (self._scheduler.prefill_token_s or 0.0) + n_pictures * self._encode_s

    def _undo(self, chunks: list[Chunk]) -> None:
        """Takes back what a decode that did not finish left in the KV cache."""
        for chunk in chunks:
            if chunk.sequence.slot is not None:
                self._room.cut(chunk.sequence.slot, chunk.position)

    def _distrust_states(self, chunks: list[Chunk]) -> None:
        """Forgets all sequences of a recurrent model after a decode of several broke off: llama.cpp moves the states of
        others out of their way, and notes them as moved before they are. What runs is computed again."""
        if not self._sliceable and len(chunks) > 1:
            for slot in self._cache.sequences:
                self._room.distrust(slot)

    def _make_room(self, sequences: list[Sequence]) -> None:
        """After a decode found no free cells: an idle sequence goes, or the youngest request waits on disk."""
        if self._room.evict_idle():
            return
        preempted = self._scheduler.preempt()
        if preempted is None:
            self._fail(sequences, EngineError(f"the KV cache of {self._info.n_ctx:,} tokens is full; raise n_ctx"))
            return
        self._counters.n_preempted += 1
        slot, preempted.slot, preempted.restore = preempted.slot, None, None
        if slot is not None:
            self._save(preempted, slot, final=True)
            self._cache.release(slot)
            self._room.evict(slot)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        if sequence.slot is not None:
            self._save(sequence, sequence.slot, final=True)
        self._release(sequence)
        sequence.finish(reason)

    def _fail(self, sequences: list[Sequence], error: BaseException, *, forget: bool = False) -> None:
        if not isinstance(error, HearthError):
            logger.error("request failed", exc_info=error)
            cause, error = error, EngineError(f"the engine failed: {type(error).__name__}: {error}")
            error.__cause__ = cause
        for sequence in sequences:
            if forget and sequence.slot is not None:
                self._room.distrust(sequence.slot)
            self._release(sequence)
            sequence.fail(error)

    def _release(self, sequence: Sequence) -> None:
        """Gives back the KV sequence, which keeps its contents for later prompts, and the sampler."""
        self._scheduler.remove(sequence)
        if sequence.sampler is not None:
            sequence.sampler.close()
            sequence.sampler = None
        if sequence.slot is not None:
            self._room.release(sequence.slot)
            sequence.slot = None


def _count_guesses(chunks: list[Chunk]) -> int | None:
    """Guesses in a step of answers; None if there is something else in it."""
    n_tokens = 0
    for chunk in chunks:
        if not (isinstance(chunk, TokenChunk) and chunk.is_answer):
            return None
        n_tokens += len(chunk.tokens)
    return n_tokens - len(chunks)


def _slot(sequence: Sequence) -> CachedSequence:
    if sequence.slot is None:
        raise EngineError(f"request {sequence.request.request_id} has no KV sequence")
    return sequence.slot
