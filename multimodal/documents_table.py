"""Rows of cells as text that is understood in pieces: every line names its columns. For spreadsheets and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from hearth.multimodal.documents_plain import clean
from hearth.multimodal.documents_types import MAX_CHARS, SECTION_SEPARATOR, Page
from hearth.multimodal.errors import MediaTooLargeError

MAX_ROWS = 200_000  # with something in them, over all sheets of a document
ROWS_PER_PAGE = 100
_LOOKED_AT = 50  # rows by which it is decided which of the first is the header
_HEADER_WITHIN = 10
_MAX_NAME_CHARS = 80  # of a column
_NAMED_SHARE = 0.6  # of the widest row's cells that a header has
_VALUE = re.compile(r"[-+(]?[\d.,:/ %€$£-]{1,40}\)?|TRUE|FALSE|true|false|#\S+")


@dataclass(frozen=True, slots=True)
class Row:
    """A row, numbered from 1 as its file counts; ``cells`` by column from 0, those without text left out."""

    number: int
    cells: Mapping[int, str]


@dataclass(slots=True)
class Budget:
    """Counts what a document called ``name`` holds, over all its sheets."""

    name: str
    n_rows: int = 0
    n_chars: int = 0

    def take(self, line: str, number: int, section: str) -> str:
        """``line``, which is row ``number`` of ``section``, counted.

        Raises MediaTooLargeError over ``MAX_ROWS`` lines or ``MAX_CHARS`` characters.
        """
        self.n_rows += 1
        self.n_chars += len(line) + 1
        if self.n_rows > MAX_ROWS:
            raise MediaTooLargeError(f"{self.name} has more than the limit of {MAX_ROWS:,} rows; split it")
        if self.n_chars > MAX_CHARS:
            raise MediaTooLargeError(
                f"{self.name} has more than the limit of {MAX_CHARS:,} characters by row {number:,}"
                f"{f' of {section}' if section else ''}, the names of its columns repeated in each row; split it"
            )
        return line


def cell_text(text: str) -> str:
    """The text of a cell on one line."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(clean(text).split())


def table_pages(rows: Iterable[Row], section: str, budget: Budget) -> Iterator[Page]:
    """A page for each ``ROWS_PER_PAGE`` rows, "column: value; column: value" in each line, or the bare values if no row
    names the columns. Rows above the one with the names are text. ``section`` gets "rows 1–100" if there are more.

    Raises MediaTooLargeError (rows, characters).
    """
    coming = (row for row in rows if row.cells)
    first = list(islice(coming, _LOOKED_AT))
    at = _header(first)
    names = {} if at is None else first[at].cells
    above = [] if at is None else first[:at]
    below = first if at is None else first[at + 1 :]
    lines = chain(
        ((row.number, _bare(row)) for row in above),
        ((row.number, _named(row, names) if names else _bare(row)) for row in chain(below, coming)),
    )
    counted = ((number, budget.take(line, number, section)) for number, line in lines)
    batch = list(islice(counted, ROWS_PER_PAGE))
    following = list(islice(counted, ROWS_PER_PAGE))
    whole = not following
    while batch:
        place = "" if whole else f"rows {batch[0][0]:,}–{batch[-1][0]:,}"
        text = "\n".join(line for _, line in batch)
        yield Page(None, text, SECTION_SEPARATOR.join(part for part in (section, place) if part))
        batch, following = following, list(islice(counted, ROWS_PER_PAGE))


def column_letters(column: int) -> str:
    """A for column 0, AA for column 26."""
    letters = ""
    column += 1
    while column:
        column, digit = divmod(column - 1, 26)
        letters = chr(65 + digit) + letters
    return letters


def _header(rows: Sequence[Row]) -> int | None:
    """Index of the row that names the columns: nearly as wide as any, all words, and above something that is not a
    mere list of pairs of words."""
    widest = max((len(row.cells) for row in rows), default=0)
    for index, row in enumerate(rows[:_HEADER_WITHIN]):
        names, below = row.cells.values(), rows[index + 1 :]
        if len(names) < max(2, _NAMED_SHARE * widest) or not below:
            continue
        if any(_is_value(name) or len(name) > _MAX_NAME_CHARS for name in names):
            return None  # data has begun
        has_values = any(_is_value(cell) for under in below for cell in under.cells.values())
        return index if widest > 2 or has_values else None
    return None


def _is_value(cell: str) -> bool:
    return len(cell) <= _MAX_NAME_CHARS and bool(_VALUE.fullmatch(cell))


def _named(row: Row, names: Mapping[int, str]) -> str:
    return "; ".join(f"{names.get(column) or column_letters(column)}: {cell}" for column, cell in row.cells.items())


def _bare(row: Row) -> str:
    return " | ".join(row.cells.values())
