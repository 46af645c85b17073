"""Starts a language model with a working copy circuit, which a short training on little text would hardly find.

Two kinds of attention heads make it up, as they are known from trained models: ones in the first layer that note for
every token which tokens stand before it, and ones in the second layer that look for an earlier place whose predecessors
are the current token and, less so, the one before, and hand on what stands there. Everything stays trainable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.language import LanguageModel

N_CODE = 64  # residual dimensions, the last ones, that hold the code of the token before
EMBEDDING_STD = 0.1  # large enough that early steps do not wash the circuit away
TWO_BACK = 0.4  # how loud the token before the last one is noted, and asked for, beside that
CONSTANT = 0.5  # value of residual dimension 0 for every token: what position-only attention reads
SHARPNESS = 100.0
MATCHING = 6.0
FAST_PAIRS = 7  # rotary pairs that turn fast enough to tell neighbours apart
SLOW_PAIRS = 18  # rotary pairs that hardly turn over a passage


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(columns, rows, generator=generator)).Q
    return basis.T


@torch.no_grad()
def start_with_copying(model: LanguageModel, seed: int) -> None:
    """Overwrites parts of a freshly initialised ``model`` (head_dim 64, at least two layers)."""
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    model.embedding.weight.normal_(std=EMBEDDING_STD, generator=generator)
    model.embedding.weight[:, 0] = CONSTANT
    model.embedding.weight[:, -N_CODE:] = 0.0
    code = torch.zeros(N_CODE, config.n_embd)
    code[:, 1:-N_CODE] = _orthonormal(N_CODE, config.n_embd - N_CODE - 1, generator)
    _note(model, code, head=config.n_heads - 1)
    _note(model, TWO_BACK * turn() @ code, head=config.n_heads - 2, back=2)
    head_dim = config.n_embd // config.n_heads
    for index, head in enumerate((config.n_heads - 1, config.n_heads - 2)):
        dims = torch.arange(2 * SLOW_PAIRS) + index * (N_CODE - 2 * SLOW_PAIRS)
        value = torch.zeros(head_dim, config.n_embd)
        value[:, 1:-N_CODE] = _orthonormal(head_dim, config.n_embd - N_CODE - 1, generator)
        _copy_after_match(model, code, dims, value, head)


@torch.no_grad()
def noted(model: LanguageModel, vectors: Tensor) -> Tensor:
    """What the first layer notes at a token of the one before, whose ``vectors`` (n, n_embd) enter it: (n, N_CODE)."""
    block = model.layers[0]
    _, _, value = _rows(model, model.config.n_heads - 1)
    part = slice(model.config.n_embd - N_CODE, model.config.n_embd)
    passed = block.attention_norm(vectors) @ block.attention.qkv.weight[value].T
    found: Tensor = passed @ block.attention.output.weight[-N_CODE:, part].T
    return found


def turn() -> Tensor:
    """Of what is noted, so that two notes can be told apart when they are added: orthogonal, (N_CODE, N_CODE)."""
    return _orthonormal(N_CODE, N_CODE, torch.Generator().manual_seed(0))


def _rows(model: LanguageModel, head: int) -> tuple[slice, slice, slice]:
    head_dim = model.config.n_embd // model.config.n_heads
    starts = [part * model.config.n_embd + head * head_dim for part in range(3)]
    query, key, value = (slice(start, start + head_dim) for start in starts)
    return query, key, value


def _note(model: LanguageModel, code: Tensor, head: int, back: int = 1) -> None:
    """Lets a head of the first layer add the ``code`` of the token that stands so many ``back``."""
    attention = model.layers[0].attention
    query, key, value = _rows(model, head)
    weight = attention.qkv.weight
    weight[query] = 0.0
    weight[key] = 0.0
    angle = back * model.frequencies.cpu()[:FAST_PAIRS]
    amplitude = SHARPNESS**0.5 / 4.8  # 4.8: the constant after the norm
    weight[query, 0][0 : 2 * FAST_PAIRS : 2] = amplitude
    weight[key, 0][0 : 2 * FAST_PAIRS : 2] = amplitude * angle.cos()
    weight[key, 0][1 : 2 * FAST_PAIRS : 2] = amplitude * angle.sin()
    weight[value] = code
    columns = slice(head * N_CODE, (head + 1) * N_CODE)
    attention.output.weight[:, columns] = 0.0
    attention.output.weight[-N_CODE:, columns] = 2 * EMBEDDING_STD * torch.eye(N_CODE)


def _copy_after_match(model: LanguageModel, code: Tensor, dims: Tensor, copied: Tensor, head: int) -> None:
    attention = model.layers[1].attention
    query, key, value = _rows(model, head)
    weight = attention.qkv.weight
    weight[query] = 0.0
    weight[key] = 0.0
    slow = slice(copied.shape[0] - 2 * SLOW_PAIRS, copied.shape[0])
    gain = MATCHING**0.5
    weight[query][slow] = gain * code[dims]
    weight[query][slow][:, -N_CODE:] = gain * TWO_BACK * turn()[dims]  # noted: what the token before is
    weight[key][slow] = gain * torch.eye(model.config.n_embd)[-N_CODE:][dims]
    weight[value] = copied
    columns = slice(head * copied.shape[0], (head + 1) * copied.shape[0])
    attention.output.weight[:, columns] = 5 * EMBEDDING_STD * copied.T
