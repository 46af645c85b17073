"""Stage "chat": everything together, end to end: pictures, passages, small talk; nothing is frozen."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from open_clip.loss import ClipLoss
from tokenizers import Tokenizer
from torch import Tensor, nn

from hearth.multimodal.pixels import to_pixels
from training.aligning import word_loss
from training.answers import Examiner
from training.batches import Rows, next_token_loss, pack_chats
from training.captions import caption
from training.chats import Chat
from training.contrastive import IMAGE_SIZE_PX, N_VISUAL_TOKENS, caption_ids
from training.dialogues import Composer
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Painter, Sprite
from training.pocket_network import PocketNetwork
from training.reading import Drills, grounded_rows
from training.scene_pool import ScenePool
from training.smalltalk import Talker
from training.texts import Writer

PICTURE_CHATS_PER_STEP = 20
REMINDERS_PER_STEP = 10  # picture chats of the stage "answers"
TALKS_PER_STEP = 24
TOLD_SHARE = 0.3  # of the talks, beside what the talker gives: facts told and asked for
GROUNDED_PER_STEP = 16
GROUNDED_ALONE_PER_STEP = 24  # in the stage "answers"
ROW_TOKENS = 192
CLIP_WEIGHT = 0.1  # keeps pictures and captions in one space while the image tower goes on learning
TALK_WEIGHT = 0.5
WORD_WEIGHT = 0.5
DRILL_WEIGHT = 0.5  # without drills the copy circuit fades within some hundred steps
DRILLS_PER_STEP = 20
GROUNDED_WEIGHT = 0.8


class Conversing:
    """Losses of the chat stage."""

    def __init__(
        self,
        network: PocketNetwork,
        sprites: list[Sprite],
        tokenizer: Tokenizer,
        seed: int,
        device: torch.device,
        vision_learns: bool = True,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.talker = Talker(self.rng)
        painter = Painter(sprites, self.rng)
        self.pool = None if vision_learns else ScenePool(painter, network.vision, device)
        self.composer = Composer(self.pool or painter, Examiner(self.rng), self.talker)
        self.writer = Writer(self.rng)
        self.device = device
        self.vision_learns = vision_learns
        self.n_grounded = GROUNDED_PER_STEP if vision_learns else GROUNDED_ALONE_PER_STEP
        self.drills = Drills(self.writer, tokenizer, [])
        self._clip_loss = ClipLoss()
        self._step = 0

    def losses(self, progress: float) -> dict[str, Tensor]:
        """Pictures in every step and one kind of text; without ``vision_learns`` passages in every step, and one of the
        others."""
        self._step += 1
        turn = self._step % 6
        with autocast(self.device):
            terms = self._pictures() if self.vision_learns or turn % 2 else {}
            if turn == (3 if self.vision_learns else 2):
                rows = self.drills.rows(DRILLS_PER_STEP)
                terms["drill"] = DRILL_WEIGHT * next_token_loss(self.network.language, self._moved(rows))
            elif turn == 0 or (turn == 4 and not self.vision_learns):
                talks = [self._talk() for _ in range(TALKS_PER_STEP)]
                rows = pack_chats(talks, self.tokenizer, self.rng, 0)
                terms["talk"] = TALK_WEIGHT * next_token_loss(self.network.language, self._moved(rows))
            if turn not in (0, 3) or not self.vision_learns:
                rows = grounded_rows(self.writer, self.tokenizer, self.n_grounded, max(progress, 0.3))
                terms["grounded"] = GROUNDED_WEIGHT * next_token_loss(self.network.language, self._moved(rows))
        return terms

    def _talk(self) -> Chat:
        return self.talker.told() if self.talker.rng.random() < TOLD_SHARE else self.talker.garbled()

    def _pictures(self) -> dict[str, Tensor]:
        number = PICTURE_CHATS_PER_STEP if self.vision_learns else REMINDERS_PER_STEP
        drawn = [self.composer.picture_chat() for _ in range(number)]
        scenes = [scene for chat in drawn for scene in chat.scenes]
        chats = [chat.chat for chat in drawn]
        rows = self._moved(pack_chats(chats, self.tokenizer, self.rng, N_VISUAL_TOKENS, row_tokens=ROW_TOKENS))
        if self.pool is not None:
            visual = torch.stack([self.pool.visual(scene) for scene in scenes])
            return {"picture": next_token_loss(self.network.language, rows, visual)}
        pixels = torch.from_numpy(np.stack([to_pixels(scene.image, IMAGE_SIZE_PX) for scene in scenes]))
        pixels = pixels.contiguous(memory_format=torch.channels_last).to(self.device)
        vision = self.network.vision
        fine, coarse = vision.feature_maps(pixels)
        visual = vision.visual_tokens(fine, coarse)
        ids = caption_ids([caption(scene, self.rng) for scene in scenes], self.tokenizer).to(self.device)
        scale = vision.clip.logit_scale.exp().clamp(max=100.0)
        contrast = self._clip_loss(vision.picture_vectors(coarse), vision.text_vectors(ids), scale)
        return {
            "picture": next_token_loss(self.network.language, rows, visual),
            "clip": CLIP_WEIGHT * contrast,
            "words": WORD_WEIGHT * word_loss(scenes, visual, self.network.language, self.tokenizer),
        }

    def _moved(self, rows: Rows) -> Rows:
        return Rows(rows.ids.to(self.device), rows.positions.to(self.device), rows.weights.to(self.device))


def run(
    plan: StagePlan,
    network: PocketNetwork,
    sprites: list[Sprite],
    tokenizer: Tokenizer,
    seed: int,
    *,
    vision_learns: bool = True,
) -> None:
    """Without ``vision_learns``, the vision half stands still while the language model learns to read its tokens."""
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    network.vision.requires_grad_(vision_learns)
    run_stage(plan, network, Conversing(network, sprites, tokenizer, seed + 2, device, vision_learns).losses)
    network.vision.requires_grad_(True)


def load_stage(path: Path, network: nn.Module, part: str = "") -> bool:
    """Loads a stage's checkpoint if there is one; ``part`` is the prefix of the weights that ``network`` takes."""
    if not path.is_file():
        return False
    weights = torch.load(path, map_location="cpu", weights_only=True)["network"]
    network.load_state_dict({k.removeprefix(part): v for k, v in weights.items() if k.startswith(part)})
    return True
