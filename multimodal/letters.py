"""A small network for print beside the image tower: what character lies on each cell of 8 pixels."""

from __future__ import annotations

from torch import Tensor, nn

CELL_PX = 8
CELLS_A_TOKEN = 3  # each way


class _Block(nn.Module):
    """Two 3×3 convolutions around a skip connection; shape (batch, channels, height, width) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.second_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.second_norm(self.second(nn.functional.relu(self.first_norm(self.first(x)))))
        return nn.functional.relu(x + mixed)


def _smaller(wide: int, narrow: int) -> nn.Sequential:
    """Half the side, other channels."""
    convolution = nn.Conv2d(wide, narrow, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(narrow), nn.ReLU())


class LetterReader(nn.Module):
    """Convolutions at 1/8, 1/16 and 1/32 of the side, joined again at 1/8, as letters come in all sizes.

    A U-Net in small (Ronneberger et al. 2015, arXiv 1505.04597).
    """

    def __init__(self, channels: tuple[int, int, int], depth: int = 2) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.stem = nn.Sequential(_smaller(3, fine // 2), _smaller(fine // 2, fine), _smaller(fine, fine))
        self.fine = nn.Sequential(*(_Block(fine) for _ in range(depth)))
        self.to_middle, self.to_coarse = _smaller(fine, middle), _smaller(middle, coarse)
        self.middle = nn.Sequential(*(_Block(middle) for _ in range(depth)))
        self.coarse = nn.Sequential(*(_Block(coarse) for _ in range(depth)))
        self.from_coarse, self.from_middle = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        self.joined = nn.Sequential(*(_Block(fine) for _ in range(depth)))
        self.n_channels = fine

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, n_channels, height / 8, width / 8); sides are multiples of 8."""
        fine = self.fine(self.stem(pixels))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        middle = middle + _enlarged(self.from_coarse(coarse), middle)
        joined: Tensor = self.joined(fine + _enlarged(self.from_middle(middle), fine))
        return joined


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """To the height and width of ``like``, which may be odd."""
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def cells_of_tokens(letters: Tensor) -> Tensor:
    """(batch, channels, height, width) of cells → (batch, tokens, 9 × channels): those under each visual token."""
    batch, channels, height, width = letters.shape
    side = CELLS_A_TOKEN
    split = letters.reshape(batch, channels, height // side, side, width // side, side)
    return split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
