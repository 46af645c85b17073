"""Writes the pocket vision encoder's graphs for onnxruntime: what open_clip computes, without importing torch.

The graphs hold no weights; those stay in ``vision.safetensors`` alone and are handed to the session when it is made.

    python -m training.export_graph [--pocket assets/pocket]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.locating import PLACES, POINTS
from hearth.multimodal.named_things import CROP_PX
from hearth.multimodal.print_lines import LINE_PX, WIDTHS_PX
from hearth.multimodal.views import N_PLACES, TOKENS_A_SIDE
from training.shipped import shipped_vision

OPSET = 20
Shapes = dict[str, dict[int, Any]] | None


class _Graph(nn.Module):
    """A part of the encoder."""

    def __init__(self, network: VisionNetwork) -> None:
        super().__init__()
        self.network = network


class _Picture(_Graph):
    """(1, 3, side, side) pixels, and places if pictures are seen in views → visual tokens and search vectors."""

    def forward(self, pixels: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps = self.network.feature_maps(pixels)
        return self.network.visual_tokens(maps, places), self.network.picture_vectors(maps.coarse)


class _Tiles(_Graph):
    """(1, 3, height, width) pixels of a canvas of tiles, the tokens' places → visual tokens, and where things lie."""

    def forward(self, pixels: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.feature_maps(pixels)
        tokens = self.network.visual_tokens(maps, places)
        return (tokens,) if self.network.namer is None else (tokens, self.network.namer.lying(maps.joined))


class _Names(_Graph):
    """(n, 3, CROP_PX, CROP_PX) pixels of things → what they are called."""

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.names_of_crops(pixels)


class _Letters(_Graph):
    """(1, 3, height, width) pixels of a canvas → what is printed on its cells."""

    def forward(self, pixels: Tensor) -> Tensor:
        assert self.network.letters is not None
        said: Tensor = self.network.letters(pixels)
        return said


class _Lines(_Graph):
    """(batch, 1, LINE_PX, width) strips of print → what is told of their frames."""

    def forward(self, ink: Tensor) -> Tensor:
        assert self.network.lines is not None
        told: Tensor = self.network.lines(ink)
        return told


class _Locator(_Graph):
    """(1, rows, columns, n_embd) visual tokens of tiles, and where to look → what is said of places."""

    def forward(self, tokens: Tensor, looks: Tensor) -> Tensor:
        assert self.network.locator is not None
        said: Tensor = self.network.locator(tokens, looks)
        return said


class _Caption(_Graph):
    """(batch, context_length) token ids → search vectors."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.network.text_vectors(ids)


def export_graphs(folder: Path) -> None:
    """Reads ``vision.json`` and ``vision.safetensors`` in ``folder``, writes its graphs."""
    config = json.loads((folder / "vision.json").read_text("utf-8"))
    network = shipped_vision(folder)
    side, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    pixels = torch.zeros(1, 3, side, side)
    caption = {"ids": torch.zeros(1, length, dtype=torch.long)}
    graphs: list[tuple[nn.Module, dict[str, Tensor], list[str], str, Shapes]] = [
        (_Caption(network), caption, ["vector"], "caption.onnx", None)
    ]
    if network.in_views:
        places = torch.zeros(1, TOKENS_A_SIDE**2, N_PLACES)
        whole = {"pixels": pixels, "places": places}
        graphs.append((_Picture(network), whole, ["tokens", "vector"], "picture.onnx", None))
        # 2 × 3 tiles: different in both directions, so that neither is taken for fixed
        tiles = {"pixels": torch.zeros(1, 3, 2 * side, 3 * side), "places": places.repeat(1, 6, 1)}
        free = torch.export.Dim.AUTO
        sides = {"pixels": {2: free, 3: free}}
        of_tiles = ["tokens", "lying"] if network.namer else ["tokens"]
        graphs.append((_Tiles(network), tiles, of_tiles, "tiles.onnx", {**sides, "places": {1: free}}))
        if network.letters:
            graphs.append((_Letters(network), {"pixels": tiles["pixels"]}, ["letters"], "letters.onnx", sides))
        if network.lines:
            strips = {"ink": torch.zeros(2, 1, LINE_PX, 2 * WIDTHS_PX)}
            graphs.append((_Lines(network), strips, ["symbols"], "lines.onnx", {"ink": {0: free, 3: free}}))
        if network.locator:
            rows, columns = 2 * TOKENS_A_SIDE, 3 * TOKENS_A_SIDE
            tokens = torch.zeros(1, rows, columns, config["connector"]["n_embd"])
            located = {"tokens": tokens, "looks": torch.zeros(1, len(PLACES) * POINTS, rows * columns)}
            grid: Shapes = {"tokens": {1: free, 2: free}, "looks": {2: free}}
            graphs.append((_Locator(network), located, ["said"], "locator.onnx", grid))
        if network.namer:
            crops = {"pixels": torch.zeros(2, 3, CROP_PX, CROP_PX)}
            graphs.append((_Names(network), crops, ["names"], "namer.onnx", {"pixels": {0: free}}))
    else:
        graphs.append((_Picture(network), {"pixels": pixels}, ["tokens", "vector"], "picture.onnx", None))
    for module, examples, outputs, file_name, shapes in graphs:
        model = _traced(module, examples, outputs, shapes)
        _strip(model, {f"network.{weight}" for weight in network.state_dict()})
        (folder / file_name).write_bytes(model.SerializeToString())


def _traced(module: nn.Module, examples: dict[str, Tensor], outputs: list[str], shapes: Shapes) -> onnx.ModelProto:
    with torch.inference_mode():
        program = torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            input_names=list(examples),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=shapes,
            optimize=False,
            verbose=False,
        )
    assert program is not None  # for ``dynamo``
    return program.model_proto


def _strip(model: onnx.ModelProto, weights: set[str]) -> None:
    """Leaves what computes: no weights, no unused names, no notes on where the graph was made."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [initializer for initializer in model.graph.initializer if initializer.name in used]
    for initializer in kept:
        if initializer.name in weights:
            _leave_out(initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def _leave_out(initializer: onnx.TensorProto) -> None:
    """Turns a weight into a reference by its name in the safetensors file."""
    initializer.ClearField("raw_data")
    initializer.data_location = onnx.TensorProto.EXTERNAL
    del initializer.external_data[:]
    entry = initializer.external_data.add()
    entry.key, entry.value = "location", "vision.safetensors"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parent.parent / "assets" / "pocket"
    parser.add_argument("--pocket", type=Path, default=default, help="folder of the pocket models")
    export_graphs(parser.parse_args().pocket)
