"""Draws the pictures of the pocket world: things, photographs, words and charts, with what is true of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from training.backgrounds import BACKGROUND_NAMES, paint, textured, worn
from training.charts import LISTED_SHARE, TAUGHT_LISTED_SHARE, draw_chart
from training.printing import Printer, contrasting
from training.products import Photograph, Product
from training.scenes import Box, Mark, Scene, Sprite, Thing
from training.sprites import SPRITE_PX, is_held_out, shape_mask
from training.vocabulary import MASS, PLURAL_ONLY
from training.world import COLOURS, PLACES, SHAPES

SHAPE_SHARE = 0.3  # of the things drawn: outlines without any texture are learnt more slowly than emoji
STYLED_SHARE = 0.4  # of the emoji in training come in another style
COLLAGE_SHAPE_SHARE = 0.12
SHEET_SIZES_PX = (11, 13, 15, 17, 20, 24, 28, 34, 40, 48)  # mostly as large as one word fills a picture
TEXTURED_SHARE = 0.18
MAX_COUNT = 6
Placed = tuple[Sprite, tuple[int, int], float]


@dataclass(frozen=True)
class Material:
    """What pictures are made of. ``styled`` has each sprite's name → the thing in other styles."""

    sprites: tuple[Sprite, ...]
    styled: dict[str, list[Sprite]]
    photographs: tuple[tuple[Photograph, Image.Image], ...] = ()


def row_by_row(placed: list[Placed]) -> list[Placed]:
    """In the order in which an answer names them."""
    return sorted(placed, key=lambda one: one[1][::-1])


def _middle(cell: tuple[int, int]) -> tuple[float, float]:
    return (cell[0] + 0.5) / 3, (cell[1] + 0.5) / 3


