"""From what the reader of print says of its cells to characters in reading order, and to the tokens that tell them.

The characters of a picture follow its other visual tokens one by one, as letters do in a text: what is printed is then
copied as what is written is. There are as many tokens in every picture, so that its size tells their number.
"""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hearth.multimodal.views import Frame, anchor_weights

Array = NDArray[np.float32]
CHARACTERS = string.ascii_letters + string.digits + ".,:;-+'&%/()!?#€$"
CELL_PX = 8
CELL_SLOTS = 2  # characters that a cell may hold, from left to right
N_SAID = 3 + len(CHARACTERS)  # of each: no character or which, whether a word begins with it, how large it is
PRINT_TOKENS = 40  # of a picture; what is printed behind them is not told
_HINT, _SEEN = 0.02, 0.4  # how many characters a place must hold on average to be looked at, and to hold one
_SIZES_PX = 4.0, 400.0  # of fonts
_ONE = 1.3  # neighbours that hold less together hold one character
# in sizes of the font:
_REACH = 0.3  # from a character's likeliest cell to others that it may lie in
_APART = 0.25  # between two characters at least
_NEXT = 2.0  # to the next character of a word at most
_RISE = 0.7  # how far up or down that may lie
_LINE, _LINE_SLOPE = 0.5, 0.12  # the same for words of a line: at all, and by their distance


@dataclass(frozen=True)
class Printed:
    """A character, the middle of it and the size of its font in pixels of the canvas, and whether it begins a word."""

    character: str
    x: float
    y: float
    begins: bool
    size: float = 12.0


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


def printed(said: Array) -> list[Printed]:
    """The characters on a canvas in reading order; ``said`` by the reader is (CELL_SLOTS, N_SAID, rows, columns)."""
    return in_reading_order(
        Printed(hint.character, hint.x, hint.y, hint.begins > 0.5, hint.size)
        for hint in _apart([hint for hint in _joined(_hints(said)) if hint.sure > _SEEN])
    )


def in_reading_order(characters: Iterable[Printed]) -> list[Printed]:
    """Word by word and line by line."""
    return [character for word in _in_lines(_words(characters)) for character in word]


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
        return sorted((other for other in around if hint.far(other) <= reach_px), key=hint.far)

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
            for other in neighbours.within(hint, _APART * hint.size)
        )
    ]


def _words(characters: Iterable[Printed]) -> list[list[Printed]]:
    """Each begins where the reader says so, or where no character stands before."""
    words: list[list[Printed]] = []
    for character in sorted(characters, key=lambda one: one.x):
        near = [
            (character.x - word[-1].x, at)
            for at, word in enumerate(words)
            if character.x - word[-1].x < _NEXT * character.size
            and abs(character.y - word[-1].y) < _RISE * character.size
        ]
        if near and not character.begins:
            words[min(near)[1]].append(character)
        else:
            words.append([replace(character, begins=True)])
    return words


def _in_lines(words: list[list[Printed]]) -> list[list[Printed]]:
    """Line by line from the top, each from the left."""
    lines: list[list[list[Printed]]] = []
    for word in sorted(words, key=lambda word: word[0].x):
        first = word[0]
        near = [
            (abs(first.y - line[-1][-1].y), at)
            for at, line in enumerate(lines)
            if abs(first.y - line[-1][-1].y) < _LINE * first.size + _LINE_SLOPE * (first.x - line[-1][-1].x)
        ]
        if near:
            lines[min(near)[1]].append(word)
        else:
            lines.append([word])
    lines.sort(key=lambda line: np.mean([character.y for word in line for character in word]))
    return [word for line in lines for word in line]


class PrintTokens:
    """What characters and their places add to visual tokens."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        """``weights`` as ``hearth.multimodal.letters.PrintVectors`` names them; KeyError if one is missing."""
        self._characters, self._begins, self._places = (weights[name] for name in ("characters", "begins", "places"))

    def tokens(self, characters: list[Printed], frame: Frame) -> Array:
        """Visual tokens of the first ``PRINT_TOKENS`` characters on a canvas, and empty ones behind them."""
        tokens = np.tile(self._characters[0], (PRINT_TOKENS, 1))
        told = characters[:PRINT_TOKENS]
        if told:
            middles = np.array([(one.x, one.y) for one in told], np.float32)
            indices = [CHARACTERS.index(one.character) + 1 for one in told]
            begins = np.array([[one.begins] for one in told], np.float32)
            places = anchor_weights(*frame.in_square(middles[:, 0], middles[:, 1]))
            tokens[: len(told)] = self._characters[indices] + begins * self._begins + places @ self._places
        return tokens
