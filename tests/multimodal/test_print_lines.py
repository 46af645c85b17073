"""Print that cells have found is read again by lines: which strips, what a reader gets of them, and what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from hearth.multimodal import print_lines
from hearth.multimodal.line_reader import LineReader
from hearth.multimodal.print_cells import Array, Printed
from hearth.multimodal.print_lines import (
    FONT_PX,
    FRAME_PX,
    LINE_PX,
    SYMBOLS,
    WIDTHS_PX,
    Strip,
    ink_of,
    padded,
    read_again,
    strips_of,
    told_along,
)
from hearth.multimodal.views import Frame

SURE = 12.0


def typed(text: str, x: float, y: float, size: float = 20.0, slant: float = 0.0) -> list[Printed]:
    """Characters half their size apart; words begin behind spaces."""
    places = [(x + 0.5 * size * at, one, at == 0 or text[at - 1] == " ") for at, one in enumerate(text)]
    return [Printed(one, at, y + slant * (at - x), begins, size) for at, one, begins in places if one != " "]


def logits(said: str, width_px: int = 128) -> Array:
    """What a reader says of a strip, a character every five frames, "_" for a frame of doubt."""
    frames = np.zeros((width_px // FRAME_PX, len(SYMBOLS)), np.float32)
    frames[:, 0] = SURE
    for at, one in enumerate(said):
        row = frames[2 + 5 * at]
        row[0] = 0.0
        if one != "_":
            row[SYMBOLS.index(one)] = SURE
    return frames


def texts(characters: list[Printed]) -> list[str]:
    """The strips' characters, from the top and from the left."""
    found = sorted(strips_of(characters), key=lambda of: (of[0].y, of[0].x))
    return ["".join(one.character for one in word) for _, word in found]


def test_words_near_one_another_are_read_together() -> None:
    assert texts(typed("red tea", 40, 50)) == ["redtea"]
    assert texts(typed("red", 40, 50) + typed("tea", 200, 50)) == ["red", "tea"], "they stand apart"
    assert texts(typed("red", 40, 50) + typed("tea", 40, 90)) == ["red", "tea"], "one below the other"
    assert texts(typed("red", 40, 50) + typed("tea", 80, 50, size=40)) == ["red", "tea"], "other sizes"
    assert texts(typed("soup bread butter milk", 40, 50)) == ["soupbreadbutter", "milk"], "longer is too long"
    assert strips_of([]) == []


def test_a_strip_reaches_as_far_as_what_stands_beside_it_allows() -> None:
    ((strip, _),) = strips_of(typed("tea", 100, 50))
    assert (strip.x, strip.y, strip.length, strip.size) == (80, 50, 20 + 40, 20), "a character on either side"
    near = strips_of([*typed("bread", 10, 50), *typed("tea", 100, 50, size=60)])
    (_, _), (later, _) = sorted(near, key=lambda of: of[0].x)
    assert later.x == pytest.approx((50 + 100) / 2), "half way to the word before"


def test_a_stray_mark_does_not_cut_a_letter_off() -> None:
    strips = strips_of([*typed("APPLE", 100, 50, size=44), Printed("i", 98, 53, begins=True, size=12)])
    (strip,) = (strip for strip, word in strips if len(word) == 5)
    assert strip.x <= 100 - 0.35 * 44


def test_whole_numbers_of_pixels_are_places_too() -> None:
    ((strip, _),) = strips_of([Printed("a", 96, 96, begins=True, size=200)])
    assert (strip.x, strip.length) == (-104, 400)


def test_what_two_strips_tell_is_told_once() -> None:
    found = [*typed("on", 40, 50), *typed("on", 42, 62)]  # cells of one line, taken for two
    read = read_again(found, Image.new("RGB", (99, 99), "white"), Frame(99, 99, (99, 99)), same_place)
    assert "".join(one.character for one in read) == "A"


