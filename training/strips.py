"""Strips of print for the stage "lines": words of drawn scenes, cut out about as a reader of cells finds them."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hearth.multimodal.print_cells import CHARACTERS, Printed
from hearth.multimodal.print_lines import (
    COLUMNS_PX,
    FRAME_PX,
    INK,
    SIZES,
    SYMBOLS,
    WIDTHS_PX,
    Strip,
    ink_of,
    n_widths,
    padded,
    strips_of,
)
from hearth.multimodal.views import Frame
from training.pictures import Painter
from training.scenes import Mark, Scene

POOL = 8000  # strips that are known at a time
SIDES_PX = (128, 192, 288, 384)  # of pictures
SHARES = {"words": 0.3, "chart": 0.3, "sheet": 0.4}
STEPS = 127 / INK  # of a stored strip for each standard deviation
# what a reader of cells is wrong by: sizes by their logarithm, places in sizes of the font
MISSED = 0.06
STRAY_SHARE = 0.3  # of scenes have a word that is none, or a part of a large one
STRAY_SIZES_PX = 8, 60
SIZES_OFF, SIZE_OFF = 0.1, 0.1  # of all of a scene, and of each
PLACE_OFF = 0.08
LINE_OFF = 0.12  # of a line up or down
# in sizes of the font:
WITHIN = 0.2  # a strip characters stand in that are to be read
BESIDE = 0.45  # above or below its middle at most


@dataclass(frozen=True)
class Known:
    """A strip as it is stored, (LINE_PX, width), and the indices of ``SYMBOLS`` that stand on it."""

    ink: NDArray[np.int8]
    symbols: tuple[int, ...]


class Strips:
    """Draws scenes and cuts them; a few new scenes for every batch. ``painter`` needs a printer only."""

    def __init__(self, painter: Painter, seed: int, pool: int = POOL, renewed: int = 6) -> None:
        self._painter = painter
        self._rng = random.Random(seed)
        self._random = np.random.default_rng(seed)
        self._renewed = renewed
        self._of_width: dict[int, list[Known]] = defaultdict(list)
        self._room = pool
        while self.size < pool:
            self._draw()

    @property
    def size(self) -> int:
        """Strips that are known."""
        return sum(map(len, self._of_width.values()))

    def batch(self) -> tuple[Tensor, list[tuple[int, ...]]]:
        """(n, 1, LINE_PX, width) strips of about one width, and what stands on each."""
        for _ in range(self._renewed):
            self._draw()
        widths = sorted(self._of_width)
        width = self._rng.choices(widths, [len(self._of_width[w]) * w for w in widths])[0]
        known = self._of_width[width]
        chosen = [self._rng.choice(known) for _ in range(max(2, COLUMNS_PX // (width * WIDTHS_PX)))]
        ink = padded([one.ink.astype(np.float32) / STEPS for one in chosen])
        return torch.from_numpy(ink), [one.symbols for one in chosen]

    def _draw(self) -> None:
        """A scene's strips, each in place of a random one of its width once there are enough."""
        kind = self._rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
        self._painter.side_px = self._rng.choice(SIDES_PX)
        scene: Scene = getattr(self._painter, kind)()
        frame = Frame(*scene.image.size, scene.image.size)
        full = self.size >= self._room
        for strip, symbols in self._cut(scene):
            ink = np.round(ink_of(scene.image, frame, strip) * STEPS).astype(np.int8)
            known = self._of_width[n_widths(ink)]
            if full and known:
                known[self._rng.randrange(len(known))] = Known(ink, symbols)
            else:
                known.append(Known(ink, symbols))

    def _cut(self, scene: Scene) -> Iterable[tuple[Strip, tuple[int, ...]]]:
        off = self._random.normal(0, SIZES_OFF)
        seen = [self._seen(mark, off) for mark in scene.marks if self._rng.random() >= MISSED]
        if self._rng.random() < STRAY_SHARE:
            seen += self._stray(*scene.image.size)
        for found, _ in strips_of(seen):
            strip = replace(found, y=found.y + self._random.normal(0, LINE_OFF) * found.size)
            symbols = standing_on(strip, scene.marks)
            if symbols is not None and 2 * len(symbols) <= strip.width_px // FRAME_PX:
                yield strip, symbols

    def _stray(self, width: int, height: int) -> list[Printed]:
        """Some characters anywhere."""
        rng = self._rng
        size = math.exp(rng.uniform(*map(math.log, STRAY_SIZES_PX)))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        return [Printed("?", x + 0.5 * size * at, y, at == 0, size) for at in range(rng.randint(1, 6))]

    def _seen(self, mark: Mark, off: float) -> Printed:
        x, y = self._random.normal(0, PLACE_OFF * mark.size, 2)
        size = mark.size * np.exp(off + self._random.normal(0, SIZE_OFF))
        return Printed(mark.character, mark.x + x, mark.y + y, mark.begins, float(size))


def standing_on(strip: Strip, marks: Iterable[Mark]) -> tuple[int, ...] | None:
    """Indices of ``SYMBOLS`` on a strip, from its left; None if one of them is not to be read."""
    there: list[tuple[float, Mark]] = []
    for mark in marks:
        along, below = strip.seen_from(mark.x, mark.y)
        as_large = 1 / SIZES < mark.size / strip.size < SIZES
        if as_large and WITHIN < along < strip.length / strip.size - WITHIN and abs(below) < BESIDE:
            there.append((along, mark))
    if any(mark.character not in CHARACTERS for _, mark in there):
        return None
    said: list[int] = []
    for _, mark in sorted(there, key=lambda one: one[0]):
        if said and mark.begins:
            said.append(SYMBOLS.index(" "))
        said.append(SYMBOLS.index(mark.character))
    return tuple(said)
