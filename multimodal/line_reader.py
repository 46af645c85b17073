"""A small network that reads a strip of print as a line, frame by frame from left to right.

What strips are, and how what it says becomes characters, says ``hearth.multimodal.print_lines``.
"""

from __future__ import annotations

from torch import Tensor, nn

from hearth.multimodal.convolutions import Block, smaller
from hearth.multimodal.print_lines import LINE_PX, SYMBOLS

_FRAMES = 2  # that a column tells
_HEIGHT = LINE_PX // 8  # of the last map with rows


class LineReader(nn.Module):
    """Convolutions down to one row of columns, 4 pixels wide each, then along them.

    A CRNN (Shi et al. 2015, arXiv 1507.05717) with convolutions in place of its recurrent layers.
    """

    def __init__(self, channels: tuple[int, int, int], depth: int = 3) -> None:
        super().__init__()
        fine, middle, wide = channels
        self.stem = nn.Sequential(smaller(1, fine // 2), smaller(fine // 2, fine), Block(fine))
        self.lower = nn.Sequential(smaller(fine, middle, stride=(2, 1)), Block(middle))
        self.row = nn.Sequential(nn.Conv2d(middle, wide, (_HEIGHT, 1), bias=False), nn.BatchNorm2d(wide), nn.ReLU())
        self.along = nn.Sequential(*(Block(wide, (1, 5)) for _ in range(depth)))
        self.symbols = nn.Conv2d(wide, _FRAMES * len(SYMBOLS), 1)

    def forward(self, ink: Tensor) -> Tensor:
        """(batch, 1, LINE_PX, width) → (batch, width / FRAME_PX, len(SYMBOLS)) logits; width is a multiple of 4."""
        columns = self.symbols(self.along(self.row(self.lower(self.stem(ink)))))
        said: Tensor = columns.squeeze(2).transpose(1, 2).unflatten(2, (_FRAMES, -1)).flatten(1, 2)
        return said
