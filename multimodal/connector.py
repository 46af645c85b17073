"""The connector from vision encoder to language model: a C-Abstractor with a fixed number of visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualConvolution(nn.Module):
    """3×3 convolutions around a skip connection; shape (batch, channels, height, width) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm: nn.Module = nn.GroupNorm(8, channels)
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


class EvenConvolution(ResidualConvolution):
    """As its base, but each place is normalised alike on canvases of any size."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.norm = nn.BatchNorm2d(channels)


def _three_to_two(x: Tensor) -> Tensor:
    """Averages along the last dimension: of every three cells the first two and the last two."""
    threes = x.reshape(*x.shape[:-1], -1, 3)
    pairs = (threes[..., :2] + threes[..., 1:]) / 2
    return pairs.flatten(-2)


class ViewAbstractor(nn.Module):
    """A C-Abstractor for views of any size: two visual tokens for every three cells of the feature map, each way.

    What adaptive pooling does to one square tile, this does to a canvas of tiles. Positions are learnt at
    ``n_places`` anchors of the picture and interpolated between them, so that the tokens of all views speak of the
    same places.
    """

    def __init__(self, in_channels: int, channels: int, n_places: int, n_embd: int, depth: int = 2) -> None:
        super().__init__()
        self.input = nn.Conv2d(in_channels, channels, 1)
        self.before = nn.Sequential(*(EvenConvolution(channels) for _ in range(depth)))
        self.after = nn.Sequential(*(EvenConvolution(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)
        self.position = nn.Parameter(torch.zeros(n_places, channels))
        self.output = nn.Linear(channels, n_embd)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.normal_(self.position, std=0.5)  # as large as the tokens: else it takes hundreds of steps to matter

    def forward(self, feature_map: Tensor, places: Tensor) -> Tensor:
        """(batch, in_channels, height, width) and (batch, n_tokens, n_places) → (batch, n_tokens, n_embd)."""
        x = self.before(self.input(feature_map))
        x = _three_to_two(_three_to_two(x).transpose(-1, -2)).transpose(-1, -2)
        tokens = self.norm(self.after(x).flatten(2).transpose(1, 2)) + places @ self.position
        projected: Tensor = self.output(tokens)
        return projected
