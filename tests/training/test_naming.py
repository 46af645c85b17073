"""The stage "names": crops of everything that has a name, and a tower that learns them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from hearth.multimodal.clip import VisionNetwork
from training import naming
from training.aligning import vision_config
from training.checkpoints import load_stage
from training.loop import StagePlan
from training.pictures import Material
from training.products import Photograph, Product
from training.scenes import Sprite


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
    crops = naming.Crops(material(), seed=3)
    assert crops.names[0] == "thing"
    assert crops.names[-1] == "Royal Gala apple"
    pixels, labels = crops.batch(40)
    assert pixels.shape == (40, 3, naming.SIDE_PX, naming.SIDE_PX)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 255
    photographed = [crops.names[label] == "Royal Gala apple" for label in labels]
    assert sum(photographed) == round(40 * naming.PHOTOGRAPH_SHARE)
    assert crops._photographs.float().mean((2, 3)).tolist() == [[0.0, 0.0, 255.0]]


def test_crops_are_the_same_for_the_same_seed() -> None:
    first, second = (naming.Crops(material(), seed=3).batch(40) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_crop_shows_its_thing_whole_at_its_size() -> None:
    crops = naming.Crops(Material((), {}), seed=1)
    square = torch.full((8, 4, naming.SIDE_PX, naming.SIDE_PX), 255.0)
    cut = crops._cut(square, torch.full((8,), 0.5), torch.zeros(8, 2), "zeros")
    covered = (cut[:, 3] > 128).float().mean((1, 2))
    assert torch.allclose(covered, torch.full((8,), 0.25), atol=0.02)
    middle = naming.SIDE_PX // 2
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
