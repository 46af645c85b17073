"""Loads what pictures are made of: the emoji in their styles, with line drawings, and the shop photographs."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from training.line_drawings import RGB, find_font, line_drawings, main_colours
from training.pictures import Material
from training.products import photographs
from training.scenes import Sprite
from training.sprites import load_sprites, styles

PHOTOGRAPH_PX = 224


def load_material(data: Path, seed: int, *, styled: bool = True) -> Material:
    """Raises FileNotFoundError naming a missing folder."""
    sprites = load_sprites(data)
    rng = random.Random(seed)
    others: dict[str, list[Sprite]] = {}
    for sprite in sprites if styled else ():
        others.setdefault(sprite.name, []).extend(styles(sprite, rng))
    if styled:
        colours: dict[str, list[RGB]] = {}
        for sprite in sprites:
            colours.setdefault(sprite.name, []).extend(main_colours(sprite.image))
        for drawing in line_drawings(find_font(), colours, rng):
            others[drawing.name].append(drawing)
    opened = []
    for photograph in photographs(data):
        image = Image.open(photograph.path).convert("RGB")
        image.thumbnail((PHOTOGRAPH_PX, PHOTOGRAPH_PX), Image.Resampling.BICUBIC)
        opened.append((photograph, image))
    return Material(tuple(sprites), others, tuple(opened))
