"""Whole pictures with print for the stage "letters": signs, charts and sheets of words, as people's pictures come."""

from __future__ import annotations

import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hearth.multimodal.print_cells import SAID
from hearth.multimodal.views import Frame, canvas_of
from training.letters import N_MARK, UNKNOWN, Floats, PrintedCells, by_cell
from training.pictures import Painter
from training.scenes import Scene, bar_edges
from training.view_batches import SIDE_PX

CANVAS_PX = 2 * SIDE_PX
POOL = 240
RENEWED = 4  # scenes a batch
MAX_MARKS = 400
DRAWN_PX = (CANVAS_PX, 3 * CANVAS_PX // 2, 2 * CANVAS_PX)  # people's pictures are larger than what is seen of them
SHARES = {"words": 0.3, "chart": 0.5, "sheet": 0.2}


class PrintScenes:
    """Draws scenes ahead, a few new ones for every batch. ``painter`` needs a printer only."""

    def __init__(self, painter: Painter, seed: int, pool: int = POOL) -> None:
        self._painter = painter
        self._rng = random.Random(seed)
        self._random = np.random.default_rng(seed)
        self._pixels = np.zeros((pool, 3, CANVAS_PX, CANVAS_PX), np.uint8)
        self._marks = np.zeros((pool, MAX_MARKS, N_MARK), np.float32)
        for at in range(pool):
            self._draw(at)

    def batch(self, scenes: int) -> tuple[Tensor, PrintedCells]:
        """Pixels (scenes, 3, CANVAS_PX, CANVAS_PX), 0 to 255, and what is on them."""
        for at in self._random.integers(len(self._pixels), size=RENEWED):
            self._draw(int(at))
        chosen = self._random.integers(len(self._pixels), size=scenes)
        middles = np.full((scenes, 2), CANVAS_PX / 2, np.float32)
        still = np.ones(scenes, np.float32), np.zeros(scenes, np.float32)
        cells = by_cell(self._marks[chosen], middles, *still, CANVAS_PX)
        return torch.from_numpy(self._pixels[chosen]).float(), cells

    def _draw(self, at: int) -> None:
        kind = self._rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
        self._painter.side_px = self._rng.choice(DRAWN_PX) if kind != "sheet" else CANVAS_PX
        scene: Scene = getattr(self._painter, kind)()
        frame = Frame(*scene.image.size, (CANVAS_PX, CANVAS_PX))
        self._pixels[at] = np.asarray(canvas_of(scene.image, frame)).transpose(2, 0, 1)
        self._marks[at] = _placed(scene, frame)


def _placed(scene: Scene, frame: Frame) -> NDArray[np.float32]:
    """(MAX_MARKS, N_MARK): as sheets have them, far away where there are no more."""
    marks: Floats = np.full((MAX_MARKS, N_MARK), -1e4, np.float32)
    edges = bar_edges(scene, frame.scale, frame.corner[0])
    for at, mark in enumerate((*scene.marks, *edges)[:MAX_MARKS]):
        index = SAID.index(mark.character) + 1 if mark.character in SAID else UNKNOWN
        marks[at] = (*frame.on_canvas(mark.x, mark.y), index, 0, mark.begins, mark.size * frame.scale)
    return marks
