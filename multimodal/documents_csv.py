"""Reads tables of text (CSV, TSV): delimiter and encoding found, quotation marks obeyed, each row with its columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from hearth.multimodal.documents_plain import decode
from hearth.multimodal.documents_table import Budget, Row, cell_text, table_pages
from hearth.multimodal.documents_types import ReadPages, Watch
from hearth.multimodal.errors import PerceptionError
from hearth.multimodal.kinds_text import SAMPLE_BYTES, table_delimiter

MAX_CELL_LINES = 50  # more in a file that breaks the rules of CSV, and a quotation mark was never closed
_PROGRESS_EVERY = 2_000  # rows
_QUOTE, _QUOTE_LOOSELY, _NEVER_QUOTE = "by the rules", "loosely", "never"


def read_csv(data: bytes, watch: Watch) -> ReadPages:
    """Pages of 100 rows. Rows may have different lengths. Where a quotation mark is never closed, none is obeyed.

    Raises MediaTooLargeError (rows, characters), PerceptionError (a cell of 131,072 characters), PerceptionCancelled.
    """
    text = decode(data).replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
    sample = text[:SAMPLE_BYTES]
    delimiter = table_delimiter(sample, watch.name) or table_delimiter(sample, "table.csv") or ","
    text = re.sub(r"\Asep=[,;|:\t]\n", "", text)
    quoting: str | None = _QUOTE
    while quoting is not None:
        try:
            rows = _rows(text, delimiter, watch, quoting)
            return ReadPages(None, tuple(table_pages(rows, "", Budget(watch.name))))
        except csv.Error as error:
            reason = str(error)
        # a mark within a cell is taken as it comes; one that is never closed would take the rest of the file
        stray = quoting == _QUOTE and "expected after" in reason
        quoting = _QUOTE_LOOSELY if stray else _NEVER_QUOTE if quoting != _NEVER_QUOTE else None
    raise PerceptionError(f"{watch.name} is a table that cannot be read ({reason}); save it again as CSV")


def _rows(text: str, delimiter: str, watch: Watch, quoting: str) -> Iterator[Row]:
    """Raises csv.Error where quotation marks are not what ``quoting`` takes them for, or a cell is too long."""
    source = io.StringIO(text)
    rows = csv.reader(
        source,
        delimiter=delimiter,
        strict=quoting == _QUOTE,
        quoting=csv.QUOTE_NONE if quoting == _NEVER_QUOTE else csv.QUOTE_MINIMAL,
    )
    before = 0
    for number, cells in enumerate(rows, 1):
        if number % _PROGRESS_EVERY == 1:
            watch.step(source.tell() / len(text))
        if quoting == _QUOTE_LOOSELY and any(cell.count("\n") > MAX_CELL_LINES for cell in cells):
            raise csv.Error(f"row {number} has a cell of more than {MAX_CELL_LINES} lines")
        if quoting == _QUOTE_LOOSELY and any("\n" in cell for cell in cells):
            lines = text[before : source.tell()].rstrip("\n").split("\n")
            if len(cells) > 1 and all(line.count(delimiter) == len(cells) - 1 for line in lines):
                raise csv.Error(f"row {number} holds several rows")
        before = source.tell()
        shown = ((column, cell_text(cell)) for column, cell in enumerate(cells))
        yield Row(number, {column: cell for column, cell in shown if cell})
