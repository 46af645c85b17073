"""Bar charts as a text: bar by bar its colour, what is written under it and its value.

The value is what is printed over the bar; where nothing is, it is read off the axis: what its ticks say, by how far the
bar reaches between them. To turn a chart into text before a language model reads it follows DePlot (Liu et al. 2023,
arXiv 2212.10505).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hearth.multimodal.print_cells import CELL_PX, Printed
from hearth.multimodal.print_words import Word, in_lines, middle, words_of

_BESIDE_PX = 10.0  # two bars have their middles at least apart
_LABEL_PX = 6.0  # the middle of a label is at most from that of the value over its bar
_UNDER_PX = 9.0  # the middle of a bar is at most from that of the value over it
_ERROR_PX = 3.0  # by which ends of bars are wrong at most
_TICK_ERROR_PX = CELL_PX  # and places of ticks; but they are many, and all on a line
READ_OFF_PX, READ_OFF_ADVANCE_PX = 12.0, 6.0  # as large as if it were printed, and from one digit to the next
_TICKS = 3  # at least, to be left out of what lies under a bar
# in sizes of the font:
_OVER = 2.5  # from the end of a bar to what is printed over it at most
_JOINED = 0.75  # between characters of one word, whatever the reader says of its beginning
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)%?")
_STEPS = 1, 2, 5  # and ten times, a tenth, ... of them: what values are multiples of


@dataclass
class _Column:
    """Where a bar ends, its colour if that is seen, the line under it and the one over it."""

    x: float
    y: float
    bar: Printed | None
    label: list[Word] = field(default_factory=list)
    value: list[Word] = field(default_factory=list)

    @property
    def words(self) -> list[Word]:
        first, *others = [*self.label, *self.value]
        return [[*((replace(self.bar, begins=True),) if self.bar else ()), *first], *others]


def words_by_bars(characters: Sequence[Printed], bars: Sequence[Printed]) -> list[Word] | None:
    """All words of a chart: those of its bars from the left, each behind its bar, then others but those of the axis
    that values are read off. None if the ``bars`` make no chart: there are less than two, or most have neither a label
    nor a value.
    """
    columns = _columns(characters, bars)
    if sum(bool(column.value) for column in columns) * 2 < len(columns):
        for column in columns:
            column.value = []
    used = {(one.x, one.y) for column in columns for word in (*column.label, *column.value) for one in word}
    others = words_of(one for one in characters if (one.x, one.y) not in used)
    if columns and not any(column.value for column in columns):
        values, others = _read_off(columns, others)
        for column, value in zip(columns, values, strict=True):
            column.value = value
    told = [column for column in columns if column.label or column.value]
    if len(told) < 2 or 2 * len(told) <= len(columns) or not any(column.label for column in told):
        return None
    in_order = [word for line in in_lines(others) for word in line]
    return [word for column in told for word in column.words] + in_order


def _columns(characters: Sequence[Printed], bars: Sequence[Printed]) -> list[_Column]:
    """The bars from the left with what belongs to them."""
    seen = [_Column(bar.x, bar.y, bar) for bar in _once(bars)]
    if len(seen) < 2:
        return []
    columns = sorted([*seen, *_unseen(characters, seen)], key=lambda column: column.x)
    foot = max(column.y for column in columns)
    at = np.array([column.x for column in columns])
    outer = float(np.median(np.diff(at))) / 2
    edges = [at[0] - outer, *(at[1:] + at[:-1]) / 2, at[-1] + outer]
    ticks = _ticks(characters, columns)
    for column, (left, right) in zip(columns, itertools.pairwise(edges), strict=True):
        inside = [one for one in characters if left <= one.x < right and (one.x, one.y) not in ticks]
        under = in_lines(words_of(one for one in inside if one.y > foot))
        over = in_lines(words_of(one for one in inside if one.y < column.y))
        column.label = _joined(under[0]) if under else []
        column.value = _joined(over[-1]) if over and _is_value(over[-1], column.y) else []
    return columns


def _ticks(characters: Sequence[Printed], columns: list[_Column]) -> set[tuple[float, float]]:
    """Where the characters of an axis beside the bars stand; lower ones lie where labels may, too."""
    left, right = columns[0].x - _UNDER_PX, columns[-1].x + _UNDER_PX
    beside = [word for word in words_of(characters) if word[-1].x < left or word[0].x > right]
    numbers = [(word, number) for word in beside if (number := _number(word)) is not None]
    axis = _axis([(middle(word)[1], number) for word, number in numbers])
    if axis is None or len(axis[2]) < _TICKS:
        return set()
    return {(one.x, one.y) for at in axis[2] for one in numbers[at][0]}


def _once(bars: Sequence[Printed]) -> list[Printed]:
    """From the left; of those told at two places the surer one, between them."""
    once: list[Printed] = []
    for bar in sorted(bars, key=lambda bar: bar.x):
        if not once or bar.x - once[-1].x > _BESIDE_PX:
            once.append(bar)
            continue
        surer = max((once[-1], bar), key=lambda one: one.sure)
        once[-1] = replace(surer, x=(once[-1].x + bar.x) / 2)
    return once


def _unseen(characters: Sequence[Printed], seen: list[_Column]) -> Iterator[_Column]:
    """Bars that are not seen, but the values over them and what is under them; one number over another stands at an
    axis.
    """
    foot = max(column.y for column in seen)
    labels: list[Word] = max(in_lines(words_of(one for one in characters if one.y > foot)), key=len, default=[])
    low = min((middle(word)[1] - word[0].size for word in labels), default=foot)
    numbers = [word for word in words_of(one for one in characters if one.y < low) if _number(word) is not None]
    for word in numbers:
        x, y = middle(word)
        others = [column.x for column in seen] + [middle(other)[0] for other in numbers if other is not word]
        has_label = any(abs(middle(label)[0] - x) < _LABEL_PX for label in _joined(labels))
        if has_label and all(abs(other - x) > _UNDER_PX for other in others):
            yield _Column(x, y + word[0].size, None)


def _joined(line: list[Word]) -> list[Word]:
    """With words as one that are no space apart."""
    joined: list[Word] = []
    for word in line:
        last = joined[-1][-1] if joined else None
        if last and word[0].x - last.x < _JOINED * max(word[0].size, last.size):
            joined[-1] = [*joined[-1], *(replace(one, begins=False) for one in word)]
        else:
            joined.append(word)
    return joined


def _is_value(line: list[Word], end: float) -> bool:
    _, y = middle(line[0])
    near = end - y < _OVER * line[0][0].size
    return near and any(one.character.isdigit() for word in line for one in word)


def _read_off(columns: list[_Column], others: list[Word]) -> tuple[list[list[Word]], list[Word]]:
    """For each column its value in words, none if there is no axis; and the words that are no ticks of it."""
    ticks = [(middle(word)[1], number, word) for word in others if (number := _number(word)) is not None]
    outside = [tick for tick in ticks if not columns[0].x <= tick[2][0].x <= columns[-1].x]
    axis = _axis([tick[:2] for tick in outside])
    if axis is None:
        return [[] for _ in columns], others
    start, rise, on_it = axis
    values = [start + rise * column.y for column in columns]
    step = _step(values, [outside[tick][1] for tick in on_it], abs(rise) * _ERROR_PX)
    words = [_written(round(value / step) * step, column) for value, column in zip(values, columns, strict=True)]
    used = {id(word) for _, _, word in outside}
    return [[word] for word in words], [word for word in others if id(word) not in used]


def _number(word: Word) -> float | None:
    found = _NUMBER.fullmatch("".join(one.character for one in word))
    return float(found[1]) if found else None


def _axis(ticks: list[tuple[float, float]]) -> tuple[float, float, list[int]] | None:
    """Value at the height of nought, and its rise by pixel, of the line that most ``ticks`` (height, value) lie on; and
    which do. None if that is less than two, or not most of them.
    """
    best: list[int] = []
    for (first_y, first), (second_y, second) in itertools.combinations(ticks, 2):
        if abs(first_y - second_y) < _TICK_ERROR_PX or first == second or (second - first) * (second_y - first_y) > 0:
            continue
        rise = (second - first) / (second_y - first_y)
        near = [at for at, (y, value) in enumerate(ticks) if abs((value - first) / rise + first_y - y) < _TICK_ERROR_PX]
        best = max(best, near, key=len)
    if len(best) < 2 or 2 * len(best) <= len(ticks):
        return None
    y, value = np.array([ticks[at] for at in best]).T
    pairs = [(a, b) for a, b in itertools.combinations(range(len(y)), 2) if y[a] != y[b]]
    rise = np.median([(value[b] - value[a]) / (y[b] - y[a]) for a, b in pairs])  # of Theil and Sen: some may be far off
    return float(np.median(value - rise * y)), float(rise), best


def _step(values: list[float], ticks: list[float], error: float) -> float:
    """The roundest that all ``values`` are multiples of, but for an ``error``; no finer than that tells apart."""
    between = min(b - a for a, b in itertools.pairwise(sorted(set(ticks))))
    power = 10.0 ** math.floor(math.log10(between))
    steps = [step * power / finer for finer in (1, 10, 100) for step in reversed(_STEPS)]
    steps = [step for step in steps if step <= between]
    clear = [step for step in steps if step >= error] or steps[:1]
    fitting = (step for step in clear if all(abs(value - round(value / step) * step) <= error for value in values))
    return next(fitting, clear[-1])


def _written(value: float, column: _Column) -> Word:
    """As if it were printed where the bar ends."""
    text = f"{max(0.0, value):.6f}".rstrip("0").rstrip(".")  # no exponent
    left = column.x - READ_OFF_ADVANCE_PX * (len(text) - 1) / 2
    return [
        Printed(character, left + at * READ_OFF_ADVANCE_PX, column.y, begins=at == 0, size=READ_OFF_PX)
        for at, character in enumerate(text)
    ]
