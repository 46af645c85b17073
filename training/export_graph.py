"""Writes the pocket vision encoder's graphs for onnxruntime: what open_clip computes, without importing torch.

The graphs hold no weights; those stay in ``vision.safetensors`` alone and are handed to the session when it is made.

    python -m training.export_graph [--pocket assets/pocket]
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import onnx
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hearth.multimodal.clip import VisionNetwork

OPSET = 20


class _Picture(nn.Module):
    """(batch, 3, side, side) pixels → visual tokens and search vectors."""

    def __init__(self, network: VisionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        fine, coarse = self.network.feature_maps(pixels)
        return self.network.visual_tokens(fine, coarse), self.network.picture_vectors(coarse)


class _Caption(nn.Module):
    """(batch, context_length) token ids → search vectors."""

    def __init__(self, network: VisionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor) -> Tensor:
        return self.network.text_vectors(ids)


def export_graphs(folder: Path) -> None:
    """Reads ``vision.json`` and ``vision.safetensors`` in ``folder``, writes ``picture.onnx`` and ``caption.onnx``."""
    config = json.loads((folder / "vision.json").read_text("utf-8"))
    network = VisionNetwork(config)
    weights = load_file(folder / "vision.safetensors")
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    network.eval()
    side, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    ids = torch.zeros(1, length, dtype=torch.long)
    pixels = torch.zeros(1, 3, side, side)
    for module, example, name, outputs, file_name in (
        (_Picture(network), pixels, "pixels", ["tokens", "vector"], "picture.onnx"),
        (_Caption(network), ids, "ids", ["vector"], "caption.onnx"),
    ):
        model = _traced(module, example, name, outputs)
        _strip(model, {f"network.{weight}" for weight in weights})
        (folder / file_name).write_bytes(model.SerializeToString())


def _traced(module: nn.Module, example: Tensor, name: str, outputs: list[str]) -> onnx.ModelProto:
    with torch.inference_mode():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[name],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer)
    return onnx.load_from_string(buffer.getvalue())


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
