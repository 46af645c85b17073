"""The same things drawn by another hand: the line drawings of Symbola, from Debian's fonts-symbola, in colours.

They are trained on, so that a thing is known by more than the one style of Fluent's emoji; the style of the exam,
Noto's, stays unseen.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from training.fonts import folders
from training.scenes import Sprite
from training.sprites import SPRITE_PX, dominant_colour
from training.vocabulary import character_of, picture_names

FONT_NAME = "Symbola*.ttf"
_GLYPH_PX = 180
_MARGIN_PX = 12
_NOTHING = "\uffff"  # what the font draws where it has no glyph
RGB = tuple[int, int, int]

log = logging.getLogger(__name__)


def find_font(extra: str = "") -> Path | None:
    """The font, on the machine or in the folder ``extra`` (or in POCKET_FONTS)."""
    return next((path for folder in folders(extra) for path in sorted(folder.rglob(FONT_NAME))), None)


def line_drawings(font: Path | None, colours: dict[str, list[RGB]], rng: random.Random) -> list[Sprite]:
    """Things that the font draws, each in several colourings; ``colours`` are those that a thing has elsewhere, by its
    name. Empty without a font.
    """
    if font is None:
        log.warning("no %s: line drawings are left out; Debian's fonts-symbola brings them", FONT_NAME)
        return []
    face = ImageFont.truetype(str(font), _GLYPH_PX)
    absent = bytes(face.getmask(_NOTHING))
    found: list[Sprite] = []
    for unicode_name, name in sorted(picture_names().items()):
        character = character_of(unicode_name)
        if character is None or name not in colours or bytes(face.getmask(character)) == absent:
            continue
        lines = _drawn(face, character)
        if lines is not None:
            found += [Sprite(name, image, dominant_colour(image)) for image in _coloured(lines, colours[name], rng)]
    return found


def _drawn(face: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """The lines of a drawing as an L mask, as large as they are."""
    left, top, right, bottom = (int(side) for side in face.getbbox(character))
    if right - left < _GLYPH_PX // 4 or bottom - top < _GLYPH_PX // 4:
        return None
    mask = Image.new("L", (right - left + 2 * _MARGIN_PX, bottom - top + 2 * _MARGIN_PX))
    ImageDraw.Draw(mask).text((_MARGIN_PX - left, _MARGIN_PX - top), character, font=face, fill=255)
    return mask


def _coloured(lines: Image.Image, colours: list[RGB], rng: random.Random) -> list[Image.Image]:
    """Lines alone; filled with one of the thing's own colours; filled, with thick lines; filled with any."""
    outside = lines.point(lambda v: 255 if v > 100 else 0)
    ImageDraw.floodfill(outside, (0, 0), 128)
    inside = outside.point(lambda v: 0 if v == 128 else 255)  # the drawing with what it encloses
    thick = lines.filter(ImageFilter.MaxFilter(5))
    dark = (rng.randint(10, 60), rng.randint(10, 60), rng.randint(10, 60))
    some = (rng.randint(90, 255), rng.randint(90, 255), rng.randint(90, 255))
    return [
        _painted(lines, lines, dark, dark),
        _painted(lines, inside, dark, rng.choice(colours)),
        _painted(thick, inside, _darker(rng.choice(colours)), rng.choice(colours)),
        _painted(lines, inside, dark, some),
    ]


def _painted(lines: Image.Image, body: Image.Image, ink: RGB, fill: RGB) -> Image.Image:
    drawn = Image.new("RGBA", lines.size, (*fill, 0))
    drawn.putalpha(body)
    drawn.paste((*ink, 255), (0, 0), lines)
    box = body.getbbox()
    drawn = drawn.crop(box) if box else drawn
    drawn.thumbnail((SPRITE_PX, SPRITE_PX), Image.Resampling.LANCZOS)
    return drawn


def main_colours(image: Image.Image) -> list[RGB]:
    """The two colours that cover most of a thing."""
    visible = np.asarray(image.convert("RGBA").resize((32, 32), Image.Resampling.BICUBIC)).reshape(-1, 4)
    rgb = visible[visible[:, 3] > 128][:, :3]
    if len(rgb) == 0:
        return []
    few = Image.fromarray(rgb[None].astype(np.uint8), "RGB").quantize(4, Image.Quantize.MEDIANCUT)
    palette, counts = few.getpalette() or [], few.getcolors() or []
    often = sorted(counts, reverse=True)[:2]
    return [(palette[3 * at], palette[3 * at + 1], palette[3 * at + 2]) for _, at in often if isinstance(at, int)]


def _darker(colour: RGB) -> RGB:
    return (colour[0] // 3, colour[1] // 3, colour[2] // 3)
