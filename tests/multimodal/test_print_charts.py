"""Bar charts as they are told: bars, what is under them, and their values, printed or read off an axis."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hearth.multimodal.print_cells import BARS, Printed
from hearth.multimodal.print_order import in_reading_order

FOOT, TOP = 160.0, 20.0  # heights of the axis in pixels
SIZE_PX = 12.0


def word(text: str, x: float, y: float, advance: float = 6.0) -> list[Printed]:
    left = x - advance * (len(text) - 1) / 2
    return [Printed(one, left + advance * at, y, at == 0, SIZE_PX) for at, one in enumerate(text)]


def bar(colour: str, x: float, share: float) -> Printed:
    """One that reaches ``share`` (0..1) of the axis."""
    return Printed(colour, x, FOOT - share * (FOOT - TOP), begins=True)


def axis(ticks: dict[float, str], x: float = 12.0) -> list[Printed]:
    """What stands at shares of the axis."""
    return [one for share, text in ticks.items() for one in word(text, x, FOOT - share * (FOOT - TOP))]


def told(found: list[Printed]) -> str:
    return "".join(f"[{one.character}]" if one.character in BARS else one.character for one in in_reading_order(found))


def test_a_bar_is_told_with_its_label_and_the_value_over_it() -> None:
    found = [bar("red", 50, 0.9), bar("blue", 100, 0.02), bar("grey", 150, 0.5)]
    found += word("tea", 50, 172) + word("milk", 100, 172) + word("rice", 150, 172)
    found += word("18", 50, 24) + word("1", 100, 146) + word("10", 150, 80)
    assert told(found) == "[red]tea 18 [blue]milk 1 [grey]rice 10 "


def test_labels_that_touch_or_fall_apart_are_those_of_their_bars() -> None:
    found = [bar("red", 50, 0.9), bar("blue", 100, 0.2), bar("grey", 150, 0.5)]
    label = word("Emma", 50, 172)
    label[1] = Printed("m", label[1].x, label[1].y, True, SIZE_PX)
    joined = word("ricesoup", 126, 172, 12.0)
    found += [*label, *joined, *word("5", 50, 24), *word("3", 100, 122), *word("7", 150, 80)]
    assert told(found) == "[red]Emma 5 [blue]rice 3 [grey]soup 7 "


def test_two_bars_of_one_height_are_two() -> None:
    found = [bar("blue", 50, 0.5), bar("blue", 90, 0.5), bar("blue", 130, 0.5)]
    found += word("Sun", 50, 172) + word("Tue", 90, 172) + word("Sat", 130, 172)
    assert told([*found, *axis({0: "0", 0.5: "5", 1: "10"})]) == "[blue]Sun 5 [blue]Tue 5 [blue]Sat 5 "
    found += word("5", 50, 80) + word("5", 90, 80) + word("5", 130, 80)
    assert told(found) == "[blue]Sun 5 [blue]Tue 5 [blue]Sat 5 "


def test_a_tick_that_stands_a_little_off_moves_no_value() -> None:
    ticks = axis({0.2: "10", 0.4: "20", 0.6: "30", 0.8: "40", 1: "50"})
    found = [bar("green", 60, 0.9), bar("pink", 120, 0.3), bar("pink", 180, 0.1)]
    found += word("A", 60, 172) + word("B", 120, 172) + word("C", 180, 172) + word("0", 12, FOOT + 7)
    assert told([*found, *ticks]) == "[green]A 45 [pink]B 15 [pink]C 5 "


def test_a_title_and_a_name_of_the_axis_come_behind() -> None:
    found = [bar("red", 60, 0.4), bar("red", 120, 0.8)]
    found += word("May", 60, 172) + word("Jun", 120, 172) + word("4", 60, 96) + word("8", 120, 38)
    found += word("Rain", 60, 8) + word("month", 90, 188)
    assert told(found) == "[red]May 4 [red]Jun 8 Rain month "


def test_a_number_in_a_title_is_the_value_of_no_bar() -> None:
    found = [bar("red", 60, 0.4), bar("red", 120, 0.8)]
    found += word("May", 60, 172) + word("Jun", 120, 172) + word("4", 60, 96) + word("8", 120, 38)
    found += word("Rain", 50, 6) + word("2024", 90, 6)
    assert told(found) == "[red]May 4 [red]Jun 8 Rain 2024 "


@pytest.mark.parametrize(
    ("ticks", "shares", "values"),
    [
        ({0: "0", 0.2: "20", 0.4: "40", 0.6: "60", 0.8: "80", 1: "100"}, (0.3, 1.0), "30 100"),
        ({0: "0", 0.25: "5", 0.5: "10", 0.75: "15", 1: "20"}, (0.35, 0.65), "7 13"),
        ({0: "0", 0.5: "10", 1: "20"}, (0.9, 0.1), "18 2"),
        ({0: "0", 0.5: "1", 1: "2"}, (0.15, 0.75), "0.3 1.5"),
        ({0: "0", 0.2: "20", 0.4: "48", 0.6: "60", 0.8: "80"}, (0.1, 0.5), "10 50"),  # one is misread
        ({0: "0", 0.5: "500", 1: "1000"}, (0.137, 0.5), "150 500"),  # 137 cannot be told from 150
        ({0: "0%", 0.5: "2.5%", 1: "5.0%"}, (0.2, 0.7), "1 3.5"),
    ],
)
def test_values_are_read_off_the_axis(ticks: dict[float, str], shares: tuple[float, float], values: str) -> None:
    found = [bar("green", 60, shares[0]), bar("pink", 120, shares[1])]
    found += word("A", 60, 172) + word("B", 120, 172)
    first, second = values.split()
    for x in (12.0, 180.0):
        assert told(found + axis(ticks, x)) == f"[green]A {first} [pink]B {second} "


def test_a_tick_below_the_lowest_end_is_no_label() -> None:
    found = [bar("red", 40, 0.5), bar("blue", 90, 0.25), *word("Anna", 40, 172), *word("Ben", 90, 172)]
    found += axis({0: "0", 0.25: "5", 0.5: "10", 0.75: "15", 1: "20"}, x=20.0)
    assert told(found) == "[red]Anna 10 [blue]Ben 5 "


def test_bars_end_some_pixels_from_where_they_are_read() -> None:
    ticks = {0: "0", 0.2: "10", 0.4: "20", 0.6: "30", 0.8: "40", 1: "50"}
    ends = [(0.2, 1.5), (0.7, -2.0), (0.9, 0.5)]
    colours = ("red", "blue", "grey")
    found = axis(ticks)
    for (share, off), colour, x in zip(ends, colours, (50, 100, 150), strict=True):
        exact = bar(colour, x, share)
        found += [Printed(colour, x, exact.y + off, begins=True), *word(colour[0], x, 172)]
    assert told(found) == "[red]r 10 [blue]b 35 [grey]g 45 "


def test_a_bar_that_is_not_seen_has_its_label_and_value_all_the_same() -> None:
    found = [bar("red", 50, 0.9), bar("grey", 150, 0.5)]
    found += word("tea", 50, 172) + word("milk", 100, 172) + word("rice", 150, 172)
    found += word("18", 50, 24) + word("8", 100, 96) + word("10", 150, 80)
    assert told(found) == "[red]tea 18 milk 8 [grey]rice 10 "


def test_a_bar_told_at_two_places_is_one_of_the_surer_colour() -> None:
    doubtful = Printed("pink", 46, 34.0, begins=True, chances=np.array([0.4, 0.3], np.float32))
    sure = Printed("orange", 54, 34.0, begins=True, chances=np.array([0.9, 0.1], np.float32))
    found = [doubtful, sure, bar("grey", 150, 0.5), *word("tea", 50, 172), *word("rice", 150, 172)]
    found += word("18", 50, 24) + word("10", 150, 80)
    assert told(found) == "[orange]tea 18 [grey]rice 10 "


def test_without_an_axis_only_what_is_printed_is_told() -> None:
    found = [bar("green", 60, 0.5), bar("pink", 120, 0.8), *word("A", 60, 172), *word("B", 120, 172)]
    assert told(found) == "[green]A [pink]B "
    assert told([*found, *word("7", 12, 90)]) == "[green]A [pink]B 7 ", "one tick is no axis"


@pytest.mark.parametrize("bars", [[], [bar("red", 60, 0.5)], [bar("red", 60, 0.5), bar("red", 61, 0.5)]])
def test_one_bar_makes_no_chart(bars: list[Printed]) -> None:
    text = [*word("go", 60, 50), *word("on", 100, 50)]
    assert told([*text, *bars]) == "go on "


def test_bars_without_anything_under_them_are_no_chart() -> None:
    text = [*word("sale", 60, 10), *word("now", 110, 10)]
    assert told([*text, *(bar("red", 40 * at, 0.5) for at in range(1, 5))]) == "sale now "


def test_whatever_is_read_becomes_words() -> None:
    rng = random.Random(1)
    for _ in range(300):
        texts = [rng.choice(("0", "1", "3", "7", "10", "999999999999", "2.5", "%", "a", "Rain")) for _ in range(12)]
        found = [one for text in texts for one in word(text, rng.uniform(0, 192), rng.uniform(0, 192))]
        found += [bar(rng.choice(BARS), rng.uniform(0, 192), rng.random()) for _ in range(rng.randint(0, 8))]
        read = in_reading_order(found)
        kept = [one.character for one in read if one.character not in BARS and one.character.isalpha()]
        assert sorted(kept) == sorted(one for text in texts for one in text if one.isalpha()), "only ticks go"
        assert all(one.character == " " for one in read[-1:])
