"""A picture as the views that the vision encoder looks at: the whole of it, small, and tiles of it at high resolution.

Both are canvases on which the picture is fitted. The whole is one square tile. The second view is a grid of tiles
whose proportions follow the picture's, of at most ``TILES`` tiles' area, in steps of half a tile; the encoder is
convolutional, so the tiles are one canvas, and nothing is cut in two at their borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
TILES = 4
TOKENS_A_SIDE = 4  # visual tokens along the side of a tile
MAX_HALVES = 8  # along the longer side of a grid
ANCHORS = 8  # learnt positions along each side of the square that a picture is fitted in
N_PLACES = ANCHORS * ANCHORS + 2  # columns of a token's place: the anchors, then whether whole or tiles
FILL = (128, 128, 128)


@dataclass(frozen=True)
class Frame:
    """Where a picture of ``width`` × ``height`` pixels lies on a canvas of ``canvas`` (width, height) pixels."""

    width: int
    height: int
    canvas: tuple[int, int]

    @property
    def scale(self) -> float:
        """Canvas pixels for each pixel of the picture."""
        return min(self.canvas[0] / self.width, self.canvas[1] / self.height)

    @property
    def size(self) -> tuple[int, int]:
        """Of the picture on the canvas."""
        return max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))

    @property
    def corner(self) -> tuple[int, int]:
        """Left and top of the picture on the canvas."""
        return (self.canvas[0] - self.size[0]) // 2, (self.canvas[1] - self.size[1]) // 2

    def on_canvas(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture in pixels of the canvas."""
        return self.corner[0] + x * self.scale, self.corner[1] + y * self.scale

    def in_square(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Points of the canvas as shares (0..1) of the square that the picture is fitted in."""
        longer = max(self.width, self.height)
        across = ((x - self.corner[0]) / self.scale + (longer - self.width) / 2) / longer
        down = ((y - self.corner[1]) / self.scale + (longer - self.height) / 2) / longer
        return across.astype(np.float32), down.astype(np.float32)


@dataclass(frozen=True)
class View:
    """``pixels`` (3, height, width); ``places`` (n_tokens, N_PLACES) says where each of its visual tokens stands."""

    pixels: Array
    places: Array


@lru_cache(maxsize=1024)
def grid_halves(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of half tiles for a picture: the grid that shows it largest, and of those the smallest."""
    best = (2, 2)
    best_scale = 0.0
    for columns in range(2, MAX_HALVES + 1):
        for rows in range(2, MAX_HALVES + 1):
            scale = min(columns / width, rows / height)
            fewer = columns * rows < best[0] * best[1]
            larger = scale > best_scale * 1.001
            if columns * rows <= 4 * TILES and (larger or (fewer and scale > best_scale * 0.999)):
                best, best_scale = (columns, rows), scale
    return best


def tile_frame(width: int, height: int, side_px: int) -> Frame:
    columns, rows = grid_halves(width, height)
    return Frame(width, height, (columns * side_px // 2, rows * side_px // 2))


def whole_frame(width: int, height: int, side_px: int) -> Frame:
    return Frame(width, height, (side_px, side_px))


def n_tokens(width: int, height: int) -> int:
    """Visual tokens of a picture's views together."""
    columns, rows = grid_halves(width, height)
    return TOKENS_A_SIDE**2 + columns * rows * (TOKENS_A_SIDE // 2) ** 2


def canvas_of(image: Image.Image, frame: Frame) -> Image.Image:
    """The picture fitted on the frame's canvas, grey around it."""
    rgb = image.convert("RGB")
    if rgb.size != frame.size:
        rgb = rgb.resize(frame.size, Image.Resampling.BICUBIC)
    if frame.size == frame.canvas:
        return rgb
    canvas = Image.new("RGB", frame.canvas, FILL)
    canvas.paste(rgb, frame.corner)
    return canvas


def pixels_of(canvas: Image.Image) -> Array:
    """Normalised, shape (3, height, width)."""
    return (np.asarray(canvas, dtype=np.float32).transpose(2, 0, 1) - 128.0) / 64.0


def places_of(frame: Frame, side_px: int, *, tiles: bool, crop: tuple[int, int, int, int] | None = None) -> Array:
    """Places of a canvas's tokens, row by row; with ``crop`` (left, top, right, bottom) only of that part.

    A place is a weight for each anchor, by bilinear interpolation, and a mark for the kind of view.
    """
    left, top, right, bottom = crop or (0, 0, *frame.canvas)
    step = side_px / TOKENS_A_SIDE
    xs = left + (np.arange(round((right - left) / step)) + 0.5) * step
    ys = top + (np.arange(round((bottom - top) / step)) + 0.5) * step
    across, down = frame.in_square(np.tile(xs, len(ys)), np.repeat(ys, len(xs)))
    weights = anchor_weights(across, down)
    kind = np.tile(np.array([0.0, 1.0] if tiles else [1.0, 0.0], dtype=np.float32), (len(across), 1))
    return np.concatenate((weights, kind), axis=1).astype(np.float32)


def anchor_weights(across: Array, down: Array) -> Array:
    """(n,) shares of the square that a picture is fitted in → (n, ANCHORS²) weights of the anchors around."""
    return (hats(down, ANCHORS)[:, :, None] * hats(across, ANCHORS)[:, None, :]).reshape(len(across), -1)


def hats(shares: Array, n: int) -> Array:
    """(…) shares of a side → (…, n) weights of the two nearest of ``n`` points along it, by linear interpolation."""
    at = np.clip(shares * n - 0.5, 0, n - 1)[..., None]
    weights: Array = np.maximum(0.0, 1.0 - np.abs(at - np.arange(n)))
    return weights


def token_grid(frame: Frame, side_px: int) -> tuple[int, int]:
    """Rows and columns of the visual tokens on the frame's canvas."""
    return frame.canvas[1] * TOKENS_A_SIDE // side_px, frame.canvas[0] * TOKENS_A_SIDE // side_px


def whole(image: Image.Image, side_px: int) -> View:
    """The whole picture on one tile."""
    frame = whole_frame(image.width, image.height, side_px)
    return View(pixels_of(canvas_of(image, frame)), places_of(frame, side_px, tiles=False))


def views(image: Image.Image, side_px: int) -> tuple[View, View]:
    """The whole picture, and its tiles."""
    frame = tile_frame(image.width, image.height, side_px)
    tiles = View(pixels_of(canvas_of(image, frame)), places_of(frame, side_px, tiles=True))
    return whole(image, side_px), tiles
