"""Where alike things stand: what of the visual tokens is looked at, and the list that is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hearth.multimodal.locating import MAX_LISTED, PLACES, POINTS, list_of, listed, looks_at
from hearth.multimodal.locator import Locator
from hearth.multimodal.print_cells import Printed
from hearth.multimodal.print_order import PRINT_TOKENS, WRITTEN, with_list
from hearth.multimodal.views import tile_frame, token_grid

SIDE_PX = 96
SIZES = [(384, 384), (600, 300), (200, 380), (3000, 20), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_each_place_looks_at_tokens_of_its_third(size: tuple[int, int]) -> None:
    frame = tile_frame(*size, SIDE_PX)
    rows, columns = token_grid(frame, SIDE_PX)
    looks = looks_at(frame, SIDE_PX)
    assert looks.shape == (len(PLACES) * POINTS, rows * columns)
    assert np.allclose(looks.sum(1), 1.0, atol=1e-5)
    by_place = looks.reshape(3, 3, POINTS, rows, columns).mean(2)
    step = SIDE_PX / 4
    across = by_place.sum(2) @ ((np.arange(columns) + 0.5) * step)  # the mean place of what is looked at
    down = by_place.sum(3) @ ((np.arange(rows) + 0.5) * step)
    thirds = (np.arange(3) + 0.5) / 3
    assert np.allclose(across, np.tile(frame.corner[0] + thirds * frame.size[0], (3, 1)), atol=step / 2)
    assert np.allclose(down, np.tile((frame.corner[1] + thirds * frame.size[1])[:, None], (1, 3)), atol=step / 2)


def said(*taken: int, alike: bool = True) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    logits = np.full(len(PLACES) + 1, -3.0, np.float32)
    logits[list(taken)] = 3.0
    logits[-1] = 3.0 if alike else -3.0
    return logits


def test_alike_things_are_listed_as_an_answer_counts_them() -> None:
    frame = tile_frame(384, 384, SIDE_PX)
    told = listed(said(4, 0, 8), frame)
    text = " 1 at the top left, 2 in the middle, 3 at the bottom right, three"
    assert "".join(one.character for one in told) == text
    assert [(one.x, one.y) for one in told if one.character == " in"] == [(96.0, 96.0)]
    assert {one.character for one in told} <= set(WRITTEN)
    assert listed(said(4, 0, alike=False), frame) == []
    assert listed(said(), frame) == []
    assert "".join(one.character for one in list_of([3], frame)) == " 1 on the left, one"
    assert list_of(list(range(MAX_LISTED + 1)), frame) == [], "more than anybody has learnt to count"


def test_a_list_stands_behind_what_is_printed_or_not_at_all() -> None:
    places = list_of([0, 4], tile_frame(384, 384, SIDE_PX))
    printed = [Printed("a", 5.0, 5.0, begins=True)] * (PRINT_TOKENS - len(places))
    assert with_list(printed, places) == [*printed, *places]
    assert with_list([*printed, printed[0]], places) == [*printed, printed[0]]
    most = list_of([0, 2, 3, 5, 6, 8], tile_frame(384, 384, SIDE_PX))
    assert with_list([], most) == most, "as many things as can be asked for have room"


def test_a_locator_says_as_much_of_any_grid_of_tokens() -> None:
    locator = Locator(24, 8).eval()
    for size in SIZES:
        frame = tile_frame(*size, SIDE_PX)
        rows, columns = token_grid(frame, SIDE_PX)
        tokens, looks = torch.randn(1, rows, columns, 24), torch.from_numpy(looks_at(frame, SIDE_PX))[None]
        with torch.inference_mode():
            logits = locator(tokens, looks)
        assert logits.shape == (1, len(PLACES) + 1)
        assert torch.isfinite(logits).all()
