"""Writes tiny encoder files (mmproj) with random weights, whose embeddings are as wide as those of
``tiny_architectures``.

Which keys and tensors each needs is said by ``tools/mtmd/clip.cpp`` and ``tools/mtmd/models/*.cpp`` of the llama.cpp
that llama-cpp-python brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.models import tiny_architectures, tiny_gguf
from tests.models.tiny_architectures import N_CTX_TRAIN, N_EMBD

WIDTH = 32  # of the encoder's own layers
N_FF = 96
N_HEAD = 2
SAMPLE_RATE = 16_000
WHISPER_FRAMES = 3000  # of 10 ms; a sound is padded to a multiple of it
IDEFICS3_TOKENS = (
    "\n\n",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)


@dataclass(frozen=True)
class Family:
    """An encoder and the text model that it belongs to."""

    name: str
    write_encoder: Callable[[Path], Path]
    write_text: Callable[[Path], Path]
    sees: bool = True

    @property
    def hears(self) -> bool:
        return not self.sees


class _Writer:
    """A GGUF of architecture clip; tensors are given as (rows, columns), columns being the input's width."""

    def __init__(self, path: Path, projector: str, modality: str, *, n_layer: int, n_embd: int) -> None:
        self.path = path
        self._modality, self._prefix = modality, modality[0]
        self._gguf = gguf.GGUFWriter(path, "clip")
        self._rng = np.random.default_rng(len(projector))
        self._n_layer = n_layer
        self._gguf.add_name(f"tiny-{projector}")
        self._gguf.add_bool(f"clip.has_{modality}_encoder", True)
        self._gguf.add_string("clip.projector_type", projector)
        self.integer("embedding_length", WIDTH)
        self.integer("feed_forward_length", N_FF)
        self.integer("block_count", n_layer)
        self.integer("attention.head_count", N_HEAD)
        self.integer("projection_dim", n_embd)
        self._gguf.add_float32(f"clip.{modality}.attention.layer_norm_epsilon", 1e-5)

    def integer(self, key: str, value: int) -> None:
        self._gguf.add_uint32(f"clip.{self._modality}.{key}", value)

    def flag(self, key: str) -> None:
        self._gguf.add_bool(f"clip.{key}", True)

    def tensor(self, name: str, values: NDArray[np.floating]) -> None:
        self._gguf.add_tensor(name, np.ascontiguousarray(values, np.float32))

    def random(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """Weights that keep the size of what they are given, times ``gain``."""
        self.tensor(name, self._rng.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:])))

    def spread(self, name: str, *shape: int, size: float = 0.2) -> None:
        self.tensor(name, self._rng.uniform(-size, size, shape))

    def linear(self, name: str, n_out: int, n_in: int, *, gain: float = 1.0, bias: bool = True) -> None:
        self.random(f"{name}.weight", n_out, n_in, gain=gain)
        if bias:
            self.spread(f"{name}.bias", n_out)

    def norm(self, name: str, n: int = WIDTH, *, bias: bool = True) -> None:
        self.tensor(f"{name}.weight", self._rng.uniform(0.8, 1.2, n))
        if bias:
            self.spread(f"{name}.bias", n)

    def picture(self, image_size: int, patch_size: int) -> None:
        self.integer("image_size", image_size)
        self.integer("patch_size", patch_size)
        self._gguf.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        self._gguf.add_array("clip.vision.image_std", [0.25, 0.25, 0.25])

    def patches(self, patch_size: int, suffix: str = "") -> None:
        self.random(f"v.patch_embd.weight{suffix}", WIDTH, 3, patch_size, patch_size, gain=4)

    def layers(self, *, key_bias: bool = True) -> None:
        for layer in range(self._n_layer):
            block = f"{self._prefix}.blk.{layer}"
            self.norm(f"{block}.ln1")
            self.norm(f"{block}.ln2")
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.linear(f"{block}.{name}", WIDTH, WIDTH, bias=key_bias or name != "attn_k")
            self.linear(f"{block}.ffn_up", N_FF, WIDTH)
            self.linear(f"{block}.ffn_down", WIDTH, N_FF)

    def close(self) -> Path:
        self._gguf.write_header_to_file()
        self._gguf.write_kv_data_to_file()
        self._gguf.write_tensors_to_file()
        self._gguf.close()
        return self.path


