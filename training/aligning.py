"""The stages of the vision half: "clip", contrastive with words besides, and "words", once the language model has read.

Every visual token is asked for the words of what lies under it: over a thing its name, colour, place and number,
elsewhere the colour of the background. The words are scored against the language model's own word vectors, without a
pass through the language model, so that many more pictures are seen than in the stages with answers; and what a visual
token says and where it lies is then as easy to look up as a word in a text.
"""

from __future__ import annotations

import random

import torch
from open_clip.loss import ClipLoss
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.captions import caption
from training.contrastive import N_VISUAL_TOKENS, caption_ids, draw_scene, pixel_batch
from training.language import LanguageModel
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Painter, Scene, Sprite, Thing
from training.pocket_network import PocketNetwork
from training.world import NUMBERS, PLACES

BATCH = 96
COLOUR_WEIGHT = 0.5
PLACE_WEIGHT = 0.5
NUMBER_WEIGHT = 0.3
PLACE_WORDS = frozenset(("left", "right", "top", "bottom", "middle"))
EDGE_TOKEN_WEIGHT = 0.25  # of a visual token that a thing covers besides the one over its centre
BACKGROUND_TOKEN_WEIGHT = 0.05  # there are a dozen of them in a picture
GRID = round(N_VISUAL_TOKENS**0.5)


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


def words_by_cell(scene: Scene) -> dict[int, tuple[list[tuple[str, float]], float]]:
    """Visual token → its words and the token's weight. Tokens on the padding of a picture are left out."""
    width, height = scene.image.size
    half = (width / max(width, height) / 2, height / max(width, height) / 2)
    asked: dict[int, tuple[list[tuple[str, float]], float]] = {}
    background = [("background", 0.5), (scene.background, 1.0)] if scene.background else []
    for cell in range(N_VISUAL_TOKENS):
        x, y = ((place + 0.5) / GRID for place in (cell % GRID, cell // GRID))
        if abs(x - 0.5) > half[0] or abs(y - 0.5) > half[1]:
            continue
        distances = [max(abs(x - t.centre[0]) / t.size[0], abs(y - t.centre[1]) / t.size[1]) for t in scene.things]
        nearest = min(range(len(distances)), key=distances.__getitem__)
        if distances[nearest] < 0.5:
            asked[cell] = (words_of(scene, scene.things[nearest]), EDGE_TOKEN_WEIGHT)
        elif background and distances[nearest] > 0.5 + 0.5 / GRID:
            asked[cell] = (background, BACKGROUND_TOKEN_WEIGHT)
    for thing in scene.things:
        x_cell, y_cell = (min(GRID - 1, max(0, int(share * GRID))) for share in thing.centre)
        asked[y_cell * GRID + x_cell] = (words_of(scene, thing), 1.0)
    return asked


def word_loss(scenes: list[Scene], visual: Tensor, language: LanguageModel, tokenizer: Tokenizer) -> Tensor:
    """Weighted cross-entropy of the words under every visual token; ``visual`` is (len(scenes), n_tokens, n_embd)."""
    pictures: list[int] = []
    cells: list[int] = []
    weights: list[float] = []
    entries: list[tuple[int, int, float]] = []
    ids_of: dict[str, list[int]] = {}
    for index, scene in enumerate(scenes):
        for cell, (words, cell_weight) in words_by_cell(scene).items():
            total = sum(weight for _, weight in words)
            for word, weight in words:
                ids = ids_of.get(word) or ids_of.setdefault(word, word_ids(word, tokenizer))
                entries += [(len(pictures), token, weight / len(ids) / total) for token in ids]
            pictures.append(index)
            cells.append(cell)
            weights.append(cell_weight)
    wanted = torch.zeros(len(pictures), language.config.n_vocab)
    rows, tokens, shares = zip(*entries, strict=True)
    wanted.index_put_((torch.tensor(rows), torch.tensor(tokens)), torch.tensor(shares), accumulate=True)
    logits = language.logits(language.norm(visual[pictures, cells])).float()
    losses = nn.functional.cross_entropy(logits, wanted.to(logits.device), reduction="none")
    by_weight = torch.tensor(weights, device=logits.device)
    return (losses * by_weight).sum() / by_weight.sum()


class Aligning:
    """Losses of both stages: words at every visual token, and ``clip_weight`` times the contrast with captions."""

    def __init__(
        self,
        network: PocketNetwork,
        sprites: list[Sprite],
        tokenizer: Tokenizer,
        seed: int,
        device: torch.device,
        clip_weight: float,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.painter = Painter(sprites, random.Random(seed))
        self.device = device
        self.clip_weight = clip_weight
        self._clip_loss = ClipLoss()

    def losses(self, _progress: float) -> dict[str, Tensor]:
        scenes = [draw_scene(self.painter) for _ in range(BATCH)]
        pixels = pixel_batch(scenes).to(self.device)
        vision = self.network.vision
        ids = caption_ids([caption(scene, self.painter.rng) for scene in scenes], self.tokenizer).to(self.device)
        with autocast(self.device):
            fine, coarse = vision.feature_maps(pixels)
            words = word_loss(scenes, vision.visual_tokens(fine, coarse), self.network.language, self.tokenizer)
            scale = vision.clip.logit_scale.exp().clamp(max=100.0)
            contrast = self._clip_loss(vision.picture_vectors(coarse), vision.text_vectors(ids), scale)
        return {"words": words, "clip": self.clip_weight * contrast}


def run(
    plan: StagePlan,
    network: PocketNetwork,
    sprites: list[Sprite],
    tokenizer: Tokenizer,
    seed: int,
    *,
    clip_weight: float,
) -> None:
    """Trains the vision half; the language model stands still."""
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    network.language.requires_grad_(False)
    run_stage(plan, network, Aligning(network, sprites, tokenizer, seed, device, clip_weight).losses)
    network.language.requires_grad_(True)
