"""The stage "names": crops of everything that has a name, crops of print, and a tower that learns both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from hearth.multimodal.clip import VisionNetwork
from training import naming, probing
from training.aligning import vision_config
from training.checkpoints import load_stage
from training.letters import CROP_PX
from training.loop import StagePlan
from training.pictures import Material
from training.products import Photograph, Product
from training.scenes import Sprite
from training.view_batches import ViewBatch
from training.world import SHAPES


def material() -> Material:
    """One thing in two styles, and one product with a photograph to learn from and one that is held out."""
    thing = Sprite("thing", Image.new("RGBA", (40, 20), (255, 0, 0, 255)), "red")
    other = Sprite("thing", Image.new("RGBA", (40, 20), (0, 255, 0, 255)), "green")
    product = Product("Royal Gala apple", "apple", "fruit")
    shown = Photograph(product, Path("shown.jpg"), held_out=False)
    kept = Photograph(product, Path("kept.jpg"), held_out=True)
    pictures = ((shown, Image.new("RGB", (90, 60), "blue")), (kept, Image.new("RGB", (90, 60), "white")))
    return Material((thing,), {"thing": [other]}, pictures)


def small_vision() -> VisionNetwork:
    config = vision_config(64, 100)
    config["vision_cfg"].update(layers=[1, 1, 1, 1], width=8, head_width=32)
    config["connector"]["channels"] = 32
    return VisionNetwork(config)


def test_crops_have_a_class_for_every_name_and_show_no_held_out_photograph() -> None:
    crops, names = naming.Crops(material(), seed=3), naming.class_names(material())
    assert names[0] == "thing"
    assert names[-1] == "Royal Gala apple"
    pixels, labels = crops.batch(40)
    assert pixels.shape == (40, 3, CROP_PX, CROP_PX)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 255
    photographed = [names[label] == "Royal Gala apple" for label in labels]
    assert sum(photographed) == round(40 * naming.PHOTOGRAPH_SHARE)
    assert crops._photographs.float().mean((2, 3)).tolist() == [[0.0, 0.0, 255.0]]


def test_a_name_that_is_a_shape_and_an_emoji_is_one_class() -> None:
    shape = Sprite(SHAPES[0], Image.new("RGBA", (40, 40), (255, 0, 0, 255)), "red")
    known = material()
    both = Material((*known.sprites, shape), known.styled, known.photographs)
    names = naming.class_names(both)
    assert names.count(SHAPES[0]) == 1
    labels = naming.Crops(both, seed=3).batch(40)[1]
    assert sum(names[label] == "Royal Gala apple" for label in labels) == round(40 * naming.PHOTOGRAPH_SHARE)


def test_warped_and_retextured_crops_keep_their_shape_and_range() -> None:
    crops = naming.Crops(material(), seed=5)
    assert float(crops._warp(50).abs().max()) > 0.1
    assert float(crops._warp(50).abs().max()) < 2 * naming.WARP
    grey = torch.full((40, 3, CROP_PX, CROP_PX), 128.0)
    assert torch.equal(crops._retextured(grey), grey)
    picture = torch.rand(40, 3, CROP_PX, CROP_PX) * 255
    changed = (crops._retextured(picture) != picture).flatten(1).any(1)
    assert 0 < int(changed.sum()) < 40


def test_crops_are_the_same_for_the_same_seed() -> None:
    first, second = (naming.Crops(material(), seed=3).batch(40) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_crop_shows_its_thing_whole_at_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "WARPED_SHARE", 0.0)
    crops = naming.Crops(Material((), {}), seed=1)
    square = torch.full((8, 4, CROP_PX, CROP_PX), 255.0)
    cut = crops._cut(square, torch.full((8,), 0.5), torch.zeros(8, 2), "zeros")
    covered = (cut[:, 3] > 128).float().mean((1, 2))
    assert torch.allclose(covered, torch.full((8,), 0.25), atol=0.02)
    middle = CROP_PX // 2
    assert float(cut[:, 3, middle, middle].min()) > 254.9
    assert float(cut[:, 3, 0, 0].max()) == 0.0


def test_the_stage_trains_the_tower_and_the_next_takes_it_over(tmp_path: Path) -> None:
    vision = small_vision()
    before = vision.clip.visual.conv1.weight.detach().clone()
    naming.run(StagePlan("names", 0.2, 1e-3, tmp_path), vision, material(), seed=2)
    trained = vision.clip.visual.conv1.weight.detach().clone()
    assert not torch.equal(before, trained)
    later = small_vision()
    assert load_stage(tmp_path / "names.pt", later, "vision.")
    assert torch.equal(later.clip.visual.conv1.weight, trained)


def test_the_tower_is_probed_by_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = material()
    names = naming.class_names(known)
    tower = naming.Naming(small_vision(), len(names)).eval()
    with torch.no_grad():
        tower.classes.weight.zero_()
        tower.classes.bias.zero_()
        tower.classes.bias[names.index(known.sprites[0].name)] = 1.0  # whatever it sees
    monkeypatch.setattr(probing, "noto_sprites", lambda: [known.sprites[0]])
    found = probing.probe_names(tower, known, 24)
    assert 0 < found["fluent"] < 1


def test_a_probe_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        probing.saved_naming(tmp_path, 3)


def test_what_tokens_say_of_a_number_is_judged_where_it_was_asked() -> None:
    two, three = 5, 6
    batch = ViewBatch(
        pixels=torch.zeros(1),
        places=torch.zeros(1),
        rows=torch.tensor([(0, 1), (0, 2), (0, 3)]),
        row_weights=torch.tensor([1.0, 1.0, 0.25]),  # the last lies at an edge
        entries=torch.tensor([(0, two), (0, 9), (1, two), (2, three)]),
        shares=torch.ones(4),
        captioned=torch.zeros(0),
        captions=torch.zeros(0),
        strays=torch.zeros(0),
    )
    logits = torch.zeros(1, 4, 12)
    logits[0, 1, two], logits[0, 2, three], logits[0, 1, 9] = 1.0, 1.0, 5.0
    assert probing._told(batch, logits, torch.tensor([two, three])).tolist() == [True, False]
