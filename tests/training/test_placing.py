"""The stage that teaches a small network where things stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.locating import PLACES as LISTED
from hearth.multimodal.locating import looks_at, place_of
from hearth.multimodal.locator import Locator
from hearth.multimodal.views import tile_frame, token_grid
from training import placing, probing
from training.aligning import vision_config
from training.checkpoints import load_stage
from training.fonts import fonts
from training.loop import StagePlan
from training.pictures import Material
from training.placing import placing_losses, wanted
from training.probing import probe_places, saved_locating
from training.scenes import Scene, Thing
from training.view_batches import SIDE_PX
from training.world import PLACES


def vision() -> VisionNetwork:
    config = vision_config(64, 100)
    config["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    config["connector"] |= {"channels": 32, "depth": 1}
    return VisionNetwork({**config, "letters": [16, 24, 32], "locator": 16})


def test_places_are_counted_as_they_are_listed() -> None:
    assert {place_of(cell): name for cell, name in PLACES.items()} == dict(enumerate(LISTED))


def test_what_is_to_be_said_of_a_scene() -> None:
    star, moon = (Thing(name, None, cell, (0, 0, 9, 9)) for name, cell in (("star", (2, 0)), ("moon", (1, 2))))
    blank = Image.new("RGB", (96, 96))
    assert wanted(Scene(blank, (star, moon), None)).nonzero().flatten().tolist() == [2, 7]
    assert wanted(Scene(blank, (star,), None)).nonzero().flatten().tolist() == [2, 9], "all are of one kind"
    assert not wanted(Scene(blank, (star,), None, "photo")).any()


def test_whether_things_are_alike_is_not_asked_where_there_are_none() -> None:
    said = torch.zeros(2, 10)
    said[0, 3] = said[0, 9] = 1.0
    logits = torch.where(said > 0, 9.0, -9.0)
    assert sum(float(loss) for loss in placing_losses(logits, said).values()) < 0.01
    logits[1, 9] = 9.0
    assert float(placing_losses(logits, said)["alike"]) < 0.01
    logits[0, 9] = -9.0
    assert float(placing_losses(logits, said)["alike"]) > 0.1


def test_the_stage_learns_and_leaves_the_rest_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "new_fonts", fonts)
    monkeypatch.setattr(placing, "MIXTURE", {"counted": 0.6, "pair": 0.4})
    monkeypatch.setattr(placing, "DRAWN", 12)
    trained, later = vision(), vision()
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    placing.run(StagePlan("places", 1.0, 1e-3, tmp_path), trained.eval(), Material((), {}), seed=3)
    changed = {name for name, weight in before.items() if not torch.equal(weight, trained.state_dict()[name])}
    assert changed
    assert all(name.startswith("locator.") for name in changed)
    assert "locator.norm.running_mean" in changed
    assert trained.locator is not None
    assert later.locator is not None
    assert load_stage(tmp_path / "places.pt", later.locator)
    assert torch.equal(later.locator.taken.weight, trained.locator.taken.weight)


def test_a_locator_learns_where_things_stand_and_whether_they_are_alike() -> None:
    torch.manual_seed(0)
    frame = tile_frame(192, 192, SIDE_PX)
    rows, columns = token_grid(frame, SIDE_PX)
    looks = torch.from_numpy(looks_at(frame, SIDE_PX))
    # the token nearest to the middle of each place
    middles = looks.reshape(len(LISTED), -1, rows * columns).mean(1).argmax(1)
    locator, kinds = Locator(24, 32), torch.randn(6, 24)
    optimizer = torch.optim.Adam(locator.parameters(), lr=0.01)
    for _ in range(200):
        taken = torch.rand(32, len(LISTED)) < 0.4
        alike = torch.rand(32) < 0.5
        kind = torch.where(alike[:, None], torch.randint(6, (32, 1)), torch.randint(6, taken.shape))
        tokens = 0.1 * torch.randn(32, rows * columns, 24)
        tokens[:, middles] += taken[..., None] * kinds[kind]
        several = torch.tensor([len(set(one[there].tolist())) for one, there in zip(kind, taken, strict=True)])
        said = torch.cat((taken, (several == 1)[:, None]), 1).float()
        logits = locator(tokens.reshape(32, rows, columns, -1), looks.expand(32, -1, -1))
        optimizer.zero_grad()
        losses = placing_losses(logits, said)
        (losses["taken"] + len(LISTED) * losses["alike"]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.inference_mode():
        right = (locator.eval()(tokens.reshape(32, rows, columns, -1), looks.expand(32, -1, -1)) > 0) == (said > 0)
    assert float(right[:, :-1].float().mean()) > 0.97
    assert float(right[several > 0, -1].float().mean()) > 0.8


def test_the_locator_is_probed_by_its_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PLACED_KINDS", ("counted", "single", "pair", "words", "chart"))
    network = vision().eval()
    assert network.locator is not None
    with torch.no_grad():
        network.locator.taken.weight.zero_()
        network.locator.taken.bias.fill_(-5.0)  # nothing anywhere
    found = probe_places(network, Material((), {}), 2)
    assert found["counted"] == found["single"] == 0.0
    assert found["pair"] == found["words"] == found["chart"] == 1.0


def test_a_locator_that_was_not_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"look\.pt does not exist"):
        saved_locating(tmp_path)
