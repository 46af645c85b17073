"""Small print is looked at closer, as far as a picture has more to see."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hearth.multimodal.print_cells import BARS, CELL_PX, CELL_SLOTS, N_SAID, SAID, Array, Printed
from hearth.multimodal.print_reading import MAX_CLOSER, SMALL_PX, read_print, times_closer
from hearth.multimodal.views import Frame, tile_frame

SURE = 12.0
SIDE_PX = 96


def said(columns: int, rows: int, size_px: float, told: dict[tuple[int, int], str]) -> Array:
    """What a reader says that sees characters and bars of one size, each in the first place of a (column, row)."""
    logits = np.zeros((CELL_SLOTS, N_SAID, rows, columns), np.float32)
    logits[:, 0] = SURE
    logits[:, -3] = -SURE
    logits[:, -2] = np.log(size_px)
    for (column, row), character in told.items():
        logits[0, 0, row, column] = 0.0
        logits[0, 1 + SAID.index(character), row, column] = SURE
    return logits


@pytest.mark.parametrize(
    ("size_px", "picture_px", "times"),
    [(SMALL_PX, 800, 1), (SMALL_PX - 1, 800, 2), (SMALL_PX / 2.5, 800, 3), (1.0, 4000, MAX_CLOSER), (8.0, 192, 1)],
)
def test_print_is_looked_at_closer_if_it_is_small_and_there_is_more_to_see(
    size_px: float, picture_px: int, times: int
) -> None:
    found = [Printed("a", 10.0, 10.0, begins=True, size=size_px), Printed("red", 5.0, 5.0, begins=True, size=90.0)]
    assert times_closer(found, tile_frame(picture_px, picture_px, SIDE_PX)) == times
    assert times_closer(found[1:], tile_frame(picture_px, picture_px, SIDE_PX)) == 1, "nothing is printed"


def test_what_is_seen_closer_stands_where_it_is_on_the_tiles() -> None:
    frame = Frame(600, 600, (192, 192))
    asked: list[tuple[int, ...]] = []

    def reader(pixels: Array) -> Array:
        asked.append(pixels.shape)
        if len(asked) == 1:
            return said(24, 24, SMALL_PX / 2, {(4, 10): "o", (2, 2): "red", (12, 3): "blue"})
        return said(48, 48, SMALL_PX, {(8, 20): "c", (9, 20): "h", (30, 20): "red"})

    read = read_print(Image.new("RGB", (600, 600)), frame, reader)
    assert asked == [(3, 192, 192), (3, 384, 384)]
    letters = [one for one in read if one.character not in BARS]
    assert [one.character for one in letters] == ["c", "h", " "]
    assert letters[0].x == pytest.approx((8 + 1 / 3) * CELL_PX / 2)
    assert letters[0].y == pytest.approx(20.5 * CELL_PX / 2)
    assert letters[0].size == pytest.approx(SMALL_PX / 2, rel=1e-4)


def test_large_print_is_looked_at_once() -> None:
    asked: list[Array] = []

    def reader(pixels: Array) -> Array:
        asked.append(pixels)
        return said(24, 24, 40.0, {(4, 10): "A", (9, 10): "B"})

    read = read_print(Image.new("RGB", (600, 600)), Frame(600, 600, (192, 192)), reader)
    assert [one.character for one in read] == ["A", "B", " "]
    assert len(asked) == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_pictures_of_any_mode_are_measured_and_read_by_lines(mode: str) -> None:
    image = Image.new("RGB", (1600, 1600), "white")
    image.paste("black", (400, 800, 600, 1400))
    asked: list[tuple[int, ...]] = []

    def lines(strips: Array) -> Array:
        asked.append(strips.shape)
        assert np.isfinite(strips).all()
        return np.zeros((len(strips), strips.shape[-1] // 2, 82), np.float32)

    found = read_print(
        image.convert(mode),
        Frame(1600, 1600, (192, 192)),
        lambda _pixels: said(24, 24, 30.0, {(4, 3): "o", (7, 12): "red"}),
        lines,
    )
    assert len(asked) == 1
    bars = [one for one in found if one.character in BARS]
    assert not bars, "one bar makes no chart"
    assert [one.character for one in found] == ["o", " "], "the lines were not sure of anything"
