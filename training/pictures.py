"""Draws the pictures of the pocket world: emoji and coloured shapes on plain backgrounds, with what is true of them."""

from __future__ import annotations

import colorsys
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.vocabulary import DRAWN, MASS, PLURAL_ONLY, picture_names
from training.world import COLOURS, PLACES, SHAPES

SPRITE_PX = 128
SHAPE_SHARE = 0.35  # of the things drawn: outlines without any texture are learnt more slowly than emoji
DOMINANT_SHARE = 0.55  # of the visible pixels, for a thing to have "its" colour
BACKGROUND_NAMES = (
    "white",
    "white",
    "white",
    "grey",
    "black",
    "yellow",
    "blue",
    "green",
    "red",
    "pink",
    "orange",
    "purple",
)


@dataclass(frozen=True)
class Sprite:
    """A thing cut out: ``image`` is RGBA, cropped to what is visible; ``colour`` None when no colour dominates."""

    name: str
    image: Image.Image
    colour: str | None


@dataclass(frozen=True)
class Thing:
    """One thing in a scene; ``cell`` is (column, row) of the 3×3 grid its centre lies in.

    ``centre`` and ``size`` (width, height) are shares of the square that the vision encoder sees.
    """

    name: str
    colour: str | None
    cell: tuple[int, int]
    centre: tuple[float, float] = (0.5, 0.5)
    size: tuple[float, float] = (0.3, 0.3)


@dataclass(frozen=True)
class Scene:
    """A picture and what is true of it. All copies of a counted thing are listed."""

    image: Image.Image
    things: tuple[Thing, ...]
    background: str | None


def nearest_colour(red: int, green: int, blue: int) -> str:
    """The everyday colour name of one pixel (0..255 each)."""
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    degrees = hue * 360
    if value < 0.26 or (value < 0.42 and saturation < 0.38):
        return "black"
    if saturation < 0.16:
        return "white" if value > 0.82 else "grey"
    if degrees < 16 or degrees >= 338:
        if saturation < 0.56 and value > 0.74:
            return "pink"
        return "brown" if value < 0.5 or (value < 0.72 and saturation < 0.72) else "red"
    if degrees < 36:
        return "brown" if value < 0.78 or saturation < 0.66 else "orange"
    for limit, name in ((68, "yellow"), (168, "green"), (252, "blue"), (300, "purple")):
        if degrees < limit:
            return name
    return "pink"


def dominant_colour(sprite: Image.Image) -> str | None:
    """The colour of at least ``DOMINANT_SHARE`` of the visible pixels, or None."""
    small = np.asarray(sprite.resize((32, 32), Image.Resampling.BICUBIC))
    visible = small[small[..., 3] > 128][:, :3]
    if len(visible) == 0:
        return None
    names, counts = np.unique([nearest_colour(*map(int, pixel)) for pixel in visible], return_counts=True)
    best = int(counts.argmax())
    return str(names[best]) if counts[best] >= DOMINANT_SHARE * len(visible) else None


def load_sprites(data: Path) -> list[Sprite]:
    """Cuts every named emoji out of ``data/fluent-emoji``. Raises FileNotFoundError naming the missing folder."""
    folder = data / "fluent-emoji"
    if not (folder / "names.json").is_file():
        raise FileNotFoundError(f"no emoji pictures in {folder}: give the folder that has fluent-emoji/ with --data")
    everyday = picture_names()
    sprites = []
    for code, unicode_name in sorted(json.loads((folder / "names.json").read_text()).items()):
        path = folder / f"{code}.webp"
        if everyday.get(unicode_name) in DRAWN and path.is_file():
            image = Image.open(path).convert("RGBA")
            image = image.crop(image.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox())
            sprites.append(Sprite(everyday[unicode_name], image, dominant_colour(image)))
    return sprites


def _polygon(points: list[tuple[float, float]]) -> Callable[[ImageDraw.ImageDraw, int], None]:
    return lambda draw, side: draw.polygon([(x * side, y * side) for x, y in points], fill=255)


