"""A small network for print beside the image tower: what characters lie on each cell of 8 pixels.

What it says is put in order by ``hearth.multimodal.print_order``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hearth.multimodal.convolutions import Block, smaller
from hearth.multimodal.print_cells import CELL_PX, CELL_SLOTS, SAID
from hearth.multimodal.print_order import WRITTEN
from hearth.multimodal.views import ANCHORS


class LetterReader(nn.Module):
    """Convolutions at 1/8, 1/16 and 1/32 of the side, joined again at 1/8, as letters come in all sizes.

    A U-Net in small (Ronneberger et al. 2015, arXiv 1505.04597).
    """

    def __init__(self, channels: tuple[int, int, int], depth: int = 2) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.stem = nn.Sequential(smaller(3, fine // 2), smaller(fine // 2, fine), smaller(fine, fine))
        self.fine = nn.Sequential(*(Block(fine) for _ in range(depth)))
        self.to_middle, self.to_coarse = smaller(fine, middle), smaller(middle, coarse)
        self.middle = nn.Sequential(*(Block(middle) for _ in range(depth)))
        self.coarse = nn.Sequential(*(Block(coarse) for _ in range(depth)))
        self.colours = nn.Conv2d(3, fine, 3, padding=1)
        self.from_coarse, self.from_middle = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        self.joined = nn.Sequential(*(Block(fine) for _ in range(depth)))
        self.characters = nn.Conv2d(fine, CELL_SLOTS * (len(SAID) + 1), 1)
        self.begins = nn.Conv2d(fine, CELL_SLOTS, 1)
        self.sizes = nn.Conv2d(fine, CELL_SLOTS, 1)
        self.ends = nn.Conv2d(fine, CELL_SLOTS, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, CELL_SLOTS, N_SAID, height / 8, width / 8); sides are multiples of 8.

        For each place in a cell logits of nothing and of each of ``SAID``, then of whether a word begins with it, the
        natural logarithm of its font's size in pixels, and how far down the cell a bar ends (0 to 1).
        """
        fine = self.fine(self.stem(pixels))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        middle = middle + _enlarged(self.from_coarse(coarse), middle)
        colours = self.colours(nn.functional.avg_pool2d(pixels, CELL_PX))  # print has any; of a bar it is told
        joined = self.joined(fine + colours + _enlarged(self.from_middle(middle), fine))
        characters = self.characters(joined).unflatten(1, (CELL_SLOTS, -1))
        others = (head(joined)[:, :, None] for head in (self.begins, self.sizes, self.ends))
        return torch.cat((characters, *others), dim=2)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """To the height and width of ``like``, which may be odd."""
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="nearest")


class PrintVectors(nn.Module):
    """What ``hearth.multimodal.print_order.PrintTokens`` makes tokens of, all of width ``n_embd``.

    ``characters``: none, then each of ``print_order.WRITTEN``; ``begins``: of a word; ``places``: of the anchors of a
    picture; ``before``: of what stands three before a character, as ``characters``; ``words``: of names, if any are
    told.
    """

    def __init__(self, n_embd: int, n_words: int = 0) -> None:
        super().__init__()
        if n_words:
            self.words = nn.Parameter(torch.zeros(n_words, n_embd))
        self.characters = nn.Parameter(torch.zeros(1 + len(WRITTEN), n_embd))
        self.begins = nn.Parameter(torch.zeros(n_embd))
        self.places = nn.Parameter(torch.zeros(ANCHORS**2, n_embd))
        self.before = nn.Parameter(torch.zeros(1 + len(WRITTEN), n_embd))
