"""Characters that are read as words and lines."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from hearth.multimodal.print_cells import CHARACTERS, SAID, Array, Printed

# in sizes of the font:
_NEXT = 2.0  # to the next character of a word at most
_RISE = 0.7  # how far up or down that may lie
_LINE, _LINE_SLOPE = 0.5, 0.12  # the same for words of a line: at all, and by their distance
_UNUSUAL = 4.0  # nats that a word must be likelier by as it is read than in one of the usual ways

Word = list[Printed]


def _kind(characters: str) -> Array:
    """Which of ``SAID`` may stand in words of these; signs may in all."""
    plain = string.ascii_letters + string.digits
    return np.array([one in CHARACTERS and (one in characters or one not in plain) for one in SAID])


_SMALL, _CAPITAL, _DIGIT = (_kind(of) for of in (string.ascii_lowercase, string.ascii_uppercase, string.digits))
# how the first character of a word is written, and the others
_USUAL = ((_SMALL, _SMALL), (_CAPITAL, _SMALL), (_CAPITAL, _CAPITAL), (_DIGIT, _DIGIT), (_CAPITAL, _DIGIT))


def words_of(characters: Iterable[Printed]) -> list[Word]:
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


def middle(word: Word) -> tuple[float, float]:
    """Of a word, in pixels."""
    return (word[0].x + word[-1].x) / 2, float(np.mean([character.y for character in word]))


def in_lines(words: list[Word]) -> list[list[Word]]:
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


def written_alike(word: Word) -> Word:
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
    return [replace(one, character=SAID[at]) for one, at in zip(word, usual.argmax(1), strict=True)]
