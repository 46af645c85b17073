"""The small world of the ablations: one small coloured shape a picture, and networks that learn it in a minute."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.pixels import to_pixels
from hearth.multimodal.views import N_PLACES
from training.aligning import Saying
from training.batches import Rows, next_token_loss, pack
from training.copying import start_with_copying
from training.exchanges import capital
from training.interleaved import Item, encode_document, label
from training.language import LanguageConfig, LanguageModel
from training.loop import autocast
from training.pictures import Material, Painter
from training.reading import Drills
from training.scene_pool import encode_scenes
from training.scenes import Scene
from training.texts import Writer

N_EMBD = 192
WIDTH = 16
SHAPE_SIZES = (0.1, 0.35)  # of the side: small enough that resolution matters
DOCUMENTS_PER_STEP = 12
DRILLS_PER_STEP = 8
SHOTS = (0, 4, 8)


@dataclass(frozen=True)
class Arm:
    """One setting; ``shares`` are those of captions, interleaved documents and text."""

    name: str
    side_px: int = 96
    n_tokens: int = 16
    connector: str = "C-Abstractor"
    shares: tuple[float, float, float] = (0.45, 0.45, 0.1)
    tiles: bool = False


class AveragePool(nn.Module):
    """Adaptive average pooling and a linear layer."""

    def __init__(self, in_channels: int, n_tokens: int, n_embd: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(round(n_tokens**0.5))
        self.norm = nn.LayerNorm(in_channels)
        self.position = nn.Parameter(torch.randn(n_tokens, in_channels) * 0.5)
        self.output = nn.Linear(in_channels, n_embd)

    def forward(self, feature_map: Tensor) -> Tensor:
        tokens: Tensor = self.output(self.norm(self.pool(feature_map).flatten(2).transpose(1, 2)) + self.position)
        return tokens


class AttentionPool(nn.Module):
    """Learnt queries attend to the feature map."""

    def __init__(self, in_channels: int, n_tokens: int, n_embd: int, n_cells: int, channels: int = 128) -> None:
        super().__init__()
        self.input = nn.Linear(in_channels, channels)
        self.places = nn.Parameter(torch.randn(n_cells, channels) * 0.5)
        self.queries = nn.Parameter(torch.randn(n_tokens, channels) * 0.5)
        self.attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, n_embd)

    def forward(self, feature_map: Tensor) -> Tensor:
        cells = self.input(feature_map.flatten(2).transpose(1, 2))
        queries = self.queries.expand(len(cells), -1, -1)
        tokens: Tensor = self.output(self.norm(self.attention(queries, cells + self.places, cells)[0] + queries))
        return tokens


class SmallModel(nn.Module):
    """Both halves at the smallest size, with an arm's connector."""

    def __init__(self, arm: Arm, tokenizer: Tokenizer, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.arm = arm
        n_vocab = tokenizer.get_vocab_size()
        config = {
            "embed_dim": 32,
            "vision_cfg": {"layers": [1, 1, 1, 1], "width": WIDTH, "image_size": arm.side_px, "head_width": 32},
            "text_cfg": {"context_length": 16, "vocab_size": n_vocab, "width": 32, "heads": 1, "layers": 1},
            "connector": {"channels": 128, "n_embd": N_EMBD}
            | ({"n_places": N_PLACES} if arm.tiles else {"n_tokens": arm.n_tokens}),
        }
        self.vision = VisionNetwork(config)
        in_channels = WIDTH * 48
        if arm.connector == "average pool":
            self.vision.add_module("connector", AveragePool(in_channels, arm.n_tokens, N_EMBD))
        elif arm.connector == "attention pool":
            n_cells = (arm.side_px // 16) ** 2
            self.vision.add_module("connector", AttentionPool(in_channels, arm.n_tokens, N_EMBD, n_cells))
        self.language = LanguageModel(LanguageConfig(n_vocab, N_EMBD, n_layers=2, n_heads=3, n_ff=256))
        start_with_copying(self.language, seed)
        self.saying = Saying(n_vocab)

    def see(self, scenes: list[Scene]) -> list[Tensor]:
        """Visual tokens of each scene, (n_tokens, N_EMBD)."""
        if self.arm.tiles:
            return [encoded.tokens for encoded in encode_scenes(scenes, self.vision, torch.device("cpu"))]
        pixels = np.stack([to_pixels(scene.image, self.arm.side_px) for scene in scenes])
        with autocast(torch.device("cpu")):
            tokens = self.vision.visual_tokens(self.vision.feature_maps(torch.from_numpy(pixels)))
        return list(tokens.float())

    def loss(self, documents: list[list[Item]], tokenizer: Tokenizer, rng: random.Random) -> Tensor:
        """Of the next token in documents of text and pictures."""
        scenes = [item for document in documents for item in document if isinstance(item, Scene)]
        seen = {id(scene): tokens for scene, tokens in zip(scenes, self.see(scenes), strict=True)} if scenes else {}
        encoded = [encode_document(d, tokenizer, lambda scene: len(seen[id(scene)])) for d in documents]
        rows = pack([(ids, weights) for ids, weights, _ in encoded], rng, set())
        visual = torch.cat([seen[id(scene)] for *_, shown in encoded for scene in shown]) if scenes else None
        with autocast(torch.device("cpu")):
            return next_token_loss(self.language, rows, visual)

    @torch.inference_mode()
    def says(self, document: list[Item], tokenizer: Tokenizer) -> bool:
        """Whether the last text of a document is what the model would say there, greedily."""
        scenes = [item for item in document if isinstance(item, Scene)]
        seen = {id(scene): tokens for scene, tokens in zip(scenes, self.see(scenes), strict=True)}
        ids, _, shown = encode_document(document, tokenizer, lambda scene: len(seen[id(scene)]))
        asked = len(tokenizer.encode(" " + str(document[-1]), add_special_tokens=False).ids)
        row = torch.tensor([ids])
        embedded = self.language.embedding(row.clamp(min=0))
        visual = torch.cat([seen[id(scene)] for scene in shown])
        embedded = embedded.masked_scatter((row < 0)[..., None], visual)
        hidden = self.language(embedded, torch.arange(len(ids))[None])
        said = self.language.logits(hidden[0, -asked - 2 : -2]).argmax(-1)
        return said.tolist() == ids[-asked - 1 : -1]


class SmallWorld:
    """Draws documents of an arm's mixture, and examples that are kept for measuring."""

    def __init__(self, tokenizer: Tokenizer, seed: int, *, held_out: bool = False) -> None:
        self.rng = random.Random(seed)
        self.painter = Painter(Material((), {}), self.rng, held_out=held_out)
        self.drills = Drills(Writer(self.rng), tokenizer, [])

    def scene(self) -> Scene:
        return self.painter.single(
            size=self.rng.uniform(*SHAPE_SIZES), ground=self.rng.choice(("white", "grey", "black"))
        )

    def captioned(self) -> list[Item]:
        scene = self.scene()
        return [scene, caption_of(scene)]

    def few_shot(self, shots: int) -> list[Item]:
        """The colour or the name of each picture, whichever the first ones show."""
        skill = self.rng.choice(("colour", "name"))
        scenes = [self.scene() for _ in range(shots + 1)]
        return [item for scene in scenes for item in (scene, label(scene, skill))]

    def documents(self, arm: Arm) -> list[list[Item]]:
        """One step's documents with pictures, with about as many pictures whatever the mixture."""
        captions, interleaved, _ = arm.shares
        found: list[list[Item]] = []
        pictures = 0
        while pictures < DOCUMENTS_PER_STEP:
            several = self.rng.random() < interleaved / (captions + interleaved) / 3
            drawn = self.few_shot(self.rng.randint(1, 5)) if several and interleaved else self.captioned()
            if not captions:
                drawn = self.few_shot(self.rng.randint(1, 5))
            found.append(drawn)
            pictures += sum(isinstance(item, Scene) for item in drawn)
        return found

    def text(self) -> Rows:
        return self.drills.rows(DRILLS_PER_STEP)


def caption_of(scene: Scene) -> str:
    thing = scene.things[0]
    return capital(f"{thing.colour} {thing.name}")
