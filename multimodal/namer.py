"""Small heads on the image tower: where things lie in a picture, and what one is called that is looked at closely.

What they say becomes words behind the other visual tokens, see ``hearth.multimodal.named_things``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Namer(nn.Module):
    """Both read the tower's maps of ``in_channels``, as the connector gets them."""

    def __init__(self, in_channels: int, channels: int, n_names: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(in_channels, channels, 1)
        self.around = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.lies = nn.Conv2d(channels, 1, 1)
        self.norm = nn.BatchNorm1d(in_channels, affine=False)
        self.names = nn.Linear(in_channels, 1 + n_names)
        self.dropout = nn.Dropout(0.2)

    def lying(self, maps: Tensor) -> Tensor:
        """Of a whole picture (batch, in_channels, height, width) → logits of whether a thing lies on each cell,
        (batch, height, width).
        """
        x = torch.relu(self.input(maps))
        for around in self.around:
            x = x + torch.relu(around(x))
        lies: Tensor = self.lies(x)
        return lies[:, 0]

    def named(self, maps: Tensor) -> Tensor:
        """Of one thing (batch, in_channels, height, width) → logits of nothing, then of each name, (batch, 1 + n)."""
        return self.of_average(maps.mean((2, 3)))

    def of_average(self, pooled: Tensor) -> Tensor:
        """As ``named``, of maps whose average over the picture is known, (batch, in_channels)."""
        logits: Tensor = self.names(self.dropout(self.norm(pooled)))
        return logits
