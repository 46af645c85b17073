"""Goes on from files that ship: their weights back into the networks, as near as their precision allows.

What only training needs does not ship: how visual tokens spell characters, how sharply they say words and the state of
the optimizers are learnt anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.print_cells import SAID
from training.checkpoints import NAME_VECTORS, NAMES, READING, TOKENIZER, saved_names
from training.language import LanguageModel
from training.pocket_network import PocketNetwork

WITHOUT_LISTS = 2 + len(SAID)  # vectors of print in files before version 10, which are the first of today's


def start_from(folder: Path, runs: Path) -> Tokenizer:
    """The tokenizer of the shipped files in ``folder``, copied into the run with the names that they tell. ValueError
    if the run has another one, or other names.
    """
    shipped, own = folder / TOKENIZER, runs / TOKENIZER
    if not shipped.is_file():
        raise FileNotFoundError(f"{shipped} does not exist: name a folder of finished files by --start")
    if own.is_file() and own.read_bytes() != shipped.read_bytes():
        raise ValueError(f"{own} is not the tokenizer of {folder}: name an empty folder by --runs")
    config = folder / "vision.json"
    names = json.loads(config.read_text("utf-8")).get("namer", {}).get("names", []) if config.is_file() else []
    if names and saved_names(runs) not in ([], names):
        raise ValueError(f"{runs / NAMES} are not the names of {folder}: name an empty folder by --runs")
    if names:
        (runs / NAMES).write_text(json.dumps(names), "utf-8")
    shutil.copyfile(shipped, own)
    return Tokenizer.from_file(str(own))


def shipped_vision(folder: Path) -> VisionNetwork:
    """The encoder of finished files, as it was trained. FileNotFoundError names what is missing."""
    network = VisionNetwork(json.loads((folder / "vision.json").read_text("utf-8")))
    weights = safetensors.torch.load_file(folder / "vision.safetensors")
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return network.eval()


def load_shipped(folder: Path, network: PocketNetwork) -> set[str]:
    """Loads ``vision.safetensors`` and ``language.gguf``. Returns which of ``READING`` stay as ``network`` has them.
    RuntimeError where shapes, ValueError where layers differ.
    """
    weights = safetensors.torch.load_file(folder / "vision.safetensors")
    state = {n: t.float() if t.is_floating_point() else t for n, t in weights.items()}
    fresh: set[str] = set()
    for part in READING:
        new = {n: t for n, t in network.vision.state_dict().items() if n.startswith(part)}
        for name, weight in new.items():
            if name == NAME_VECTORS and name not in state:
                state[name] = weight
            elif part == "print." and name in state and len(state[name]) == WITHOUT_LISTS:
                state[name] = torch.cat((state[name], weight[WITHOUT_LISTS:]))
        if any(n not in state or state[n].shape != t.shape for n, t in new.items()):
            fresh.add(part)
            state = {n: t for n, t in state.items() if not n.startswith(part)} | new
    network.vision.load_state_dict(state)
    load_language(folder / "language.gguf", network.language)
    return fresh


def load_language(path: Path, model: LanguageModel) -> None:
    """Loads a GGUF that ``training.export`` wrote. ValueError if it has another number of layers than ``model``."""
    found = {tensor.name: _dequantized(tensor) for tensor in gguf.GGUFReader(path).tensors}
    n_layers = sum(name.endswith(".attn_q.weight") for name in found)
    if n_layers != model.config.n_layers:
        raise ValueError(
            f"{path} has {n_layers} layers, but the recipe's language model has {model.config.n_layers}: name files of "
            "this recipe by --start, or leave it out to begin from random weights"
        )
    state = {"embedding.weight": found["token_embd.weight"], "norm.weight": found["output_norm.weight"]}
    for i in range(model.config.n_layers):
        block, layer = f"blocks.{i}", f"blk.{i}"
        state |= {
            f"{block}.attention_norm.weight": found[f"{layer}.attn_norm.weight"],
            f"{block}.attention.qkv.weight": torch.cat([found[f"{layer}.attn_{part}.weight"] for part in "qkv"]),
            f"{block}.attention.output.weight": found[f"{layer}.attn_output.weight"],
            f"{block}.ffn_norm.weight": found[f"{layer}.ffn_norm.weight"],
            f"{block}.gate_up.weight": torch.cat([found[f"{layer}.ffn_{part}.weight"] for part in ("gate", "up")]),
            f"{block}.down.weight": found[f"{layer}.ffn_down.weight"],
        }
    model.load_state_dict(state)


def _dequantized(tensor: gguf.ReaderTensor) -> Tensor:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    return torch.from_numpy(values.reshape(tuple(int(n) for n in reversed(tensor.shape))).copy())
