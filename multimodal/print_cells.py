"""From what the reader of print says of its cells to characters: one for each that is there, wherever its cell is."""

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
CELL_PX = 8
CELL_SLOTS = 2  # characters that a cell may hold, from left to right
N_SAID = 3 + len(CHARACTERS)  # of each: no character or which, whether a word begins with it, how large it is
_THIN = "fIijlrt1.,:;-'/()!"
_HINT, _SEEN = 0.02, 0.4  # how many characters a place must hold on average to be looked at, and to hold one
_SIZES_PX = 4.0, 200.0  # of fonts
_ONE = 1.3  # neighbours that hold less together hold one character
# in sizes of the font:
_REACH = 0.3  # from a character's likeliest cell to others that it may lie in
_APART, _THIN_APART = 0.3, 0.2  # between two of the same characters at least, and between two thin ones


@dataclass(frozen=True)
class Printed:
    """A character, the middle of it and the size of its font in pixels of the canvas, and whether it begins a word.

    ``chances`` are those of each of ``CHARACTERS``, where it is not sure.
    """

    character: str
    x: float
    y: float
    begins: bool
    size: float = 12.0
    chances: Array | None = field(default=None, repr=False, compare=False)


@dataclass(eq=False)
class _Hint:
    """How likely each character is at a place, (len(CHARACTERS),), and how likely a word begins there."""

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
        return CHARACTERS[self.chances.argmax()]

    def far(self, other: _Hint) -> float:
        """In pixels."""
        return math.hypot(self.x - other.x, self.y - other.y)


def characters_of(said: Array) -> list[Printed]:
    """The characters on a canvas in no order; ``said`` by the reader is (CELL_SLOTS, N_SAID, rows, columns)."""
    return [
        Printed(hint.character, hint.x, hint.y, hint.begins > 0.5, hint.size, hint.chances)
        for hint in _apart([hint for hint in _joined(_hints(said)) if hint.sure > _SEEN])
    ]


def _hints(said: Array) -> list[_Hint]:
    characters = said[:, :-2].astype(np.float32)
    chances = np.exp(characters - characters.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    begins = 1 / (1 + np.exp(-said[:, -2]))
    sizes = np.exp(said[:, -1].clip(*np.log(_SIZES_PX)))
    slots = len(said)
    return [
        _Hint(
            chances[slot, 1:, row, column],
            (column + (slot + 1) / (slots + 1)) * CELL_PX,
            (row + 0.5) * CELL_PX,
            float(begins[slot, row, column]),
            float(sizes[slot, row, column]),
        )
        for slot, row, column in np.argwhere(1 - chances[:, 0] > _HINT).tolist()
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
    """Without what lies nearer to a surer one of the same kind than two such characters can."""
    neighbours = _Neighbours(hints)
    return [
        hint
        for hint in hints
        if not any(
            other.sure > hint.sure and other.character.lower() == hint.character.lower()
            for other in neighbours.within(hint, (_THIN_APART if hint.character in _THIN else _APART) * hint.size)
        )
    ]
