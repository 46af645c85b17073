"""What a request needs before its prompt is read: a place in the KV cache, what is saved of it, a sampler, pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Any, Protocol

from hearth.models.engine.counters import EngineCounters
from hearth.models.engine.disk_cache import DiskCache
from hearth.models.engine.kv_room import KvRoom
from hearth.models.engine.prefix_cache import PrefixCache
from hearth.models.engine.runner import Runner
from hearth.models.engine.sampler import TokenSampler
from hearth.models.engine.sequence import Sequence
from hearth.models.engine.speculation import Speculation, StepCosts
from hearth.models.types import CacheReport, MediaEmbeddings

if TYPE_CHECKING:
    from hearth.models.llama_context import LlamaContext

MAX_BACKGROUND_WAIT_S = 0.02  # how long a cancel may go unnoticed while a picture is encoded or a block read


class Fail(Protocol):
    """Ends requests with an error; with ``forget``, what they have in the KV cache is not trusted either."""

    def __call__(self, sequences: list[Sequence], error: BaseException, *, forget: bool = False) -> None: ...


class Preparation:
    """Used by the engine's thread only. An error belongs to its request, which ``fail`` ends; the thread goes on."""

    def __init__(
        self,
        context: LlamaContext,
        runner: Runner,
        cache: PrefixCache,
        room: KvRoom,
        disk: DiskCache | None,
        costs: StepCosts,
        counters: EngineCounters,
        fail: Fail,
        *,
        sliceable: bool,
        lookup: bool,
        draft_vocab: int,
    ) -> None:
        """``lookup``: answers are guessed from what stood before; ``draft_vocab``: tokens that a draft model knows."""
        self._context = context
        self._runner = runner
        self._cache = cache
        self._room = room
        self._disk = disk
        self._costs = costs
        self._counters = counters
        self._fail = fail
        self._sliceable = sliceable
        self._lookup = lookup
        self._draft_vocab = draft_vocab
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="hearth-encode")
        self.encode_s = 0.0  # what the last picture took

    def shut_down(self) -> None:
        """Encodes no more pictures."""
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def begin(self, sequence: Sequence) -> None:
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
                n_ahead = self._cache.count_ahead(slot)
                sequence.found = CacheReport(slot.n_tokens - n_ahead, n_ahead)
                if self._lookup or self._draft_vocab:
                    sequence.speculation = Speculation(
                        seen,
                        self._costs,
                        lookup=self._lookup,
                        draft_vocab=self._draft_vocab,
                        greedy=sampling.temperature == 0,
                    )
            if sequence.restore is None:
                self._begin_prefill(sequence)
        except Exception as error:  # whatever it is, it belongs to this request; the thread goes on
            self._fail([sequence], error)

    def go_on(self, running: list[Sequence]) -> None:
        """Loads a little more of what is saved of those that run."""
        for sequence in [one for one in running if one.restore is not None]:
            restore, slot = sequence.restore, sequence.slot
            assert self._disk is not None
            assert restore is not None
            assert slot is not None
            try:
                alone = len(running) == 1
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
        self.encode_ahead(sequence)

    def _why_no_more(self, n_found: int) -> str:
        if self._sliceable:
            return f"what is cached differs or ends after {n_found:,} tokens" if n_found else "nothing is cached"
        longest = f"the longest that it begins with has {n_found:,} tokens" if n_found else "it begins with none"
        return f"this model's state cannot be cut, so that only whole checkpoints serve a prompt: {longest}"

    def encode_ahead(self, sequence: Sequence) -> None:
        """Has the next picture of a prompt encoded while the text before it is read."""
        done = sequence.num_computed_entries
        index = next((index for index in sequence.prompt.media if index >= done), None)
        if index is not None and index not in sequence.embeddings:
            media = sequence.prompt.media[index]

            def encode() -> MediaEmbeddings:
                embeddings, elapsed_s = self._runner.embed(media, lambda: sequence.cancelled)
                sequence.encode_s += elapsed_s
                self.encode_s = elapsed_s
                return embeddings

            sequence.embeddings[index] = self._encoder.submit(encode)

    def wait(self, running: Iterable[Sequence]) -> bool:
        """Sleeps until a picture is encoded or a block read. False: nobody waits for one."""
        futures: list[Future[Any]] = []
        for sequence in running:
            if sequence.restore is not None:
                futures += list(sequence.restore.reading)[:1]
            else:
                futures += [future for future in sequence.embeddings.values() if not future.done()]
        if futures:
            wait_for(futures, MAX_BACKGROUND_WAIT_S, "FIRST_COMPLETED")
        return bool(futures)
