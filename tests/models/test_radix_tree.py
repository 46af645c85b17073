"""The radix tree against brute force over plain lists."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hearth.models.engine.prompt import Entry, MediaSpan
from hearth.models.engine.radix_tree import RadixTree, common_prefix

ENTRY = st.sampled_from([1, 2, MediaSpan("a", 3, 3), MediaSpan("b", 5, 5)])
ENTRIES = st.lists(ENTRY, max_size=8)
SEQUENCE = st.integers(0, 4)


@given(ENTRIES, ENTRIES)
def test_common_prefix(a: list[Entry], b: list[Entry]) -> None:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    assert common_prefix(a, b) == n


class TreeAgainstLists(RuleBasedStateMachine):
    """Every operation is done to the tree and to a dict of lists; every answer must be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.held: dict[int, list[Entry]] = {}

    @rule(seq_id=SEQUENCE, entries=ENTRIES)
    def extend(self, seq_id: int, entries: list[Entry]) -> None:
        self.tree.extend(seq_id, entries)
        self.held.setdefault(seq_id, []).extend(entries)

    @rule(seq_id=SEQUENCE, n=st.integers(0, 10))
    def truncate(self, seq_id: int, n: int) -> None:
        self.tree.truncate(seq_id, n)
        self.held[seq_id] = self.held.get(seq_id, [])[:n]

    @rule(seq_id=SEQUENCE)
    def remove(self, seq_id: int) -> None:
        self.tree.remove(seq_id)
        self.held.pop(seq_id, None)

    @rule(source=SEQUENCE, branched=SEQUENCE, n=st.integers(0, 10))
    def branch(self, source: int, branched: int, n: int) -> None:
        entries = self.held.get(source, [])[:n]
        self.tree.remove(branched)
        self.tree.extend(branched, entries)
        self.held[branched] = list(entries)

    @rule(wanted=ENTRIES)
    def match(self, wanted: list[Entry]) -> None:
        lengths = {seq_id: common_prefix(entries, wanted) for seq_id, entries in self.held.items()}
        best = max(lengths.values(), default=0)
        holders = {seq_id for seq_id, n in lengths.items() if n == best} if best else set()
        assert self.tree.match(wanted) == (best, holders)

    @invariant()
    def is_tidy_and_complete(self) -> None:
        self.tree.check()
        for seq_id, entries in self.held.items():
            assert self.tree.entries(seq_id) == entries


TestTreeAgainstLists = TreeAgainstLists.TestCase
TestTreeAgainstLists.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
