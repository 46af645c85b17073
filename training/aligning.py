"""The stage "look" of the vision half: every visual token learns to say what lies under it.

Every visual token is asked for the words of what lies under it: over a thing its name, colour, place and number,
elsewhere the colour of the background. The words are scored against the language model's own word vectors, without a
pass through the language model, so that many more pictures are seen than in the stages with answers; and what a visual
token says and where it lies is then as easy to look up as a word in a text.
Whole pictures are contrasted with their captions besides, by open_clip's own loss. That says which picture is nearest
to a text, not whether any is near: texts that describe no picture are pushed away from all of them besides, so that a
search can end with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.loss import ClipLoss
from tokenizers import Tokenizer
from torch import Tensor, nn

from hearth.multimodal.views import N_PLACES
from training.language import LanguageModel
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Material
from training.pocket_network import PocketNetwork
from training.view_batches import CONTEXT_LENGTH, SIDE_PX, ViewBatch, ViewBatches, stream

STRAY_WEIGHT = 3.0
STRAY_LIKENESS = 0.15  # at most, of a picture and a text that does not describe any (cosine)
FIRST_SHARPNESS = 0.25  # of the words: random directions are to say little at first
SHARPNESS_RATE = 5.0
PRIOR_FLOOR = 1e-4  # share of a word that was not asked for
PRIOR_VIEWS = 1500  # to count the words of


def vision_config(n_embd: int, n_vocab: int, names: Sequence[Sequence[str]] = ()) -> dict[str, Any]:
    """The content of ``vision.json``; the first three entries are an open_clip model configuration. ``names``, each by
    its words, are those of the namer, if there are any.
    """
    namer = {"namer": {"channels": 48, "names": [list(name) for name in names]}} if names else {}
    return {
        "embed_dim": 128,
        "vision_cfg": {"layers": [2, 2, 4, 2], "width": 32, "image_size": SIDE_PX, "head_width": 64},
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": n_vocab, "width": 128, "heads": 4, "layers": 2},
        "letters": [64, 96, 128],
        "lines": [48, 96, 160],
        "locator": 64,
        **namer,
        "connector": {"channels": 256, "n_places": N_PLACES, "n_embd": n_embd},
    }


class Saying(nn.Module):
    """Reads the words that a visual token stands for, which are told by their vectors; only training needs it.

    ``prior`` is how often each is asked for at all: the vectors of a few hundred names are no basis to say "one of
    these" with, so a visual token has to say only what tells its words from the others.
    ``sharpness`` grows as tokens learn to say them; without it they first grow in directions that no word uses, only to
    say less, and it takes hundreds of steps to undo that.
    """

    def __init__(self, n_vocab: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(n_vocab))
        self.prior: Tensor
        self.sharpness = nn.Parameter(torch.zeros(1, 1))

    def word_logits(self, normed: Tensor, language: LanguageModel) -> Tensor:
        """(n, n_embd) → (n, n_vocab): the words by how near their vectors are, on top of the prior."""
        scale = FIRST_SHARPNESS * (SHARPNESS_RATE * self.sharpness).exp()
        logits: Tensor = scale * language.logits(normed).float() + self.prior
        return logits

    def count(self, batch: ViewBatch) -> None:
        """Takes the prior from the words that a batch asks for."""
        asked = batch.shares * batch.row_weights[batch.entries[:, 0]]
        often = torch.full_like(self.prior, PRIOR_FLOOR)
        often.index_add_(0, batch.entries[:, 1], (asked / asked.sum()).to(often))
        self.prior.copy_(often.log())


def normalised(pixels: Tensor) -> Tensor:
    """uint8 pixels as ``hearth.multimodal.views`` hands them to the encoder, channels last."""
    return ((pixels.float() - 128.0) / 64.0).contiguous(memory_format=torch.channels_last)


def word_loss(batch: ViewBatch, visual: Tensor, language: LanguageModel, saying: Saying) -> Tensor:
    """Weighted cross-entropy of the words under every visual token; ``visual`` is (views, n_tokens, n_embd)."""
    wanted = torch.zeros(len(batch.rows), language.config.n_vocab, device=visual.device)
    at = batch.entries.to(visual.device)
    wanted.index_put_((at[:, 0], at[:, 1]), batch.shares.to(visual.device), accumulate=True)
    logits = saying.word_logits(language.norm(visual[batch.rows[:, 0], batch.rows[:, 1]]), language)
    losses = nn.functional.cross_entropy(logits, wanted, reduction="none")
    weights = batch.row_weights.to(visual.device)
    return (losses * weights).sum() / weights.sum()


def stray_loss(pictures: Tensor, strays: Tensor) -> Tensor:
    """How much nearer than ``STRAY_LIKENESS`` texts without a picture lie, on average; both of shape (n, dimension)."""
    return (strays @ pictures.T - STRAY_LIKENESS).clamp(min=0.0).mean()


class Aligning:
    """Losses of the stage; ``clip_weight`` is that of the contrast with captions."""

    def __init__(
        self,
        network: PocketNetwork,
        material: Material,
        tokenizer: Tokenizer,
        seed: int,
        device: torch.device,
        clip_weight: float,
    ) -> None:
        self.network = network
        self.device = device
        self.clip_weight = clip_weight
        self._clip_loss = ClipLoss()
        if not network.saying.prior.any():
            network.saying.count(ViewBatches(material, tokenizer, seed).batch(PRIOR_VIEWS))
        self._batches = stream(material, tokenizer, seed)

    def losses(self, _progress: float) -> dict[str, Tensor]:
        return self.of(next(self._batches))

    def of(self, batch: ViewBatch) -> dict[str, Tensor]:
        vision, language = self.network.vision, self.network.language
        with autocast(self.device):
            maps = vision.feature_maps(normalised(batch.pixels.to(self.device)))
            visual = vision.visual_tokens(maps, batch.places.to(self.device))
            terms = {"words": word_loss(batch, visual, language, self.network.saying)}
            scale = vision.clip.logit_scale.exp().clamp(max=100.0)
            pictures = vision.picture_vectors(maps.coarse[batch.captioned.to(self.device)])
            texts = vision.text_vectors(batch.captions.to(self.device))
            terms["clip"] = self.clip_weight * self._clip_loss(pictures, texts, scale)
            strays = vision.text_vectors(batch.strays.to(self.device))
            terms["stray"] = self.clip_weight * STRAY_WEIGHT * stray_loss(pictures, strays)
        return terms


def run(
    plan: StagePlan, network: PocketNetwork, material: Material, tokenizer: Tokenizer, seed: int, *, clip_weight: float
) -> None:
    """Trains the vision half; the language model stands still."""
    device = pick_device()
    network.to(device)
    network.vision.to(memory_format=torch.channels_last)
    network.language.requires_grad_(False)
    run_stage(
        plan, network, lambda step: Aligning(network, material, tokenizer, seed + step, device, clip_weight).losses
    )
    network.language.requires_grad_(True)
