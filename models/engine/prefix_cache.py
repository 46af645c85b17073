"""Which tokens and pictures each KV sequence holds, and which sequence serves a new prompt best. Policy only."""

from __future__ import annotations

from dataclasses import dataclass, field

from hearth.models.engine.prompt import Entry, count_tokens

MIN_TAIL_TOKENS = 16  # a tail shorter than this is quicker computed again than kept in a sequence of its own


@dataclass(slots=True)
class CachedSequence:
    """One KV sequence. ``entries`` is exactly what it holds; idle ones may be evicted."""

    seq_id: int
    entries: list[Entry] = field(default_factory=list)
    last_used: int = 0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a prompt goes. The first ``n_matched`` entries are kept from ``source``, which is ``target`` itself when
    it is reused in place; a branch is copied. ``target`` loses everything else."""

    target: CachedSequence
    source: CachedSequence
    n_matched: int


class PrefixCache:
    """Longest common prefix over all sequences, least recently used eviction.

    A sequence is reused in place if little of it would be lost; otherwise the common prefix is branched into another
    one, so that both conversations stay warm. Only the engine's thread may call it.
    """

    def __init__(self, n_sequences: int, *, sliceable: bool = True) -> None:
        """``sliceable`` False: the model cannot forget a part (recurrent); only whole extensions are reused."""
        self.sequences = [CachedSequence(seq_id) for seq_id in range(n_sequences)]
        self._sliceable = sliceable
        self._clock = 0

    def place(self, entries: list[Entry]) -> Placement | None:
        """Chooses a sequence for a prompt and marks it busy; None if all are busy.

        At most ``len(entries) - 1`` entries match: the last one must be decoded to have logits. The caller makes the
        KV cache follow: copy if source is not target, then remove what stands behind the match in the target.
        """
        idle = [sequence for sequence in self.sequences if not sequence.busy]
        if not idle:
            return None
        source, n_matched = self._best_match(entries)
        if source is None:
            target = source = self._cheapest(idle)
        elif self._worth_branching(source, n_matched):
            others = [sequence for sequence in idle if sequence is not source]
            target = self._cheapest(others) if others else source
        else:
            target = source
        target.busy = True
        target.entries = list(entries[:n_matched])
        self._touch(target)
        self._touch(source)
        return Placement(target, source, n_matched)

    def release(self, sequence: CachedSequence) -> None:
        """The request is over; what the sequence holds may serve others or be evicted."""
        sequence.busy = False
        self._touch(sequence)

    def evict(self) -> CachedSequence | None:
        """Empties the least recently used idle sequence and returns it; None if there is none to empty."""
        idle = [sequence for sequence in self.sequences if not sequence.busy and sequence.entries]
        if not idle:
            return None
        oldest = min(idle, key=lambda sequence: sequence.last_used)
        oldest.entries = []
        return oldest

    def clear(self) -> None:
        """Forgets what all sequences hold (after the KV cache was cleared)."""
        for sequence in self.sequences:
            sequence.entries = []

    def _best_match(self, entries: list[Entry]) -> tuple[CachedSequence | None, int]:
        best, n_best = None, 0
        for sequence in self.sequences:
            n = min(common_prefix(sequence.entries, entries), len(entries) - 1)
            if not self._sliceable and (sequence.busy or n < len(sequence.entries)):
                continue
            # of equal matches the one that loses least, and never one in use if an idle one does as well
            if n > n_best or (n == n_best > 0 and best is not None and self._cost(sequence, n) < self._cost(best, n)):
                best, n_best = sequence, n
        return best, n_best

    @staticmethod
    def _cost(sequence: CachedSequence, n_matched: int) -> tuple[bool, int]:
        return sequence.busy, len(sequence.entries) - n_matched

    def _worth_branching(self, source: CachedSequence, n_matched: int) -> bool:
        return source.busy or count_tokens(source.entries[n_matched:]) >= MIN_TAIL_TOKENS

    @staticmethod
    def _cheapest(sequences: list[CachedSequence]) -> CachedSequence:
        return min(sequences, key=lambda sequence: (bool(sequence.entries), sequence.last_used))

    def _touch(self, sequence: CachedSequence) -> None:
        self._clock += 1
        sequence.last_used = self._clock


def common_prefix(a: list[Entry], b: list[Entry]) -> int:
    """How many entries are equal from the start."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low + 1 < high:  # a[:low] is equal, a[:high] is not; comparing slices is quick
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
