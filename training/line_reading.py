"""The stage "lines" of the reader of strips: what stands on them, by connectionist temporal classification."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.clip import VisionNetwork
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Material, Painter
from training.printing import Printer
from training.strips import Strips


def line_loss(logits: Tensor, said: list[tuple[int, ...]]) -> Tensor:
    """Nats a character and strip: (n, frames, len(SYMBOLS)) ``logits`` of strips, and indices of ``SYMBOLS`` on
    each.
    """
    lengths = torch.tensor([len(symbols) for symbols in said])
    wanted = torch.tensor([symbol for symbols in said for symbol in symbols], dtype=torch.long)
    frames = torch.full((len(said),), logits.shape[1])
    chances = logits.float().log_softmax(-1).transpose(0, 1).cpu()
    lost = F.ctc_loss(chances, wanted, frames, lengths, reduction="sum", zero_infinity=True)
    return lost / (lengths.sum() + len(said))  # a strip without print is one thing to say, too


def run(plan: StagePlan, vision: VisionNetwork, printer: Printer, seed: int) -> None:
    """Trains the reader of strips of ``vision``, which must have one."""
    assert vision.lines is not None
    device = pick_device()
    reader = vision.lines.to(device)
    reader.to(memory_format=torch.channels_last)

    def prepare(step: int) -> Callable[[float], dict[str, Tensor]]:
        strips = Strips(Painter(Material((), {}), random.Random(seed + step), printer), seed + step)

        def losses(_progress: float) -> dict[str, Tensor]:
            ink, said = strips.batch()
            with autocast(device):
                logits = reader(ink.to(device))
            return {"symbols": line_loss(logits, said)}

        return losses

    run_stage(plan, reader, prepare)
