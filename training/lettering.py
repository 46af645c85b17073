"""The stage "letters" of the reader of print: which characters lie on each cell of 8 pixels of crops and whole scenes.

A cell holds one character at most, or two thin ones: to say characters cell by cell is learnt much faster than two or
three in order at a visual token, or than letters beside five hundred names. What is read stands behind the visual
tokens of a picture, in the words of the language model: it can copy already.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.print_cells import BARS, CHARACTERS, SAID
from hearth.multimodal.print_order import SPACE, WRITTEN
from hearth.multimodal.views import ANCHORS
from training.aligning import normalised
from training.copying import N_CODE, TWO_BACK, noted, turn
from training.language import LanguageModel
from training.letters import IGNORED, PrintCrops, PrintedCells
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Material, Painter
from training.print_scenes import PrintScenes
from training.printing import Printer

CROPS_PER_STEP, LARGE_CROPS_PER_STEP, SCENES_PER_STEP = 192, 48, 24  # in turn
LARGE_POOL = 800
BEGINS_WEIGHT, SIZES_WEIGHT, ENDS_WEIGHT = 0.3, 0.5, 2.0
BAR_WEIGHT = 1.5  # of a cell of a bar's edge beside a character: there are fewer
PLACE_SHARE = 0.5  # of a character's length: where it stands


def reading_losses(logits: Tensor, cells: PrintedCells) -> dict[str, Tensor]:
    """Cross-entropy of what a reader says: ``logits`` as it gives them, of crops.

    Empty cells count as others do: what is said of neighbouring cells adds up to the number of characters on them.
    """
    said = logits.flatten(3).permute(0, 3, 1, 2)  # crops, cells, CELL_SLOTS, what is said
    wanted = cells.characters.to(said.device)
    there = wanted > 0
    weights = torch.ones(1 + len(SAID), device=said.device)
    weights[1 + len(CHARACTERS) :] = BAR_WEIGHT
    characters = F.cross_entropy(
        said[..., :-3].flatten(0, 2), wanted.flatten(), weights, reduction="sum", ignore_index=IGNORED
    )
    begins = F.binary_cross_entropy_with_logits(said[..., -3][there], cells.begins.to(said.device)[there])
    sizes = F.smooth_l1_loss(said[..., -2][there], cells.sizes.to(said.device)[there].log(), beta=0.1)
    bars = wanted > len(CHARACTERS)
    ends = F.smooth_l1_loss(said[..., -1][bars], cells.ends.to(said.device)[bars], reduction="sum", beta=0.1)
    return {
        "characters": characters / there.sum().clamp(min=1),
        "begins": BEGINS_WEIGHT * begins,
        "sizes": SIZES_WEIGHT * sizes,
        "ends": ENDS_WEIGHT * ends / bars.sum().clamp(min=1),
    }


def run(plan: StagePlan, vision: VisionNetwork, printer: Printer, seed: int) -> None:
    """Trains the reader of ``vision``, which must have one."""
    assert vision.letters is not None
    device = pick_device()
    reader = vision.letters.to(device)
    reader.to(memory_format=torch.channels_last)

    def prepare(step: int) -> Callable[[float], dict[str, Tensor]]:
        crops = PrintCrops(printer, seed + step)
        large = PrintCrops(printer, seed + step + 1, pool=LARGE_POOL, enlarged=2)
        scenes = PrintScenes(Painter(Material((), {}), random.Random(seed + step), printer), seed + step)
        draws = itertools.cycle(
            (
                functools.partial(crops.batch, CROPS_PER_STEP),
                functools.partial(scenes.batch, SCENES_PER_STEP),
                functools.partial(large.batch, LARGE_CROPS_PER_STEP),
                functools.partial(scenes.batch, SCENES_PER_STEP),
            )
        )

        def losses(_progress: float) -> dict[str, Tensor]:
            pixels, cells = next(draws)()
            with autocast(device):
                logits = reader(normalised(pixels.to(device)))
            return reading_losses(logits.float(), cells)

        return losses

    run_stage(plan, reader, prepare)


@torch.no_grad()
def start_with_print(vision: VisionNetwork, language: LanguageModel, tokenizer: Tokenizer) -> None:
    """Gives the characters that are read and the words of lists and names the vectors of written ones, and places those
    of other visual tokens.

    Of the character three before they tell what a token notes of its previous one, turned twice by ``copying.turn``, as
    those one and two before are noted.
    Where nothing is read tokens stay nought: what a language model has learnt without them holds (with the mean vector
    its loss on imagined scenes went from 0.08 to 3.1). Those that have vectors keep them. Nothing is done if ``vision``
    does not read.
    """
    vectors = vision.print
    if vectors is None:
        return
    embedding = language.embedding.weight
    missing = (1 + (~vectors.characters[1:].any(1)).nonzero().flatten()).tolist()
    for at in missing:
        said = WRITTEN[at - 1]
        word = f" {said}" if said in BARS else said
        vectors.characters[at] = embedding[tokenizer.encode(word, add_special_tokens=False).ids].mean(0)
    for word, vector in zip(vision.name_words, vectors.words if vision.name_words else (), strict=True):
        if not vector.any():
            vector.copy_(embedding[tokenizer.token_to_id(word.replace(" ", "Ġ"))])
    vectors.before[missing, -N_CODE:] = TWO_BACK * noted(language, vectors.characters[missing]) @ (turn() @ turn()).T
    if vectors.places.any():
        return
    vectors.begins.copy_(vectors.characters[1 + WRITTEN.index(SPACE)])
    connector: Any = vision.connector
    places = connector.position[: ANCHORS**2] @ connector.output.weight.T
    places = places - places.mean(0)
    length = PLACE_SHARE * vectors.characters.norm(dim=1).mean()
    vectors.places.copy_(length * places / places.norm(dim=1).mean())
