"""Stage "words": visual tokens move into the space of words, where the language model can read them.

The visual token over a thing's centre is asked for the words that name the thing and its colour. This needs no
pass through the language model, so that many more pictures are seen than in the stage with answers, and it says where
a thing is.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from open_clip.loss import ClipLoss
from tokenizers import Tokenizer
from torch import Tensor, nn

from hearth.multimodal.pixels import to_pixels
from training.captions import caption
from training.contrastive import IMAGE_SIZE_PX, N_VISUAL_TOKENS, caption_ids, draw_scene
from training.language import LanguageModel
from training.loop import autocast
from training.pictures import Painter, Scene, Sprite, Thing
from training.pocket_network import PocketNetwork
from training.world import NUMBERS, PLACES

BATCH = 64
CLIP_WEIGHT = 0.1
COLOUR_WEIGHT = 0.5
PLACE_WEIGHT = 0.5
NUMBER_WEIGHT = 0.3
PLACE_WORDS = frozenset(("left", "right", "top", "bottom", "middle"))


def word_ids(word: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of ``word`` inside a sentence."""
    ids: list[int] = tokenizer.encode(" " + word, add_special_tokens=False).ids
    return ids


def words_of(scene: Scene, thing: Thing) -> list[tuple[str, float]]:
    """The words that answers about a thing are made of, each with its weight: name, colour, place and number."""
    words = [(thing.name, 1.0)]
    if thing.colour:
        words.append((thing.colour, COLOUR_WEIGHT))
    place = [word for word in PLACES[thing.cell].split() if word in PLACE_WORDS]
    words += [(word, PLACE_WEIGHT / len(place)) for word in place]
    number = sum(other.name == thing.name for other in scene.things)
    return [*words, (NUMBERS[number], NUMBER_WEIGHT)]


def word_loss(scenes: list[Scene], visual: Tensor, language: LanguageModel, tokenizer: Tokenizer) -> Tensor:
    """Cross-entropy of the words of every thing; ``visual`` is (len(scenes), n_tokens, n_embd)."""
    side = round(N_VISUAL_TOKENS**0.5)
    pictures: list[int] = []
    cells: list[int] = []
    wanted = torch.zeros(sum(len(scene.things) for scene in scenes), language.config.n_vocab)
    for index, scene in enumerate(scenes):
        for thing in scene.things:
            x, y = (min(side - 1, max(0, int(share * side))) for share in thing.centre)
            for word, weight in words_of(scene, thing):
                ids = word_ids(word, tokenizer)
                wanted[len(pictures), ids] += weight / len(ids)
            pictures.append(index)
            cells.append(y * side + x)
    logits = language.logits(language.norm(visual[pictures, cells])).float()
    wanted = (wanted / wanted.sum(dim=1, keepdim=True)).to(logits.device)
    return nn.functional.cross_entropy(logits, wanted)


class Aligning:
    """Losses of the stage; only the vision half learns."""

    def __init__(
        self, network: PocketNetwork, sprites: list[Sprite], tokenizer: Tokenizer, seed: int, device: torch.device
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.painter = Painter(sprites, random.Random(seed))
        self.device = device
        self._clip_loss = ClipLoss()

    def losses(self, _progress: float) -> dict[str, Tensor]:
        scenes = [draw_scene(self.painter) for _ in range(BATCH)]
        pixels = torch.from_numpy(np.stack([to_pixels(scene.image, IMAGE_SIZE_PX) for scene in scenes]))
        pixels = pixels.contiguous(memory_format=torch.channels_last).to(self.device)
        vision = self.network.vision
        ids = caption_ids([caption(scene, self.painter.rng) for scene in scenes], self.tokenizer).to(self.device)
        with autocast(self.device):
            fine, coarse = vision.feature_maps(pixels)
            words = word_loss(scenes, vision.visual_tokens(fine, coarse), self.network.language, self.tokenizer)
            scale = vision.clip.logit_scale.exp().clamp(max=100.0)
            contrast = self._clip_loss(vision.picture_vectors(coarse), vision.text_vectors(ids), scale)
        return {"words": words, "clip": CLIP_WEIGHT * contrast}
