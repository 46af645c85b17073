"""Writes LoRA adapters with random weights for the models of ``tiny_gguf``, and those models with adapters merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.models import tiny_gguf

N_EMBD, N_KV, N_FF = 64, 32, 128
SHAPES = {  # (rows, columns) of the weights that adapters change
    "blk.0.attn_q.weight": (N_EMBD, N_EMBD),
    "blk.1.attn_v.weight": (N_KV, N_EMBD),
    "blk.1.ffn_down.weight": (N_EMBD, N_FF),
    "output.weight": (len(tiny_gguf.vocabulary()[0]), N_EMBD),
}


@dataclass(frozen=True)
class Lora:
    """One adapter, not yet written. ``pairs`` are (lora_a, lora_b) of shapes (rank, columns) and (rows, rank)."""

    pairs: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    alpha: float = 8.0
    metadata: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path, architecture: str = "llama", **metadata: str) -> Path:
        writer = gguf.GGUFWriter(path, architecture)
        for key, value in {"general.type": "adapter", "adapter.type": "lora", **metadata}.items():
            writer.add_string(key, value)
        writer.add_float32("adapter.lora.alpha", self.alpha)
        for name, (a, b) in self.pairs.items():
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a, np.float32))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def delta(self, name: str, scale: float) -> NDArray[np.float32] | float:
        """What it adds to a weight."""
        if name not in self.pairs:
            return 0.0
        a, b = self.pairs[name]
        return np.float32(scale * self.alpha / len(a)) * (b @ a)


def random_lora(seed: int, *, rank: int = 4, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> Lora:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> NDArray[np.float32]:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), np.float32)

    return Lora({name: (weights(rank, columns), weights(rows, rank)) for name, (rows, columns) in shapes.items()})


def write_merged(path: Path, *loras: tuple[Lora, float]) -> Path:
    """The tiny model with each adapter added to its weights, times its scale."""

    def change(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        for lora, scale in loras:
            values = values + lora.delta(name, scale)
        return values

    return tiny_gguf.write_tiny_gguf(path, change=change)
