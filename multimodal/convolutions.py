"""What the small networks for print are made of."""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions around a skip connection; shape (batch, channels, height, width) in and out."""

    def __init__(self, channels: int, kernel: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.first = nn.Conv2d(channels, channels, kernel, padding=padding, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, kernel, padding=padding, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.second_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.second_norm(self.second(nn.functional.relu(self.first_norm(self.first(x)))))
        return nn.functional.relu(x + mixed)


def smaller(wide: int, narrow: int, stride: tuple[int, int] = (2, 2)) -> nn.Sequential:
    """A smaller map, by ``stride``, of other channels."""
    convolution = nn.Conv2d(wide, narrow, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(narrow), nn.ReLU())
