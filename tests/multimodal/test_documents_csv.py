"""CSV: delimiters, encodings, quotation marks, ragged rows; binary and endless files are refused."""

from __future__ import annotations

import random
import time

import pytest

from hearth.multimodal import documents_table
from hearth.multimodal.documents import read_document
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError
from hearth.multimodal.kinds import identify


def text(data: bytes | str, name: str = "a.csv") -> str:
    return read_document(data.encode() if isinstance(data, str) else data, name).text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(delimiter: str) -> None:
    data = "\n".join(delimiter.join(row) for row in (["Part", "Price", "Room"], ["Button", "3", "12"]))
    assert text(data) == "Part: Button; Price: 3; Room: 12"


def test_decimal_commas_do_not_make_commas_the_delimiter() -> None:
    assert text("a;b\n1,5;2,5\n3,5;4,5") == "a: 1,5; b: 2,5\na: 3,5; b: 4,5"


def test_excel_says_its_delimiter() -> None:
    assert text("sep=;\r\nName;Age\r\nAnn, the first;31\r\n") == "Name: Ann, the first; Age: 31"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(encoding: str) -> None:
    data = "Größe;Stück;Wo\nXL;3;Café\nM;7;Büro\n".encode(encoding)
    assert text(data).split("\n")[0] == "Größe: XL; Stück: 3; Wo: Café"


def test_quotation_marks_line_breaks_and_ragged_rows() -> None:
    data = 'Name,Said,Year\n"Ann, the first","She said ""yes""\nand left",2001\nBob\nCara,no,2002,extra\n\n'
    assert text(data).split("\n") == [
        'Name: Ann, the first; Said: She said "yes" and left; Year: 2001',
        "Name: Bob",
        "Name: Cara; Said: no; Year: 2002; D: extra",
    ]


def test_a_stray_quotation_mark_leaves_cells_of_several_lines_whole() -> None:
    data = 'Name,Said,Year\nAnn,"a "big" one",2001\nBob,"no,\nnever",2002'
    shown = text(data).split("\n")
    assert shown[1] == "Name: Bob; Said: no, never; Year: 2002"
    assert len(shown) == 2


@pytest.mark.parametrize("n_rows", [10, 500])
def test_a_quotation_mark_that_is_never_closed_swallows_nothing(n_rows: int) -> None:
    rows = "\n".join(f'{n},5" pipe,{n}' if n != 3 else f'{n},"open,{n}' for n in range(n_rows))
    shown = text("N,What,Price\n" + rows)
    assert f"N: {n_rows - 1}; " in shown
    assert 'What: "open; Price: 3' in shown


def test_rows_are_numbered_as_the_file_counts_them() -> None:
    read = read_document("\n".join(["N,M,O"] + [f"{n},{n},{n}" for n in range(1, 131)]).encode(), "n.csv")
    assert [page.section for page in read.pages] == ["rows 2–101", "rows 102–131"]
    assert read.mime == "text/csv"


def test_structure_decides_where_the_name_does_not() -> None:
    table = b"name;age;city\nann;31;Paris\nbob;27;Rome\ncara;45;Oslo\n"
    for name in ("export.txt", "data", "noise.xyz"):
        assert identify(table, name).mime == "text/csv"
    for prose in (
        b"Hello, Ann, I write\nto you, my friend, today\nand hope, as always, that\nall is, for you, well\n",
        b'{"a": 1, "b": 2, "c": 3}\n' * 9,
        b"a,b\n1,2\n",
        b"one line, with, commas",
        b"Dear all\n\nthe meeting is at nine.\n",
    ):
        assert identify(prose, "x.txt").mime in ("text/plain", "text/csv")
    assert identify(b'{"a": 1, "b": 2, "c": 3}\n' * 9, "x.jsonl").mime == "text/plain"
    assert identify(b"a,b\n1,2\n", "x.txt").mime == "text/plain"
    assert identify(b"just a line\nand another\n", "x.csv").mime == "text/csv"


def test_one_column_and_no_column() -> None:
    assert text("Berlin\nParis\nRome") == "Berlin\nParis\nRome"
    with pytest.raises(PerceptionError, match=r"^a\.csv has no text in it"):
        text(",,,\n,,,\n")


def test_too_many_rows_are_refused_soon() -> None:
    before = time.process_time()
    with pytest.raises(MediaTooLargeError, match=r"^big\.csv has more than the limit of 200,000 rows; split it"):
        read_document(b"a,b,c\n" + b"1,2,3\n" * 1_000_000, "big.csv")
    assert time.process_time() - before < 20


def test_characters_count_with_the_names_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_table, "MAX_CHARS", 100)
    with pytest.raises(MediaTooLargeError, match="limit of 100 characters by row 5"):
        text("a long name,b,c\n" + "1,2,3\n" * 9)


def test_an_endless_cell_is_refused() -> None:
    with pytest.raises(
        PerceptionError, match=r"^a\.csv is a table that cannot be read \(field larger than field limit"
    ):
        text("a,b\n" + "x" * 200_000)


def test_a_binary_file_with_the_name_of_a_table() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"^a\.csv is binary data of an unknown kind"):
        text(bytes(range(256)) * 9)
    with pytest.raises(UnsupportedMediaError, match="it is a PNG picture; add it as a picture"):
        text(b"\x89PNG\r\n\x1a\n")


def test_cancel() -> None:
    answers = iter([False, False, True])
    with pytest.raises(PerceptionCancelled):
        read_document(b"a,b,c\n" + b"1,2,3\n" * 9_000, "c.csv", cancelled=lambda: next(answers))


def test_noise_gives_a_table_or_an_error() -> None:
    rng = random.Random(5)
    for _ in range(200):
        noise = "".join(rng.choice(',;"\n\r\tab1 é') for _ in range(rng.randint(1, 200)))
        try:
            assert text(noise)
        except PerceptionError as error:
            assert "a.csv" in str(error)  # noqa: PT017
