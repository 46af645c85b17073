"""The reader of print: what it is trained on, its stage, and the vectors of what it reads."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.print_cells import (
    BARS,
    CELL_PX,
    CELL_SLOTS,
    CHARACTERS,
    N_SAID,
    SAID,
    Array,
    characters_of,
)
from hearth.multimodal.views import Frame
from training import lettering, print_scenes, probing
from training.aligning import vision_config
from training.checkpoints import load_stage
from training.fonts import fonts
from training.language import LanguageConfig, LanguageModel
from training.letters import CROP_PX, IGNORED, N_MARK, SHEET_PX, PrintCrops, PrintedCells, by_cell
from training.loop import StagePlan
from training.pictures import Material, Painter
from training.print_scenes import CANVAS_PX, PrintScenes
from training.printing import Printer
from training.scenes import Scene, bar_ends
from training.world import COLOURS


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
    monkeypatch.setattr(lettering, "PrintCrops", lambda *args, **of: PrintCrops(*args, **{**of, "pool": 8}))
    monkeypatch.setattr(lettering, "PrintScenes", partial(PrintScenes, pool=4))
    for name in ("CROPS_PER_STEP", "LARGE_CROPS_PER_STEP", "SCENES_PER_STEP"):
        monkeypatch.setattr(lettering, name, 4)
    trained, later = vision(), vision()
    lettering.run(StagePlan("letters", 0.6, 1e-3, tmp_path), trained, printer(), seed=2)
    assert trained.letters is not None
    assert later.letters is not None
    first, other = trained.letters.stem.state_dict(), later.letters.stem.state_dict()
    assert not torch.equal(first["0.0.weight"], other["0.0.weight"])
    assert load_stage(tmp_path / "letters.pt", later.letters)
    assert torch.equal(first["0.0.weight"], later.letters.stem.state_dict()["0.0.weight"])


def test_empty_cells_count_as_others_do() -> None:
    said = torch.zeros(1, CELL_SLOTS, N_SAID, 2, 2)
    said[:, :, 0] = 20.0
    wanted = torch.zeros(1, 4, CELL_SLOTS, dtype=torch.long)
    wanted[0, 3, 0] = 5
    cells = PrintedCells(wanted, *torch.ones(3, 1, 4, CELL_SLOTS))
    missed = lettering.reading_losses(said, cells)
    assert float(missed["characters"]) == pytest.approx(20.0, abs=1e-3)
    said[0, 0, 5, 1, 1] = 30.0  # the last cell
    assert float(lettering.reading_losses(said, cells)["characters"]) < 0.01
    said[0, 0, 7, 0, 0] = 30.0  # one that is empty
    assert float(lettering.reading_losses(said, cells)["characters"]) == pytest.approx(10.0, abs=0.1)


def test_what_is_read_has_the_vectors_of_what_is_written(tokenizer: Tokenizer) -> None:
    language = LanguageModel(LanguageConfig(n_vocab=tokenizer.get_vocab_size(), n_embd=64, n_layers=1, n_heads=1))
    network = vision()
    assert network.print is not None
    lettering.start_with_print(network, language, tokenizer)
    of_a = language.embedding.weight[tokenizer.encode("a", add_special_tokens=False).ids[0]]
    assert torch.equal(network.print.characters[1], of_a)
    lengths = network.print.places.norm(dim=1).mean() / network.print.characters.norm(dim=1).mean()
    assert lengths.item() == pytest.approx(lettering.PLACE_SHARE, rel=1e-3)
    with torch.no_grad():
        network.print.characters[1] = 7.0
    lettering.start_with_print(network, language, tokenizer)
    assert (network.print.characters[1] == 7.0).all(), "what has been learnt is kept"


def test_scenes_are_asked_for_their_print_where_it_stands() -> None:
    scenes = PrintScenes(Painter(Material((), {}), random.Random(3), printer()), seed=3, pool=6)
    pixels, cells = scenes.batch(5)
    assert pixels.shape == (5, 3, CANVAS_PX, CANVAS_PX)
    side = CANVAS_PX // CELL_PX
    assert cells.characters.shape == (5, side * side, CELL_SLOTS)
    for picture, characters in zip(pixels, cells.characters[:, :, 0], strict=True):
        there = (characters > 0).nonzero().flatten().tolist()
        assert there
        contrasts = []
        for cell in there:
            top, left = (CELL_PX * at for at in divmod(cell, side))
            around = picture[:, max(0, top - 6) : top + CELL_PX + 6, max(0, left - 6) : left + CELL_PX + 6]
            contrasts.append(float(around.mean(0).max() - around.mean(0).min()))
        assert sum(contrast > 25 for contrast in contrasts) >= 0.9 * len(contrasts), "there is ink"


def test_bars_are_asked_for_by_colour_where_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(print_scenes, "SHARES", {"chart": 1.0})
    scenes = PrintScenes(Painter(Material((), {}), random.Random(3), printer()), seed=3, pool=8)
    pixels, cells = scenes.batch(8)
    found, right = 0, 0
    for picture, characters, ends in zip(pixels, cells.characters, cells.ends, strict=True):
        for cell, slot in (characters > len(CHARACTERS)).nonzero().tolist():
            row, column = divmod(cell, CANVAS_PX // CELL_PX)
            end = (row + float(ends[cell, slot])) * CELL_PX
            assert row * CELL_PX <= end < (row + 1) * CELL_PX
            below = picture[:, min(CANVAS_PX - 1, round(end) + 3), int((column + 0.5) * CELL_PX)]
            colour = torch.tensor(COLOURS[SAID[int(characters[cell, slot]) - 1]])
            found += 1
            right += float((below - colour).abs().max()) < 60
    assert found > 16
    assert right > 0.8 * found, "some are no higher than a line, and pictures are worn"


def said_as_asked(cells: PrintedCells) -> Array:
    """What a reader says that learnt the first picture of ``cells`` by heart."""
    side = CANVAS_PX // CELL_PX
    said = np.zeros((CELL_SLOTS, N_SAID, side, side), np.float32)
    said[:, 0], said[:, -3] = 9.0, -9.0
    for cell, slot in (cells.characters[0] > 0).nonzero().tolist():
        row, column = divmod(cell, side)
        said[slot, 1 : 1 + len(SAID), row, column] = 0.0
        said[slot, int(cells.characters[0, cell, slot]), row, column] = 18.0
        said[slot, -3, row, column] = 9.0 if cells.begins[0, cell, slot] else -9.0
        said[slot, -2, row, column] = float(cells.sizes[0, cell, slot].log())
        said[slot, -1, row, column] = cells.ends[0, cell, slot]
    return said


def test_bars_come_back_from_what_is_asked_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(print_scenes, "SHARES", {"chart": 1.0})
    painter = Painter(Material((), {}), random.Random(3), printer())
    drawn: list[Scene] = []
    monkeypatch.setattr(painter, "chart", lambda chart=painter.chart: drawn.append(chart()) or drawn[-1])
    for seed in range(12):
        _, cells = PrintScenes(painter, seed, pool=1).batch(1)
        frame = Frame(*drawn[-1].image.size, (CANVAS_PX, CANVAS_PX))
        read = [one for one in characters_of(said_as_asked(cells)) if one.character in BARS]
        wanted = [(mark.character, *frame.on_canvas(mark.x, mark.y)) for mark in bar_ends(drawn[-1])]
        assert len(read) == len(wanted)
        for colour, x, y in wanted:
            assert any(abs(one.x - x) < 5 and abs(one.y - y) < 2 and one.character == colour for one in read)


def test_a_bar_weighs_as_much_as_several_characters() -> None:
    wanted = torch.zeros(1, 1, CELL_SLOTS, dtype=torch.long)
    losses = []
    for at in (1, 1 + len(CHARACTERS)):
        wanted[0, 0, 0] = at
        cells = PrintedCells(wanted.clone(), *torch.ones(3, 1, 1, CELL_SLOTS))
        said = torch.zeros(1, CELL_SLOTS, N_SAID, 1, 1)
        said[:, 1, 0] = 20.0
        losses.append(float(lettering.reading_losses(said, cells)["characters"]))
    nothing = np.log(N_SAID - 3)
    assert losses[1] - losses[0] == pytest.approx((lettering.BAR_WEIGHT - 1) * nothing, rel=1e-3)


def test_the_reader_is_probed_in_own_fonts_and_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "Printer", lambda *_args, **_kwargs: printer())
    found = probing.probe_print(vision().eval(), 3)
    assert set(found) == {
        f"{what}, {fonts} fonts" for what in ("words", "bars", "values") for fonts in ("own", "other")
    }
    assert all(0 <= share < 0.5 for share in found.values())


def test_each_cell_is_asked_for_its_characters_from_left_to_right() -> None:
    letters = {name: CHARACTERS.find(name) + 1 for name in "abcde"}
    marks = np.full((2, 8, N_MARK), -1e4, np.float32)
    middle = SHEET_PX / 2
    left, top = middle - CROP_PX / 2, middle - CROP_PX / 2
    marks[0, :3] = [
        (left + 6, top + 5, letters["b"], 0, 0, 9),
        (left + 3, top + 5, letters["a"], 0, 1, 8),
        (left + 20, top + 5, letters["c"], 0, 0, 8),
    ]
    marks[1, :2] = [(left + 1, top + 1, letters["d"], 0, 0, 8), (left + 3, top + 6, letters["e"], 1, 0, 8)]  # two lines
    still = np.zeros(2, np.float32)
    cells = by_cell(marks, np.full((2, 2), middle, np.float32), still + 1, still, CROP_PX)
    characters = cells.characters
    assert characters.shape == (2, (CROP_PX // CELL_PX) ** 2, CELL_SLOTS)
    assert characters[0, 0].tolist() == [letters["a"], letters["b"]]
    assert characters[0, 2].tolist() == [letters["c"], 0]
    assert cells.begins[0, 0].tolist() == [1.0, 0.0]
    assert cells.sizes[0, 0].tolist() == [8.0, 9.0]
    assert characters[1, 0].tolist() == [IGNORED] * CELL_SLOTS


def test_more_characters_than_a_cell_has_slots_are_not_asked_for() -> None:
    marks = np.full((1, 8, N_MARK), -1e4, np.float32)
    middle = SHEET_PX / 2
    for at in range(CELL_SLOTS + 1):
        marks[0, at] = (middle + 1 + 2 * at, middle + 1, 1, 0, 0, 8)
    still = np.zeros(1, np.float32)
    characters = by_cell(marks, np.full((1, 2), middle, np.float32), still + 1, still, CROP_PX).characters
    assert (characters == IGNORED).sum() == CELL_SLOTS


def test_a_turned_and_enlarged_crop_has_its_ink_where_its_characters_are() -> None:
    crops = PrintCrops(printer(), seed=1, pool=1)
    mask, marks = np.zeros((1, SHEET_PX, SHEET_PX), np.uint8), np.full((1, 8, N_MARK), -1e4, np.float32)
    mask[0, 48:52, 70:74] = 255
    marks[0, 0] = (72, 50, 1, 0, 1, 10)
    middles, scales, turns = np.array([[64, 60]], np.float32), np.array([1.2], np.float32), np.array([0.08], np.float32)
    ink = crops._cut(mask, middles, scales, turns)[0, 0]
    y, x = divmod(int(ink.argmax()), CROP_PX)
    cells = by_cell(marks, middles, scales, turns, CROP_PX)
    assert cells.sizes.max().item() == pytest.approx(12.0)
    assert cells.characters[0, :, 0].argmax() == y // CELL_PX * (CROP_PX // CELL_PX) + x // CELL_PX


def test_a_sheet_on_which_nothing_could_be_printed_is_a_blank_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrintCrops, "_text", lambda _crops, _size: " ")
    _, cells = PrintCrops(printer(), seed=5, pool=2).batch(2)
    assert not (cells.characters > 0).any()


@pytest.mark.parametrize("enlarged", [1, 2])
def test_print_crops_are_the_same_for_the_same_seed(enlarged: int) -> None:
    (pixels, cells), (other_pixels, other_cells) = (
        PrintCrops(printer(), seed=5, pool=6, enlarged=enlarged).batch(12) for _ in range(2)
    )
    assert torch.equal(pixels, other_pixels)
    assert torch.equal(cells.characters, other_cells.characters)
    assert torch.equal(cells.begins, other_cells.begins)
    assert pixels.shape == (12, 3, enlarged * CROP_PX, enlarged * CROP_PX)
    assert int((cells.characters > 0).sum()) > 30
    assert not cells.begins[cells.characters == 0].any()
