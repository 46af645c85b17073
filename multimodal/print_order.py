"""From characters that are read to words and lines, and to the visual tokens that tell them.

The characters of a picture follow its other visual tokens one by one, as letters do in a text: what is printed is then
copied as what is written is. Charts and price lists are read by columns, what stands on the common line first. There
are as many tokens in every picture, so that its size tells their number. To copy "letter" it is not enough to look for
what follows a character: each token also tells the one before the last.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from hearth.multimodal.print_cells import CHARACTERS, Array, Printed, characters_of
from hearth.multimodal.views import Frame, anchor_weights

PRINT_TOKENS = 48  # of a picture; what is printed behind them is not told
# in sizes of the font:
_NEXT = 2.0  # to the next character of a word at most
_RISE = 0.7  # how far up or down that may lie
_LINE, _LINE_SLOPE = 0.5, 0.12  # the same for words of a line: at all, and by their distance
_RAGGED = 0.25  # between what stands over or under the words of a line; less is another line
_UNUSUAL = 4.0  # nats that a word must be likelier by as it is read than in one of the usual ways


SPACE = " "
_WRITTEN = ("", *CHARACTERS, SPACE)  # as ``PrintVectors`` has them
Word = list[Printed]


def _kind(characters: str) -> Array:
    """Which of ``CHARACTERS`` may stand in words of these; signs may in all."""
    plain = string.ascii_letters + string.digits
    return np.array([one in characters or one not in plain for one in CHARACTERS])


_SMALL, _CAPITAL, _DIGIT = (_kind(of) for of in (string.ascii_lowercase, string.ascii_uppercase, string.digits))
# how the first character of a word is written, and the others
_USUAL = ((_SMALL, _SMALL), (_CAPITAL, _SMALL), (_CAPITAL, _CAPITAL), (_DIGIT, _DIGIT), (_CAPITAL, _DIGIT))


def printed(said: Array) -> list[Printed]:
    """The characters on a canvas in reading order, a space behind each word; ``said`` by the reader is (CELL_SLOTS,
    N_SAID, rows, columns).
    """
    return _spaced(map(_written_alike, _ordered(_words(characters_of(said)))))


def in_reading_order(characters: Iterable[Printed]) -> list[Printed]:
    """Word by word, by lines or by columns, a space behind each word."""
    return _spaced(_ordered(_words(characters)))


def _spaced(words: Iterable[Word]) -> list[Printed]:
    return [one for word in words for one in (*word, replace(word[-1], character=SPACE, begins=False, chances=None))]


def _words(characters: Iterable[Printed]) -> list[Word]:
    """Each begins where the reader says so, or where no character stands before."""
    words: list[Word] = []
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


def _ordered(words: list[Word]) -> list[Word]:
    lines = _in_lines(words)
    return [word for part in _in_columns(lines) or lines for word in part]


def _in_columns(lines: list[list[Word]]) -> list[list[Word]]:
    """The words of the longest line from the left, each with what stands over it, or with what stands under it.

    None if that is one word for less than half of them, or all at one distance as in a line of text, or on both sides.
    """
    heads = max(reversed(lines), key=len, default=[])
    others = [word for line in lines if line is not heads for word in line]
    if len(heads) < 2 or len(others) < 2:
        return []
    at = np.array([_middle(word) for word in heads])
    reach = np.diff(at[:, 0]).min() / 2
    columns = [[word] for word in heads]
    distances: list[float] = []
    for word in others:
        x, y = _middle(word)
        nearest = int(np.abs(at[:, 0] - x).argmin())
        if abs(at[nearest, 0] - x) > reach:
            return []
        columns[nearest].append(word)
        distances.append(y - at[nearest, 1])
    in_pairs = sum(len(column) == 2 for column in columns)
    size = np.mean([word[0].size for word in others])
    one_side = max(distances) < 0 or min(distances) > 0
    return columns if one_side and 2 * in_pairs > len(heads) and np.ptp(distances) > _RAGGED * size else []


def _middle(word: Word) -> tuple[float, float]:
    return (word[0].x + word[-1].x) / 2, float(np.mean([character.y for character in word]))


def _in_lines(words: list[Word]) -> list[list[Word]]:
    """From the top, each from the left."""
    lines: list[list[Word]] = []
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
    return lines


def _written_alike(word: Word) -> Word:
    """What looks alike in both cases, or as letter and digit, is as the others are, unless that is far less likely."""
    if len(word) < 2 or any(one.chances is None for one in word):
        return word
    chances = np.array([one.chances for one in word])
    logs = np.log(chances / chances.sum(1, keepdims=True) + 1e-6)
    ways = [np.vstack([first, *[others] * (len(word) - 1)]) for first, others in _USUAL]
    allowed = max(ways, key=lambda way: np.where(way, logs, -np.inf).max(1).sum())
    usual = np.where(allowed, logs, -np.inf)
    if usual.max(1).sum() < logs.max(1).sum() - _UNUSUAL:
        return word
    return [replace(one, character=CHARACTERS[at]) for one, at in zip(word, usual.argmax(1), strict=True)]


class PrintTokens:
    """What characters and their places add to visual tokens."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        """``weights`` as ``hearth.multimodal.letters.PrintVectors`` names them; KeyError if one is missing."""
        names = ("characters", "begins", "places", "before")
        self._characters, self._begins, self._places, self._before = (weights[name] for name in names)

    def tokens(self, characters: list[Printed], frame: Frame) -> Array:
        """Visual tokens of the first ``PRINT_TOKENS`` characters and spaces on a canvas, and empty ones behind them."""
        tokens = np.tile(self._characters[0], (PRINT_TOKENS, 1))
        told = characters[:PRINT_TOKENS]
        if told:
            middles = np.array([(one.x, one.y) for one in told], np.float32)
            begins = np.array([[one.begins] for one in told], np.float32)
            places = anchor_weights(*frame.in_square(middles[:, 0], middles[:, 1]))
            places[[one.character == SPACE for one in told]] = 0.0
            indices = [_WRITTEN.index(one.character) for one in told]
            tokens[: len(told)] = self._characters[indices] + begins * self._begins + places @ self._places
            tokens[2 : len(told)] += self._before[indices[:-2]]
        return tokens
