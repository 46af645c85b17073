"""Tables of PDFs come out as lines of cells; text in columns, lists and figures are left as they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hearth.multimodal import documents_pdf_tables
from hearth.multimodal.documents import read_document

sys.path.insert(0, str(Path(__file__).parent))
from minimal_pdf import make_placed_pdf

Words = list[tuple[int, int, str]]
PROSE = ["The committee met on Tuesday and spoke about", "the new library which opens in spring, and of"]


def table(top: int, columns: Sequence[int], *rows: Sequence[str]) -> Words:
    return [
        (x, top - 18 * at, cell) for at, row in enumerate(rows) for x, cell in zip(columns, row, strict=True) if cell
    ]


def text(words: Words) -> str:
    return read_document(make_placed_pdf(words), "t.pdf").text


def test_a_table_between_paragraphs() -> None:
    rows = (
        ("Part", "Price", "In stock"),
        ("Button", "3 euro", "12"),
        ("Long lamp", "", "7"),
        ("Wire", "1 euro", "1,000"),
    )
    words = [(50, 780, "Prices of this year:"), *table(740, (50, 200, 300), *rows), (50, 640, "Then the text goes on.")]
    assert text(words) == (
        "Prices of this year:\n\nPart | Price | In stock\nButton | 3 euro | 12\nLong lamp |  | 7\nWire | 1 euro | 1,000"
        "\n\nThen the text goes on."
    )


def test_a_cell_that_goes_on_in_the_next_line() -> None:
    words = table(740, (50, 160), ("Part", "What it does"), ("Button", "Starts the machine when"))
    words += [(160, 708, "it is held down"), *table(690, (50, 160), ("Lamp", "Blinks"))]
    assert text(words) == "Part | What it does\nButton | Starts the machine when\n | it is held down\nLamp | Blinks"


def test_numbers_set_flush_right() -> None:
    words = table(740, (50, 300), ("Year", "Visitors"), ("Spring 2024", ""), ("Spring 2025", ""))
    words += [(336, 722, "9"), (318, 704, "1,204")]
    assert text(words).endswith("Spring 2024 | 9\nSpring 2025 | 1,204")


@pytest.mark.parametrize(
    "words",
    [
        [(x, 780 - 14 * n, PROSE[n % 2]) for n in range(18) for x in (50, 320)],
        [word for n in range(9) for word in ((50, 780 - 14 * n, f"{n}."), (75, 780 - 14 * n, f"point number {n}"))],
        [(50 + 97 * (n % 5), 780 - 15 * (n // 2), "box") for n in range(30)],
        [(50, 780, "one"), (200, 780, "two"), (50, 760, "three"), (200, 760, "four")],
    ],
    ids=["columns", "list", "figure", "two rows"],
)
def test_what_is_no_table(words: Words) -> None:
    assert " | " not in text(words)
    for _, _, word in words:
        assert word.split()[0] in text(words)


def test_pages_of_countless_pieces_are_read_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    words = table(740, (50, 200, 300), *[("a", "b", "c")] * 4)
    assert " | " in text(words)
    monkeypatch.setattr(documents_pdf_tables, "MAX_PIECES", 11)
    assert text(words).split() == ["a", "b", "c"] * 4


def test_text_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    words = table(740, (50, 200, 300), *[("a", "b", "c")] * 4)
    monkeypatch.setattr(documents_pdf_tables, "_words", lambda *_: {})
    assert text(words).split() == ["a", "b", "c"] * 4