def write_llava(path: Path, *, n_embd: int = N_EMBD) -> Path:
    """CLIP and two layers behind it: 16 tokens for a picture of any size. Its last layer is not used."""
    image_size, patch_size = 56, 14
    encoder = _Writer(path, "mlp", "vision", n_layer=2, n_embd=n_embd)
    encoder.picture(image_size, patch_size)
    encoder.patches(patch_size)
    encoder.spread("v.class_embd", WIDTH, size=1)
    encoder.spread("v.position_embd.weight", (image_size // patch_size) ** 2 + 1, WIDTH)
    encoder.norm("v.pre_ln")
    encoder.layers()
    encoder.linear("mm.0", n_embd, WIDTH)
    encoder.linear("mm.2", n_embd, n_embd)
    return encoder.close()


def write_qwen2vl(path: Path, *, n_embd: int = N_EMBD) -> Path:
    """A token for 8 x 8 pixels, at least 8, placed in rows and columns."""
    patch_size = 4
    encoder = _Writer(path, "qwen2vl_merger", "vision", n_layer=2, n_embd=n_embd)
    encoder.picture(56, patch_size)
    encoder.patches(patch_size)
    encoder.patches(patch_size, ".1")  # for the second frame of a video; a picture is given to both
    encoder.layers()
    encoder.norm("v.post_ln")
    encoder.linear("mm.0", 4 * WIDTH, 4 * WIDTH)
    encoder.linear("mm.2", n_embd, 4 * WIDTH)
    return encoder.close()


def write_gemma3(path: Path, *, n_embd: int = N_EMBD) -> Path:
    """SigLIP, of which 2 x 2 patches become one of 16 tokens; they see each other."""
    image_size, patch_size = 56, 7
    encoder = _Writer(path, "gemma3", "vision", n_layer=2, n_embd=n_embd)
    encoder.picture(image_size, patch_size)
    encoder.integer("projector.scale_factor", 2)
    encoder.flag("use_gelu")
    _siglip(encoder, image_size, patch_size)
    encoder.tensor("mm.soft_emb_norm.weight", np.ones(WIDTH))
    encoder.random("mm.input_projection.weight", WIDTH, n_embd)
    return encoder.close()


def write_idefics3(path: Path, *, n_embd: int = N_EMBD, longest_edge: int | None = 56) -> Path:
    """SigLIP on tiles of 28 x 28 pixels, of 4 tokens each, and on the whole.

    A picture is scaled to ``longest_edge`` pixels; None leaves its size as it is, as old files do.
    """
    image_size, patch_size, scale = 28, 7, 2
    encoder = _Writer(path, "idefics3", "vision", n_layer=2, n_embd=n_embd)
    encoder.picture(image_size, patch_size)
    encoder.integer("projector.scale_factor", scale)
    if longest_edge is not None:
        encoder.integer("preproc_image_size", longest_edge)
    encoder.flag("use_gelu")
    _siglip(encoder, image_size, patch_size)
    encoder.random("mm.model.fc.weight", n_embd, WIDTH * scale**2)
    return encoder.close()


def _siglip(encoder: _Writer, image_size: int, patch_size: int) -> None:
    encoder.patches(patch_size)
    encoder.spread("v.patch_embd.bias", WIDTH)
    encoder.spread("v.position_embd.weight", (image_size // patch_size) ** 2, WIDTH)
    encoder.layers()
    encoder.norm("v.post_ln")


def write_ultravox(path: Path, *, n_embd: int = N_EMBD) -> Path:
    """Whisper's encoder, of whose output 4 frames become one of 375 tokens for 30 s."""
    n_mel, stack = 16, 4
    encoder = _Writer(path, "ultravox", "audio", n_layer=1, n_embd=n_embd)
    encoder.integer("num_mel_bins", n_mel)
    encoder.integer("projector.stack_factor", stack)
    encoder.random("a.conv1d.1.weight", WIDTH, n_mel, 3, gain=2)
    encoder.spread("a.conv1d.1.bias", WIDTH, 1)
    encoder.random("a.conv1d.2.weight", WIDTH, WIDTH, 3, gain=2)
    encoder.spread("a.conv1d.2.bias", WIDTH, 1)
    encoder.spread("a.position_embd.weight", WHISPER_FRAMES // 2, WIDTH)
    encoder.layers(key_bias=False)
    encoder.norm("a.post_ln")
    encoder.norm("mm.a.norm_pre", WIDTH * stack, bias=False)
    encoder.linear("mm.a.mlp.1", 2 * N_FF, WIDTH * stack, bias=False)
    encoder.norm("mm.a.norm_mid", N_FF, bias=False)
    encoder.linear("mm.a.mlp.2", n_embd, N_FF, bias=False)
    return encoder.close()


def write_idefics3_text(path: Path) -> Path:
    """A llama whose vocabulary has the tokens that stand around tiles."""
    return tiny_gguf.write_tiny_gguf(  # type: ignore[no-any-return]
        path, n_ctx_train=N_CTX_TRAIN, seed=3, further_tokens=IDEFICS3_TOKENS
    )


FAMILIES = (
    Family("llava", write_llava, tiny_architectures.write_llama),
    Family("qwen2vl", write_qwen2vl, tiny_architectures.write_qwen2vl),
    Family("gemma3", write_gemma3, tiny_architectures.write_gemma3),
    Family("idefics3", write_idefics3, write_idefics3_text),
    Family("ultravox", write_ultravox, tiny_architectures.write_llama, sees=False),
)
