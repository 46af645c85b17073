"""Crops of print for the stage "letters": words in many fonts, and which characters lie on which cell of the map.

Sheets are drawn ahead, a few new ones for every batch; what a batch gets is cut out of them at any place and size, a
little aslant, in two colours.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.print_cells import CELL_PX, CELL_SLOTS, CHARACTERS
from training.fonts import face
from training.printing import LIGHTNESS, MIN_CONTRAST, Printer

CROP_PX = 64
SHEET_PX = 128
MAX_CHARACTERS = 72  # of a sheet that are known; what is printed behind them is cut off
POOL = 3000
N_MARK = 6  # x, y, index, line, whether a word begins, size
RENEWED = 3  # sheets a batch
SIZES_PX = (9, 10, 12, 14, 16, 18, 21, 24, 28, 34, 40, 48, 58, 70)  # drawn more often the larger: fewer characters fit
SCALE = 0.3  # natural logarithm of the most that a sheet is enlarged or reduced by
TURN_DEGREES = 5.0
UNKNOWN = 0
IGNORED = -100  # of a cell that is not clear
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PrintedCells:
    """What is printed on the cells of crops, from left to right, all of shape (crops, cells, CELL_SLOTS): indices of
    ``SAID`` from 1 on, 0 for none, ``IGNORED`` where it is not clear; 1 where a word begins; sizes of fonts in pixels;
    how far down its cell a bar ends (0 to 1).
    """

    characters: Tensor
    begins: Tensor
    sizes: Tensor
    ends: Tensor


class PrintCrops:
    """Draws crops of print, all of it ``enlarged`` so many times. One seed, one sequence."""

    def __init__(self, printer: Printer, seed: int, pool: int = POOL, *, enlarged: int = 1) -> None:
        self._printer = printer
        self._crop_px, self._sheet_px = enlarged * CROP_PX, enlarged * SHEET_PX
        self._sizes_px = [enlarged * size for size in SIZES_PX]
        self._rng = random.Random(seed)
        self._random = np.random.default_rng(seed)
        self._masks = np.zeros((pool, self._sheet_px, self._sheet_px), np.uint8)
        self._marks = np.zeros((pool, MAX_CHARACTERS, N_MARK), np.float32)
        for at in range(pool):
            self._masks[at], self._marks[at] = self._sheet()

    def batch(self, crops: int) -> tuple[Tensor, PrintedCells]:
        """Pixels (crops, 3, side, side), 0 to 255, and what is printed on them."""
        for at in self._random.integers(len(self._masks), size=RENEWED):
            self._masks[at], self._marks[at] = self._sheet()
        chosen = self._random.integers(len(self._masks), size=crops)
        scales = np.exp(self._random.uniform(-SCALE, SCALE, crops)).astype(np.float32)
        turns = np.deg2rad(self._random.uniform(-TURN_DEGREES, TURN_DEGREES, crops)).astype(np.float32)
        margin = self._crop_px / 2 / scales
        middles = self._random.uniform(margin, self._sheet_px - margin, (2, crops)).T.astype(np.float32)
        ink = self._cut(self._masks[chosen], middles, scales, turns)
        return self._coloured(ink), by_cell(self._marks[chosen], middles, scales, turns, self._crop_px)

    def _sheet(self) -> tuple[NDArray[np.uint8], Floats]:
        """The ink of a sheet in one font and size, and its marks."""
        rng, printer = self._rng, self._printer
        path, size = printer.font().path, rng.choices(self._sizes_px, SIZES_PX)[0]
        font = face(path, size)
        ascent, descent = font.getmetrics()
        sheet = Image.new("L", (self._sheet_px, self._sheet_px))
        pen = ImageDraw.Draw(sheet)
        marks: list[tuple[float, ...]] = []
        top, line = rng.uniform(-4, (ascent + descent) / 2), 0
        while top < self._sheet_px - 0.4 * size and len(marks) < MAX_CHARACTERS:
            text = self._text(size)
            left = rng.uniform(-size, size)
            for at, character in enumerate(text):
                if left > self._sheet_px or len(marks) == MAX_CHARACTERS:
                    text = text[:at]
                    break
                width = _advance(path, size, character)
                if character != " ":
                    begins = at == 0 or text[at - 1] == " "
                    index = CHARACTERS.find(character) + 1
                    x, y = _middle(path, size, character)
                    marks.append((left + x, top + y, index, line, begins, size))
                left += width
            pen.text((left - sum(_advance(path, size, c) for c in text), top), text, fill=255, font=font)
            top += (ascent + descent) * rng.uniform(0.95, 1.6)
            line += 1
        known = np.full((MAX_CHARACTERS, N_MARK), -1e4, np.float32)
        known[: len(marks)] = np.array(marks).reshape(-1, N_MARK)  # a sheet of spaces has none
        return np.asarray(sheet), known

    def _text(self, size_px: int) -> str:
        if self._rng.random() < 0.3:
            return "".join(self._rng.choices(CHARACTERS[:62], k=1 + int(1.6 * self._sheet_px / size_px)))
        return " ".join(self._printer.word() for _ in range(1 + self._sheet_px // max(8, 4 * size_px)))

    def _cut(self, masks: NDArray[np.uint8], middles: Floats, scales: Floats, turns: Floats) -> Tensor:
        n, half = len(masks), self._sheet_px / 2
        share = self._crop_px / self._sheet_px / scales
        to_sheet = np.zeros((n, 2, 3), np.float32)
        to_sheet[:, 0, 0], to_sheet[:, 0, 1] = np.cos(turns) * share, -np.sin(turns) * share
        to_sheet[:, 1, 0], to_sheet[:, 1, 1] = np.sin(turns) * share, np.cos(turns) * share
        to_sheet[:, :, 2] = middles / half - 1
        grid = F.affine_grid(torch.from_numpy(to_sheet), [n, 1, self._crop_px, self._crop_px], align_corners=False)
        ink = torch.from_numpy(masks)[:, None].float() / 255
        return F.grid_sample(ink, grid, align_corners=False)

    def _coloured(self, ink: Tensor) -> Tensor:
        """Ink on a ground of another lightness, half of it black or white, some of it noisy."""
        n = len(ink)
        grounds, inks = (
            torch.from_numpy(self._random.uniform(0, 255, (n, 3, 1, 1)).astype(np.float32)) for _ in range(2)
        )
        dark = _lightness(grounds) <= 128
        plain = torch.from_numpy(self._random.random((n, 1, 1, 1)) < 0.5)
        plain |= (_lightness(grounds) - _lightness(inks)).abs() < MIN_CONTRAST
        inks = torch.where(plain, torch.where(dark, 245.0, 20.0), inks)
        loudness = self._random.uniform(0, 12, (n, 1, 1, 1)) * (self._random.random((n, 1, 1, 1)) < 0.3)
        noise = self._random.standard_normal((n, 3, self._crop_px, self._crop_px), np.float32) * loudness.astype(
            np.float32
        )
        return (grounds * (1 - ink) + inks * ink + torch.from_numpy(noise)).clamp(0, 255)


@functools.cache
def _middle(path: Path, size_px: int, character: str) -> tuple[float, float]:
    """Of the ink, from where the character begins: what can be seen of where it is, unlike its line or its advance."""
    left, top, right, bottom = face(path, size_px).getbbox(character)
    return (left + right) / 2, (top + bottom) / 2


@functools.cache
def _advance(path: Path, size_px: int, character: str) -> float:
    return face(path, size_px).getlength(character)


def _lightness(rgb: Tensor) -> Tensor:
    return (rgb * torch.tensor(LIGHTNESS).view(1, 3, 1, 1)).sum(1, keepdim=True)


def by_cell(marks: Floats, middles: Floats, scales: Floats, turns: Floats, crop_px: int) -> PrintedCells:
    """Cells with parts of two lines or too many characters are not clear."""
    n, side = len(marks), crop_px // CELL_PX
    dx, dy = marks[:, :, 0] - middles[:, :1], marks[:, :, 1] - middles[:, 1:]
    cos, sin, scale = np.cos(turns)[:, None], np.sin(turns)[:, None], scales[:, None]
    across = (cos * dx + sin * dy) * scale + crop_px / 2
    down = (cos * dy - sin * dx) * scale + crop_px / 2
    crop, at = np.nonzero((across >= 0) & (across < crop_px) & (down >= 0) & (down < crop_px))
    x, y = across[crop, at], down[crop, at]
    cells = (crop * side + (y // CELL_PX).astype(np.int64)) * side + (x // CELL_PX).astype(np.int64)
    order = np.lexsort((x, cells))
    cells, found, lines = cells[order], marks[crop, at, 2][order].astype(np.int64), marks[crop, at, 3][order]
    first_of_word, sizes_px = marks[crop, at, 4][order], (marks[:, :, 5] * scale)[crop, at][order]
    begins = np.r_[True, cells[1:] != cells[:-1]][: len(cells)]
    rank = np.arange(len(cells)) - np.maximum.accumulate(np.where(begins, np.arange(len(cells)), 0))
    counts = np.bincount(cells, minlength=n * side * side)
    characters = np.zeros((n * side * side, CELL_SLOTS), np.int64)
    fits = rank < CELL_SLOTS
    characters[cells[fits], rank[fits]] = found[fits]
    words = np.zeros((n * side * side, CELL_SLOTS), np.float32)
    words[cells[fits], rank[fits]] = first_of_word[fits]
    sizes = np.ones((n * side * side, CELL_SLOTS), np.float32)
    sizes[cells[fits], rank[fits]] = sizes_px[fits]
    ends = np.zeros((n * side * side, CELL_SLOTS), np.float32)
    ends[cells[fits], rank[fits]] = (y[order] / CELL_PX % 1)[fits]
    other_line = np.r_[False, (lines[1:] != lines[:-1]) & ~begins[1:]][: len(cells)]
    unclear = (counts > CELL_SLOTS) | np.isin(np.arange(len(counts)), cells[other_line | (found == UNKNOWN)])
    characters[unclear] = IGNORED
    parts = (torch.from_numpy(part.reshape(n, side * side, CELL_SLOTS)) for part in (characters, words, sizes, ends))
    return PrintedCells(*parts)
