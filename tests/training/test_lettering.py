"""The reader of print: crops of print for it, its stage, and what it adds to the visual tokens."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.letters import CELL_PX, CELLS_A_TOKEN, cells_of_tokens
from hearth.multimodal.views import N_PLACES, TOKENS_A_SIDE
from training import lettering, probing
from training.aligning import vision_config
from training.asking import CHARACTERS, IGNORED
from training.checkpoints import load_stage
from training.fonts import fonts
from training.letters import CELL_SLOTS, CROP_PX, SHEET_PX, PrintCrops, _by_cell
from training.loop import StagePlan
from training.printing import Printer


def printer() -> Printer:
    """Prints in the fonts that every machine with tests has: they are held out from training."""
    return Printer(fonts(), random.Random(1), held_out=True)


def vision() -> VisionNetwork:
    config = vision_config(64, 100)
    config["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    return VisionNetwork({**config, "letters": [32, 32, 32]})


def test_the_stage_trains_the_reader_and_the_encoder_takes_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "PrintCrops", partial(PrintCrops, pool=8))
    monkeypatch.setattr(lettering, "CROPS_PER_STEP", 4)
    trained, later = vision(), vision()
    lettering.run(StagePlan("letters", 0.2, 1e-3, tmp_path), trained, printer(), seed=2)
    assert trained.letters is not None
    assert later.letters is not None
    first, other = trained.letters.stem.state_dict(), later.letters.stem.state_dict()
    assert not torch.equal(first["0.0.weight"], other["0.0.weight"])
    assert load_stage(tmp_path / "letters.pt", later.letters, "reader.")
    assert torch.equal(first["0.0.weight"], later.letters.stem.state_dict()["0.0.weight"])


def test_each_visual_token_gets_the_cells_that_it_covers() -> None:
    height, width = 6, 9
    cells = torch.arange(height * width).view(1, 1, height, width)
    tokens = cells_of_tokens(cells)
    assert tokens.shape == (1, (height // CELLS_A_TOKEN) * (width // CELLS_A_TOKEN), CELLS_A_TOKEN**2)
    assert tokens[0, 1].tolist() == [3, 4, 5, 12, 13, 14, 21, 22, 23]


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (1.5, 2.5)])
def test_what_is_read_is_added_to_the_visual_tokens(tiles: tuple[float, float]) -> None:
    network = vision().eval()
    assert network.spelling is not None
    height, width = (int(96 * side) for side in tiles)
    pixels = torch.randn(1, 3, height, width)
    places = torch.zeros(1, TOKENS_A_SIDE**2 * height * width // 96**2, N_PLACES)
    with torch.inference_mode():
        maps = network.feature_maps(pixels)
        assert maps.letters is not None
        assert maps.letters.shape[-2:] == (height // CELL_PX, width // CELL_PX)
        nothing = network.visual_tokens(maps._replace(letters=None), places) + network.spelling.bias
        assert torch.equal(network.visual_tokens(maps, places), nothing), "it begins with nothing"
        torch.nn.init.normal_(network.spelling.weight)
        assert not torch.allclose(network.visual_tokens(maps, places), nothing)


def test_an_encoder_without_a_reader_still_works() -> None:
    config = vision_config(64, 100)
    del config["letters"]
    network = VisionNetwork(config)
    assert network.letters is None
    assert network.feature_maps(torch.zeros(1, 3, 96, 96)).letters is None


def test_the_reader_is_probed_in_own_fonts_and_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "Printer", lambda *_args, **_kwargs: printer())
    reader = vision().letters
    assert reader is not None
    found = probing.probe_letters(lettering.Lettering(reader).eval(), 6)
    assert set(found) == {"own fonts", "other fonts"}
    assert all(0 <= share < 0.5 for share in found.values())


def test_each_cell_is_asked_for_its_characters_from_left_to_right() -> None:
    letters = {name: CHARACTERS.find(name) + 1 for name in "abcde"}
    marks = np.full((2, 8, 4), -1e4, np.float32)
    middle = SHEET_PX / 2
    left, top = middle - CROP_PX / 2, middle - CROP_PX / 2
    marks[0, :3] = [
        (left + 6, top + 5, letters["b"], 0),
        (left + 3, top + 5, letters["a"], 0),
        (left + 20, top + 5, letters["c"], 0),
    ]
    marks[1, :2] = [(left + 1, top + 1, letters["d"], 0), (left + 3, top + 6, letters["e"], 1)]  # two lines
    still = np.zeros(2, np.float32)
    characters, weights = _by_cell(marks, np.full((2, 2), middle, np.float32), still + 1, still)
    assert characters.shape == (2, (CROP_PX // CELL_PX) ** 2, CELL_SLOTS)
    assert characters[0, 0].tolist() == [letters["a"], letters["b"]]
    assert characters[0, 2].tolist() == [letters["c"], 0]
    assert weights[0, 0].tolist() == [1.0, 1.0]
    assert weights[0, 2].tolist() == [1.0, 1.0]
    assert weights[0, 1, 0] < 1.0
    assert characters[1, 0].tolist() == [IGNORED] * CELL_SLOTS
    assert not weights[1, 0].any()


def test_more_characters_than_a_cell_has_slots_are_not_asked_for() -> None:
    marks = np.full((1, 8, 4), -1e4, np.float32)
    middle = SHEET_PX / 2
    for at in range(CELL_SLOTS + 1):
        marks[0, at] = (middle + 1 + 2 * at, middle + 1, 1, 0)
    still = np.zeros(1, np.float32)
    characters, _ = _by_cell(marks, np.full((1, 2), middle, np.float32), still + 1, still)
    assert (characters == IGNORED).sum() == CELL_SLOTS


def test_a_turned_and_enlarged_crop_has_its_ink_where_its_characters_are() -> None:
    crops = PrintCrops(printer(), seed=1, pool=1)
    mask, marks = np.zeros((1, SHEET_PX, SHEET_PX), np.uint8), np.full((1, 8, 4), -1e4, np.float32)
    mask[0, 48:52, 70:74] = 255
    marks[0, 0] = (72, 50, 1, 0)
    middles, scales, turns = np.array([[64, 60]], np.float32), np.array([1.2], np.float32), np.array([0.08], np.float32)
    ink = crops._cut(mask, middles, scales, turns)[0, 0]
    y, x = divmod(int(ink.argmax()), CROP_PX)
    characters, _ = _by_cell(marks, middles, scales, turns)
    assert characters[0, :, 0].argmax() == y // CELL_PX * (CROP_PX // CELL_PX) + x // CELL_PX


def test_a_sheet_on_which_nothing_could_be_printed_is_a_blank_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrintCrops, "_text", lambda _crops, _size: " ")
    _, characters, _ = PrintCrops(printer(), seed=5, pool=2).batch(2)
    assert not (characters > 0).any()


def test_print_crops_are_the_same_for_the_same_seed() -> None:
    first, second = (PrintCrops(printer(), seed=5, pool=6).batch(12) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    pixels, characters, weights = first
    assert pixels.shape == (12, 3, CROP_PX, CROP_PX)
    assert int((characters > 0).sum()) > 30
    assert bool((weights[characters > 0] == 1).all())
