"""From what the reader of print says of its cells to characters: one for each that is there, wherever its cell is.

It says where the bars of a chart end, too: what they tell stands there as well as if it were printed.
"""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
CHARACTERS = string.ascii_letters + string.digits + ".,:;-+'&%/()!?#€$"
BARS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black")  # bars of a chart
SAID: tuple[str, ...] = (*CHARACTERS, *BARS)
CELL_PX = 8
CELL_SLOTS = 2  # characters that a cell may hold, from left to right
N_SAID = 4 + len(SAID)  # of each: nothing or which, whether a word begins with it, its size, where in it a bar ends
_THIN = "fIijlrt1.,:;-'/()!"
_HINT, _SEEN = 0.02, 0.22  # how many characters a place must hold on average to be looked at, and to hold one
_EDGE_SEEN = 0.3  # the same for a cell of a bar's upper edge
_EDGE_PX = 5.0  # of which the next lies higher or lower by at most
_SIZES_PX = 4.0, 200.0  # of fonts
_DOUBLE_SURE = 0.75  # how many characters the less sure one of two alike must hold
_ONE = 1.3  # neighbours that hold less together hold one character
# in sizes of the font:
_REACH = 0.3  # from a character's likeliest cell to others that it may lie in
_APART, _THIN_APART = 0.3, 0.2  # between two of the same characters at least, and between two thin ones
_DOUBLE_APART = 0.6  # and between two if one of them is not sure


@dataclass(frozen=True)
class Printed:
    """A character, the middle of it and the size of its font in pixels of the canvas, and whether it begins a word.

    Or a bar by its colour, one of ``BARS``, and the middle of its end; or a word of a list of places. ``chances`` are
    those of each of ``SAID``, where it is not sure.
    """

    character: str
    x: float
    y: float
    begins: bool
    size: float = 12.0
    chances: Array | None = field(default=None, repr=False, compare=False)

    @property
    def sure(self) -> float:
        """How likely it is what it is taken for."""
        return 1.0 if self.chances is None else float(self.chances.max())


@dataclass(eq=False)
class _Hint:
    """How likely each of ``SAID`` is at a place, (len(SAID),), and how likely a word begins there."""

    chances: Array
    x: float
    y: float
    begins: float
    size: float

    @functools.cached_property
    def sure(self) -> float:
        """How many characters lie there, on average."""
        return float(self.chances.sum())

    @functools.cached_property
    def character(self) -> str:
        return SAID[int(self.chances.argmax())]

    def far(self, other: _Hint) -> float:
        """In pixels."""
        return math.hypot(self.x - other.x, self.y - other.y)


def characters_of(said: Array) -> list[Printed]:
    """What is on a canvas, in no order; ``said`` by the reader is (CELL_SLOTS, N_SAID, rows, columns)."""
    logits = said[:, :-3].astype(np.float32)
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances = chances[:, 1:] / chances.sum(1, keepdims=True)
    # bars end near what is printed over them, and are no part of it
    is_bar = np.arange(len(SAID))[:, None, None] >= len(CHARACTERS)
    hints = _hints(said, np.where(is_bar, 0, chances))
    characters = [
        Printed(hint.character, hint.x, hint.y, hint.begins > 0.5, hint.size, hint.chances)
        for hint in _apart([hint for hint in _joined(hints) if hint.sure > _SEEN])
    ]
    return characters + _bars(said, np.where(is_bar, chances, 0))


def _bars(said: Array, chances: Array) -> list[Printed]:
    """By their upper edges, each of which lies on a row of cells; the first of them begins it. ``chances`` are
    (CELL_SLOTS, len(SAID), rows, columns).
    """
    sure = chances.sum(1)
    cells = sure.sum(0)
    begins = 1 / (1 + np.exp(-said[:, -3]))
    edges: list[list[_Edge]] = []
    for row, column in sorted(np.argwhere(cells > _EDGE_SEEN).tolist(), key=lambda at: at[1]):
        weights = sure[:, row, column] / cells[row, column]
        down, begun = (float(weights @ part[:, row, column]) for part in (said[:, -1].clip(0.0, 1.0), begins))
        cell = _Edge(chances[:, :, row, column].sum(0), column, (row + down) * CELL_PX)
        near = [edge for edge in edges if cell.continues(edge[-1])]
        if near and (begun <= 0.5 or near[-1][-1].column == column):
            near[-1].append(cell)
        else:
            edges.append([cell])
    return [_bar(edge) for edge in edges]


