"""EngineCore: what an engine does between two looks at its queue. It has no thread and no lock of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hearth.models.engine.counters import EngineCounters
from hearth.models.engine.disk_cache import MAX_STEP_S, DiskCache, KvStore
from hearth.models.engine.kv_cells import KvCells, SeparateCells, SharedCells
from hearth.models.engine.kv_room import KvRoom
from hearth.models.engine.loading import EngineParts
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.prefix_cache import CachedSequence, PrefixCache
from hearth.models.engine.preparing import Preparation
from hearth.models.engine.prompt import media_spans
from hearth.models.engine.resuming import Resumption
from hearth.models.engine.runner import Runner
from hearth.models.engine.scheduler import Chunk, MediaChunk, Scheduler, TokenChunk
from hearth.models.engine.sequence import Sequence
from hearth.models.engine.speculation import StepCosts
from hearth.models.engine.steady import MAX_STEPS, Lane, SteadyRun, Stretch, is_steady
from hearth.models.engine.threads import ThreadChoice
from hearth.models.errors import EngineError, HearthError
from hearth.models.llama_context import DecodeStatus
from hearth.models.types import FinishReason

logger = logging.getLogger("hearth.engine")

LONG_NODES_PER_LAYER = 4


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
        self._resumption = Resumption(self._disk if options.kv_resume else None, self._room, info.n_ctx)
        self._scheduler = Scheduler(
            max_running=min(options.n_parallel, options.n_kept),
            max_chunk_tokens=context.n_batch,
            interruptible=sliceable,
        )
        self._costs = StepCosts()
        self._threads = ThreadChoice(context.options.n_threads)
        self._preparation = Preparation(
            context,
            self._runner,
            self._cache,
            self._room,
            self._disk,
            self._costs,
            self._counters,
            self._fail,
            sliceable=sliceable,
            lookup=options.prompt_lookup and sliceable,
            draft_vocab=self._draft.n_vocab if self._draft is not None else 0,
        )

    def warm_up(self) -> None:
        """Before the first request: finds out what a token takes, and whether all threads are worth having."""
        if self._disk is not None:
            self._disk.warm_up()
        self._choose_threads()
        self._resumption.begin()

    def _choose_threads(self) -> None:
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
        is_saving = self._disk is not None and self._disk.has_work
        return self._scheduler.has_work or is_saving or self._resumption.is_on

    @property
    def _has_only_writes(self) -> bool:
        return self._disk is not None and self._disk.has_work and not self._scheduler.running

    def add(self, sequence: Sequence) -> None:
        """Queues a request."""
        self._resumption.asked(sequence.entries)
        self._scheduler.add(sequence)

    def forget(self, owner: str) -> int:
        """Deletes the saved KV blocks that only ``owner`` uses, and returns how many; its requests save no more."""
        for sequence in (*self._scheduler.running, *self._scheduler.waiting):
            if sequence.request.owner == owner:
                sequence.is_forgotten = True
        self._resumption.discard()  # it may be of that owner
        return self._disk.forget(owner) if self._disk is not None else 0

    def save_all(self) -> None:
        """Hands the store all that was planned to be saved."""
        if self._disk is not None:
            self._disk.finish()

    def shut_down(self) -> None:
        """Ends all requests, and saves what they came to."""
        self._resumption.discard()
        for sequence in list(self._scheduler.running):
            self._end(sequence, "cancelled")
        for sequence in self._scheduler.waiting:
            sequence.fail(EngineError("the engine was closed before this request began"))
        self._preparation.shut_down()
        self.save_all()

    def step(self, is_wanted: Callable[[], bool] | None = None) -> None:
        """Does a little of everything there is to do. Returns soon if the context's abort flag is set meanwhile.

        Steps in which nothing is to be decided may follow, until ``is_wanted()``.
        """
        if self._resumption.is_on:
            self._resumption.go_on()
            return
        started_s, native_s = time.perf_counter(), self._runner.native_s
        for sequence in list(self._scheduler.running):
            if sequence.cancelled:
                self._end(sequence, "cancelled")
        for sequence in self._scheduler.admit(self._has_room):
            self._preparation.begin(sequence)
        self._preparation.go_on(self._scheduler.running)
        draft_s = self._draft.guess_for(self._scheduler.running) if self._draft is not None else 0.0
        chunks = self._scheduler.schedule()
        if chunks:
            is_done = self._carry_out(chunks)
            in_native_s = self._runner.native_s - native_s + draft_s
            self._counters.step(time.perf_counter() - started_s, in_native_s, draft_s, chunks)
            is_idle = is_done and (self._disk is None or not self._disk.has_work)
            if is_wanted and is_idle and self._draft is None and is_steady(chunks, self._scheduler.running):
                self._go_on_steadily([chunk.sequence for chunk in self._runner.rows], is_wanted)
        if self._disk is not None and self._disk.has_work:
            self._disk.work(MAX_STEP_S)
        if not chunks and not self._preparation.wait(self._scheduler.running) and self._has_only_writes:
            time.sleep(MAX_STEP_S)  # the writers have not kept up

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
            "resumed_tokens": self._resumption.n_tokens,
        }

    def start_over(self, error: Exception) -> None:
        """After a step failed in a way that nobody foresaw: all requests end, nothing in the KV cache is trusted."""
        if self._disk is not None:
            self._disk.drop_saves()
        self._resumption.discard()
        self._fail(list(self._scheduler.running), error)
        while self._scheduler.waiting:
            self._scheduler.waiting.popleft().fail(EngineError(f"the engine failed ({error}); ask again"))
        self._room.clear()

    def _has_room(self, sequence: Sequence) -> bool:
        return self._room.is_enough(sequence.entries, len(self._scheduler.running))

    def _carry_out(self, chunks: list[Chunk]) -> bool:
        """Whether the decode came to its end."""
        sequences = [chunk.sequence for chunk in chunks]
        first = chunks[0]
        if isinstance(first, MediaChunk):
            error = first.sequence.embeddings[first.index].exception()
            if error is not None:
                self._fail(sequences, error)
                return False
        try:
            started_s = time.perf_counter()
            status, rows = self._runner.run(chunks)
            elapsed_s = time.perf_counter() - started_s
        except Exception as error:  # as above
            self._fail(sequences, error, forget=True)
            self._distrust_states(sequences)
            return False
        if status is DecodeStatus.DONE:
            self._note_costs(chunks, elapsed_s)
            for chunk, row in zip(chunks, rows, strict=True):
                try:
                    self._postprocess(chunk, row, elapsed_s)
                except Exception as error:  # as above
                    self._fail([chunk.sequence], error, forget=True)
            Sequence.send_all(sequences)
            return True
        self._undo(sequences)
        if status is DecodeStatus.NO_CELLS and not self._drop_guesses(chunks):
            self._make_room(sequences)
        else:
            self._distrust_states(sequences)
        return False

    def _go_on_steadily(self, sequences: list[Sequence], is_wanted: Callable[[], bool]) -> None:
        """Goes on with these answers, which the last step had by batch row, as long as there is nothing else to do."""
        n_steps = min(min(s.num_guessable, self._info.n_ctx - s.num_tokens - 1) for s in sequences)
        run = SteadyRun(self._runner, sequences, lambda token: self._model.generated_piece(token) is None)
        try:
            run.go_on(min(n_steps, MAX_STEPS), is_wanted, self._note)
        except Exception as error:  # as above
            self._fail([sequence for sequence in sequences if sequence.slot is not None], error, forget=True)
            self._distrust_states(sequences)
            return
        if run.status is not DecodeStatus.DONE:
            self._undo(sequences)
            if run.status is DecodeStatus.NO_CELLS:
                self._make_room(sequences)
            else:
                self._distrust_states(sequences)

    def _note(self, stretch: Stretch) -> bool:
        """Takes note of steady steps. False: not all of their answers go on."""
        lanes, elapsed_s = stretch.lanes, stretch.elapsed_s
        sequences = [lane.sequence for lane in lanes]
        depth = max(sequence.num_tokens for sequence in sequences)
        for step_s in elapsed_s:
            self._scheduler.answers_took(step_s)
            self._costs.measured(len(lanes), 0, step_s)
            if self._threads.measured(len(lanes), depth, step_s):
                self._set_threads()
        for lane in lanes:
            try:
                self._note_lane(lane)
            except Exception as error:  # as above
                self._fail([lane.sequence], error, forget=True)
        if elapsed_s:
            Sequence.send_all(sequences)
            spent_s = time.perf_counter() - stretch.started_s
            self._counters.steps(len(elapsed_s), spent_s, sum(elapsed_s), len(lanes))
        stretch.elapsed_s, stretch.started_s = [], time.perf_counter()
        return all(sequence.slot is not None and not sequence.cancelled for sequence in sequences)

    def _note_lane(self, lane: Lane) -> None:
        sequence, fed, sampled, error = lane.sequence, lane.fed, lane.sampled, lane.error
        lane.fed, lane.sampled, lane.error = [], [], None
        if fed:
            self._cache.extend(_slot(sequence), fed)
        reason: FinishReason | None = None
        for token in sampled:
            reason = self._add(sequence, token)
        if error is not None:
            raise error
        if reason is not None:
            self._end(sequence, reason)

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
            self._preparation.encode_ahead(sequence)
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
        return self._add(sequence, token)

    def _add(self, sequence: Sequence, token: int) -> FinishReason | None:
        """As ``_take``, where those who guess know already."""
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
        encoded_s = len(media_spans(slot.entries)) * self._preparation.encode_s
        return slot.n_tokens * (self._scheduler.prefill_token_s or 0.0) + encoded_s

    def _undo(self, sequences: list[Sequence]) -> None:
        """Takes back what a decode that did not finish left in the KV cache."""
        for sequence in sequences:
            if sequence.slot is not None:
                self._room.cut(sequence.slot, sequence.position(sequence.num_computed_entries))

    def _distrust_states(self, sequences: list[Sequence]) -> None:
        """Forgets all sequences of a recurrent model after a decode of several broke off: llama.cpp moves the states of
        others out of their way, and notes them as moved before they are. What runs is computed again."""
        if not self._sliceable and len(sequences) > 1:
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
