"""Which KV sequence serves a new prompt best, and which one goes when room is needed. Policy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hearth.models.engine.cell_count import CellRuns, count_cells
from hearth.models.engine.prompt import Entry, count_tokens
from hearth.models.engine.radix_tree import RadixTree, common_prefix

MIN_TAIL_TOKENS = 16  # a tail shorter than this is quicker computed again than kept in a sequence of its own
LONG_PREFIX_TOKENS = 4096  # at this depth a token costs about twice what the first one did: attention reads the prefix
ON_DISK_SHARE = 0.05  # what restoring a saved token costs, of computing it


@dataclass(slots=True, eq=False)
class CachedSequence:
    """One KV sequence. ``entries`` is exactly what it holds, in ``n_tokens`` cells; only PrefixCache changes it."""

    seq_id: int
    entries: list[Entry] = field(default_factory=list)
    n_tokens: int = 0
    cells: CellRuns = field(default_factory=CellRuns)
    busy: bool = False
    on_disk: bool = False  # all of it was saved: losing it costs a restore only
    is_ahead: bool = False  # what it holds came from disk before anybody asked
    last_used: int = 0
    worth: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a prompt goes. The first ``n_matched`` entries are kept from ``source``, which is ``target`` itself when
    it is reused in place; a branch is copied. ``target`` loses everything else, ``lost`` being what it held."""

    target: CachedSequence
    source: CachedSequence
    n_matched: int


