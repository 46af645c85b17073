"""Stage "mixed": MM1's pre-training of both halves on captions, interleaved documents and text, 45 / 45 / 10."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.answers import Examiner
from training.batches import Rows, next_token_loss, pack
from training.interleaved import Documents, Item, encode_document
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Material, Painter
from training.pocket_network import PocketNetwork
from training.printing import Printer
from training.quotes import Quoter
from training.reading import Drills, grounded_rows
from training.scene_pool import ScenePool
from training.texts import Writer
from training.view_batches import SIDE_PX, new_fonts

CAPTION_SHARE, INTERLEAVED_SHARE = 0.45, 0.45  # of the tokens to learn from; the rest is text
DOCUMENTS_PER_STEP = 24
GROUNDED_PER_STEP = 12
DRILLS_PER_STEP = 24
ROW_TOKENS = 384
TEXT_STEPS = 4  # one step in so many is text: it has fewer pictures and more words than the others
TEXT_WEIGHT = 0.5


class Mixing:
    """Losses of the pre-training mixture. ``shares`` are those of captions and interleaved documents."""

    def __init__(
        self,
        network: PocketNetwork,
        material: Material,
        tokenizer: Tokenizer,
        seed: int,
        device: torch.device,
        shares: tuple[float, float] = (CAPTION_SHARE, INTERLEAVED_SHARE),
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.shares = shares
        self.device = device
        painter = Painter(material, self.rng, Printer(new_fonts(), self.rng), side_px=2 * SIDE_PX)
        self.pool = ScenePool(painter, network.vision, device)
        self.documents = Documents(self.pool, Examiner(self.rng))
        self.writer = Writer(self.rng)
        self.quoter = Quoter(self.writer, [])
        self.drills = Drills(self.writer, tokenizer, [])
        self._step = 0

    def losses(self, _progress: float) -> dict[str, Tensor]:
        self._step += 1
        terms: dict[str, Tensor] = {}
        captions, interleaved = self.shares
        with autocast(self.device):
            if captions + interleaved > 0:
                drawn = [self._document(captions / (captions + interleaved)) for _ in range(DOCUMENTS_PER_STEP)]
                terms["picture"] = self._loss(drawn)
            if captions + interleaved < 1 and self._step % TEXT_STEPS == 0:
                if self._step % (2 * TEXT_STEPS):
                    rows = grounded_rows(self.writer, self.quoter, self.tokenizer, GROUNDED_PER_STEP, 1.0)
                else:
                    rows = self.drills.rows(DRILLS_PER_STEP)
                terms["text"] = TEXT_WEIGHT * next_token_loss(self.network.language, moved(rows, self.device))
        return terms

    def _document(self, caption_share: float) -> list[Item]:
        # a document of several pictures has as many tokens as that many captions
        if self.rng.random() < caption_share * 3 / (1 + 2 * caption_share):
            return self.documents.captioned()
        return self.documents.interleaved()

    def _loss(self, documents: list[list[Item]]) -> Tensor:
        examples: list[tuple[list[int], list[float]]] = []
        scenes = []
        for document in documents:
            ids, weights, shown = encode_document(document, self.tokenizer)
            scenes += list(shown)
            if examples and len(examples[-1][0]) + len(ids) <= ROW_TOKENS:
                examples[-1] = (examples[-1][0] + ids[1:], examples[-1][1] + weights[1:])
            else:
                examples.append((ids, weights))
        rows = moved(pack(examples, self.rng, set()), self.device)
        visual = torch.cat([self.pool.visual(scene) for scene in scenes])
        return next_token_loss(self.network.language, rows, visual)


def moved(rows: Rows, device: torch.device) -> Rows:
    return Rows(rows.ids.to(device), rows.positions.to(device), rows.weights.to(device))


def run(plan: StagePlan, network: PocketNetwork, material: Material, tokenizer: Tokenizer, seed: int) -> None:
    """Trains the language model on what the vision half says; the vision half joins in the stage "chat"."""
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    network.vision.requires_grad_(False)
    network.saying.requires_grad_(False)
    run_stage(plan, network, lambda step: Mixing(network, material, tokenizer, seed + step, device).losses)
    network.vision.requires_grad_(True)
    network.saying.requires_grad_(True)
