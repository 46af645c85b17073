"""How many KV cells sequences take together, when some hold the same cells.

Tokens do not tell: two answers to the same question may be the same, and each has cells of its own. What tells is who
took them. Cells that one sequence took one after another are a run; whoever branches from it shares a beginning of its
runs. So of each run as many cells are taken as the sequence has that holds most of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count


class CellRuns:
    """The cells of one sequence, as beginnings of runs."""

    __slots__ = ("_is_open", "_runs")
    _numbers = count()

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []  # number of the run, cells of it
        self._is_open = False  # whether the last run is its own, and ends with it

    def take(self, n_cells: int) -> None:
        """``n_cells`` more that nobody else has."""
        if not n_cells:
            return
        if self._is_open:
            number, n_before = self._runs.pop()
            self._runs.append((number, n_before + n_cells))
        else:
            self._runs.append((next(self._numbers), n_cells))
            self._is_open = True

    def keep(self, n_cells: int) -> None:
        """Only the first ``n_cells``."""
        self._runs = _beginning(self._runs, n_cells)
        self._is_open = False

    def share(self, other: CellRuns, n_cells: int) -> None:
        """The first ``n_cells`` of another sequence, in place of its own."""
        self._runs = _beginning(other._runs, n_cells)
        self._is_open = False


def count_cells(sequences: Iterable[CellRuns]) -> int:
    """Of all ``sequences`` together."""
    most: dict[int, int] = {}
    for sequence in sequences:
        for number, n_cells in sequence._runs:
            most[number] = max(n_cells, most.get(number, 0))
    return sum(most.values())


def _beginning(runs: Iterable[tuple[int, int]], n_cells: int) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for number, n_of_run in runs:
        if n_cells <= 0:
            break
        kept.append((number, min(n_of_run, n_cells)))
        n_cells -= n_of_run
    return kept