class Painter:
    """Draws random scenes, either only trained compositions or only held-out ones.

    ``side_px`` is the longer side of a square picture; others have about as many pixels. Pictures for evaluation are
    drawn clean, in the emoji's own style.
    """

    def __init__(
        self,
        material: Material,
        rng: random.Random,
        printer: Printer | None = None,
        *,
        held_out: bool = False,
        side_px: int = 192,
    ) -> None:
        self.rng = rng
        self.printer = printer
        self.held_out = held_out
        self.side_px = side_px
        self._material = material
        self._by_name: dict[str, list[Sprite]] = {}
        for sprite in material.sprites:
            self._by_name.setdefault(sprite.name, []).append(sprite)
        self.names = sorted(self._by_name)
        self._coloured_names = sorted({s.name for s in material.sprites if s.colour})
        self._masks = {shape: shape_mask(shape) for shape in SHAPES}
        self._photographs: dict[Product, list[tuple[Photograph, Image.Image]]] = {}
        for photograph, image in material.photographs:
            if photograph.held_out == held_out:
                self._photographs.setdefault(photograph.product, []).append((photograph, image))
        self.products = sorted(self._photographs, key=lambda product: product.name)

    def sprite(self, *, shape_share: float = SHAPE_SHARE, coloured: bool = False) -> Sprite:
        """A random thing: a name first, so that names with many pictures are not seen more often."""
        rng = self.rng
        if rng.random() < shape_share or not self.names:
            return self.shape(rng.choice(SHAPES), rng.choice(tuple(COLOURS)))
        name = rng.choice(self._coloured_names if coloured and self._coloured_names else self.names)
        pool = self._by_name[name]
        if not self.held_out and rng.random() < STYLED_SHARE:
            pool = self._material.styled.get(name, pool)
        return rng.choice([s for s in pool if s.colour] or pool) if coloured else rng.choice(pool)

    def shape(self, shape: str, colour: str) -> Sprite:
        rgb = [max(0, min(255, c + self.rng.randint(-22, 22))) for c in COLOURS[colour]]
        image = Image.new("RGBA", (SPRITE_PX, SPRITE_PX), (rgb[0], rgb[1], rgb[2], 255))
        image.putalpha(self._masks[shape])
        return Sprite(shape, image, colour)

    def single(
        self, *, sprite: Sprite | None = None, middle: float = 0.4, ground: str | None = None, size: float = 0.0
    ) -> Scene:
        """One thing somewhere; ``middle`` is the share of centred ones; ``ground`` the background, if it is given, and
        ``size`` the thing's share of the shorter side.
        """
        rng = self.rng
        for _ in range(200):
            chosen = sprite or self.sprite()
            cell = (1, 1) if rng.random() < middle else rng.choice([c for c in PLACES if c != (1, 1)])
            background = ground or self.ground(chosen.colour)
            if is_held_out(chosen.name, background, PLACES[cell]) == self.held_out:
                break
        size = size or (rng.uniform(0.42, 0.94) if cell == (1, 1) else rng.uniform(0.3, 0.48))
        return self._scene([(chosen, cell, size)], background, plain=ground is not None)

    def coloured(self) -> Scene:
        """One thing that has a colour of its own."""
        return self.single(sprite=self.sprite(coloured=True))

    def counted(self, number: int, *, sprite: Sprite | None = None) -> Scene:
        """``number`` copies of one countable thing in different cells."""
        rng = self.rng
        for _ in range(200):
            chosen = sprite or self.sprite()
            background = self.ground(chosen.colour)
            countable = chosen.name not in MASS | PLURAL_ONLY
            if countable and is_held_out(chosen.name, background, str(number)) == self.held_out:
                break
        cells = rng.sample(list(PLACES), number)
        size = rng.uniform(0.2, 0.36)
        return self._scene([(chosen, cell, size) for cell in cells], background)

    def pair(self) -> Scene:
        """Two different things, beside each other or one above the other; often of clearly different sizes."""
        first, second, background = self._two_names()
        cells = ((0, 1), (2, 1)) if self.rng.random() < 0.7 else ((1, 0), (1, 2))
        sizes = [self.rng.uniform(0.32, 0.48)] * 2
        if self.rng.random() < 0.6:
            sizes = [self.rng.uniform(0.16, 0.26), self.rng.uniform(0.38, 0.5)]
            self.rng.shuffle(sizes)
        return self._scene([(first, cells[0], sizes[0]), (second, cells[1], sizes[1])], background)

    def groups(self) -> Scene:
        """Two things, each one to four times, at most six together: which there are more of can be asked."""
        first, second, background = self._two_names(countable=True)
        counts = (0, 0)
        while counts[0] == counts[1] or sum(counts) > MAX_COUNT:
            counts = (self.rng.randint(1, 4), self.rng.randint(1, 4))
        cells = self.rng.sample(list(PLACES), sum(counts))
        size = self.rng.uniform(0.2, 0.33)
        kinds = [first] * counts[0] + [second] * counts[1]
        return self._scene([(kind, cell, size) for kind, cell in zip(kinds, cells, strict=True)], background)

    def crowd(self) -> Scene:
        """Three to six things, three different ones at least, each in a cell of its own."""
        rng = self.rng
        number = rng.randint(3, MAX_COUNT)
        chosen: list[Sprite] = []
        background = self.ground()
        while len(chosen) < number:
            countable = [sprite for sprite in chosen if sprite.name not in MASS | PLURAL_ONLY]
            if len(chosen) >= 3 and countable and rng.random() < 0.6:
                chosen.append(rng.choice(countable))
                continue
            sprite = self.sprite()
            if sprite.colour != background and sprite.name not in {other.name for other in chosen}:
                chosen.append(sprite)
        cells = rng.sample(list(PLACES), number)
        return self._scene(
            [(s, cell, rng.uniform(0.18, 0.34)) for s, cell in zip(chosen, cells, strict=True)], background
        )

    def collage(self) -> Scene:
        """A sheet of four to nine different things: as much to learn from as that many pictures."""
        rng = self.rng
        columns, rows = rng.choice(((2, 2), (2, 2), (3, 2), (2, 3), (3, 3)))
        width, height = self.side_px, self.side_px
        background = self.ground()
        plain = rng.random() >= TEXTURED_SHARE
        canvas = (
            paint(rng, width, height, background) if plain else textured(rng, width, height, self._any_photograph())
        )
        things: list[Thing] = []
        for place in range(columns * rows):
            sprite = self.sprite(shape_share=COLLAGE_SHAPE_SHARE)
            middle = ((place % columns + 0.5) / columns, (place // columns + 0.5) / rows)
            size = rng.uniform(0.6, 1.0) / max(columns, rows)
            if sprite.name not in {thing.name for thing in things} and (not plain or sprite.colour != background):
                cell = (min(2, int(3 * middle[0])), min(2, int(3 * middle[1])))
                box = self._paste(canvas, sprite, middle, size, shift=0.06)
                things.append(Thing(sprite.name, sprite.colour, cell, box))
        if not things:
            return self.collage()
        return self._finished(Scene(canvas, tuple(things), background if plain else None))

    def _two_names(self, *, countable: bool = False) -> tuple[Sprite, Sprite, str]:
        for _ in range(200):
            first, second = self.sprite(), self.sprite()
            background = self.ground(first.colour, second.colour)
            if countable and {first.name, second.name} & (MASS | PLURAL_ONLY):
                continue
            if first.name != second.name and is_held_out(first.name, background, second.name) == self.held_out:
                break
        return first, second, background

    def ground(self, *avoid: str | None) -> str:
        """The name of a background in none of the colours to ``avoid``."""
        return self.rng.choice([name for name in BACKGROUND_NAMES if name not in avoid])

    def size(self) -> tuple[int, int]:
        """Width and height of a picture: square, or as wide or tall as people's pictures are."""
        rng = self.rng
        if rng.random() < 0.55:
            return self.side_px, self.side_px
        aspect = rng.uniform(1.1, 1.9)
        longer, shorter = round(self.side_px * aspect**0.5), round(self.side_px / aspect**0.5)
        return (longer, shorter) if rng.random() < 0.6 else (shorter, longer)

    def _scene(self, placed: list[Placed], background: str, *, plain: bool = False) -> Scene:
        rng = self.rng
        width, height = self.size()
        plain = plain or self.held_out or rng.random() >= TEXTURED_SHARE
        canvas = (
            paint(rng, width, height, background) if plain else textured(rng, width, height, self._any_photograph())
        )
        things = tuple(
            Thing(sprite.name, sprite.colour, cell, self._paste(canvas, sprite, _middle(cell), size))
            for sprite, cell, size in row_by_row(placed)
        )
        return self._finished(Scene(canvas, things, background if plain else None))

    def _finished(self, scene: Scene) -> Scene:
        return scene if self.held_out else replace(scene, image=worn(scene.image, self.rng))

    def _any_photograph(self) -> Image.Image | None:
        if not self.products or self.rng.random() < 0.5:
            return None
        return self.rng.choice(self._photographs[self.rng.choice(self.products)])[1]

    def _paste(
        self, canvas: Image.Image, sprite: Sprite, middle: tuple[float, float], size: float, shift: float = 0.2 / 3
    ) -> Box:
        """Draws the thing about ``middle`` (shares of the canvas), moved by ``shift`` at most; its place in pixels."""
        rng = self.rng
        image = sprite.image
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = size * min(canvas.size) / max(image.size)
        stretch = 1.0 if self.held_out else rng.uniform(0.85, 1.18)
        drawn = (max(4, round(image.width * scale * stretch**0.5)), max(4, round(image.height * scale / stretch**0.5)))
        image = image.resize(drawn, Image.Resampling.BICUBIC)
        if rng.random() < 0.5:
            turn = 18 if self.held_out else 28
            image = image.rotate(rng.uniform(-turn, turn), Image.Resampling.BICUBIC, expand=True)
        corner = []
        for at, extent, total in ((middle[0], image.width, canvas.width), (middle[1], image.height, canvas.height)):
            centre = (at + rng.uniform(-shift, shift)) * total
            corner.append(round(min(max(centre - extent / 2, 1), max(1, total - extent - 1))))
        canvas.paste(image, (corner[0], corner[1]), image)
        return corner[0], corner[1], corner[0] + image.width, corner[1] + image.height

    def photograph(self) -> Scene:
        """A shop photograph: as it is for evaluation; cut, turned, coloured and in part covered for training."""
        product = self.rng.choice(self.products)
        _, image = self.rng.choice(self._photographs[product])
        drawn = image if self.held_out else self._varied(image)
        whole = Thing(product.name, None, (1, 1), (0, 0, drawn.width, drawn.height))
        return self._finished(Scene(drawn, (whole,), None, "photo"))

    def _varied(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        width, height = self.size()
        share = rng.uniform(0.5, 1.0) ** 0.5
        cut_width, cut_height = image.width * share, image.height * share * rng.uniform(0.85, 1.0)
        left, top = rng.uniform(0, image.width - cut_width), rng.uniform(0, image.height - cut_height)
        turn = np.deg2rad(rng.uniform(-25, 25) if rng.random() < 0.6 else 0.0)
        # output pixel → input pixel: a scaled rotation about the middle of the cut
        a, b = np.cos(turn) * cut_width / width, -np.sin(turn) * cut_height / height
        d, e = np.sin(turn) * cut_width / width, np.cos(turn) * cut_height / height
        middle = left + cut_width / 2, top + cut_height / 2
        c, f = middle[0] - a * width / 2 - b * height / 2, middle[1] - d * width / 2 - e * height / 2
        drawn = image.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
        if rng.random() < 0.3:
            covered = (int(width * rng.uniform(0.15, 0.45)), int(height * rng.uniform(0.15, 0.45)))
            patch = Image.new("RGB", covered, tuple(rng.randint(0, 255) for _ in range(3)))
            drawn.paste(patch, (rng.randint(0, width - covered[0]), rng.randint(0, height - covered[1])))
        return drawn

    def words(self) -> Scene:
        """One printed word or number, as on a sign. Raises ValueError without a printer."""
        rng, printer = self.rng, self._printer()
        text = printer.word()
        aspect = rng.choice((1.0, 1.0, 1.4, 2.0, 3.0, 4.0))
        if len(text) > 7:
            aspect = max(aspect, 1.4)
        width, height = round(self.side_px * aspect**0.5), round(self.side_px / aspect**0.5)
        background = rng.choice(BACKGROUND_NAMES)
        canvas = paint(rng, width, height, background)
        share = rng.uniform(0.45, 0.92) if len(text) < 8 else rng.uniform(0.7, 0.94)
        line = printer.fitted(text, width * share, height * rng.uniform(0.3, 0.75))
        left, top = rng.uniform(2, max(3, width - line.width - 2)), rng.uniform(2, max(3, height - line.height - 2))
        ink = contrasting(rng, canvas.getpixel((0, 0)))  # type: ignore[arg-type]
        marks = printer.draw(canvas, line, left, top, ink)
        return self._finished(self._turned(Scene(canvas, (), background, "words", tuple(marks), text)))

    def sheet(self) -> Scene:
        """A sheet full of words in all sizes, which is what letters are learnt from."""
        rng, printer = self.rng, self._printer()
        width, height = self.size()
        canvas = paint(rng, width, height, rng.choice(BACKGROUND_NAMES))
        ink = contrasting(rng, canvas.getpixel((0, 0)))  # type: ignore[arg-type]
        marks: list[Mark] = []
        top = rng.uniform(2, 8)
        while top < height - 8:
            font, size_px = printer.font(), rng.choice(SHEET_SIZES_PX)
            tallest, left = 0, rng.uniform(2, 20)
            while left < width - 8:
                line = printer.line(printer.word(), size_px, font)
                if left + line.width > width - 2 or top + line.height > height - 2:
                    break
                marks += printer.draw(canvas, line, left, top, ink)
                left += line.width + size_px * rng.uniform(0.4, 1.2)
                tallest = max(tallest, line.height)
            top += max(tallest, 6) + size_px * rng.uniform(0.25, 0.8)
        return self._finished(self._turned(Scene(canvas, (), None, "sheet", tuple(marks))))

    def chart(self) -> Scene:
        listed = LISTED_SHARE if self.held_out else TAUGHT_LISTED_SHARE
        return self._finished(draw_chart(self._printer(), self.rng, *self.size(), listed))

    def _printer(self) -> Printer:
        if self.printer is None:
            raise ValueError("this painter has no printer: give it one to draw words and charts")
        return self.printer

    def _turned(self, scene: Scene) -> Scene:
        """Text a little aslant, as signs are photographed; its characters' places turn with it."""
        if self.rng.random() < 0.6:
            return scene
        degrees = self.rng.uniform(-5, 5)
        turn = np.deg2rad(degrees)
        image = scene.image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=scene.image.getpixel((0, 0)))
        x0, y0 = image.width / 2, image.height / 2
        marks = tuple(
            replace(
                m,
                x=float(x0 + (m.x - x0) * np.cos(turn) + (m.y - y0) * np.sin(turn)),
                y=float(y0 - (m.x - x0) * np.sin(turn) + (m.y - y0) * np.cos(turn)),
            )
            for m in scene.marks
        )
        return replace(scene, image=image, marks=marks)
