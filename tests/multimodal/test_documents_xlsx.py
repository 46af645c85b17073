"""Excel: rows that name their columns, values as people see them, grids of any size; hostile files are refused."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import time
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path

import openpyxl
import pytest
import xlsxwriter

from hearth.multimodal import documents_table, documents_xlsx
from hearth.multimodal.documents import DocumentText, read_document
from hearth.multimodal.documents_types import Watch
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError
from hearth.multimodal.passages import split_passages

sys.path.insert(0, str(Path(__file__).parent))
from archives import ENTITIES, encrypted, member, with_member

SHEET = "xl/worksheets/sheet1.xml"


def saved(book: openpyxl.Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def workbook(*rows: list[object]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    return saved(book)


def workbook_of_shared_texts(*rows: list[object]) -> bytes:
    """As Excel writes them; openpyxl writes each text into its cell."""
    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return out.getvalue()


PRICES = workbook(["Part", "Price", "Stock"], ["Button", 3.5, 12], ["Lamp", 5, None])
SHARED = workbook_of_shared_texts(["Part", "Price", "Stock"], ["Button", 3.5, 12], ["Lamp", 5, None])


def lines(read: DocumentText) -> list[str]:
    return read.text.split("\n")


def test_each_row_names_its_columns() -> None:
    read = read_document(PRICES, "prices.xlsx")
    assert lines(read) == ["Part: Button; Price: 3.5; Stock: 12", "Part: Lamp; Price: 5"]
    assert lines(read_document(SHARED, "prices.xlsx")) == lines(read)
    assert read.pages[0].section == "Sheet"
    assert read.title == "prices"


def test_sheets_are_sections_and_long_ones_are_cut_into_stretches_of_rows() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Numbers"
    book.active.append(["N", "Square"])
    for n in range(1, 251):
        book.active.append([n, n * n])
    second = book.create_sheet("Notes & more")
    second.append(["Only words here"])
    read = read_document(saved(book), "b.xlsx")
    assert [page.section for page in read.pages] == [
        "Numbers › rows 2–101",
        "Numbers › rows 102–201",
        "Numbers › rows 202–251",
        "Notes & more",
    ]
    assert read.pages[1].text.startswith("N: 101; Square: 10201\n")
    passage = next(passage for passage in split_passages(read) if "N: 200;" in passage.text)
    assert passage.section == "Numbers › rows 102–201"
    assert read.text[passage.start : passage.end] == passage.text


def test_values_as_people_see_them() -> None:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out)
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, ["Kind", "Value", "Note"])
    values: list[tuple[object, str, str]] = [
        (datetime(2026, 3, 1), "yyyy-mm-dd", "2026-03-01"),
        (datetime(2026, 3, 1, 14, 30), "d/m/yy h:mm", "2026-03-01 14:30"),
        (datetime(2026, 3, 1), "mmm yyyy", "2026-03-01"),
        (clock(9, 5), "h:mm AM/PM", "09:05"),
        (timedelta(hours=30, minutes=15), "[h]:mm", "30:15"),
        (0.125, "0.0%", "12.5%"),
        (0.1 + 0.2, "General", "0.3"),
        (1234567, '#,##0 "days"', "1234567"),
        (3, '[Red]0 "my dry"', "3"),
        (True, "General", "TRUE"),
        ("two\nlines", "@", "two lines"),
        (-7, "0;[Red]-0", "-7"),
        (1e21, "0", "1e+21"),
    ]
    for row, (value, code, _) in enumerate(values, 1):
        sheet.write(row, 0, "x")
        sheet.write(row, 1, value, book.add_format({"num_format": code}))
    sheet.write_formula(len(values) + 1, 1, "=SUM(B1:B2)", None, 42)
    sheet.write_formula(len(values) + 2, 1, "=1/0", None, "#DIV/0!")
    book.close()
    shown = [line.partition("Value: ")[2] for line in lines(read_document(out.getvalue(), "v.xlsx"))]
    assert shown == [expected for *_, expected in values] + ["42", "#DIV/0!"]


def test_the_old_calendar_of_macs_and_the_day_that_never_was() -> None:
    book = openpyxl.Workbook()
    book.active.append(["Name", "Day", "Number"])
    book.active.append(["a", date(1904, 1, 2), 1])
    assert "Day: 1904-01-02" in read_document(saved(book), "d.xlsx").text
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    assert "Day: 1904-01-02" in read_document(saved(book), "d.xlsx").text


def test_titles_above_the_header_and_tables_without_one() -> None:
    read = read_document(workbook(["Stock of 2026"], [], ["Part", "Price", "Room"], ["Button", 3, 12]), "t.xlsx")
    assert lines(read) == ["Stock of 2026", "Part: Button; Price: 3; Room: 12"]
    assert lines(read_document(workbook([1, 2], [3, 4]), "n.xlsx")) == ["1 | 2", "3 | 4"]
    pairs = workbook(["Name", "Ann"], ["City", "Paris"])
    assert lines(read_document(pairs, "p.xlsx")) == ["Name | Ann", "City | Paris"]
    unnamed = workbook(["Part", "Price", None], ["Button", 3, "sold out"])
    assert lines(read_document(unnamed, "u.xlsx")) == ["Part: Button; Price: 3; C: sold out"]


def test_a_cell_over_several_rows_counts_in_each() -> None:
    book = openpyxl.Workbook()
    for row in (["Floor", "Room", "Seats"], ["Second", 12, 8], [None, 14, 20], ["Third", 20, 4]):
        book.active.append(row)
    book.active.merge_cells("A2:A3")
    assert lines(read_document(saved(book), "m.xlsx"))[:2] == [
        "Floor: Second; Room: 12; Seats: 8",
        "Floor: Second; Room: 14; Seats: 20",
    ]


def test_a_sparse_grid_costs_what_it_holds() -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "first"
    book.active["XFD1048576"] = "last"
    before = time.process_time()
    assert lines(read_document(saved(book), "s.xlsx")) == ["first", "last"]
    assert time.process_time() - before < 30


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b'<row r="1048577"><c r="A1048577"><v>1</v></c></row>', "row 1,048,577 of a sheet that has 1,048,576"),
        (b'<row r="1"><c r="ZZZ1"><v>1</v></c></row>', "column ZZZ of a sheet whose last is XFD"),
        (b'<row r="1"><c r="A1" t="s"><v>99</v></c></row>', "list index out of range"),
        (b'<row r="1"><c r="A1"><v>many</v></c></row>', "could not convert"),
    ],
)
def test_cells_that_cannot_be(cell: bytes, message: str) -> None:
    sheet = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData>'
    data = with_member(PRICES, SHEET, sheet % cell + b"</worksheet>")
    with pytest.raises(
        PerceptionError, match=rf"^x\.xlsx is an Excel workbook that is truncated or damaged \({message}"
    ):
        read_document(data, "x.xlsx")


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_table, "MAX_ROWS", 1)
    with pytest.raises(MediaTooLargeError, match=r"^p\.xlsx has more than the limit of 1 rows; split it"):
        read_document(PRICES, "p.xlsx")
    monkeypatch.setattr(documents_table, "MAX_ROWS", 9)
    monkeypatch.setattr(documents_table, "MAX_CHARS", 40)
    with pytest.raises(MediaTooLargeError, match=r"more than the limit of 40 characters by row 3 of Sheet, the names"):
        read_document(PRICES, "p.xlsx")
    monkeypatch.setattr(documents_xlsx, "MAX_STRINGS", 3)
    with pytest.raises(MediaTooLargeError, match=r"more than the limit of 3 texts"):
        read_document(SHARED, "p.xlsx")


def test_one_text_in_a_million_cells_is_not_multiplied() -> None:
    cells = b"".join(b'<row r="%d"><c r="A%d" t="s"><v>0</v></c></row>' % (n, n) for n in range(1, 2_000))
    sheet = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData>'
    strings = b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>%s</t></si></sst>'
    data = with_member(SHARED, SHEET, sheet % cells + b"</worksheet>")
    data = with_member(data, "xl/sharedStrings.xml", strings % (b"x" * 32_000))
    with pytest.raises(MediaTooLargeError, match=r"limit of 20,000,000 characters by row 6\d\d"):
        read_document(data, "m.xlsx")


def test_entities_and_pronunciations_are_left_out() -> None:
    strings = member(SHARED, "xl/sharedStrings.xml")
    at = strings.index(b"<sst")
    hostile = strings[:at] + ENTITIES + strings[at:].replace(b">Button<", b">&a;&b;Button<")
    text = read_document(with_member(SHARED, "xl/sharedStrings.xml", hostile), "e.xlsx").text
    assert "laugh" not in text
    assert "Lamp" in text
    spoken = strings.replace(b"Button</t>", "Button</t><rPh sb='0' eb='1'><t>ボタン</t></rPh>".encode())
    assert spoken != strings
    text = read_document(with_member(SHARED, "xl/sharedStrings.xml", spoken), "j.xlsx").text
    assert "Button" in text
    assert "ボ" not in text


def test_progress_and_cancel_within_a_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_xlsx, "_PROGRESS_EVERY", 2)
    data = workbook(["N", "M", "O"], *([n, n, n] for n in range(20)))
    seen: list[float] = []
    read_document(data, "p.xlsx", on_progress=seen.append)
    assert seen == sorted(seen)
    assert len({round(fraction, 3) for fraction in seen}) >= 8
    answers = iter([False] * 6 + [True])
    with pytest.raises(PerceptionCancelled):
        documents_xlsx.read_xlsx(data, Watch("p.xlsx", None, lambda: next(answers)))


def test_encrypted_truncated_and_damaged() -> None:
    with pytest.raises(PerceptionError, match=r"^e\.xlsx is encrypted and needs a password"):
        read_document(encrypted(PRICES), "e.xlsx")
    with pytest.raises(PerceptionError, match="is an encrypted Office document, which is not read"):
        read_document(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "e.xlsx")
    with pytest.raises(PerceptionError, match=r"^h\.xlsx is an Excel workbook that is truncated or damaged"):
        read_document(PRICES[: len(PRICES) // 2], "h.xlsx")
    with pytest.raises(PerceptionError, match=r"^n\.xlsx has no text in it"):
        read_document(workbook(), "n.xlsx")
    rng = random.Random(3)
    for _ in range(60):
        data = bytearray(PRICES)
        for _ in range(8):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(PerceptionError):
            read_document(bytes(data), "x.xlsx")
