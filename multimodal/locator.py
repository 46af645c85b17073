"""A small network on the visual tokens of a picture's tiles: where things stand, and whether they are alike.

What it says becomes a list behind the other visual tokens, see ``hearth.multimodal.locating``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hearth.multimodal.locating import PLACES, POINTS


class Locator(nn.Module):
    """Convolutions over the grid of tokens; each place looks at some points of what they make of it."""

    def __init__(self, n_embd: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(n_embd)
        self.input = nn.Conv2d(n_embd, channels, 1)
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.place = nn.Linear(POINTS * channels, channels)
        self.taken = nn.Linear(channels, 1)
        self.kind = nn.Linear(channels, channels)
        self.alike = nn.Linear(1, 1)
        nn.init.constant_(self.alike.weight, -1.0)  # the more they differ, the less they are of one kind
        self.dropout = nn.Dropout(0.2)

    def forward(self, tokens: Tensor, looks: Tensor) -> Tensor:
        """Visual tokens (batch, rows, columns, n_embd) and ``locating.looks_at`` of each picture, (batch, 9 · POINTS,
        rows · columns) → logits of whether a thing stands in each place, row by row, then of whether all are of one
        kind, (batch, 10).
        """
        x = self.dropout(torch.relu(self.input(self.norm(tokens.permute(0, 3, 1, 2)))))
        x = x + torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        seen = (looks @ x.flatten(2).transpose(1, 2)).unflatten(1, (len(PLACES), -1)).flatten(2)
        of_places = torch.relu(self.place(seen))
        taken: Tensor = self.taken(self.dropout(of_places))
        shares = taken.sigmoid()
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-3)
        kinds = self.kind(of_places)
        middle = (shares * kinds).sum(1, keepdim=True)
        spread = (shares * (kinds - middle).square()).sum((1, 2))[:, None]
        return torch.cat((taken[..., 0], self.alike(spread)), 1)
