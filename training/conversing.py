"""Stage "chat": instruction tuning in the chat format on everything together: pictures, passages, small talk.

At first the vision half stands still and its tokens are encoded ahead: the language model learns to read tokens that do
not change meanwhile. From ``LIVE_FROM`` on, at a low rate by then, every ``CYCLE``-th step teaches the vision half too,
through the language model, with the words and characters of its own stage beside, so that it does not forget them.
Texts stand beside the pictures of every second step: the stage before has taught them, and they only must not fade.
"""

from __future__ import annotations

import random
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.aligning import Aligning
from training.answers import Examiner
from training.batches import next_token_loss, pack_chats
from training.dialogues import Composer, PictureChat
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.mixing import moved
from training.pictures import Material, Painter
from training.pocket_network import PocketNetwork
from training.printing import Printer
from training.reading import Drills, grounded_rows, short_rows
from training.scene_pool import FreshScenes, ScenePool, encode_scenes
from training.smalltalk import Talker
from training.texts import Writer
from training.view_batches import SIDE_PX, new_fonts

PICTURE_CHATS_PER_STEP = 32
LIVE_CHATS_PER_STEP = 8
CYCLE = 8  # steps, of which the last may be live
LIVE_FROM = 0.75  # progress; at full rate a few pictures a step cost a quarter of the names that tokens say
TEXTS = {1: "talk", 3: "grounded", 5: "drill", 6: "sums", 7: "grounded"}  # step of the cycle → text beside its pictures
TALKS_PER_STEP = 40
SUMS_PER_STEP = 64
GROUNDED_PER_STEP = 14
DRILLS_PER_STEP = 20
ROW_TOKENS = 512
LOOK_WEIGHT = 0.3  # of the vision half's own losses
# without drills copying fades within some hundred steps
TEXT_WEIGHTS = {"talk": 0.5, "grounded": 0.8, "drill": 0.5, "sums": 0.5}


class Conversing:
    """Losses of the chat stage."""

    def __init__(
        self, network: PocketNetwork, material: Material, tokenizer: Tokenizer, seed: int, device: torch.device
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.device = device
        self.talker = Talker(self.rng)
        painter = Painter(material, self.rng, Printer(new_fonts(), self.rng), side_px=2 * SIDE_PX)
        self.pool = ScenePool(painter, network.vision, device)
        examiner = Examiner(self.rng)
        self.composer = Composer(self.pool, examiner, self.talker)
        self.live = Composer(FreshScenes(painter), examiner, self.talker)
        self.looking = Aligning(network, material, tokenizer, seed + 1, device, clip_weight=0.3)
        self.writer = Writer(self.rng)
        self.drills = Drills(self.writer, tokenizer, [])
        self._step = 0

    def losses(self, progress: float) -> dict[str, Tensor]:
        """Pictures in every step, and now and then text or the vision half's own losses beside."""
        self._step += 1
        turn = self._step % CYCLE
        terms: dict[str, Tensor] = {}
        if turn == 0 and progress >= LIVE_FROM:
            terms.update(self._live(progress))
        else:
            with autocast(self.device):
                terms["picture"] = self._pictures(progress)
                if turn in TEXTS:
                    terms[TEXTS[turn]] = self._text(TEXTS[turn])
        return terms

    def _text(self, kind: str) -> Tensor:
        if kind == "talk":
            rows = short_rows([self.talker.garbled() for _ in range(TALKS_PER_STEP)], self.tokenizer, self.rng)
        elif kind == "sums":
            rows = short_rows([self.talker.sums() for _ in range(SUMS_PER_STEP)], self.tokenizer, self.rng)
        elif kind == "grounded":
            rows = grounded_rows(self.writer, self.tokenizer, GROUNDED_PER_STEP, 1.0)
        else:
            rows = self.drills.rows(DRILLS_PER_STEP)
        return TEXT_WEIGHTS[kind] * next_token_loss(self.network.language, moved(rows, self.device))

    def _pictures(self, progress: float) -> Tensor:
        drawn = [self.composer.picture_chat(progress) for _ in range(PICTURE_CHATS_PER_STEP)]
        return self._loss(drawn, [[self.pool.visual(scene) for scene in chat.scenes] for chat in drawn])

    def _live(self, progress: float) -> dict[str, Tensor]:
        drawn = [self.live.picture_chat(progress) for _ in range(LIVE_CHATS_PER_STEP)]
        scenes = [scene for chat in drawn for scene in chat.scenes]
        self.network.vision.eval()  # a few canvases of many sizes make poor statistics for batch normalisation
        encoded = iter(encode_scenes(scenes, self.network.vision, self.device))
        self.network.vision.train()
        with autocast(self.device):
            terms = {"live": self._loss(drawn, [list(islice(encoded, len(chat.scenes))) for chat in drawn])}
        terms.update({name: LOOK_WEIGHT * term for name, term in self.looking.losses(0.0).items()})
        return terms

    def _loss(self, drawn: list[PictureChat], visual: list[list[Tensor]]) -> Tensor:
        """``visual`` are the tokens of each chat's pictures."""
        rows = pack_chats([chat.chat for chat in drawn], self.tokenizer, self.rng, row_tokens=ROW_TOKENS)
        in_order = torch.cat([tokens for chat in rows.order for tokens in visual[chat]])
        return next_token_loss(self.network.language, moved(rows, self.device), in_order)


def run(plan: StagePlan, network: PocketNetwork, material: Material, tokenizer: Tokenizer, seed: int) -> None:
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    run_stage(plan, network, lambda step: Conversing(network, material, tokenizer, seed + step, device).losses)
