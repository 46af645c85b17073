"""How many KV cells sequences take together, against cells that are told apart one by one."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hearth.models.engine.cell_count import CellRuns, count_cells

SEQUENCE = st.integers(0, 3)
CELLS = st.integers(0, 6)


class Cells(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runs = [CellRuns() for _ in range(4)]
        self.cells: list[list[int]] = [[] for _ in range(4)]
        self.numbers = count()

    @rule(at=SEQUENCE, n=CELLS)
    def take(self, at: int, n: int) -> None:
        self.runs[at].take(n)
        self.cells[at] += [next(self.numbers) for _ in range(n)]

    @rule(at=SEQUENCE, n=st.integers(0, 20))
    def keep(self, at: int, n: int) -> None:
        self.runs[at].keep(n)
        self.cells[at] = self.cells[at][:n]

    @rule(at=SEQUENCE, source=SEQUENCE, n=st.integers(0, 20))
    def share(self, at: int, source: int, n: int) -> None:
        self.runs[at].share(self.runs[source], n)
        self.cells[at] = self.cells[source][:n]

    @invariant()
    def as_many_as_there_are(self) -> None:
        for chosen in ((0, 1, 2, 3), (0, 2), (1, 3), (2,)):
            there = {cell for at in chosen for cell in self.cells[at]}
            assert count_cells(self.runs[at] for at in chosen) == len(there)


TestCells = Cells.TestCase
TestCells.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