@dataclass(frozen=True, eq=False)
class _Edge:
    """A cell with a part of a bar's upper edge, which lies at the height ``y``: how likely each of ``SAID`` is."""

    chances: Array
    column: int
    y: float

    @property
    def sure(self) -> float:
        return float(self.chances.sum())

    def continues(self, other: _Edge) -> bool:
        """It goes on from ``other``, or with one cell between that was not seen."""
        return self.column - other.column <= 2 and abs(self.y - other.y) <= _EDGE_PX


def _bar(edge: list[_Edge]) -> Printed:
    weights = np.array([cell.sure for cell in edge])
    x, y = weights @ np.array([((cell.column + 0.5) * CELL_PX, cell.y) for cell in edge]) / weights.sum()
    chances = np.sum([cell.chances for cell in edge], axis=0) / len(edge)
    return Printed(SAID[int(chances.argmax())], float(x), float(y), begins=True, chances=chances)


def _hints(said: Array, chances: Array) -> list[_Hint]:
    """Where there may be a character, by ``chances`` (CELL_SLOTS, len(SAID), rows, columns)."""
    begins = 1 / (1 + np.exp(-said[:, -3]))
    sizes = np.exp(said[:, -2].clip(*np.log(_SIZES_PX)))
    slots = len(said)
    return [
        _Hint(
            chances[slot, :, row, column],
            (column + (slot + 1) / (slots + 1)) * CELL_PX,
            (row + 0.5) * CELL_PX,
            float(begins[slot, row, column]),
            float(sizes[slot, row, column]),
        )
        for slot, row, column in np.argwhere(chances.sum(1) > _HINT).tolist()
    ]


class _Neighbours:
    """Finds hints near a place without looking at all of them."""

    def __init__(self, hints: Sequence[_Hint]) -> None:
        self._blocks: dict[tuple[int, int], list[_Hint]] = {}
        for hint in hints:
            self._blocks.setdefault(self._block(hint.x, hint.y), []).append(hint)

    def within(self, hint: _Hint, reach_px: float) -> list[_Hint]:
        """The nearest first, ``hint`` among them."""
        (left, top), (right, bottom) = (
            self._block(hint.x + side * reach_px, hint.y + side * reach_px) for side in (-1, 1)
        )
        around = (
            other
            for column in range(left, right + 1)
            for row in range(top, bottom + 1)
            for other in self._blocks.get((column, row), ())
        )
        far = [(hint.far(other), at, other) for at, other in enumerate(around)]
        return [other for distance, _, other in sorted(far) if distance <= reach_px]

    @staticmethod
    def _block(x: float, y: float) -> tuple[int, int]:
        return int(x // (2 * CELL_PX)), int(y // (2 * CELL_PX))


def _joined(hints: list[_Hint]) -> list[_Hint]:
    """Where the cell of a character is not clear, each has a part of it: as many neighbours as make one become it."""
    neighbours = _Neighbours(hints)
    found: list[_Hint] = []
    used: set[int] = set()
    for first in sorted(hints, key=lambda hint: hint.sure, reverse=True):
        if id(first) in used:
            continue
        parts, total = [first], first.sure
        for hint in neighbours.within(first, max(1.5 * CELL_PX, _REACH * first.size)):
            if hint is not first and id(hint) not in used and total + hint.sure < _ONE:
                parts.append(hint)
                total += hint.sure
        used |= set(map(id, parts))
        x, y, begins, size = (
            sum(part.sure * value for part, value in zip(parts, values, strict=True)) / total
            for values in zip(*((part.x, part.y, part.begins, part.size) for part in parts), strict=True)
        )
        found.append(_Hint(np.sum([part.chances for part in parts], axis=0), x, y, begins, size))
    return found


def _apart(hints: list[_Hint]) -> list[_Hint]:
    """Without what lies nearer to a surer one of the same kind than two such characters can, or than two do of which
    one is not sure: where the middle of a large character is not clear, it is seen twice.
    """
    neighbours = _Neighbours(hints)

    def doubled(hint: _Hint, other: _Hint) -> bool:
        if other.sure <= hint.sure or other.character.lower() != hint.character.lower():
            return False
        apart = _THIN_APART if hint.character in _THIN else _APART
        return hint.far(other) <= (apart if hint.sure > _DOUBLE_SURE else _DOUBLE_APART) * hint.size

    return [
        hint
        for hint in hints
        if not any(doubled(hint, other) for other in neighbours.within(hint, _DOUBLE_APART * hint.size))
    ]
