"""The reader of lines: the strips it is trained on, what it is asked of them, and its stage."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.print_lines import COLUMNS_PX, FRAME_PX, LINE_PX, SYMBOLS, WIDTHS_PX, Strip
from training import line_reading, probing
from training.aligning import vision_config
from training.checkpoints import load_stage
from training.fonts import fonts
from training.line_reading import line_loss
from training.loop import StagePlan
from training.pictures import Material, Painter
from training.printing import Printer
from training.scenes import Mark, Scene
from training.strips import Strips, standing_on


def printer() -> Printer:
    """Prints in the fonts that every machine with tests has: they are held out from training."""
    return Printer(fonts(), random.Random(1), held_out=True)


def strips(seed: int = 4, pool: int = 30) -> Strips:
    return Strips(Painter(Material((), {}), random.Random(3), printer()), seed, pool, renewed=1)


def vision() -> VisionNetwork:
    config = vision_config(64, 100)
    config["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    return VisionNetwork({**config, "letters": [16, 24, 32], "lines": [8, 8, 8]})


def marks(text: str, x: float, y: float, size: float = 20.0) -> list[Mark]:
    return [
        Mark(one, x + 0.5 * size * at, y, at == 0 or text[at - 1] == " ", size)
        for at, one in enumerate(text)
        if one != " "
    ]


def said(symbols: tuple[int, ...] | None) -> str | None:
    return None if symbols is None else "".join(SYMBOLS[at] for at in symbols)


def test_what_stands_on_a_strip_is_asked_for_from_its_left() -> None:
    strip = Strip(20, 50, 80, 0.0, 20)
    assert said(standing_on(strip, [*marks("tea 9", 30, 50), *marks("no", 30, 80)])) == "tea 9"
    assert said(standing_on(strip, marks("bread", 15, 50))) == "read", "half of the first is cut off"
    assert said(standing_on(strip, marks("caf~", 30, 50))) is None
    assert standing_on(strip, marks("far", 300, 50)) == ()
    assert standing_on(strip, marks("XL", 40, 50, size=60)) == (), "a strip across large letters shows none of them"


def test_strips_of_a_batch_show_what_is_asked_for() -> None:
    drawn = strips()
    seen = ""
    for _ in range(6):
        ink, asked = drawn.batch()
        assert ink.shape[1:3] == (1, LINE_PX)
        assert ink.shape[3] % WIDTHS_PX == 0
        assert ink.shape[0] * ink.shape[3] <= max(COLUMNS_PX, 2 * ink.shape[3])
        assert len(asked) == len(ink)
        inked = ink.amax((1, 2, 3)) > 1
        assert all(bool(there) for there, symbols in zip(inked, asked, strict=True) if symbols)
        assert all(2 * len(symbols) <= ink.shape[3] // FRAME_PX for symbols in asked), "there is room for all of them"
        seen += "".join(said(symbols) or "" for symbols in asked)
    assert " " in seen
    assert sum(one.isalpha() for one in seen) > 50 < len(seen)


def test_strips_are_the_same_for_the_same_seed_and_no_more_than_there_is_room_for() -> None:
    first, other = strips(), strips()
    for _ in range(3):
        (ink, asked), (other_ink, other_asked) = first.batch(), other.batch()
        assert torch.equal(ink, other_ink)
        assert asked == other_asked
    assert first.size < 30 + 80, "new strips take the place of others"


def test_the_loss_is_that_of_each_character() -> None:
    frames = torch.zeros(2, 20, len(SYMBOLS))
    frames[:, :, 0] = 20.0
    wanted = [(1, 1), (5,)]
    for row, at in ((0, 2), (0, 9), (1, 4)):
        symbol = wanted[row][0]
        frames[row, at, 0], frames[row, at, symbol] = 0.0, 20.0
    assert float(line_loss(frames, wanted)) < 0.01
    assert float(line_loss(frames, [(1, 1), (6,)])) == pytest.approx(20 / (3 + 2)), "one of three, on two strips"
    assert float(line_loss(frames[1:], [()])) > 5, "there is none on it"
    frames[1, 4, 0], frames[1, 4, 5] = 20.0, 0.0
    assert float(line_loss(frames[1:], [()])) < 0.01


def test_the_stage_trains_the_reader_and_the_encoder_takes_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_reading, "Strips", partial(Strips, pool=20, renewed=1))
    trained, later = vision(), vision()
    line_reading.run(StagePlan("lines", 0.6, 1e-3, tmp_path), trained, printer(), seed=2)
    assert trained.lines is not None
    assert later.lines is not None
    name = "stem.0.0.weight"
    assert not torch.equal(trained.lines.state_dict()[name], later.lines.state_dict()[name])
    assert load_stage(tmp_path / "lines.pt", later.lines)
    assert torch.equal(trained.lines.state_dict()[name], later.lines.state_dict()[name])


def test_what_is_read_of_a_scene_is_read_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    network = vision().eval()
    assert network.letters is not None
    assert network.lines is not None

    def letters(pixels: torch.Tensor) -> torch.Tensor:
        cells = torch.zeros(1, 2, 4 + len(SYMBOLS) - 2 + 10, pixels.shape[2] // 8, pixels.shape[3] // 8)
        cells[:, :, 0], cells[:, :, -3], cells[:, :, -2] = 9.0, -9.0, 3.2
        cells[0, 0, 0, 8, 8], cells[0, 0, 5, 8, 8] = 0.0, 9.0
        return cells

    def lines(ink: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(ink.shape))
        told = torch.zeros(len(ink), ink.shape[3] // FRAME_PX, len(SYMBOLS))
        told[:, :, 0], told[:, 9, 0], told[:, 9, SYMBOLS.index("Q")] = 9.0, 0.0, 9.0
        return told

    monkeypatch.setattr(network.letters, "forward", letters)
    monkeypatch.setattr(network.lines, "forward", lines)
    scene = Scene(Image.new("RGB", (192, 192), "white"), (), None, "words", (), "Q")
    assert probing.words_read(network, scene) == ["Q"]
    assert asked == [(1, 1, LINE_PX, WIDTHS_PX)]
    network.lines = None
    assert probing.words_read(network, scene) == ["e"]
