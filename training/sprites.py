"""The things that pictures are composed of: emoji cut out, in several styles, and coloured shapes."""

from __future__ import annotations

import colorsys
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from training.scenes import Sprite
from training.vocabulary import picture_names

SPRITE_PX = 128
DOMINANT_SHARE = 0.55  # of the visible pixels, for a thing to have "its" colour


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
        if unicode_name in everyday and path.is_file():
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


def flattened(image: Image.Image, colours: int) -> Image.Image:
    """The thing in a few flat colours, as a printer or another artist's hand has it."""
    rgb = image.convert("RGB").filter(ImageFilter.MedianFilter(5))
    flat = rgb.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    flat.putalpha(image.getchannel("A"))
    return flat


def shifted(image: Image.Image, rng: random.Random) -> Image.Image:
    """The thing with other hues, more or less saturated."""
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    turn = rng.choice((-1, 1)) * rng.randint(12, 60)
    hue = hue.point(lambda h: (h + turn) % 256)
    rgb = ImageEnhance.Color(Image.merge("HSV", (hue, saturation, value)).convert("RGB")).enhance(rng.uniform(0.5, 1.4))
    rgb.putalpha(image.getchannel("A"))
    return rgb


def outlined(image: Image.Image) -> Image.Image:
    """The thing with a dark line around it and around what stands out in it."""
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 if v > 60 else 0)
    around = image.getchannel("A").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 if v > 60 else 0)
    drawn = image.copy()
    for lines in (edges, around.filter(ImageFilter.MaxFilter(3))):
        drawn.paste((40, 36, 34, 255), (0, 0), lines)
    return drawn


def styles(sprite: Sprite, rng: random.Random) -> list[Sprite]:
    """The thing as other hands would have drawn it, to prepare for styles that are never trained on."""
    drawn = [flattened(sprite.image, 4), flattened(sprite.image, 8), shifted(sprite.image, rng)]
    drawn += [flattened(shifted(sprite.image, rng), 6), outlined(drawn[1])]
    return [Sprite(sprite.name, image, dominant_colour(image)) for image in drawn]
