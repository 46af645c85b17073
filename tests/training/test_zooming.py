"""The stage that teaches small heads where things lie and what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.named_things import words_of
from hearth.multimodal.print_cells import Printed
from hearth.multimodal.views import tile_frame
from training import probing, scene_pool, zooming
from training.aligning import vision_config
from training.checkpoints import load_stage
from training.fonts import fonts
from training.loop import StagePlan
from training.naming import class_names
from training.pictures import Material
from training.probing import probe_things, saved_naming_things, told_name
from training.scene_pool import Encoded, print_tokens, renamed
from training.scenes import Scene, Sprite, Thing
from training.view_batches import SIDE_PX
from training.zooming import covered


def material() -> Material:
    sprite = Sprite("thing", Image.new("RGBA", (40, 20), (255, 0, 0, 255)), "red")
    return Material((sprite,), {"thing": [sprite]}, ())


def vision() -> VisionNetwork:
    config = vision_config(64, 100, [[f" {name}"] for name in class_names(material())])
    config["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    config["connector"] |= {"channels": 32, "depth": 1}
    return VisionNetwork({**config, "letters": [16, 24, 32], "lines": [8, 12, 16], "locator": 16})


def test_cells_under_things_are_covered() -> None:
    blank = Image.new("RGB", (384, 384))
    frame = tile_frame(384, 384, SIDE_PX)
    thing = Thing("star", None, (0, 0), (32, 64, 128, 128))
    on = covered(Scene(blank, (thing,), None), frame)
    assert on.shape == (12, 12)
    assert on[2:4, 1:4].all()
    assert on.sum() == 6
    assert not covered(Scene(blank, (thing,), None, "chart"), frame).any()


def test_the_stage_learns_and_leaves_the_rest_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zooming, "new_fonts", fonts)
    monkeypatch.setattr(zooming, "MIXTURE", {"counted": 0.6, "pair": 0.2, "chart": 0.2})
    monkeypatch.setattr(zooming, "DRAWN", 6)
    monkeypatch.setattr(zooming, "CROPS", 20)
    trained, later = vision(), vision()
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    zooming.run(StagePlan("zoom", 1.0, 1e-3, tmp_path), trained.eval(), material(), seed=3)
    changed = {name for name, weight in before.items() if not torch.equal(weight, trained.state_dict()[name])}
    assert changed
    assert all(name.startswith("namer.") for name in changed)
    assert {"namer.norm.running_mean", "namer.lies.bias", "namer.names.bias"} <= changed
    assert trained.namer is not None
    assert later.namer is not None
    assert load_stage(tmp_path / "zoom.pt", later.namer)
    assert torch.equal(later.namer.names.weight, trained.namer.names.weight)


@pytest.mark.parametrize("tells", [False, True])
def test_the_namer_is_probed_by_the_names_that_it_tells(tells: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "NAMED_KINDS", ("single",))
    monkeypatch.setattr(probing, "NAMELESS_KINDS", ("words",))
    monkeypatch.setattr(scene_pool, "told_of", lambda *_: [])  # an untrained reader reads anything
    monkeypatch.setattr(probing, "noto_sprites", lambda: material().sprites)
    network = vision().eval()
    assert network.locator is not None
    assert network.namer is not None
    with torch.no_grad():
        for head in (network.namer.names, network.namer.lies, network.locator.taken):
            head.weight.zero_()
            head.bias.fill_(-5.0)  # nothing anywhere
        at = 1 + class_names(material()).index("thing")
        network.namer.names.bias[at if tells else 0] = 5.0
    found = probe_things(network, material(), 2)
    assert found["words"] == float(not tells)
    assert found["Noto's single"] == float(tells)


def test_things_are_renamed_with_what_is_told_of_them_and_nothing_else_is_changed() -> None:
    network = vision().eval()
    network.names, network.name_words = [[" thing"], [" fire", " engine"]], [" engine", " fire", " thing"]
    assert network.print is not None
    network.print.words = torch.nn.Parameter(torch.randn(3, 64))
    frame, blank = tile_frame(384, 384, SIDE_PX), Image.new("RGB", (384, 384))
    scene = Scene(blank, (Thing("thing", "red", (0, 0), (32, 64, 128, 128)),), None)
    printed = (Printed(" one", 8.0, 8.0, begins=False), *words_of([" thing"], frame))
    told = torch.from_numpy(print_tokens(network).tokens(list(printed), frame))
    encoded = Encoded(torch.cat((torch.ones(5, 64), told)), printed)
    other, seen = renamed(scene, encoded, "fire engine", network)
    assert [(thing.name, thing.colour) for thing in other.things] == [("fire engine", "red")]
    assert told_name(seen.printed, network.names) == "fire engine"
    assert seen.printed[0] == printed[0]
    assert seen.tokens.shape == encoded.tokens.shape
    changed = (seen.tokens != encoded.tokens).any(1).nonzero()[:, 0].tolist()
    assert changed == [6, 7]
    for unchanged in (replace(scene, kind="chart"), Scene(blank, (), None)):
        assert renamed(unchanged, encoded, "fire engine", network) == (unchanged, encoded)
    untold = Encoded(encoded.tokens, printed[:1])
    assert renamed(scene, untold, "fire engine", network) == (scene, untold)


def test_a_told_name_is_the_longest_that_stands_at_the_end() -> None:
    names = [[" engine"], [" fire", " engine"]]
    printed = [Printed(word, 8.0, 8.0, begins=False) for word in (" one", " fire", " engine")]
    assert told_name(printed, names) == "fire engine"
    assert told_name([printed[0], printed[2]], names) == "engine"
    assert told_name(printed[:2], names) is None
    assert told_name([], names) is None


def test_a_namer_that_was_not_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"look\.pt does not exist"):
        saved_naming_things(tmp_path)
