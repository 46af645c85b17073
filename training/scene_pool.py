"""Scenes drawn and encoded ahead, for stages in which the vision half stands still; each is asked about often."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.pixels import to_pixels
from training.contrastive import IMAGE_SIZE_PX
from training.loop import autocast
from training.pictures import SHAPE_SHARE, Painter, Scene, Sprite

ENCODE_BATCH = 64


class ScenePool:
    """Stands in for a painter: ``single``, ``counted`` and ``pair`` give scenes that are already encoded.

    After ``uses`` draws of a kind, its scenes are drawn anew.
    """

    def __init__(
        self, painter: Painter, vision: VisionNetwork, device: torch.device, *, kind_size: int = 384, uses: int = 4
    ) -> None:
        self.rng: random.Random = painter.rng
        self._painter = painter
        self._vision = vision
        self._device = device
        self._kind_size = kind_size
        self._uses = uses
        self._scenes: dict[str, list[Scene]] = {}
        self._previous: dict[str, list[Scene]] = {}  # drawn for the batch that is being put together
        self._drawn: dict[str, int] = {}
        self._visual: dict[int, Tensor] = {}

    def visual(self, scene: Scene) -> Tensor:
        """The visual tokens of a scene of this pool, shape (n_tokens, n_embd)."""
        return self._visual[id(scene)]

    def sprite(self, *, shape_share: float = SHAPE_SHARE, coloured: bool = False) -> Sprite | None:
        """A thing to be drawn only when it must have a colour; see ``single``."""
        return self._painter.sprite(shape_share=shape_share, coloured=True) if coloured else None

    def single(self, *, sprite: Sprite | None = None) -> Scene:
        """One thing; one with a colour of its own if ``sprite`` is given."""
        if sprite is None:
            return self._next("single", self._painter.single)
        return self._next("coloured", self._coloured)

    def counted(self, number: int) -> Scene:
        return self._next(f"counted {number}", lambda: self._painter.counted(number))

    def pair(self) -> Scene:
        return self._next("pair", self._painter.pair)

    def _coloured(self) -> Scene:
        return self._painter.single(sprite=self._painter.sprite(coloured=True, shape_share=0.3))

    def _next(self, kind: str, draw: Callable[[], Scene]) -> Scene:
        if self._drawn.get(kind, self._uses * self._kind_size) >= self._uses * self._kind_size:
            self._fill(kind, draw)
        self._drawn[kind] += 1
        return self.rng.choice(self._scenes[kind])

    @torch.no_grad()
    def _fill(self, kind: str, draw: Callable[[], Scene]) -> None:
        for old in self._previous.get(kind, []):
            del self._visual[id(old)]
        self._previous[kind] = self._scenes.get(kind, [])
        scenes = [draw() for _ in range(self._kind_size)]
        was_training = self._vision.training
        self._vision.eval()
        for start in range(0, len(scenes), ENCODE_BATCH):
            part = scenes[start : start + ENCODE_BATCH]
            pixels = torch.from_numpy(np.stack([to_pixels(scene.image, IMAGE_SIZE_PX) for scene in part]))
            pixels = pixels.contiguous(memory_format=torch.channels_last).to(self._device)
            with autocast(self._device):
                visual = self._vision.visual_tokens(*self._vision.feature_maps(pixels)).float()
            self._visual.update({id(scene): tokens for scene, tokens in zip(part, visual, strict=True)})
        self._vision.train(was_training)
        self._scenes[kind] = scenes
        self._drawn[kind] = 0
