"""Stage "chat": everything together, end to end: pictures, passages, small talk; nothing is frozen."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from open_clip.loss import ClipLoss
from tokenizers import Tokenizer
from torch import Tensor, nn

from hearth.multimodal.clip import VisionNetwork, to_pixels
from training.answers import Examiner
from training.batches import Rows, next_token_loss, pack_chats
from training.captions import caption
from training.contrastive import IMAGE_SIZE_PX, N_VISUAL_TOKENS, caption_ids
from training.dialogues import Composer
from training.language import LanguageModel
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Painter, Sprite
from training.reading import grounded_rows
from training.smalltalk import Talker
from training.texts import Writer

PICTURE_CHATS_PER_STEP = 48
TALKS_PER_STEP = 12
GROUNDED_PER_STEP = 12
ROW_TOKENS = 192
CLIP_WEIGHT = 0.1  # keeps pictures and captions in one space while the image tower goes on learning
TALK_WEIGHT = 0.3
GROUNDED_WEIGHT = 0.8


class PocketNetwork(nn.Module):
    """Both halves, so that one optimiser and one checkpoint hold them."""

    def __init__(self, vision: VisionNetwork, language: LanguageModel) -> None:
        super().__init__()
        self.vision = vision
        self.language = language


class Conversing:
    """Losses of the chat stage."""

    def __init__(
        self, network: PocketNetwork, sprites: list[Sprite], tokenizer: Tokenizer, seed: int, device: torch.device
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.talker = Talker(self.rng)
        self.composer = Composer(Painter(sprites, self.rng), Examiner(self.rng), self.talker)
        self.writer = Writer(self.rng)
        self.device = device
        self._clip_loss = ClipLoss()
        self._step = 0

    def losses(self, progress: float) -> dict[str, Tensor]:
        self._step += 1
        with autocast(self.device):
            terms = self._pictures()
            if self._step % 2:
                talks = [self.talker.any() for _ in range(TALKS_PER_STEP)]
                rows = pack_chats(talks, self.tokenizer, self.rng, 0)
                terms["talk"] = TALK_WEIGHT * next_token_loss(self.network.language, self._moved(rows))
            else:
                rows = grounded_rows(self.writer, self.tokenizer, GROUNDED_PER_STEP, max(progress, 0.3))
                terms["grounded"] = GROUNDED_WEIGHT * next_token_loss(self.network.language, self._moved(rows))
        return terms

    def _pictures(self) -> dict[str, Tensor]:
        drawn = [self.composer.picture_chat() for _ in range(PICTURE_CHATS_PER_STEP)]
        scenes = [scene for chat in drawn for scene in chat.scenes]
        pixels = torch.from_numpy(np.stack([to_pixels(scene.image, IMAGE_SIZE_PX) for scene in scenes]))
        pixels = pixels.contiguous(memory_format=torch.channels_last).to(self.device)
        fine, coarse = self.network.vision.feature_maps(pixels)
        visual = self.network.vision.visual_tokens(fine, coarse)
        rows = pack_chats(
            [chat.chat for chat in drawn], self.tokenizer, self.rng, N_VISUAL_TOKENS, row_tokens=ROW_TOKENS
        )
        loss = next_token_loss(self.network.language, self._moved(rows), visual)
        ids = caption_ids([caption(scene, self.rng) for scene in scenes], self.tokenizer).to(self.device)
        scale = self.network.vision.clip.logit_scale.exp().clamp(max=100.0)
        contrast = self._clip_loss(
            self.network.vision.picture_vectors(coarse), self.network.vision.text_vectors(ids), scale
        )
        return {"picture": loss, "clip": CLIP_WEIGHT * contrast}

    def _moved(self, rows: Rows) -> Rows:
        return Rows(rows.ids.to(self.device), rows.positions.to(self.device), rows.weights.to(self.device))


def run(plan: StagePlan, network: PocketNetwork, sprites: list[Sprite], tokenizer: Tokenizer, seed: int) -> None:
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    run_stage(plan, network, Conversing(network, sprites, tokenizer, seed + 2, device).losses)


def load_stage(path: Path, network: nn.Module) -> bool:
    """Loads the weights of a stage's checkpoint if there is one."""
    if not path.is_file():
        return False
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["network"])
    return True
