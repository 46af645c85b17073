"""The pocket vision encoder: shapes, determinism, what it refuses, and that open_clip's own forward pass agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, models, pre_tokenizers

from hearth.assets import pocket_dir
from hearth.models.errors import ModelFileError
from hearth.multimodal.clip import END_TOKEN, PocketVision, VisionNetwork
from hearth.multimodal.connector import CAbstractor
from hearth.multimodal.locating import listed
from hearth.multimodal.named_things import CROP_PX
from hearth.multimodal.picture_encoder import PictureEncoder
from hearth.multimodal.pixels import to_pixels
from hearth.multimodal.print_lines import LINE_PX, SYMBOLS, WIDTHS_PX
from hearth.multimodal.print_order import PRINT_TOKENS
from hearth.multimodal.views import N_PLACES, places_of, tile_frame, token_grid, whole_frame

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 300, "width": 16, "heads": 2, "layers": 1},
    "connector": {"channels": 32, "n_tokens": 4, "n_embd": 24, "depth": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Random weights in the files that the app reads."""
    torch.manual_seed(0)
    safetensors.torch.save_file(VisionNetwork(CONFIG).state_dict(), tmp_path / "vision.safetensors")
    (tmp_path / "vision.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([END_TOKEN])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def picture(colour: str = "red", size: tuple[int, int] = (100, 60)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_a_picture_becomes_visual_tokens_and_a_unit_vector(folder: Path) -> None:
    vision = PocketVision.load(folder)
    tokens = vision.encode(picture())
    assert tokens.shape == (vision.n_tokens(100, 60), vision.n_embd) == (4, 24)
    assert tokens.dtype == np.float32
    vector = vision.embed_picture(picture())
    assert vector.shape == (vision.dimension,) == (16,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(tokens, vision.encode(picture()))
    assert not np.allclose(tokens, vision.encode(picture("blue")))


def test_text_lands_in_the_space_of_pictures_however_long_it_is(folder: Path) -> None:
    vision = PocketVision.load(folder)
    for text in ("", "dog", "a red apple on the left and much more than fits"):
        vector = vision.embed_text(text)
        assert vector.shape == (16,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_vectors_are_those_of_open_clip(folder: Path) -> None:
    network = VisionNetwork(CONFIG).eval()
    network.load_state_dict(safetensors.torch.load_file(folder / "vision.safetensors"))
    pixels = torch.from_numpy(to_pixels(picture(), 64))[None]
    with torch.inference_mode():
        expected = network.clip.encode_image(pixels, normalize=True)[0].numpy()
    np.testing.assert_allclose(PocketVision.load(folder).embed_picture(picture()), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_any_picture_mode_is_read(folder: Path, mode: str) -> None:
    assert np.isfinite(PocketVision.load(folder).encode(picture().convert(mode))).all()


@pytest.mark.parametrize("size", [(640, 480), (1, 1), (3, 900), (96, 96)])
def test_the_whole_picture_is_fitted_into_a_square(size: tuple[int, int]) -> None:
    pixels = to_pixels(Image.new("RGB", size, "white"), 96)
    assert pixels.shape == (3, 96, 96)
    white = (pixels[0] > 1.9).sum()
    scale = 96 / max(size)
    assert white == max(1, round(size[0] * scale)) * max(1, round(size[1] * scale))


def test_the_fingerprint_follows_the_weights(folder: Path) -> None:
    first = PocketVision.load(folder).fingerprint
    assert PocketVision.load(folder).fingerprint == first
    torch.manual_seed(1)
    safetensors.torch.save_file(VisionNetwork(CONFIG).state_dict(), folder / "vision.safetensors")
    assert PocketVision.load(folder).fingerprint != first


@pytest.mark.parametrize("name", ["vision.json", "vision.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ModelFileError, match=name):
        PocketVision.load(folder)
    path.unlink()
    with pytest.raises(ModelFileError, match=name):
        PocketVision.load(folder)


def test_weights_of_another_configuration_are_refused(folder: Path) -> None:
    other = {**CONFIG, "connector": {**CONFIG["connector"], "n_embd": 25}}
    (folder / "vision.json").write_text(json.dumps(other))
    with pytest.raises(ModelFileError, match=r"vision\.json do not belong together"):
        PocketVision.load(folder)


def test_a_visual_token_sees_its_own_part_of_the_picture() -> None:
    torch.manual_seed(0)
    connector = CAbstractor(8, 32, n_tokens=4, n_embd=12, depth=1).eval()
    maps = torch.randn(1, 8, 12, 12)
    changed = maps.clone()
    changed[:, :, :3, :3] += 5.0
    with torch.inference_mode():
        moved = (connector(maps) - connector(changed)).abs().sum(-1)[0]
    assert connector(maps).shape == (1, 4, 12)
    assert moved[0] > 3 * moved[3]


VIEWS_CONFIG: dict[str, Any] = {
    **CONFIG,
    "vision_cfg": {**CONFIG["vision_cfg"], "image_size": 96},
    "connector": {"channels": 32, "n_places": N_PLACES, "n_embd": 24, "depth": 1},
}


READER = {"letters": [16, 24, 32]}


LINES = READER | {"lines": [8, 12, 16]}
NAMER = READER | {"locator": 8, "namer": {"channels": 8, "names": [[" fox"], [" fire", " engine"]]}}


@pytest.fixture(
    params=[{}, READER, READER | {"locator": 8}, LINES, NAMER],
    ids=["tower", "and reader", "and locator", "and lines", "and namer"],
)
def in_views(folder: Path, request: pytest.FixtureRequest) -> Path:
    """An encoder that sees pictures in views, without a reader of print, with one, and with others besides."""
    torch.manual_seed(0)
    config = VIEWS_CONFIG | request.param
    network = VisionNetwork(config).eval()
    if network.print is not None:
        for vectors in network.print.parameters():
            torch.nn.init.normal_(vectors, std=0.1)
    safetensors.torch.save_file(network.state_dict(), folder / "vision.safetensors")
    (folder / "vision.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("size", [(200, 200), (400, 100), (90, 300), (1, 1), (640, 480), (3000, 20)])
def test_a_picture_in_views_has_as_many_tokens_as_is_said_beforehand(in_views: Path, size: tuple[int, int]) -> None:
    vision = PocketVision.load(in_views)
    tokens = vision.encode(picture("red", size))
    assert tokens.shape == (vision.n_tokens(*size), 24)
    n_print = PRINT_TOKENS if "letters" in json.loads((in_views / "vision.json").read_text()) else 0
    assert 16 + 16 <= len(tokens) - n_print <= 16 + 64
    assert np.isfinite(tokens).all()


def test_tiles_see_what_the_whole_cannot(in_views: Path) -> None:
    vision = PocketVision.load(in_views)
    fine = Image.new("RGB", (192, 192), "white")
    fine.paste("black", (100, 100, 103, 103))
    moved = np.abs(vision.encode(fine) - vision.encode(picture("white", (192, 192)))).sum(axis=1)
    assert moved[16 : 16 + 64].max() > moved[:16].max()
    row, column = divmod(int(moved[16 : 16 + 64].argmax()), 8)
    assert abs(row - 4) <= 1
    assert abs(column - 4) <= 1


def test_places_of_whole_and_tiles_mean_the_same_point() -> None:
    for size in ((192, 192), (300, 100), (80, 200)):
        middle = []
        for frame, tiles in ((whole_frame(*size, 96), False), (tile_frame(*size, 96), True)):
            places = places_of(frame, 96, tiles=tiles)
            assert np.allclose(places[:, :-2].sum(axis=1), 1.0, atol=1e-5)
            assert (places[:, -1] == tiles).all()
            middle.append(places[:, :-2].mean(axis=0) @ np.repeat(np.arange(8), 8))
        assert middle[0] == pytest.approx(middle[1], abs=0.3)


def test_graphs_of_an_encoder_in_views_compute_what_open_clip_does(in_views: Path) -> None:
    from training.export_graph import export_graphs

    export_graphs(in_views)
    reference, encoder = PocketVision.load(in_views), PictureEncoder.load(in_views)
    for size in ((128, 128), (300, 120), (90, 400)):
        image = Image.effect_mandelbrot(size, (-2.0, -1.5, 1.0, 1.5), 90).convert("RGB")
        np.testing.assert_allclose(encoder.encode(image), reference.encode(image), atol=1e-3)
        np.testing.assert_allclose(encoder.embed_picture(image), reference.embed_picture(image), atol=1e-4)
    (in_views / "tiles.onnx").unlink()
    with pytest.raises(ModelFileError, match=r"tiles\.onnx"):
        PictureEncoder.load(in_views)


@pytest.mark.parametrize(
    ("in_views", "added", "file"),
    [
        ({}, READER, "letters"),
        (READER, {"locator": 8}, "locator"),
        (READER, {"lines": [8, 12, 16]}, "lines"),
        (READER | {"locator": 8}, {"namer": NAMER["namer"]}, "namer"),
    ],
    indirect=["in_views"],
    ids=["reader", "locator", "lines", "namer"],
)
def test_graphs_that_the_configuration_has_and_the_folder_has_not_are_refused(
    in_views: Path, added: dict[str, Any], file: str
) -> None:
    from training.export_graph import export_graphs

    export_graphs(in_views)
    config = json.loads((in_views / "vision.json").read_text())
    (in_views / "vision.json").write_text(json.dumps(config | added))
    with pytest.raises(ModelFileError, match=rf"{file}\.onnx"):
        PictureEncoder.load(in_views)


@pytest.mark.parametrize("in_views", [READER | {"locator": 8}], indirect=True, ids=["locator"])
def test_the_graph_of_the_locator_says_what_the_network_does(in_views: Path) -> None:
    from training.export_graph import export_graphs

    export_graphs(in_views)
    reference, encoder = PocketVision.load(in_views), PictureEncoder.load(in_views)
    random = np.random.default_rng(0)
    for size in ((192, 192), (300, 120), (90, 400), (3000, 20)):
        frame = tile_frame(*size, 96)
        rows, columns = token_grid(frame, 96)
        tokens = random.standard_normal((rows * columns, 24)).astype(np.float32)
        said = reference._located(tokens, frame)
        assert said.shape == (10,)
        assert np.ptp(said) > 0.01
        np.testing.assert_allclose(encoder._located(tokens, frame), said, atol=1e-4)


@pytest.mark.parametrize(("part", "of"), [("locator", 8), ("lines", [8, 12, 16])])
def test_a_locator_and_lines_need_a_reader_and_views(part: str, of: object) -> None:
    for without in (VIEWS_CONFIG, CONFIG | READER):
        with pytest.raises(ValueError, match=f"{part} needs letters and n_places"):
            VisionNetwork({**without, part: of})


def test_a_namer_needs_a_locator() -> None:
    with pytest.raises(ValueError, match="namer needs locator"):
        VisionNetwork(VIEWS_CONFIG | READER | {"namer": NAMER["namer"]})


@pytest.mark.parametrize("in_views", [NAMER], indirect=True, ids=["namer"])
def test_the_graphs_of_the_namer_say_what_the_network_does(in_views: Path) -> None:
    from training.export_graph import export_graphs

    export_graphs(in_views)
    reference, encoder = PocketVision.load(in_views), PictureEncoder.load(in_views)
    crops = np.random.default_rng(0).standard_normal((3, 3, CROP_PX, CROP_PX)).astype(np.float32)
    said = reference._look(crops)
    assert said.shape == (3, 3)
    assert np.ptp(said) > 0.01
    for n in (1, 3):
        np.testing.assert_allclose(encoder._look(crops[:n]), said[:n], atol=1e-4)


@pytest.mark.parametrize("in_views", [NAMER], indirect=True, ids=["namer"])
def test_a_namer_of_other_names_is_refused(in_views: Path) -> None:
    from training.export_graph import export_graphs

    export_graphs(in_views)
    config = json.loads((in_views / "vision.json").read_text())
    config["namer"]["names"].append([" fire", " fox"])
    (in_views / "vision.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="a namer of 2 names, but 3 are told"):
        PictureEncoder.load(in_views)


@pytest.mark.parametrize("in_views", [LINES], indirect=True, ids=["lines"])
def test_the_graph_of_lines_says_what_the_network_does(in_views: Path) -> None:
    from training.export_graph import export_graphs

    export_graphs(in_views)
    reference, encoder = PocketVision.load(in_views), PictureEncoder.load(in_views)
    random = np.random.default_rng(0)
    for n, width in ((1, WIDTHS_PX), (2, 5 * WIDTHS_PX), (7, 2 * WIDTHS_PX)):
        strips = random.standard_normal((n, 1, LINE_PX, width)).astype(np.float32)
        told = reference._told_of_lines(strips)
        assert told.shape == (n, width // 2, len(SYMBOLS))
        np.testing.assert_allclose(encoder._told_of_lines(strips), told, atol=1e-4)


def test_the_number_of_visual_tokens_must_be_square() -> None:
    with pytest.raises(ValueError, match="n_tokens is 5"):
        CAbstractor(8, 32, n_tokens=5, n_embd=12)


def test_the_shipped_graphs_compute_what_open_clip_does() -> None:
    shipped = pocket_dir()
    reference, encoder = PocketVision.load(shipped), PictureEncoder.load(shipped)
    for side in ((128, 128), (300, 200)):
        image = Image.effect_mandelbrot(side, (-2.0, -1.5, 1.0, 1.5), 90).convert("RGB")
        np.testing.assert_allclose(encoder.encode(image), reference.encode(image), atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(encoder.embed_picture(image), reference.embed_picture(image), atol=1e-3)
    np.testing.assert_allclose(encoder.embed_text("a red circle"), reference.embed_text("a red circle"), atol=1e-3)


def test_the_shipped_encoder_lists_things_that_are_alike() -> None:
    encoder = PictureEncoder.load(pocket_dir())
    image = Image.new("RGB", (384, 384), (230, 225, 60))
    pen = ImageDraw.Draw(image)
    for x, y in ((64, 64), (320, 64), (192, 320)):
        pen.ellipse((x - 45, y - 45, x + 45, y + 45), fill=(48, 104, 214))
    frame = tile_frame(*image.size, 96)
    tiles = encoder.encode(image)[16 : 16 + 64]
    told = "".join(one.character for one in listed(encoder._located(tiles, frame), frame))
    assert told == " 1 at the top left, 2 at the top right, 3 at the bottom, three"


def test_the_shipped_graphs_read_small_print_as_the_network_does() -> None:
    shipped = pocket_dir()
    reference, encoder = PocketVision.load(shipped), PictureEncoder.load(shipped)
    image = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(image).text((200, 220), "Opening hours", fill="black", font=ImageFont.load_default(24))
    np.testing.assert_allclose(encoder.encode(image), reference.encode(image), atol=2e-3, rtol=1e-3)


def test_a_damaged_or_missing_file_of_the_encoder_is_named(tmp_path: Path) -> None:
    for name in ("vision.json", "vision.safetensors", "picture.onnx", "caption.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((pocket_dir() / name).read_bytes())
    (tmp_path / "picture.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelFileError, match="vision encoder's files are damaged"):
        PictureEncoder.load(tmp_path)
    (tmp_path / "caption.onnx").unlink()
    with pytest.raises(ModelFileError, match=r"caption\.onnx: No such file"):
        PictureEncoder.load(tmp_path)
