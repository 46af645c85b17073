"""Where things lie, what is cut out, and the words in which they are named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from hearth.multimodal.locating import PLACES
from hearth.multimodal.named_things import (
    CELL_PX,
    CROP_PX,
    MAX_CROPS,
    Look,
    boxes_of,
    crop_of,
    name_of,
    told_things,
    words_of,
    words_of_names,
)
from hearth.multimodal.print_cells import Array
from hearth.multimodal.print_order import PRINT_TOKENS, WRITTEN, PrintTokens
from hearth.multimodal.views import ANCHORS, Frame, tile_frame

NAMES = [[" fox"], [" fire", " engine"], [" engine"]]
SQUARE = tile_frame(384, 384, 96)  # 192 pixels of canvas: two of the picture each, 32 a cell
SURE = 9.0


def lying(*boxes: tuple[int, int, int, int]) -> Array:
    """Logits of 12 × 12 cells; left, top, right and bottom of what lies on some."""
    on = np.full((12, 12), -SURE, np.float32)
    for left, top, right, bottom in boxes:
        on[top:bottom, left:right] = SURE
    return on


def places(*taken: int, alike: bool) -> Array:
    said = np.full(len(PLACES) + 1, -SURE, np.float32)
    said[list(taken)] = SURE
    said[-1] = SURE if alike else -SURE
    return said


def look_for(*names: int) -> tuple[Look, list[int]]:
    """Finds nothing (0) or a name (from 1 on) in crop after crop; and how many it was shown at once."""
    shown: list[int] = []

    def look(crops: Array) -> Array:
        shown.append(len(crops))
        assert crops.shape[1:] == (3, CROP_PX, CROP_PX)
        return np.eye(1 + len(NAMES), dtype=np.float32)[list(names[: len(crops)])] * SURE

    return look, shown


def test_a_box_lies_around_connected_cells_the_largest_first() -> None:
    small, large = boxes_of(lying((8, 1, 9, 2), (1, 4, 4, 9)), SQUARE)[::-1]
    assert large == pytest.approx((32, 128, 128, 288), abs=0.1)
    assert small == pytest.approx((256, 32, 288, 64), abs=0.1)
    assert boxes_of(lying(), SQUARE) == []


def test_an_outer_row_counts_as_far_as_something_lies_on_it() -> None:
    on = lying((2, 2, 6, 6))
    on[2, 2:6] = 0.01
    (box,) = boxes_of(on, SQUARE)
    assert box == pytest.approx((64, 80, 192, 192), abs=0.3)


def test_a_box_is_that_of_the_picture_on_its_canvas() -> None:
    wide = Frame(100, 50, (192, 192))
    (box,) = boxes_of(lying((0, 0, 12, 12)), wide)
    assert box == pytest.approx((0, 0, 100, 50), abs=0.1)


def test_what_lies_beside_the_picture_on_its_canvas_is_no_thing() -> None:
    wide = Frame(100, 50, (192, 192))  # on rows 3 to 8 of the canvas
    assert boxes_of(lying((0, 0, 12, 2), (0, 10, 12, 12)), wide) == []
    (box,) = boxes_of(lying((0, 0, 12, 2), (2, 5, 3, 6), (0, 10, 12, 12)), wide)
    assert box == pytest.approx((16.7, 16.7, 25, 25), abs=0.1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "L", "LA", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (384, 384), (640, 480), (3000, 20), (17, 900)])
def test_whatever_seems_to_lie_in_a_picture_can_be_looked_at(size: tuple[int, int], mode: str) -> None:
    frame, rng = tile_frame(*size, 96), np.random.default_rng(0)
    columns, rows = (side // CELL_PX for side in frame.canvas)
    shown: list[int] = []

    def look(crops: Array) -> Array:
        assert np.isfinite(crops).all()
        shown.append(len(crops))
        return np.zeros((len(crops), 1 + len(NAMES)), np.float32)

    for share in (-2.0, 0.0, 2.0):
        on = rng.normal(share, 2.0, (rows, columns)).astype(np.float32)
        told_things(Image.new(mode, size), frame, places(0, alike=True), on, look, NAMES)
    assert len(shown) == 3
    assert all(1 <= n <= MAX_CROPS for n in shown)


def test_the_largest_few_of_many_things_are_looked_at() -> None:
    on = lying(*((2 * at, 0, 2 * at + 1, 1 + at) for at in range(6)))
    assert [round(top - bottom) // -32 for _, top, _, bottom in boxes_of(on, SQUARE)] == [6, 5, 4, 3]


@pytest.mark.parametrize("box", [(100, 100, 140, 120), (0, 0, 384, 384), (370, 0, 384, 30), (5, 5, 5, 5)])
def test_a_crop_is_full_of_the_picture(box: tuple[int, int, int, int]) -> None:
    image = Image.new("RGB", (384, 384), "white")
    assert np.allclose(crop_of(image, box), 127 / 64)


def test_a_crop_shows_the_thing() -> None:
    image = Image.new("RGB", (384, 384), "white")
    image.paste("black", (100, 40, 180, 120))
    dark = crop_of(image, (100, 40, 180, 120))[0] < 0
    assert 0.7 < dark.mean() < 0.9
    assert dark[CROP_PX // 2, CROP_PX // 2]


def test_several_crops_decide_together() -> None:
    unsure = np.log(np.array([[0.1, 0.5, 0.3, 0.1], [0.1, 0.1, 0.7, 0.1]], np.float32))
    assert name_of(unsure, is_one=True) == 1
    nothing = np.log(np.array([[0.7, 0.1, 0.2]], np.float32))
    assert name_of(nothing, is_one=False) is None
    assert name_of(nothing, is_one=True) == 1


@pytest.mark.parametrize(
    ("said", "boxes", "seen", "told", "crops"),
    [
        (places(4, alike=True), [(4, 4, 8, 8)], (2,), " 1 in the middle, one fire engine", [1]),
        (places(0, 8, alike=True), [(0, 0, 3, 3), (8, 8, 12, 12)], (1, 1),
         " 1 at the top left, 2 at the bottom right, two fox", [2]),
        (places(0, 8, alike=False), [(0, 0, 3, 3), (8, 8, 12, 12)], (1, 2), "", []),
        (places(alike=False), [], (3,), " engine", [1]),  # a photograph
        (places(alike=False), [], (0,), "", [1]),
    ],
)  # fmt: skip
def test_what_is_told_of_things(
    said: Array, boxes: list[tuple[int, int, int, int]], seen: tuple[int, ...], told: str, crops: list[int]
) -> None:
    look, shown = look_for(*seen)
    words = told_things(Image.new("RGB", (384, 384)), SQUARE, said, lying(*boxes), look, NAMES)
    assert "".join(one.character for one in words) == told
    assert shown == crops


def weights(n_words: int) -> dict[str, Array]:
    random = np.random.default_rng(0)
    shapes = {"characters": 1 + len(WRITTEN), "before": 1 + len(WRITTEN), "places": ANCHORS**2, "words": n_words}
    made = {name: random.standard_normal((n, 8)).astype(np.float32) for name, n in shapes.items()}
    return {**made, "begins": np.zeros(8, np.float32)}


def test_words_of_names_have_vectors_of_their_own() -> None:
    words = words_of_names(NAMES)
    assert words == [" engine", " fire", " fox"]
    vectors = weights(len(words))
    tokens = PrintTokens(vectors, words).tokens(words_of(NAMES[1], SQUARE), SQUARE)
    assert tokens.shape == (PRINT_TOKENS, 8)
    apart = tokens[0] - tokens[1]
    np.testing.assert_allclose(apart, vectors["words"][1] - vectors["words"][0], atol=1e-5)


@pytest.mark.parametrize("change", [lambda words: words[1:], lambda words: [*words, " owl"]])
def test_vectors_of_other_names_are_refused(change: Callable[[list[str]], list[str]]) -> None:
    with pytest.raises(ValueError, match="vectors of 3 words of names"):
        PrintTokens(weights(3), change(words_of_names(NAMES)))