def _regular(corners: int, inner: float = 1.0) -> list[tuple[float, float]]:
    count = corners if inner == 1.0 else 2 * corners
    angles = [2 * np.pi * i / count - np.pi / 2 for i in range(count)]
    radii = [0.5 if i % 2 == 0 else 0.5 * inner for i in range(count)]
    if inner == 1.0:
        radii = [0.5] * count
    return [(float(0.5 + r * np.cos(a)), float(0.5 + r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(float(0.5 + a / 34), float(0.46 - b / 34)) for a, b in zip(x, y, strict=True)]


_CROSS = [(0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65), (0.65, 1), (0.35, 1), (0.35, 0.65)]
_DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "circle": lambda draw, side: draw.ellipse((0, 0, side - 1, side - 1), fill=255),
    "square": lambda draw, side: draw.rectangle((0, 0, side, side), fill=255),
    "rectangle": lambda draw, side: draw.rectangle((0, int(side * 0.24), side, int(side * 0.76)), fill=255),
    "triangle": _polygon([(0.5, 0.04), (1, 0.94), (0, 0.94)]),
    "star": _polygon(_regular(5, 0.42)),
    "heart": _polygon(_heart()),
    "cross": _polygon([*_CROSS, (0, 0.65), (0, 0.35), (0.35, 0.35)]),
    "diamond": _polygon([(0.5, 0), (0.86, 0.5), (0.5, 1), (0.14, 0.5)]),
    "hexagon": _polygon(_regular(6)),
}


def shape_mask(shape: str, side: int = 4 * SPRITE_PX) -> Image.Image:
    """The outline of a shape as an L mask of ``SPRITE_PX`` pixels a side, antialiased."""
    mask = Image.new("L", (side, side), 0)
    _DRAWINGS[shape](ImageDraw.Draw(mask), side)
    return mask.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.LANCZOS)


def is_held_out(name: str, background: str | None, arrangement: str) -> bool:
    """Whether this composition is kept for evaluation (one in eight, by hash; training never draws it)."""
    return zlib.crc32(f"{name}|{background}|{arrangement}".encode()) % 8 == 0


