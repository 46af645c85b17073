"""Batches for the vision stage: whole views and tiles cut out, with what their tokens are asked for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hearth.multimodal.views import TOKENS_A_SIDE, Frame, canvas_of, places_of, tile_frame, whole_frame
from training.about_hearth import about_hearth
from training.answers import counts_of
from training.asking import Asked, Part, WordTokens, ask
from training.captions import caption
from training.chats import special_id
from training.fonts import Font, fonts
from training.pictures import Material, Painter
from training.printing import Printer
from training.scenes import Scene
from training.texts import Writer
from training.world import SHAPES

SIDE_PX = 96
CONTEXT_LENGTH = 32
VIEWS_PER_STEP = 96
STRAYS_PER_STEP = 32
MIN_FONTS = 40
MAX_WORKERS = 14
WORKER_SEEDS = 7919  # from one worker's seed to the next
_STEP_PX = SIDE_PX // TOKENS_A_SIDE
# kind of scene → share of the scenes, and tiles cut out of each
_MIXTURE = {
    "single": (0.1, 0.1),
    "collage": (0.16, 1.5),
    "counted": (0.13, 0.1),
    "crowd": (0.06, 0.2),
    "pair": (0.05, 0.1),
    "groups": (0.1, 0.1),
    "photograph": (0.16, 0.4),
    "words": (0.04, 0.5),
    "chart": (0.05, 1.0),
}


@dataclass
class ViewBatch:
    """Views, and what their tokens are asked for.

    ``pixels`` uint8 (views, 3, side, side); ``places`` (views, tokens, N_PLACES). ``rows`` are asked tokens as (view,
    token), ``entries`` their words as (row, word token) with ``shares``. ``captioned`` are the views with captions;
    ``strays`` texts that no picture shows.
    """

    pixels: Tensor
    places: Tensor
    rows: Tensor
    row_weights: Tensor
    entries: Tensor
    shares: Tensor
    captioned: Tensor
    captions: Tensor
    strays: Tensor


def new_fonts() -> tuple[Font, ...]:
    """The fonts to print in. Raises ValueError where too few are installed to learn reading from."""
    found = fonts()
    if len(found) < MIN_FONTS:
        raise ValueError(
            f"{len(found)} fonts found, but at least {MIN_FONTS} are needed to learn reading: install some of "
            "Debian's fonts-* packages, or name a folder of fonts by POCKET_FONTS"
        )
    return found


def caption_ids(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """(len(texts), CONTEXT_LENGTH) ids, each text ending in ``<|end|>``, zeros behind it."""
    end = special_id(tokenizer, "<|end|>")
    rows = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        ids = [*tokenizer.encode(text, add_special_tokens=False).ids[: CONTEXT_LENGTH - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return rows


class ViewBatches:
    """Draws batches. One seed, one sequence."""

    def __init__(self, material: Material, tokenizer: Tokenizer, seed: int, *, held_out: bool = False) -> None:
        self.rng = random.Random(seed)
        printer = Printer(fonts() if held_out else new_fonts(), self.rng, held_out=held_out)
        self.painter = Painter(material, self.rng, printer, held_out=held_out, side_px=2 * SIDE_PX)
        self.writer = Writer(self.rng, held_out=held_out)
        self.tokenizer = tokenizer
        self.words = WordTokens(tokenizer)

    def stray(self) -> str:
        """A question or sentence that has nothing to do with pictures."""
        draw = self.rng.random()
        if draw < 0.3:
            return about_hearth(self.rng, held_out=self.writer.held_out).messages[0].text
        if draw < 0.4:
            return self.writer.filler()
        fact = self.writer.fact()
        if draw < 0.6:
            return self.writer.statement(fact)
        return self.writer.spoken_or_typed(self.writer.question(fact))

    def scene(self) -> tuple[Scene, float]:
        """A scene, and how many tiles are to be cut out of it."""
        kind = self.rng.choices(tuple(_MIXTURE), [share for share, _ in _MIXTURE.values()])[0]
        return self.draw(kind), _MIXTURE[kind][1]

    def draw(self, kind: str) -> Scene:
        if kind == "counted":
            return self.painter.counted(self.rng.choice((2, 3, 4, 5, 6)))
        drawn: Scene = getattr(self.painter, kind)()
        return drawn

    def names(self) -> list[str]:
        """Everything that a thing in a picture can be called."""
        return sorted({*self.painter.names, *SHAPES, *(product.name for product in self.painter.products)})

    def batch(self, views: int = VIEWS_PER_STEP) -> ViewBatch:
        parts: list[tuple[Scene, Part]] = []
        while len(parts) < views:
            scene, tiles = self.scene()
            parts.append(whole_view(scene))
            frame = tile_frame(*scene.image.size, SIDE_PX)
            for _ in range(int(tiles) + (self.rng.random() < tiles % 1)):
                parts.append((scene, self._cut(scene, frame)))
        return self.packed(parts[:views])

    def _cut(self, scene: Scene, frame: Frame) -> Part:
        """A tile somewhere on the canvas; over some character or thing if there is one."""
        aims = [(mark.x, mark.y) for mark in scene.marks] or [thing.centre for thing in scene.things]
        x, y = frame.on_canvas(*self.rng.choice(aims))
        corner = []
        for centre, total in ((x, frame.canvas[0]), (y, frame.canvas[1])):
            start = round((centre - self.rng.uniform(0.15, 0.85) * SIDE_PX) / _STEP_PX) * _STEP_PX
            corner.append(max(0, min(start, total - SIDE_PX)))
        return Part(frame, (corner[0], corner[1], corner[0] + SIDE_PX, corner[1] + SIDE_PX), tiles=True)

    def packed(self, parts: list[tuple[Scene, Part]]) -> ViewBatch:
        pixels, places, captions, captioned = [], [], [], []
        asked: list[Asked] = []
        canvases: dict[tuple[int, bool], NDArray[np.uint8]] = {}
        for view, (scene, part) in enumerate(parts):
            key = (id(scene), part.tiles)
            if key not in canvases:
                canvases[key] = np.asarray(canvas_of(scene.image, part.frame))
            left, top, right, bottom = part.box
            pixels.append(canvases[key][top:bottom, left:right])
            places.append(places_of(part.frame, SIDE_PX, tiles=part.tiles, crop=part.box))
            asked.append(ask(scene, part, SIDE_PX))
            if not part.tiles and (scene.kind == "photo" or (scene.kind == "things" and len(counts_of(scene)) < 3)):
                captioned.append(view)
                captions.append(caption(scene, self.rng))
        return ViewBatch(
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(np.stack(places)),
            *self._words(asked),
            torch.tensor(captioned, dtype=torch.long),
            caption_ids(captions, self.tokenizer),
            caption_ids([self.stray() for _ in range(STRAYS_PER_STEP)], self.tokenizer),
        )

    def _words(self, asked: list[Asked]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows: list[tuple[int, int]] = []
        entries: list[tuple[int, int]] = []  # of rows and word tokens
        weights: list[float] = []
        shares: list[float] = []
        for view, of_view in enumerate(asked):
            for cell, (words, weight) in of_view.words.items():
                for token, share in self.words.shares(words):
                    entries.append((len(rows), token))
                    shares.append(share)
                rows.append((view, cell))
                weights.append(weight)
        return torch.tensor(rows), torch.tensor(weights), torch.tensor(entries), torch.tensor(shares)


def whole_view(scene: Scene) -> tuple[Scene, Part]:
    """A scene and the view of the whole of it."""
    return scene, Part(whole_frame(*scene.image.size, SIDE_PX), (0, 0, SIDE_PX, SIDE_PX), tiles=False)


class _Stream(IterableDataset[ViewBatch]):
    def __init__(self, batches: ViewBatches, seed: int) -> None:
        self._batches = batches
        self._seed = seed

    def __iter__(self) -> Iterator[ViewBatch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        self._batches.rng.seed(self._seed + WORKER_SEEDS * (worker.id if worker else 0))
        while True:
            yield self._batches.batch()


def stream(material: Material, tokenizer: Tokenizer, seed: int) -> Iterator[ViewBatch]:
    """Batches without end, drawn by processes of their own: one, or as many as a GPU needs."""
    dataset = _Stream(ViewBatches(material, tokenizer, seed), seed)
    workers = max(1, min(MAX_WORKERS, (os.cpu_count() or 1) - 2)) if torch.cuda.is_available() else 1
    return iter(
        DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=4, multiprocessing_context="fork")
    )
