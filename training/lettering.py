"""The stage "letters" of the reader of print: crops of print, and which characters lie on each cell of 8 pixels.

A visual token covers 9 cells, each of which holds one character at most, or two thin ones: to say characters cell by
cell is learnt much faster than two or three in order at a token, or than letters beside five hundred names.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.letters import LetterReader
from training.aligning import normalised
from training.asking import CHARACTERS, IGNORED
from training.letters import CELL_SLOTS, PrintCrops
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.printing import Printer

CROPS_PER_STEP = 192


class Lettering(nn.Module):
    """The reader, and the characters on each of its cells, which only this stage asks for."""

    def __init__(self, reader: LetterReader) -> None:
        super().__init__()
        self.reader = reader
        self.characters = nn.Conv2d(reader.n_channels, CELL_SLOTS * (len(CHARACTERS) + 1), 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels of crops, 0 to 255 → (crops, cells, CELL_SLOTS, characters) logits."""
        logits: Tensor = self.characters(self.reader(normalised(pixels)))
        cells = logits.flatten(2).transpose(1, 2)
        return cells.reshape(*cells.shape[:2], CELL_SLOTS, -1)


def cell_loss(logits: Tensor, characters: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, all of shape (crops, cells, CELL_SLOTS), the first with one dimension more."""
    losses = F.cross_entropy(logits.flatten(0, 2), characters.flatten(), reduction="none", ignore_index=IGNORED)
    return (losses * weights.flatten()).sum() / weights.sum()


def run(plan: StagePlan, vision: VisionNetwork, printer: Printer, seed: int) -> None:
    """Trains the reader of ``vision``, which must have one."""
    assert vision.letters is not None
    device = pick_device()
    lettering = Lettering(vision.letters).to(device)
    lettering.to(memory_format=torch.channels_last)

    def prepare(step: int) -> Callable[[float], dict[str, Tensor]]:
        crops = PrintCrops(printer, seed + step)

        def losses(_progress: float) -> dict[str, Tensor]:
            pixels, characters, weights = crops.batch(CROPS_PER_STEP)
            with autocast(device):
                logits = lettering(pixels.to(device))
            return {"characters": cell_loss(logits.float(), characters.to(device), weights.to(device))}

        return losses

    run_stage(plan, lettering, prepare)
