"""Writes an encoder (mmproj) with the shape of CLIP ViT-L/14-336, LLaVA 1.5's, and random weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from random_models import SHAPES
from sdist import MODELS

PATH = MODELS / "random-vit-l14-336-mmproj.gguf"
WIDTH, N_LAYER, N_HEAD, N_FF = 1024, 24, 16, 4096
IMAGE_PX, PATCH_PX = 336, 14
N_TOKENS = (IMAGE_PX // PATCH_PX) ** 2


def write_encoder(path: Path = PATH) -> Path:
    """For the random 0.5 B model: N_TOKENS visual tokens for a picture of any size."""
    n_embd = SHAPES["0.5b"].n_embd
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "clip")

    def matrix(name: str, *shape: int) -> None:
        values = rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def vector(name: str, n: int, value: float = 0.0) -> None:
        writer.add_tensor(name, np.full(n, value, np.float32))

    def linear(name: str, n_out: int, n_in: int) -> None:
        matrix(name, n_out, n_in)
        vector(f"{name}.bias", n_out)

    def norm(name: str) -> None:
        vector(f"{name}.weight", WIDTH, 1.0)
        vector(f"{name}.bias", WIDTH)

    writer.add_name("random-vit-l14-336")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    sizes = {
        "embedding_length": WIDTH,
        "feed_forward_length": N_FF,
        "block_count": N_LAYER,
        "attention.head_count": N_HEAD,
        "projection_dim": n_embd,
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
    }
    for name, size in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.25, 0.25, 0.25])
    matrix("v.patch_embd", WIDTH, 3, PATCH_PX, PATCH_PX)
    writer.add_tensor("v.class_embd", rng.standard_normal(WIDTH, np.float32))
    writer.add_tensor("v.position_embd.weight", rng.standard_normal((N_TOKENS + 1, WIDTH), np.float32) * 0.1)
    norm("v.pre_ln")
    for layer in range(N_LAYER):
        block = f"v.blk.{layer}"
        norm(f"{block}.ln1")
        norm(f"{block}.ln2")
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(f"{block}.{name}", WIDTH, WIDTH)
        linear(f"{block}.ffn_up", N_FF, WIDTH)
        linear(f"{block}.ffn_down", WIDTH, N_FF)
    linear("mm.0", n_embd, WIDTH)
    linear("mm.2", n_embd, n_embd)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
