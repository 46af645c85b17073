"""Stages "bind" and "chat": instruction tuning in the chat format on everything together: pictures, passages, talk.

In "bind" scenes are imagined only, see ``training.imagined``; in "chat" they are drawn.

The vision half stands still and its tokens are encoded ahead: the language model learns to read tokens that do not
change meanwhile, and a scene is asked about several times. Texts or imagined scenes stand beside the pictures of each
step: the stage before has taught them, and they must not fade.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.answers import Examiner
from training.batches import answer_loss, embed, next_token_loss, pack_chats
from training.dialogues import Composer, PictureChat
from training.imagined import ImaginedScenes, Imaginer, TokenMaker
from training.lookup import HEADS, LOOKUP_WEIGHT, layers_of, lookup_losses, lookups_of
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.mixing import moved
from training.pictures import Material, Painter
from training.pocket_network import PocketNetwork
from training.printing import Printer
from training.prose import help_pages, sentences
from training.quotes import Quoter
from training.reading import Drills, grounded_losses, grounded_rows, short_rows
from training.scene_pool import ScenePool
from training.smalltalk import Talker
from training.texts import Writer
from training.view_batches import SIDE_PX, new_fonts

PICTURES = 18  # chats a step
IMAGINED = 20
CYCLE = 8  # steps
# step of the cycle → texts, or imagined scenes, beside its pictures
TEXTS = {
    0: ("grounded", "talk"), 1: ("imagined", "sums"), 2: ("talk", "sums"), 3: ("imagined", "talk"),
    4: ("drill", "talk", "sums"), 5: ("imagined", "talk"), 6: ("grounded", "sums"), 7: ("talk",),
}  # fmt: skip
IMAGINED_TEXTS = {1: ("talk",), 2: ("grounded",), 4: ("drill",), 5: ("sums",)}  # beside scenes that are all imagined
TALKS_PER_STEP = 64
SUMS_PER_STEP = 64
GROUNDED_PER_STEP = 20
DRILLS_PER_STEP = 20
ROW_TOKENS = 512
# without drills copying fades within some hundred steps
TEXT_WEIGHTS = {"talk": 0.5, "grounded": 1.0, "drill": 0.5, "sums": 1.0, "imagined": 1.0}


class Conversing:
    """Losses of the stages. Without ``drawn`` all scenes are imagined."""

    def __init__(
        self,
        network: PocketNetwork,
        material: Material,
        prose: list[str],
        tokenizer: Tokenizer,
        seed: int,
        device: torch.device,
        *,
        drawn: bool = True,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.device = device
        self.talker = Talker(self.rng, prose=prose)
        painter = Painter(material, self.rng, Printer(new_fonts(), self.rng), side_px=2 * SIDE_PX)
        examiner = Examiner(self.rng)
        self.pool = ScenePool(painter, network.vision, device) if drawn else None
        self.composer = Composer(self.pool, examiner, self.talker) if self.pool else None
        maker = TokenMaker(network.language, tokenizer)
        self.imagined = ImaginedScenes(painter, Imaginer(material, self.rng, painter.printer), maker)
        self.imagined.fit(network.vision, device)
        self.imagining = Composer(self.imagined, examiner, self.talker)
        self.writer = Writer(self.rng)
        self.quoter = Quoter(self.writer, prose)
        self.drills = Drills(self.writer, tokenizer, [])
        self._step = 0

    def losses(self, progress: float) -> dict[str, Tensor]:
        """Pictures in every step, and texts or imagined scenes beside them."""
        beside = (TEXTS if self.composer else IMAGINED_TEXTS).get(self._step % CYCLE, ())
        self._step += 1
        with autocast(self.device):
            terms = self._pictures(progress) if self.composer else self._imagined()
            for kind in beside:
                terms |= self._imagined() if kind == "imagined" else self._text(kind)
        return {name: TEXT_WEIGHTS.get(name, 1.0) * loss for name, loss in terms.items()}

    def _text(self, kind: str) -> dict[str, Tensor]:
        if kind == "talk":
            rows = short_rows([self.talker.garbled() for _ in range(TALKS_PER_STEP)], self.tokenizer, self.rng)
        elif kind == "sums":
            rows = short_rows([self.talker.sums() for _ in range(SUMS_PER_STEP)], self.tokenizer, self.rng)
        elif kind == "grounded":
            rows = grounded_rows(self.writer, self.quoter, self.tokenizer, GROUNDED_PER_STEP, 1.0, self.talker)
            return grounded_losses(self.network.language, moved(rows, self.device), self.tokenizer)
        else:
            rows = self.drills.rows(DRILLS_PER_STEP)
        return {kind: next_token_loss(self.network.language, moved(rows, self.device))}

    def _pictures(self, progress: float) -> dict[str, Tensor]:
        assert self.composer is not None
        assert self.pool is not None
        return self._asked("picture", [self.composer.picture_chat(progress) for _ in range(PICTURES)], self.pool)

    def _imagined(self) -> dict[str, Tensor]:
        return self._asked("imagined", [self.imagining.imagined_chat() for _ in range(IMAGINED)], self.imagined)

    def _asked(self, kind: str, chats: list[PictureChat], scenes: ScenePool | ImaginedScenes) -> dict[str, Tensor]:
        """Losses of the answers, and of where they look."""
        rows = pack_chats([chat.chat for chat in chats], self.tokenizer, self.rng, row_tokens=ROW_TOKENS)
        in_order = [chats[at] for at in rows.order]
        drawn = [chat.scenes for chat in in_order]
        lookups = lookups_of([chat.chat for chat in in_order], drawn, rows, self.tokenizer, scenes.printed)
        visual = torch.cat([scenes.visual(scene) for chat in in_order for scene in chat.scenes])
        language, rows = self.network.language, moved(rows, self.device)
        hidden, entering = language.run(embed(language, rows, visual.to(self.device)), rows.positions, layers_of(HEADS))
        on_device = {name: of_head.to(self.device) for name, of_head in lookups.items()}
        missed = lookup_losses(language, entering, rows.positions, on_device)
        looked = {f"{kind}, {name}": LOOKUP_WEIGHT * loss for name, loss in missed.items()}
        return {kind: answer_loss(language, rows, hidden), **looked}


def run(
    plan: StagePlan,
    network: PocketNetwork,
    material: Material,
    tokenizer: Tokenizer,
    data: Path,
    seed: int,
    *,
    drawn: bool = True,
) -> None:
    """Trains the language model, on drawn scenes or on imagined ones alone."""
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    network.vision.requires_grad_(False)
    network.saying.requires_grad_(False)
    prose = sentences(help_pages(data))

    def prepare(step: int) -> Callable[[float], dict[str, Tensor]]:
        return Conversing(network, material, prose, tokenizer, seed + step, device, drawn=drawn).losses

    run_stage(plan, network, prepare)
