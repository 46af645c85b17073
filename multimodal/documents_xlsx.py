"""Reads Excel workbooks (xlsx, xlsm): a section for each sheet, a line for each row that names its columns.

A formula counts by the value that was computed last. Parts are parsed as they are unpacked and only cells with
something in them are kept, so a sheet costs what it holds, wherever on its grid that stands.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import Any

from hearth.multimodal.documents_archive import opened, parse_xml, parts_of_xml, read_part, relations
from hearth.multimodal.documents_plain import plain_heading
from hearth.multimodal.documents_table import Budget, Row, cell_text, table_pages
from hearth.multimodal.documents_types import Page, ReadPages, Watch
from hearth.multimodal.documents_xlsx_values import Formats, read_formats, shown_value
from hearth.multimodal.errors import MediaTooLargeError

MAX_STRINGS = 2_000_000  # different texts in the cells of a workbook
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
MAX_MERGED = 1_000  # cells over several rows whose text is repeated in each, of a sheet
LAST_ROW, LAST_COLUMN = 1_048_576, 16_384  # of the format
_MAIN = "xl/workbook.xml"
_PROGRESS_EVERY = 1_000  # rows
_REFERENCE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_MERGED = re.compile(rb"<(?:\w{1,20}:)?mergeCell\s+ref=\"([A-Z]{1,3}[0-9]{1,7}):([A-Z]{1,3}[0-9]{1,7})\"")


def read_xlsx(data: bytes, watch: Watch) -> ReadPages:
    """Pages of at most 100 rows, with the sheet's name as section. Hidden sheets are read, charts are not.

    Raises MediaTooLargeError (rows, characters, texts, unpacked size), PerceptionError (encrypted, damaged),
    PerceptionCancelled.
    """
    with opened(data, watch, "an Excel workbook") as archive:
        workbook = parse_xml(read_part(archive, _MAIN, watch.name))
        related = relations(archive, _MAIN, watch.name)
        strings = _shared_strings(archive, related, watch)
        formats = _formats(archive, related, workbook, watch.name)
        sheets = _sheets(workbook, related)
        budget = Budget(watch.name)
        pages: list[Page] = []
        for index, (path, name) in enumerate(sheets.items()):
            part = read_part(archive, path, watch.name)
            rows = _rows(part, strings, formats, watch, (index, len(sheets)))
            pages += table_pages(_filled_down(rows, part), name, budget)
    return ReadPages(None, tuple(pages))


def _sheets(workbook: Any, related: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Name of each worksheet by its place in the archive, in order."""
    sheets: dict[str, str] = {}
    for sheet in workbook.iter("{*}sheet"):
        key = next((value for attribute, value in sheet.attrib.items() if attribute.endswith("}id")), "")
        kind, path = related[key]
        if kind == "worksheet":
            sheets.setdefault(path, plain_heading(sheet.get("name", "")))
    return sheets


def _part_of_kind(related: dict[str, tuple[str, str]], kind: str) -> str | None:
    return next((path for found, path in related.values() if found == kind), None)


def _shared_strings(archive: zipfile.ZipFile, related: dict[str, tuple[str, str]], watch: Watch) -> list[str]:
    path = _part_of_kind(related, "sharedStrings")
    if path is None:
        return []
    strings: list[str] = []
    for item in parts_of_xml(read_part(archive, path, watch.name), "si"):
        if len(strings) == MAX_STRINGS:
            raise MediaTooLargeError(f"{watch.name} has more than the limit of {MAX_STRINGS:,} texts; split it")
        if len(strings) % _PROGRESS_EVERY == 0:
            watch.step(0.0)
        strings.append(_rich_text(item))
    return strings


def _rich_text(item: Any) -> str:
    """The text of an ``si`` or ``is`` element without the pronunciation beside it."""
    runs = (run if run.tag.endswith("}t") else run.find("{*}t") for run in item.iterchildren("{*}t", "{*}r"))
    text = "".join(run.text or "" for run in runs if run is not None)
    return cell_text(_ESCAPED.sub(lambda code: chr(int(code[1], 16)), text))


def _formats(archive: zipfile.ZipFile, related: dict[str, tuple[str, str]], workbook: Any, name: str) -> Formats:
    properties = workbook.find("{*}workbookPr")
    from_1904 = properties is not None and properties.get("date1904") in ("1", "true")
    path = _part_of_kind(related, "styles")
    return read_formats(parse_xml(read_part(archive, path, name)) if path is not None else None, from_1904)


def _rows(part: bytes, strings: list[str], formats: Formats, watch: Watch, place: tuple[int, int]) -> Iterator[Row]:
    """``place`` is the sheet's index and the number of sheets, for progress."""
    index, n_sheets = place
    n_rows = max(1, part.count(b"</row>") + part.count(b":row>"))
    number = 0
    for done, row in enumerate(parts_of_xml(part, "row")):
        if done % _PROGRESS_EVERY == 0:
            watch.step((index + min(1.0, done / n_rows)) / n_sheets)
        number = int(row.get("r", number + 1))
        if not 0 < number <= LAST_ROW:
            raise ValueError(f"row {number:,} of a sheet that has {LAST_ROW:,}")
        yield Row(number, dict(_cells(row, strings, formats)))


def _cells(row: Any, strings: list[str], formats: Formats) -> Iterator[tuple[int, str]]:
    column = -1
    for cell in row.iterchildren("{*}c"):
        reference = cell.get("r")
        column = _place(reference)[1] if reference else column + 1
        kind, value = cell.get("t", "n"), cell.findtext("{*}v")
        if kind == "inlineStr":
            inline = cell.find("{*}is")
            text = "" if inline is None else _rich_text(inline)
        elif not value:
            continue
        elif kind == "s":
            text = strings[int(value)]
        else:
            text = shown_value(value, kind, formats, cell.get("s", "0"))
        if text:
            yield column, text


def _place(reference: str) -> tuple[int, int]:
    """(row from 1, column from 0) of a reference like B7. Raises ValueError."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(f"{reference[:20]!r} is no cell")
    column = 0
    for letter in found[1]:
        column = 26 * column + ord(letter) - 64
    if column > LAST_COLUMN:
        raise ValueError(f"column {found[1]} of a sheet whose last is XFD")
    return int(found[2]), column - 1


def _filled_down(rows: Iterator[Row], part: bytes) -> Iterator[Row]:
    """``rows``, with the text of a cell that covers several of them in each that holds something."""
    merged: dict[tuple[int, int], int] = {}
    for found in islice(_MERGED.finditer(part), MAX_MERGED):
        first, last = _place(found[1].decode()), _place(found[2].decode())
        if last[0] > first[0]:
            merged[first] = last[0]
    if not merged:
        yield from rows
        return
    covering: dict[int, tuple[int, str]] = {}
    for row in rows:
        cells = dict(row.cells)
        if cells:
            covering = {column: cover for column, cover in covering.items() if cover[0] >= row.number}
            cells |= {column: text for column, (_, text) in covering.items() if column not in cells}
        for column, text in row.cells.items():
            last_row = merged.get((row.number, column))
            if last_row is not None:
                covering[column] = (last_row, text)
        yield Row(row.number, dict(sorted(cells.items())))