class PrefixCache:
    """Longest common prefix over all sequences by a radix tree; eviction by GreedyDual-Size-Frequency's rule.

    A sequence is reused in place if little of it would be lost; otherwise the common prefix is branched into another
    one, so that both conversations stay warm. What goes first is what was least recently used, weighted by what a cell
    of it costs to compute again (Cherkasova 1998; deep cells cost more, saved ones hardly anything). Only the engine's
    thread may call it.
    """

    def __init__(self, n_sequences: int, *, sliceable: bool = True) -> None:
        """``sliceable`` False: the model cannot forget a part (recurrent); only whole extensions are reused, in a copy
        while there is room for one."""
        self.sequences = [CachedSequence(seq_id) for seq_id in range(n_sequences)]
        self.tree = RadixTree()
        self._sliceable = sliceable
        self._clock = 0
        self._age = 0.0  # the worth of what was evicted last: newcomers start from there

    def choose(self, entries: Sequence[Entry]) -> Placement | None:
        """What ``place`` would do, without doing it."""
        idle = [sequence for sequence in self.sequences if not sequence.busy]
        if not idle:
            return None
        source, n_matched = self._best_match(entries)
        if source is None:
            target = source = self._cheapest(idle)
        elif not self._sliceable:
            target = self._spare(source, idle) or source
        elif self._worth_branching(source, n_matched):
            others = [sequence for sequence in idle if sequence is not source]
            target = self._cheapest(others) if others else source
        else:
            target = source
        return Placement(target, source, n_matched)

    def place(self, entries: Sequence[Entry]) -> Placement | None:
        """Chooses a sequence for a prompt and marks it busy; None if all are busy.

        At most ``len(entries) - 1`` entries match: the last one must be decoded to have logits. The caller makes the
        KV cache follow: copy if source is not target, then remove what stands behind the match in the target.
        """
        placement = self.choose(entries)
        if placement is None:
            return None
        target, n_matched = placement.target, placement.n_matched
        target.busy = True
        is_ahead, placement.source.is_ahead = placement.source.is_ahead, False
        target.is_ahead = is_ahead and n_matched > 0
        if placement.source is target and n_matched:
            self.truncate(target, n_matched)
        else:
            self.evicted(target)
            self.extend(target, entries[:n_matched])
            target.cells.share(placement.source.cells, target.n_tokens)
        self._touch(target)
        self._touch(placement.source)
        return placement

    def extend(self, sequence: CachedSequence, entries: Sequence[Entry]) -> None:
        """Notes that ``entries`` were added to the sequence."""
        n_tokens = count_tokens(entries)
        sequence.entries.extend(entries)
        sequence.n_tokens += n_tokens
        sequence.cells.take(n_tokens)
        sequence.on_disk = False
        self.tree.extend(sequence.seq_id, entries)

    def truncate(self, sequence: CachedSequence, n_entries: int) -> None:
        """Notes that only the first ``n_entries`` are left."""
        if n_entries < len(sequence.entries):
            sequence.n_tokens -= count_tokens(sequence.entries[n_entries:])
            del sequence.entries[n_entries:]
            sequence.cells.keep(sequence.n_tokens)
            self.tree.truncate(sequence.seq_id, n_entries)

    def clear(self, sequence: CachedSequence) -> None:
        """Notes that a sequence is empty."""
        self.truncate(sequence, 0)

    def release(self, sequence: CachedSequence, *, ahead: bool = False) -> None:
        """The request is over; what the sequence holds may serve others or be evicted. ``ahead``: there was no request,
        and it came from disk."""
        sequence.busy = False
        sequence.is_ahead = ahead
        sequence.on_disk |= ahead
        self._touch(sequence)

    def count_ahead(self, sequence: CachedSequence) -> int:
        """The tokens of a sequence that was just placed which came from disk before anybody asked. To be asked once."""
        is_ahead, sequence.is_ahead = sequence.is_ahead, False
        return sequence.n_tokens if is_ahead else 0

    def next_victim(self) -> CachedSequence | None:
        """The idle sequence whose loss costs least for the room it gives; None if there is none."""
        idle = [sequence for sequence in self.sequences if not sequence.busy and sequence.entries]
        n_held = self.cells_held()
        giving = [
            one for one in idle if n_held > self._count_cells(other for other in self.sequences if other is not one)
        ]
        return min(giving or idle, key=self._order, default=None)

    def evicted(self, sequence: CachedSequence) -> None:
        """Notes that a sequence lost what it held to another."""
        if sequence.entries:
            self._age = max(self._age, sequence.worth)
        self.clear(sequence)

    def cells_in_use(self) -> int:
        """KV cells of busy sequences; those of idle ones can be had."""
        return self._count_cells(sequence for sequence in self.sequences if sequence.busy)

    def cells_held(self) -> int:
        """KV cells of all sequences, shared ones counted once."""
        return self._count_cells(self.sequences)

    def cells_needed(self, entries: Sequence[Entry]) -> int:
        """KV cells that ``entries`` take beside those of busy sequences that they share a prefix with."""
        n_matched, holders = self.tree.match(entries)
        shared = n_matched if any(self.sequences[seq_id].busy for seq_id in holders) else 0
        return count_tokens(entries[shared:])

    def check(self) -> None:
        """Raises AssertionError if the tree does not hold what the sequences do."""
        self.tree.check()
        for sequence in self.sequences:
            assert self.tree.entries(sequence.seq_id) == sequence.entries, f"sequence {sequence.seq_id} differs"
            assert sequence.n_tokens == count_tokens(sequence.entries), f"sequence {sequence.seq_id} is miscounted"
            assert count_cells([sequence.cells]) == sequence.n_tokens, f"cells of sequence {sequence.seq_id} are lost"

    def _best_match(self, entries: Sequence[Entry]) -> tuple[CachedSequence | None, int]:
        if not self._sliceable:
            return self._best_whole(entries)
        n_matched, holders = self.tree.match(entries[:-1])
        if not n_matched:
            return None, 0
        candidates = (self.sequences[seq_id] for seq_id in holders)
        # the one that loses least, and never one in use if an idle one does as well
        return min(candidates, key=lambda sequence: self._cost(sequence, n_matched)), n_matched

    def _best_whole(self, entries: Sequence[Entry]) -> tuple[CachedSequence | None, int]:
        fitting = [
            sequence
            for sequence in self.sequences
            if not sequence.busy
            and 0 < len(sequence.entries) < len(entries)
            and common_prefix(sequence.entries, entries) == len(sequence.entries)
        ]
        best = max(fitting, key=lambda sequence: len(sequence.entries), default=None)
        return best, len(best.entries) if best is not None else 0

    @staticmethod
    def _count_cells(sequences: Iterable[CachedSequence]) -> int:
        return count_cells(sequence.cells for sequence in sequences)

    @staticmethod
    def _cost(sequence: CachedSequence, n_matched: int) -> tuple[bool, int, int]:
        return sequence.busy, len(sequence.entries) - n_matched, sequence.seq_id

    def _worth_branching(self, source: CachedSequence, n_matched: int) -> bool:
        return source.busy or count_tokens(source.entries[n_matched:]) >= MIN_TAIL_TOKENS

    @staticmethod
    def _spare(source: CachedSequence, idle: Iterable[CachedSequence]) -> CachedSequence | None:
        """Where a copy of a state that cannot be cut goes on, so that the state itself stays for another try at the
        answer: an empty sequence, or the one with the oldest state of the same chat."""
        fitting = [one for one in idle if one is not source and one.entries == source.entries[: len(one.entries)]]
        return min(fitting, key=lambda sequence: len(sequence.entries), default=None)

    def _cheapest(self, sequences: Iterable[CachedSequence]) -> CachedSequence:
        return min(sequences, key=lambda sequence: (bool(sequence.entries), *self._order(sequence)))

    @staticmethod
    def _order(sequence: CachedSequence) -> tuple[float, int]:
        return sequence.worth, sequence.last_used

    def _touch(self, sequence: CachedSequence) -> None:
        self._clock += 1
        sequence.last_used = self._clock
        share = ON_DISK_SHARE if sequence.on_disk else 1.0
        sequence.worth = self._age + share * (1 + len(sequence.entries) / LONG_PREFIX_TOKENS)
