"""From characters that are read to words and lines, and to the visual tokens that tell them.

The characters of a picture follow its other visual tokens one by one, as letters do in a text: what is printed is then
copied as what is written is. Charts are read bar by bar, the colour first, and price lists by columns, what stands on
the common line first. There are as many tokens in every picture, so that its size tells their number. To copy "letter"
it is not enough to look for what follows a character: a language model notes the tokens before each, and what is read
tells one more. The places of things that are alike follow as a list, see ``hearth.multimodal.locating``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hearth.multimodal.locating import LIST_WORDS
from hearth.multimodal.print_cells import BARS, SAID, Array, Printed
from hearth.multimodal.print_charts import words_by_bars
from hearth.multimodal.print_words import Word, in_lines, middle, words_of, written_alike
from hearth.multimodal.views import Frame, anchor_weights

PRINT_TOKENS = 56  # of a picture; what is printed behind them is not told
_RAGGED = 0.25  # in sizes of the font, between what stands over or under the words of a line; less is another line

SPACE = " "
WRITTEN = (*SAID, SPACE, *LIST_WORDS)
_ROWS = ("", *WRITTEN)  # as ``PrintVectors`` has them


def in_reading_order(found: Iterable[Printed]) -> list[Printed]:
    """Characters bar by bar, if they have some, or word by word, by lines or by columns; a space behind each word."""
    bars: list[Printed] = []
    characters: list[Printed] = []
    for one in found:
        (bars if one.character in BARS else characters).append(one)
    words = words_by_bars(characters, bars) or _ordered(words_of(characters))
    return [one for word in words for one in _spaced(word)]


def _spaced(word: Word) -> Word:
    bar, written = word[: word[0].character in BARS], word[word[0].character in BARS :]
    space = replace(word[-1], character=SPACE, begins=False, chances=None)
    return [*bar, *written_alike(written), space]


def _ordered(words: list[Word]) -> list[Word]:
    lines = in_lines(words)
    return [word for part in _in_columns(lines) or lines for word in part]


def _in_columns(lines: list[list[Word]]) -> list[list[Word]]:
    """The words of the longest line from the left, each with what stands over it, or with what stands under it.

    None if that is one word for less than half of them, or all at one distance as in a line of text, or on both sides.
    """
    heads = max(reversed(lines), key=len, default=[])
    others = [word for line in lines if line is not heads for word in line]
    if len(heads) < 2 or len(others) < 2:
        return []
    at = np.array([middle(word) for word in heads])
    reach = np.diff(at[:, 0]).min() / 2
    columns = [[word] for word in heads]
    distances: list[float] = []
    for word in others:
        x, y = middle(word)
        nearest = int(np.abs(at[:, 0] - x).argmin())
        if abs(at[nearest, 0] - x) > reach:
            return []
        columns[nearest].append(word)
        distances.append(y - at[nearest, 1])
    in_pairs = sum(len(column) == 2 for column in columns)
    size = np.mean([word[0].size for word in others])
    one_side = max(distances) < 0 or min(distances) > 0
    return columns if one_side and 2 * in_pairs > len(heads) and np.ptp(distances) > _RAGGED * size else []


def with_list(characters: list[Printed], places: list[Printed]) -> list[Printed]:
    """What is printed, and the list of ``places`` behind it if there is room for all of it."""
    return [*characters, *places] if len(characters) + len(places) <= PRINT_TOKENS else characters


class PrintTokens:
    """What characters and their places add to visual tokens."""

    def __init__(self, weights: Mapping[str, Array], name_words: Sequence[str] = ()) -> None:
        """``weights`` as ``hearth.multimodal.letters.PrintVectors`` names them; ``name_words`` are those of "words".
        KeyError if one is missing, ValueError if they are of a reader that tells other things.
        """
        names = ("characters", "begins", "places", "before")
        self._characters, self._begins, self._places, self._before = (weights[name] for name in names)
        if len(self._characters) != len(_ROWS):
            raise ValueError(
                f"vectors of {len(self._characters)} characters, bars and words, but {len(_ROWS)} are read"
            )
        self._index = {written: at for at, written in enumerate(_ROWS)}
        if name_words:
            words = weights["words"]
            if len(words) != len(name_words):
                raise ValueError(f"vectors of {len(words)} words of names, but {len(name_words)} are told")
            self._index |= {word: len(_ROWS) + at for at, word in enumerate(name_words)}
            self._characters = np.concatenate((self._characters, words))
            self._before = np.concatenate((self._before, np.zeros_like(words)))

    def tokens(self, characters: list[Printed], frame: Frame) -> Array:
        """Visual tokens of the first ``PRINT_TOKENS`` characters and spaces on a canvas, and empty ones behind them."""
        tokens = np.tile(self._characters[0], (PRINT_TOKENS, 1))
        told = characters[:PRINT_TOKENS]
        if told:
            middles = np.array([(one.x, one.y) for one in told], np.float32)
            begins = np.array([[one.begins] for one in told], np.float32)
            places = anchor_weights(*frame.in_square(middles[:, 0], middles[:, 1]))
            places[[one.character == SPACE for one in told]] = 0.0
            indices = [self._index[one.character] for one in told]
            tokens[: len(told)] = self._characters[indices] + begins * self._begins + places @ self._places
            tokens[3 : len(told)] += self._before[indices[:-3]]
        return tokens
