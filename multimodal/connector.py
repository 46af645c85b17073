"""The connector from vision encoder to language model: a C-Abstractor with a fixed number of visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualConvolution(nn.Module):
    """3×3 convolutions around a skip connection; shape (batch, channels, height, width) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels // 32)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.reduce = nn.Conv2d(2 * channels, channels, 1)
        nn.init.zeros_(self.reduce.weight)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.reduce(nn.functional.gelu(self.expand(self.spatial(self.norm(x)))))
        return torch.add(x, mixed)


class CAbstractor(nn.Module):
    """Residual convolutions → adaptive average pooling → residual convolutions → linear (MM1, Honeybee).

    Locality is kept: visual token i comes from cell i of a ``side`` × ``side`` grid, row by row.
    """

    def __init__(self, in_channels: int, channels: int, n_tokens: int, n_embd: int, depth: int = 2) -> None:
        super().__init__()
        side = round(n_tokens**0.5)
        if side * side != n_tokens:
            raise ValueError(f"n_tokens is {n_tokens}, but must be a square number such as 16")
        self.input = nn.Conv2d(in_channels, channels, 1)
        self.before = nn.Sequential(*(ResidualConvolution(channels) for _ in range(depth)))
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.after = nn.Sequential(*(ResidualConvolution(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)
        self.position = nn.Parameter(torch.zeros(n_tokens, channels))
        self.output = nn.Linear(channels, n_embd)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(batch, in_channels, height, width) → (batch, n_tokens, n_embd)."""
        x = self.after(self.pool(self.before(self.input(feature_map))))
        tokens = self.norm(x.flatten(2).transpose(1, 2)) + self.position
        projected: Tensor = self.output(tokens)
        return projected
