"""What the reader of print says of cells, put into words and lines, and the tokens of it."""

from __future__ import annotations

import numpy as np
import pytest

from hearth.multimodal.print_cells import BARS, CELL_PX, CELL_SLOTS, N_SAID, SAID, Array, Printed, characters_of
from hearth.multimodal.print_order import PRINT_TOKENS, WRITTEN, PrintTokens, in_reading_order
from hearth.multimodal.views import ANCHORS, Frame

SURE = 12.0
SIZE_PX = 20.0


def blank(rows: int = 12, columns: int = 24) -> Array:
    logits = np.zeros((CELL_SLOTS, N_SAID, rows, columns), np.float32)
    logits[:, 0] = SURE
    logits[:, -3] = -SURE
    logits[:, -2] = np.log(SIZE_PX)
    return logits


def put(logits: Array, character: str, row: int, column: int, share: float = 1.0, *, begins: bool = False) -> None:
    """``character`` in the first place of a cell that is free, of which ``share`` (0..1) lies in it."""
    slot = next(slot for slot in range(CELL_SLOTS) if logits[slot, 0, row, column] == SURE)
    logits[slot, 0, row, column] = 0.0 if share == 1 else SURE + np.log(1 / share - 1)
    logits[slot, 1 + SAID.index(character), row, column] = SURE
    logits[slot, -3, row, column] = SURE if begins else -SURE


def write(logits: Array, text: str, row: int, column: int, step: int = 2) -> None:
    for at, character in enumerate(text):
        if character != " ":
            put(logits, character, row, column + step * at, begins=at == 0 or text[at - 1] == " ")


def printed(logits: Array) -> list[Printed]:
    """In reading order."""
    return in_reading_order(characters_of(logits))


def read(logits: Array) -> str:
    """All of it but the space behind the last word."""
    return "".join(one.character for one in printed(logits))[:-1]


def test_a_blank_canvas_says_nothing() -> None:
    assert printed(blank()) == []


def test_words_come_line_by_line() -> None:
    logits = blank()
    write(logits, "to you", 2, 4)
    write(logits, "Hello", 7, 1)
    assert read(logits) == "to you Hello"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([("tea milk", 10, 0), ("18", 3, 1), ("4", 6, 11)], "tea 18 milk 4"),  # as a chart has it
        ([("go", 1, 3), ("go on now", 4, 0)], "go go on now"),  # one word over a line
        ([("big", 1, 2), ("summer sale", 5, 0), ("now", 9, 15)], "big summer sale now"),  # a sign, words on both sides
        ([("we go on", 4, 0), ("to you", 8, 1)], "we go on to you"),  # two lines of a text
    ],
)
def test_columns_are_read_from_the_line_that_they_have_in_common(
    written: list[tuple[str, int, int]], expected: str
) -> None:
    logits = blank()
    for text, row, column in written:
        write(logits, text, row, column)
    assert read(logits) == expected


def test_of_columns_with_more_words_the_first_line_of_each_stays_first() -> None:
    logits = blank()
    write(logits, "a b c", 10, 2)
    for row, column, text in ((2, 2, "1"), (5, 6, "2"), (8, 10, "3"), (2, 10, "9")):
        write(logits, text, row, column, 1)
    assert read(logits) == "a 1 b 2 c 9 3"


