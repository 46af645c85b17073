"""Where sequences lie in the KV cache: what PrefixCache decides, carried out on the cells."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.models.engine.disk_cache import DiskCache
from hearth.models.engine.kv_cells import KvCells
from hearth.models.engine.prefix_cache import CachedSequence, PrefixCache
from hearth.models.engine.prompt import Entry, count_positions, is_end
from hearth.models.errors import EngineError

RESERVED_CELLS = 64  # kept free for the answer of every running request when another is let in


class KvRoom:
    """Keeps the cells and what the prefix cache believes of them the same. What goes is saved before, if it was not.

    ``n_shared_cells`` is how many the sequences have together, None if each has its own. Only the engine's thread may
    call it.
    """

    def __init__(self, cells: KvCells, cache: PrefixCache, disk: DiskCache | None, n_shared_cells: int | None) -> None:
        self._cells = cells
        self._cache = cache
        self._disk = disk
        self._n_shared_cells = n_shared_cells

    def is_enough(self, entries: Sequence[Entry], n_running: int) -> bool:
        """Whether another request can be let in beside ``n_running``, if need be in place of idle sequences."""
        if self._n_shared_cells is None:
            return True
        needed = self._cache.cells_in_use() + self._cache.cells_needed(entries)
        return needed + RESERVED_CELLS * (n_running + 1) <= self._n_shared_cells

    def place(self, entries: Sequence[Entry]) -> CachedSequence:
        """A KV sequence for a prompt, with as much of it as is there already, to be released in the end.

        Raises EngineError if all are busy.
        """
        choice = self._cache.choose(entries)
        if choice is None:
            raise EngineError("more requests run than there are KV sequences")
        if self._disk is not None:
            self._disk.settle(choice.target)
        placement = self._cache.place(entries)
        assert placement is not None
        slot, n_matched = placement.target, placement.n_matched
        try:
            if not self._cells.place(placement.source.seq_id, slot.seq_id, count_positions(entries[:n_matched])):
                self._cache.clear(slot)
        except BaseException:  # nobody else knows of it yet
            self.distrust(slot)
            self.release(slot)
            raise
        return slot

    def free(self, n_cells: int) -> None:
        """Evicts idle sequences until ``n_cells`` are free, as far as there are idle ones."""
        if self._n_shared_cells is None:
            return
        while self._n_shared_cells - self._cache.cells_held() < n_cells and self.evict_idle():
            pass

    def evict_idle(self) -> bool:
        """Evicts the idle sequence whose loss costs least. False: there is none."""
        victim = self._cache.next_victim()
        if victim is not None:
            self.evict(victim)
        return victim is not None

    def evict(self, slot: CachedSequence) -> None:
        if self._disk is not None:
            self._disk.settle(slot)
        self._cells.forget(slot.seq_id)
        self._cache.evicted(slot)

    def cut(self, slot: CachedSequence, position: int) -> None:
        """Removes from ``position`` on what was decoded and not noted; everything where that is not possible."""
        if not self._cells.truncate(slot.seq_id, position):
            self._cache.clear(slot)

    def distrust(self, slot: CachedSequence) -> None:
        """Forgets a sequence that may hold something else than is believed."""
        self._cells.forget(slot.seq_id)
        self._cache.clear(slot)

    def release(self, slot: CachedSequence, *, ahead: bool = False) -> None:
        """Its request is over; what it holds stays for later prompts. ``ahead``: see PrefixCache."""
        self._cells.drop_load(slot.seq_id)
        self._cache.release(slot, ahead=ahead)

    def clear(self) -> None:
        """Forgets everything, without saving."""
        self._cells.clear()
        for slot in self._cache.sequences:
            self._cache.clear(slot)

    def check(self) -> None:
        """Compares what the prefix cache believes with the KV cache. Raises EngineError if they differ."""
        try:
            self._cache.check()
        except AssertionError as error:
            raise EngineError(f"the prefix cache has lost count: {error}") from error
        for slot in self._cache.sequences:
            n_believed, n_held = count_positions(slot.entries), self._cells.num_positions(slot.seq_id)
            if not is_end(slot.entries, n_believed, n_held):
                raise EngineError(f"KV sequence {slot.seq_id} holds {n_held} positions, {n_believed} were expected")
