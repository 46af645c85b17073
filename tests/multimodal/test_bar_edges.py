"""Bars are measured where they are seen: colours, heights, and those that were missed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hearth.multimodal.bar_edges import colour_name, measured
from hearth.multimodal.print_cells import BARS, Printed
from hearth.multimodal.views import Frame
from training.world import COLOURS

FOOT = 260


def chart(bars: dict[int, tuple[str, int]], side: int = 320, width: int = 40, *, noisy: bool = False) -> Image.Image:
    """Bars by their left edge: colour and upper edge."""
    image = Image.new("RGB", (side, side), (250, 248, 240))
    pen = ImageDraw.Draw(image)
    for left, (colour, top) in bars.items():
        pen.rectangle((left, top, left + width - 1, FOOT - 1), fill=COLOURS[colour])
    if noisy:
        noise = np.random.default_rng(0).normal(0, 6, (side, side, 3))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return image


def bar(colour: str, x: float, y: float) -> Printed:
    return Printed(colour, x, y, begins=True)


def seen(found: list[Printed], image: Image.Image, frame: Frame | None = None) -> list[tuple[str, float, float]]:
    """What is told of bars, from the left; places to half a pixel."""
    frame = frame or Frame(*image.size, image.size)
    told = measured(found, image, frame)
    return sorted(((one.character, round(2 * one.x) / 2, round(2 * one.y) / 2) for one in told), key=lambda one: one[1])


@pytest.mark.parametrize("noisy", [False, True])
def test_bars_are_as_high_and_of_the_colour_that_they_are(noisy: bool) -> None:
    image = chart({40: ("yellow", 100), 140: ("brown", 200), 240: ("grey", 150)}, noisy=noisy)
    found = [bar("orange", 55, 104), bar("black", 165, 196), bar("grey", 260, 150)]
    assert seen(found, image) == [("yellow", 60, 100), ("brown", 160, 200), ("grey", 260, 150)]


def test_one_that_was_found_tells_where_others_are() -> None:
    image = chart({40: ("red", 100), 140: ("blue", 200), 240: ("green", 252)})
    ImageDraw.Draw(image).rectangle((10, 262, 70, 275), fill="black")  # a label, not on the line
    assert seen([bar("red", 60, 100)], image) == [("red", 60, 100), ("blue", 160, 200), ("green", 260, 252)]


def test_two_halves_are_one_bar() -> None:
    image = chart({40: ("red", 100), 140: ("blue", 200)}, width=60)
    assert seen([bar("red", 52, 100), bar("red", 80, 101), bar("blue", 170, 200)], image) == [
        ("red", 70, 100),
        ("blue", 170, 200),
    ]


def test_bars_of_a_large_picture_stand_where_they_are_on_the_canvas() -> None:
    image = chart({300: ("pink", 120), 1500: ("purple", 220)}, side=2400, width=300).resize((2400, 1800))
    frame = Frame(2400, 1800, (192, 144))
    (first, second) = seen([bar("red", 36, 8), bar("purple", 132, 14)], image, frame)
    assert first == ("pink", 36, pytest.approx(120 * 0.75 / 12.5, abs=0.5))
    assert second == ("purple", 132, pytest.approx(220 * 0.75 / 12.5, abs=0.5))


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (200, 200), "white"),
        Image.new("RGB", (3, 2)),
        Image.effect_noise((200, 200), 90).convert("RGB"),
    ],
    ids=["blank", "tiny", "noise"],
)
def test_what_is_no_bar_stays_as_the_reader_had_it(image: Image.Image) -> None:
    found = [bar("red", 60.0, 100.0), bar("blue", 199.0, 0.0), bar("grey", -5.0, 400.0), Printed("a", 9.0, 9.0, True)]
    told = measured(found, image, Frame(*image.size, image.size))
    assert sorted(map(repr, told)) == sorted(map(repr, found))


def test_too_low_a_bar_keeps_the_colour_that_the_reader_saw() -> None:
    image = chart({40: ("red", 100), 140: ("black", 258)}).resize((300, 300), Image.Resampling.BICUBIC)
    told = seen([bar("red", 56, 94), bar("black", 150, 241)], image)
    assert [colour for colour, *_ in told] == ["red", "black"]


def test_without_bars_nothing_is_measured() -> None:
    found = [Printed("a", 9.0, 9.0, begins=True)]
    assert measured(found, chart({40: ("red", 100)}), Frame(320, 320, (192, 192))) is found


def test_colours_are_called_what_people_call_them() -> None:
    for name in BARS:
        assert colour_name(np.array(COLOURS[name], np.float64)) == name
    for name, rgb in {
        "blue": (31, 119, 180),
        "orange": (255, 127, 14),
        "green": (44, 160, 44),
        "red": (214, 39, 40),
    }.items():
        assert colour_name(np.array(rgb, np.float64)) == name