@pytest.mark.parametrize("down", [-1, 1])
def test_a_line_may_rise_or_fall(down: int) -> None:
    logits = blank()
    for at, character in enumerate("slanted"):
        put(logits, character, 6 + down * at // 2, 3 * at + 1, begins=at == 0)
    assert read(logits) == "slanted"


def test_a_character_between_cells_is_one() -> None:
    logits = blank()
    write(logits, "ab", 4, 4, step=4)
    put(logits, "c", 4, 12, 0.4)
    put(logits, "c", 4, 13, 0.35)
    put(logits, "c", 5, 12, 0.2)
    found = printed(logits)
    assert [one.character for one in found] == ["a", "b", "c", " "]
    assert 12 * CELL_PX < found[2].x < 13.5 * CELL_PX


def test_the_same_character_twice_stays_two() -> None:
    logits = blank()
    write(logits, "ball", 4, 4, step=1)
    put(logits, "o", 8, 8, 0.9, begins=True)
    put(logits, "o", 8, 9, 0.9)
    assert read(logits) == "ball oo"


def test_a_large_character_is_not_read_twice_though_its_middle_is_not_clear() -> None:
    logits = blank()
    put(logits, "T", 5, 4, 0.9, begins=True)
    put(logits, "T", 5, 5, 0.8)
    assert read(logits) == "TT", "as small as it is said to be"
    logits[:, -2] = np.log(60)
    assert read(logits) == "T"


@pytest.mark.parametrize(("character", "step"), [("T", 1), ("l", 1), ("T", 2)])
def test_a_character_is_not_read_twice_where_one_of_two_is_not_sure(character: str, step: int) -> None:
    logits = blank()
    put(logits, character, 5, 4, 0.9, begins=True)
    put(logits, character, 5, 4 + step, 0.6)
    assert read(logits) == (character if step == 1 else 2 * character)


def test_two_thin_characters_of_a_cell_come_from_left_to_right() -> None:
    logits = blank()
    put(logits, "t", 4, 4, begins=True)
    put(logits, "i", 4, 5)
    put(logits, "l", 4, 5)
    put(logits, "e", 4, 6)
    assert read(logits) == "tile"


def test_a_doubtful_character_is_left_out_and_a_word_begins_without_being_told() -> None:
    logits = blank()
    put(logits, "x", 2, 2, 0.15)
    put(logits, "a", 8, 10)
    found, space = printed(logits)
    assert (found.character, found.begins) == ("a", True)
    assert (space.character, space.begins) == (" ", False)
    assert (found.x, found.y) == pytest.approx((10.33 * CELL_PX, 8.5 * CELL_PX), abs=0.1)
    assert found.size == pytest.approx(SIZE_PX, rel=1e-3)


def test_a_picture_has_as_many_tokens_whatever_is_printed() -> None:
    rng = np.random.default_rng(1)
    n_embd = 6
    characters, before = rng.normal(size=(2, 1 + len(WRITTEN), n_embd))
    places, begins = rng.normal(size=(ANCHORS**2, n_embd)), rng.normal(size=n_embd)
    make = PrintTokens({"characters": characters, "begins": begins, "places": places, "before": before})
    frame = Frame(192, 192, (192, 192))
    assert np.allclose(make.tokens([], frame), np.tile(characters[0], (PRINT_TOKENS, 1)))
    word = [Printed("b", 12.0, 12.0, begins=True), Printed("a", 36.0, 12.0, begins=False)]
    bar = Printed(BARS[1], 12.0, 12.0, begins=True)
    tokens = make.tokens([*word, Printed(" ", 36.0, 12.0, begins=False), bar], frame)
    assert tokens.shape == (PRINT_TOKENS, n_embd)
    assert np.allclose(tokens[0], characters[2] + begins + places[0], atol=1e-5), "its middle is an anchor's"
    assert np.allclose(tokens[1], characters[1] + places[1], atol=1e-5)
    assert np.allclose(tokens[2], characters[1 + WRITTEN.index(" ")], atol=1e-5), "a space is nowhere"
    orange = characters[1 + SAID.index("orange")] + begins + places[0]
    assert np.allclose(tokens[3], orange + before[2], atol=1e-5), "and what was three before"
    assert np.allclose(tokens[4:], characters[0])
    many = make.tokens([Printed("a", 12.0, 12.0, begins=False)] * (PRINT_TOKENS + 3), frame)
    assert many.shape == (PRINT_TOKENS, n_embd)


def test_vectors_of_a_reader_that_tells_other_things_are_refused() -> None:
    fewer = np.zeros((1 + len(SAID), 6))
    weights = {"characters": fewer, "before": fewer, "places": np.zeros((ANCHORS**2, 6)), "begins": np.zeros(6)}
    with pytest.raises(ValueError, match=f"vectors of {1 + len(SAID)} characters, bars and words"):
        PrintTokens(weights)


def doubtful(logits: Array, row: int, column: int, share: float, other: str) -> None:
    """Makes ``share`` (0..1) of the character in a cell ``other``'s."""
    logits[0, 1 + SAID.index(other), row, column] = SURE + np.log(share / (1 - share))


@pytest.mark.parametrize(
    ("text", "at", "other"),
    [("NAGUS", 4, "s"), ("castle", 0, "C"), ("Market", 2, "R"), ("2019", 1, "O"), ("H-584", 2, "S")],
)
def test_what_looks_alike_is_written_as_the_rest_of_its_word(text: str, at: int, other: str) -> None:
    logits = blank()
    write(logits, text, 4, 2)
    doubtful(logits, 4, 2 + 2 * at, 0.6 if at else 0.4, other)
    assert read(logits) == text


def test_an_unusual_word_is_read_as_it_is_where_that_is_clear() -> None:
    logits = blank()
    write(logits, "McDonald iPhone", 4, 2, step=1)
    assert read(logits) == "McDonald iPhone"


@pytest.mark.parametrize("offset_px", [0.0, 3.0, 7.9])
def test_a_bar_ends_within_its_cell(offset_px: float) -> None:
    logits = blank()
    for at, colour in enumerate(("red", "grey")):
        put(logits, colour, 2 + 3 * at, 6 + 10 * at, begins=True)
        logits[0, -1, 2 + 3 * at, 6 + 10 * at] = offset_px / CELL_PX
        write(logits, "AB"[at], 10, 6 + 10 * at)
    found = printed(logits)
    assert [one.character for one in found] == ["red", "A", " ", "grey", "B", " "]
    assert [found[0].y, found[3].y] == pytest.approx([2 * CELL_PX + offset_px, 5 * CELL_PX + offset_px], abs=0.01)


def test_the_upper_edge_of_a_bar_is_one_bar_and_another_begins_beside_it() -> None:
    logits = blank()
    for first, colour in ((3, "red"), (7, "red"), (12, "grey")):
        for cell in range(first, first + 3 + (first == 3)):  # the first two bars touch
            put(logits, colour, 4, cell, begins=cell == first)
            logits[0, -1, 4, cell] = 0.5
        write(logits, "AB"[first > 3] if first < 12 else "C", 10, first + 1)
    found = printed(logits)
    assert [one.character for one in found] == ["red", "A", " ", "red", "B", " ", "grey", "C", " "]
    bars = [one for one in found if one.character in BARS]
    assert [one.x for one in bars] == pytest.approx([5 * CELL_PX, 8.5 * CELL_PX, 13.5 * CELL_PX], abs=0.1)
    assert [one.y for one in bars] == pytest.approx([4.5 * CELL_PX] * 3, abs=0.1)


def test_what_lies_in_no_bar_of_a_chart_is_no_bar() -> None:
    logits = blank()
    write(logits, "no chart", 2, 2)
    put(logits, "red", 6, 3, begins=True)
    put(logits, "blue", 6, 12, begins=True)
    assert read(logits) == "no chart"
