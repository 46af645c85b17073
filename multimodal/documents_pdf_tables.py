"""Finds tables on a page of a PDF by where its text stands: a PDF knows places of words, but no rows and columns."""

from __future__ import annotations

import ctypes
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hearth.multimodal.documents_plain import clean

MAX_PIECES = 4_000  # of text on a page; drawings with more are no tables
_GAP = 1.2  # between cells, in heights of a line; words of a justified line stand closer
_MIN_ROWS = 3
_ROWS_BEFORE = 20  # by which the columns are known while a table goes on
_MARGIN_PT = 0.5
_LOST_SHARE = 0.01
_FILLED_SHARE = 0.6  # of a table's cells; figures are emptier
_WIDE = 10  # in heights of a line: two pieces this wide in one line are text in columns, or rarely a table
_MAX_WIDE_LINES, _MAX_WIDE_SHARE = 3, 0.15  # of a page's lines; with more, the page is set in columns
_PROSE_WIDTH, _PROSE_LINES, _PROSE_FILL = 14, 5, 0.75  # a column as wide as so many heights, with lines that fill it
_MARK_WIDTH = 2.5  # in heights of a line: a first column this narrow holds bullets or numbers of a list

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows of boxes from the top down, and the columns' (left, right)."""

    rows: Sequence[Sequence[Box]]
    columns: Sequence[tuple[float, float]]

    @property
    def top(self) -> float:
        return max(box[3] for box in self.rows[0])

    @property
    def bottom(self) -> float:
        return min(box[1] for box in self.rows[-1])


def text_with_tables(textpage: Any, plain: str, prose: Callable[[str], str]) -> str | None:
    """The text of pdfium's ``textpage``, its tables as lines of cells with " | " between them, ``prose`` applied to the
    rest. None if there is no table, or if text would be lost or repeated in comparison with ``plain``, all text of the
    page. Raises what pypdfium2 raises."""
    n_pieces = textpage.count_rects()
    if not 2 * _MIN_ROWS <= n_pieces <= MAX_PIECES:
        return None
    lines = _lines([textpage.get_rect(index) for index in range(n_pieces)])
    tables = [] if _is_set_in_columns(lines) else _tables(lines)
    if not tables:
        return None
    words = _words(textpage, [box for table in tables for row in table.rows for box in row])
    parts, above, n_marks = [], None, 0
    for table in tables:
        parts.append(prose(textpage.get_text_bounded(bottom=table.top + _MARGIN_PT, top=above)))
        parts.append(clean("\n".join(_row(row, table.columns, words) for row in table.rows)))
        n_marks += len(table.rows) * (len(table.columns) - 1)
        above = table.bottom - _MARGIN_PT
    parts.append(prose(textpage.get_text_bounded(top=above)))
    text = "\n\n".join(part for part in parts if part.strip())
    expected = _n_letters(prose(plain)) + n_marks
    return text if abs(_n_letters(text) - expected) <= _LOST_SHARE * expected else None


def _n_letters(text: str) -> int:
    return sum(not character.isspace() for character in text)


def _words(textpage: Any, boxes: list[Box]) -> dict[Box, str]:
    """What stands in each of ``boxes``: asking for every character once is faster than for every box's text."""
    from pypdfium2 import raw

    by_height = sorted(boxes, key=lambda box: box[1] + box[3])
    heights = [(box[1] + box[3]) / 2 for box in by_height]
    tallest = max(box[3] - box[1] for box in boxes)
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    words: dict[Box, list[str]] = {}
    for index in range(textpage.count_chars()):
        if not raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top):
            continue
        x, y = (left.value + right.value) / 2, (bottom.value + top.value) / 2
        for at in range(bisect_left(heights, y - tallest), bisect_right(heights, y + tallest)):
            box = by_height[at]
            if box[0] - _MARGIN_PT <= x <= box[2] + _MARGIN_PT and box[1] - _MARGIN_PT <= y <= box[3] + _MARGIN_PT:
                words.setdefault(box, []).append(chr(raw.FPDFText_GetUnicode(textpage, index)))
                break
    return {box: " ".join("".join(letters).split()) for box, letters in words.items()}


