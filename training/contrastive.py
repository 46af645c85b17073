"""What the picture stages share: the encoder's sizes, and batches of pictures and captions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from hearth.multimodal.pixels import to_pixels
from training.chats import special_id
from training.pictures import Painter, Scene

IMAGE_SIZE_PX = 96
CONTEXT_LENGTH = 32
N_VISUAL_TOKENS = 16


def vision_config(n_embd: int, n_vocab: int) -> dict[str, Any]:
    """The content of ``vision.json``; the first three entries are an open_clip model configuration."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"layers": [1, 2, 2, 1], "width": 32, "image_size": IMAGE_SIZE_PX, "head_width": 64},
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": n_vocab, "width": 128, "heads": 4, "layers": 2},
        "connector": {"channels": 256, "n_tokens": N_VISUAL_TOKENS, "n_embd": n_embd},
    }


def caption_ids(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """(len(texts), CONTEXT_LENGTH) ids, each text ending in ``<|end|>``, zeros behind it."""
    end = special_id(tokenizer, "<|end|>")
    rows = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        ids = [*tokenizer.encode(text, add_special_tokens=False).ids[: CONTEXT_LENGTH - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return rows


def pixel_batch(scenes: list[Scene]) -> Tensor:
    """(len(scenes), 3, side, side), channels last."""
    stacked = np.stack([to_pixels(scene.image, IMAGE_SIZE_PX) for scene in scenes])
    return torch.from_numpy(stacked).contiguous(memory_format=torch.channels_last)


def draw_scene(painter: Painter) -> Scene:
    draw = painter.rng.random()
    if draw < 0.5:
        return painter.single()
    return painter.counted(painter.rng.randint(2, 3)) if draw < 0.8 else painter.pair()