class Painter:
    """Draws random scenes, either only trained compositions or only held-out ones."""

    def __init__(self, sprites: list[Sprite], rng: random.Random, *, held_out: bool = False, side_px: int = 96) -> None:
        self.rng = rng
        self.held_out = held_out
        self.side_px = side_px
        self._by_name: dict[str, list[Sprite]] = {}
        for sprite in sprites:
            self._by_name.setdefault(sprite.name, []).append(sprite)
        self.names = sorted(self._by_name)
        self.coloured = sorted({s.name for s in sprites if s.colour})
        self._masks = {shape: shape_mask(shape) for shape in SHAPES}

    def sprite(self, *, shape_share: float = SHAPE_SHARE, coloured: bool = False) -> Sprite:
        """A random thing: a name first, so that names with many pictures are not seen more often."""
        rng = self.rng
        if rng.random() < shape_share:
            return self._shape(rng.choice(SHAPES), rng.choice(tuple(COLOURS)))
        if coloured:
            return rng.choice(
                [s for s in self._by_name[rng.choice(self.coloured)] if s.colour] or [self._shape("circle", "red")]
            )
        return rng.choice(self._by_name[rng.choice(self.names)])

    def _shape(self, shape: str, colour: str) -> Sprite:
        rgb = [max(0, min(255, c + self.rng.randint(-22, 22))) for c in COLOURS[colour]]
        image = Image.new("RGBA", (SPRITE_PX, SPRITE_PX), (rgb[0], rgb[1], rgb[2], 255))
        image.putalpha(self._masks[shape])
        return Sprite(shape, image, colour)

    def single(self, *, sprite: Sprite | None = None, middle: float = 0.4) -> Scene:
        """One thing somewhere; ``middle`` is the share of centred ones."""
        rng = self.rng
        for _ in range(200):
            chosen = sprite or self.sprite()
            cell = (1, 1) if rng.random() < middle else rng.choice([c for c in PLACES if c != (1, 1)])
            background = self._background_name(chosen.colour)
            if is_held_out(chosen.name, background, PLACES[cell]) == self.held_out:
                break
        size = rng.uniform(0.42, 0.94) if cell == (1, 1) else rng.uniform(0.32, 0.48)
        return self._scene([(chosen, cell, size)], background)

    def counted(self, number: int, *, sprite: Sprite | None = None) -> Scene:
        """``number`` copies of one countable thing in different cells."""
        rng = self.rng
        for _ in range(200):
            chosen = sprite or self.sprite()
            background = self._background_name(chosen.colour)
            countable = chosen.name not in MASS | PLURAL_ONLY
            if countable and is_held_out(chosen.name, background, str(number)) == self.held_out:
                break
        cells = rng.sample(list(PLACES), number)
        size = rng.uniform(0.26, 0.36)
        return self._scene([(chosen, cell, size) for cell in cells], background)

    def pair(self) -> Scene:
        """Two different things, left and right of each other or one above the other."""
        rng = self.rng
        for _ in range(200):
            first, second = self.sprite(), self.sprite()
            background = self._background_name(first.colour, second.colour)
            if first.name != second.name and is_held_out(first.name, background, second.name) == self.held_out:
                break
        cells = ((0, 1), (2, 1)) if rng.random() < 0.7 else ((1, 0), (1, 2))
        size = rng.uniform(0.32, 0.48)
        return self._scene([(first, cells[0], size), (second, cells[1], size)], background)

    def _background_name(self, *avoid: str | None) -> str:
        return self.rng.choice([name for name in BACKGROUND_NAMES if name not in avoid])

    def _scene(self, placed: list[tuple[Sprite, tuple[int, int], float]], background: str) -> Scene:
        rng = self.rng
        width = height = self.side_px
        if rng.random() < 0.35:  # other aspect ratios, as people's pictures have
            narrow = int(self.side_px * rng.uniform(0.56, 0.95))
            width, height = (width, narrow) if rng.random() < 0.6 else (narrow, height)
        canvas = self._paint_background(width, height, background)
        things = []
        for sprite, cell, size in placed:
            left, top, drawn_width, drawn_height = self._paste(canvas, sprite, cell, size)
            side = max(canvas.size)
            x = left + drawn_width / 2 + (side - canvas.width) / 2
            y = top + drawn_height / 2 + (side - canvas.height) / 2
            extent = (drawn_width / side, drawn_height / side)
            things.append(Thing(sprite.name, sprite.colour, cell, (x / side, y / side), extent))
        return Scene(canvas, tuple(things), background)

    def _paint_background(self, width: int, height: int, background: str) -> Image.Image:
        rng = self.rng
        jitter = 8 if background == "white" else 20
        base = np.array([c + rng.uniform(-jitter, jitter) for c in COLOURS[background]], dtype=np.float32)
        pixels: NDArray[np.float32] = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
        if rng.random() < 0.3:  # a slight gradient, as a photographed sheet of paper has
            slope = np.linspace(-1, 1, width if rng.random() < 0.5 else height, dtype=np.float32) * rng.uniform(3, 14)
            pixels = pixels + (slope[None, :, None] if len(slope) == width else slope[:, None, None])
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    def _paste(
        self, canvas: Image.Image, sprite: Sprite, cell: tuple[int, int], size: float
    ) -> tuple[int, int, int, int]:
        """Draws the thing; (left, top, width, height) of where it lies, in pixels."""
        rng = self.rng
        image = sprite.image
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = size * min(canvas.size) / max(image.size)
        image = image.resize(
            (max(4, round(image.width * scale)), max(4, round(image.height * scale))), Image.Resampling.BICUBIC
        )
        if rng.random() < 0.5:
            image = image.rotate(rng.uniform(-18, 18), Image.Resampling.BICUBIC, expand=True)
        corner = []
        for index, extent, total in ((cell[0], image.width, canvas.width), (cell[1], image.height, canvas.height)):
            centre = (index + 0.5 + rng.uniform(-0.2, 0.2)) / 3 * total
            corner.append(round(min(max(centre - extent / 2, 1), max(1, total - extent - 1))))
        canvas.paste(image, (corner[0], corner[1]), image)
        return corner[0], corner[1], image.width, image.height