def _row(row: Sequence[Box], columns: Sequence[tuple[float, float]], words: dict[Box, str]) -> str:
    cells = [""] * len(columns)
    for box in row:
        index = _column_of(box, columns)
        cells[index] = f"{cells[index]} {words.get(box, '')}".strip()
    return " | ".join(cells)


def _column_of(box: Box, columns: Sequence[tuple[float, float]]) -> int:
    """Index of the column that holds ``box``; columns are unions of boxes, so there is one."""
    return next(index for index, (left, right) in enumerate(columns) if left <= box[0] and box[2] <= right)


def _lines(pieces: list[Box]) -> list[list[Box]]:
    """Boxes of words that belong together, line by line from the top, each from the left."""
    lines: list[list[Box]] = []
    for piece in sorted((p for p in pieces if p[2] > p[0] and p[3] > p[1]), key=lambda p: -(p[1] + p[3])):
        middle = (piece[1] + piece[3]) / 2
        if lines and lines[-1][0][1] <= middle <= lines[-1][0][3]:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return [_joined(sorted(line)) for line in lines]


def _joined(line: list[Box]) -> list[Box]:
    """Neighbours without a gap between them as one box."""
    height = max(box[3] - box[1] for box in line)
    boxes = [line[0]]
    for box in line[1:]:
        last = boxes[-1]
        if box[0] - last[2] < _GAP * height:
            boxes[-1] = (last[0], min(last[1], box[1]), max(last[2], box[2]), max(last[3], box[3]))
        else:
            boxes.append(box)
    return boxes


def _is_set_in_columns(lines: list[list[Box]]) -> bool:
    n_wide = sum(sum(box[2] - box[0] >= _WIDE * (box[3] - box[1]) for box in line) > 1 for line in lines)
    return n_wide > max(_MAX_WIDE_LINES, _MAX_WIDE_SHARE * len(lines))


def _tables(lines: list[list[Box]]) -> list[_Table]:
    tables = []
    run: list[list[Box]] = []
    for line in [*lines, []]:
        if len(line) > 1:
            run.append(line)
            continue
        # a cell that goes on in a second line is no end of the table, if it keeps to its column
        if line and run and _keeps_to_columns(line[0], run):
            run.append(line)
            continue
        while run and len(run[-1]) == 1:
            run.pop()
        table = _table(run)
        if table is not None:
            tables.append(table)
        run = []
    return tables


def _keeps_to_columns(box: Box, run: list[list[Box]]) -> bool:
    """Whether ``box`` stands below the run's last line, within one of its columns but not the first."""
    columns = _columns(run[-_ROWS_BEFORE:])
    height = box[3] - box[1]
    near = min(above[1] for above in run[-1]) - box[3] < 2 * height
    return near and any(left - 1 <= box[0] and box[2] <= right + height for left, right in columns[1:])


def _columns(rows: Sequence[Sequence[Box]]) -> list[tuple[float, float]]:
    """Stretches of the page's width that cells stand on, with nothing in any row between two of them."""
    columns: list[tuple[float, float]] = []
    for left, right in sorted((box[0], box[2]) for row in rows for box in row):
        if columns and left <= columns[-1][1]:
            columns[-1] = (columns[-1][0], max(columns[-1][1], right))
        else:
            columns.append((left, right))
    return columns


def _table(rows: list[list[Box]]) -> _Table | None:
    """The rows as a table, unless they are text in columns, a list with its marks, or the words of a figure."""
    if len(rows) < _MIN_ROWS:
        return None
    columns = _columns(rows)
    whole = [row for row in rows if len(row) > 1]
    n_filled = sum(len({_column_of(box, columns) for box in row}) for row in whole)
    height = median(box[3] - box[1] for row in rows for box in row)
    first_width = columns[0][1] - columns[0][0]
    n_telling = len(columns) - (first_width < _MARK_WIDTH * height)
    if n_telling < 2 or n_filled < _FILLED_SHARE * len(whole) * len(columns):
        return None
    if any(_is_prose(column, rows, height) for column in columns):
        return None
    return _Table(rows, columns)


def _is_prose(column: tuple[float, float], rows: list[list[Box]], height: float) -> bool:
    width = column[1] - column[0]
    widths = [box[2] - box[0] for row in rows for box in row if column[0] <= box[0] and box[2] <= column[1]]
    return width >= _PROSE_WIDTH * height and len(widths) >= _PROSE_LINES and median(widths) >= _PROSE_FILL * width