def same_place(strips: Array) -> Array:
    """A character in the middle of each strip."""
    told = np.zeros((len(strips), strips.shape[-1] // FRAME_PX, len(SYMBOLS)), np.float32)
    told[:, :, 0] = SURE
    told[:, 12, 0], told[:, 12, SYMBOLS.index("A")] = 0, SURE
    return told


def test_what_cells_were_sure_of_stays_where_nothing_is_told() -> None:
    def nothing(strips: Array) -> Array:
        return np.stack([logits("", strips.shape[-1])] * len(strips))

    sure, doubtful = (
        Printed("a", 40, y, begins=True, size=20, chances=np.full(90, share, np.float32))
        for y, share in ((20, 0.95), (70, 0.4))
    )
    frame = Frame(99, 99, (99, 99))
    assert read_again([sure, doubtful], Image.new("RGB", (99, 99)), frame, nothing) == [sure]


def test_a_number_stands_where_its_ink_is() -> None:
    image = Image.new("RGB", (160, 90), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((52, 41, 60, 56), fill="black")
    pen.rectangle((40, 62, 80, 90), fill="black")  # a bar below it
    frame = Frame(160, 90, (160, 90))

    def reader(strips: Array) -> Array:
        return np.stack([logits("___8", strips.shape[-1])] * len(strips))

    (eight,) = read_again([Printed("8", 56, 45, begins=True, size=20)], image, frame, reader)
    assert eight.y == pytest.approx(49, abs=0.7)
    (eight,) = read_again([Printed("8", 56, 30, begins=True, size=20)], image, frame, reader)
    assert eight.y == 30, "there is no ink in its middle"


def test_many_strips_are_read_in_parts() -> None:
    asked: list[tuple[int, ...]] = []

    def reader(strips: Array) -> Array:
        asked.append(strips.shape)
        return np.stack([logits("_", strips.shape[-1])] * len(strips))

    found = [one for row in range(40) for one in typed("tea", 60, 30.0 * row)]
    read = read_again(found, Image.new("RGB", (300, 1300)), Frame(300, 1300, (300, 1300)), reader)
    assert len(read) == len(found)
    assert sum(shape[0] for shape in asked) == 40
    assert max(shape[0] * shape[3] for shape in asked) <= print_lines.COLUMNS_PX


def test_a_strip_lies_along_its_line() -> None:
    ((strip, _),) = strips_of(typed("telephone", 100, 50, slant=0.06))
    assert strip.slant == pytest.approx(math.atan(0.06), rel=0.01)
    for x in (100, 140, 180):
        along, below = strip.seen_from(x, 50 + 0.06 * (x - 100))
        assert below == pytest.approx(0.0, abs=0.01)
        assert along == pytest.approx((x - strip.x) / 20, abs=0.02)
    steep = strips_of(typed("telephone", 100, 50, slant=0.3))
    assert all(abs(strip.slant) <= 0.12 for strip, _ in steep), "signs are not that steep: it may be two lines"


def test_the_ink_of_a_strip_is_the_same_in_any_colours_and_sizes() -> None:
    inks = []
    for ground, ink, times in (
        ("white", "black", 1), ("black", "white", 1), ((200, 60, 60), (40, 160, 60), 1), ("white", "black", 3),
    ):  # fmt: skip
        image = Image.new("RGB", (120 * times, 60 * times), ground)
        pen = ImageDraw.Draw(image)
        pen.rectangle((40 * times, 20 * times, 43 * times, 39 * times), fill=ink)
        pen.rectangle((60 * times, 36 * times, 70 * times, 39 * times), fill=ink)
        frame = Frame(*image.size, (60, 30))
        inks.append(ink_of(image, frame, Strip(10, 15, 40, 0.0, 16)))
    assert inks[0].shape == (LINE_PX, 40 * FONT_PX / 16)
    assert inks[0].max() > 2 > 0 > inks[0].min(), "there is less ink than ground"
    for other in inks[1:]:
        assert np.abs(other - inks[0]).mean() < 0.15


@pytest.mark.parametrize("strip", [Strip(-50, -50, 20, 0, 16), Strip(0, 0, 500, 0.1, 90), Strip(59, 29, 0.5, 0, 1)])
def test_strips_beyond_a_picture_show_its_edge(strip: Strip) -> None:
    image = Image.new("RGB", (3, 2), "red")
    ink = ink_of(image, Frame(3, 2, (60, 30)), strip)
    assert ink.shape == (LINE_PX, strip.width_px)
    assert not ink.any()


def test_strips_of_a_batch_are_as_wide_as_the_widest() -> None:
    batch = padded([np.ones((LINE_PX, 3), np.float32), np.ones((LINE_PX, WIDTHS_PX + 1), np.float32)])
    assert batch.shape == (2, 1, LINE_PX, 2 * WIDTHS_PX)
    assert batch[0, 0, :, 3:].sum() == 0


def test_what_is_told_along_a_strip_stands_where_it_was_told() -> None:
    strip = Strip(100, 50, 60, 0.0, FONT_PX / 2)
    word = told_along(strip, logits("too 8")) or []
    assert "".join(one.character for one in word) == "too8"
    assert [one.begins for one in word] == [True, False, False, True]
    assert [one.x for one in word] == pytest.approx([100 + (2.5 + 5 * at) * FRAME_PX / 2 for at in (0, 1, 2, 4)])
    assert all(one.y == 50 and one.size == FONT_PX / 2 and one.sure > 0.99 for one in word)


def test_the_same_character_on_neighbouring_frames_is_one() -> None:
    frames = logits("")
    for at, symbol in ((3, "l"), (4, "l"), (5, "l"), (7, "l"), (8, "i")):
        frames[at] = 0
        frames[at, SYMBOLS.index(symbol)] = SURE
    word = told_along(Strip(0, 0, 64, 0, FONT_PX), frames) or []
    assert "".join(one.character for one in word) == "lli"
    assert word[0].x == pytest.approx(4.5 * FRAME_PX), "in the middle of its frames"


def test_what_is_not_sure_stays_as_it_was() -> None:
    assert told_along(Strip(0, 0, 64, 0, FONT_PX), logits("")) == [], "nothing is printed there"
    assert told_along(Strip(0, 0, 64, 0, FONT_PX), logits("_")) is None
    doubtful = logits("ab")
    doubtful[:, SYMBOLS.index("a") :] /= 4
    doubtful[:, 0] = 0
    assert told_along(Strip(0, 0, 64, 0, FONT_PX), doubtful) is None


def test_lines_take_the_place_of_what_cells_had(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def reader(strips: Array) -> Array:
        asked.append(strips.shape)
        return np.stack([logits("tea" if strips.shape[-1] == 2 * WIDTHS_PX else "_", strips.shape[-1])] * len(strips))

    found = [*typed("lea", 40, 50), *typed("umbrellas", 20, 120), Printed("red", 60.0, 80.0, begins=True)]
    image = Image.new("RGB", (192, 192), "white")
    read = read_again(found, image, Frame(192, 192, (192, 192)), reader)
    assert sorted(asked) == [(1, 1, LINE_PX, 2 * WIDTHS_PX), (1, 1, LINE_PX, 3 * WIDTHS_PX)]
    assert {one.character for one in read} >= {"red", *"tea"}
    assert not any(one in read for one in found[:3])
    assert all(one in read for one in found[3:]), "nothing was told of these, and bars stay"
    monkeypatch.setattr(print_lines, "MOST", 3)
    assert len(read_again(found, image, Frame(192, 192, (192, 192)), reader)) == len(found)
    assert len(asked) == 3, "what stands below so many characters is not read again"


def test_nothing_is_asked_where_nothing_was_found() -> None:
    def reader(_strips: Array) -> Array:
        raise AssertionError

    bar = Printed("red", 60.0, 80.0, begins=True)
    assert read_again([bar], Image.new("RGB", (9, 9)), Frame(9, 9, (96, 96)), reader) == [bar]


def test_the_network_says_a_frame_for_every_two_pixels_and_learns_a_strip() -> None:
    torch.manual_seed(0)
    image = Image.new("RGB", (100, 40), "white")
    ImageDraw.Draw(image).text((20, 8), "letter", fill="black", font=ImageFont.load_default(20))
    ink = torch.from_numpy(padded([ink_of(image, Frame(100, 40, (100, 40)), Strip(6, 20, 88, 0, 20))]))
    reader = LineReader((8, 16, 24), depth=1)
    assert reader(ink).shape == (1, ink.shape[-1] // FRAME_PX, len(SYMBOLS))
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-2)
    wanted = torch.tensor([[SYMBOLS.index(one) for one in "letter"]])
    for _ in range(80):
        chances = reader(ink).log_softmax(-1).transpose(0, 1)
        lost = torch.nn.functional.ctc_loss(chances, wanted, torch.tensor([len(chances)]), torch.tensor([6]))
        optimizer.zero_grad()
        lost.backward()
        optimizer.step()
    word = told_along(Strip(6, 20, 88, 0, 20), reader(ink)[0].detach().numpy()) or []
    assert "".join(one.character for one in word) == "letter"
