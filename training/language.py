"""The pocket language model in torch: a Llama architecture whose weights export one to one to GGUF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

QUERIES = 128  # tokens of attention computed together
MAX_LENGTHS = 32  # lengths of rows that code is compiled for


@dataclass(frozen=True)
class LanguageConfig:
    """Sizes of the model; ``head_dim`` is ``n_embd`` / ``n_heads``."""

    n_vocab: int = 5120
    n_embd: int = 320
    n_layers: int = 6
    n_heads: int = 5
    n_ff: int = 896
    n_ctx: int = 2048
    rope_base: float = 500_000.0
    norm_eps: float = 1e-5


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary embedding of neighbouring pairs (2i, 2i+1), which is llama.cpp's layout for this architecture.

    ``x`` is (batch, heads, length, head_dim); ``cosines`` and ``sines`` are (batch, 1, length, head_dim / 2).
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1).flatten(-2)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token looks at itself and those before it; all are (batch, heads, length, head_dim).

    On a CPU torch's own kernel takes two and a half times as long as products of ``QUERIES`` tokens with all before
    them, the rest of which is fused (48 against 120 ms, forward and backward, 14 rows of 384 tokens, 16 bits, 2 cores).
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mixed = []
    for start in range(0, q.shape[2], QUERIES):
        end = min(start + QUERIES, q.shape[2])
        scores = (q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        later = torch.ones(end - start, end, dtype=torch.bool, device=q.device).triu(start + 1)
        mixed.append(scores.masked_fill(later, -torch.inf).softmax(-1).to(v.dtype) @ v[:, :, :end])
    return torch.cat(mixed, dim=2)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.output = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        cosines, sines = cosines.to(q.dtype), sines.to(q.dtype)
        mixed = causal_attention(rotate(q, cosines, sines), rotate(k, cosines, sines), v)
        projected: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected


class Block(nn.Module):
    """Attention and a gated feed-forward network, each behind an RMS norm."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.gate_up = nn.Linear(config.n_embd, 2 * config.n_ff, bias=False)
        self.down = nn.Linear(config.n_ff, config.n_embd, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cosines, sines)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        down: Tensor = self.down(F.silu(gate) * up)
        return x + down


class LanguageModel(nn.Module):
    """Embeddings in, hidden states out; the embedding table is the output layer too."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.n_vocab, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        half = config.n_embd // config.n_heads // 2
        frequencies = config.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        for block in self.layers:
            for layer in (block.attention.output, block.down):
                nn.init.normal_(layer.weight, std=0.02 / (2 * config.n_layers) ** 0.5)

    @property
    def layers(self) -> list[Block]:
        """The blocks in order, typed."""
        return [cast(Block, block) for block in self.blocks]

    def compile_blocks(self) -> None:
        """Fuses the elementwise work (needs a C++ compiler on CPU); nearly twice as fast, the numbers stay the same."""
        torch._dynamo.config.recompile_limit = MAX_LENGTHS
        for block in self.layers:
            block.compile()

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """(batch, length, n_embd) and (batch, length) positions → hidden states (batch, length, n_embd)."""
        hidden, _ = self.run(embedded, positions)
        return hidden

    def run(self, embedded: Tensor, positions: Tensor, layers: Sequence[int] = ()) -> tuple[Tensor, dict[int, Tensor]]:
        """As ``forward``, and what enters each of ``layers``."""
        cosines, sines = self._turns(positions)
        x, entering = embedded, {}
        for at, block in enumerate(self.blocks):
            if at in layers:
                entering[at] = x
            x = block(x, cosines, sines)
        normed: Tensor = self.norm(x)
        return normed, entering

    def attention_scores(self, entering: Tensor, positions: Tensor, layer: int, head: int) -> Tensor:
        """How one head rates what stands before each token, (batch, length, length); -inf for what stands behind."""
        block = self.layers[layer]
        batch, length, _ = entering.shape
        qkv = block.attention.qkv(block.attention_norm(entering)).view(batch, length, 3, self.config.n_heads, -1)
        cosines, sines = self._turns(positions)
        q, k = (rotate(qkv[:, :, part, head : head + 1].transpose(1, 2).float(), cosines, sines) for part in (0, 1))
        scores: Tensor = (q @ k.transpose(-1, -2))[:, 0] * q.shape[-1] ** -0.5
        return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[:, None, :, None].float() * self.frequencies
        return angles.cos(), angles.sin()

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, n_embd) → (…, n_vocab)."""
        return F.linear(hidden, self.embedding.weight)
