"""Prints words and numbers into pictures, and says where every character came to lie."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from training.fonts import Font, face, families
from training.invented import Inventor
from training.scenes import Mark
from training.vocabulary import picture_names

MAX_CHARACTERS = 12
TEXT_STYLES = 4  # fonts of a family that texts are set in: upright and slanted, bold or not; others only adorn
TEXT_FAMILIES_SHARE = 0.8
LIGHTNESS = (0.3, 0.59, 0.11)  # of red, green and blue
MIN_CONTRAST = 70  # of ink and ground in lightness
Colour = tuple[int, int, int]
_EVERYDAY_TEXT = (
    "open closed sale exit stop menu soup bread milk fresh today tomorrow welcome danger private parking station "
    "street museum hotel garden kitchen library ticket office coffee bakery market school police bus taxi water "
    "gas oil north south east west monday tuesday wednesday thursday friday saturday sunday january february "
    "march april may june july august september october november december spring summer autumn winter push pull "
    "free new hot cold up down in out left right please thanks"
)
_EVERYDAY = tuple(_EVERYDAY_TEXT.split())


@dataclass(frozen=True)
class Line:
    """A printed line and its height and width in pixels at (0, 0)."""

    text: str
    font: ImageFont.FreeTypeFont
    width: int
    height: int


class Printer:
    """Prints in fonts that are either trained on or held out."""

    def __init__(self, pool: tuple[Font, ...], rng: random.Random, *, held_out: bool = False) -> None:
        """Raises ValueError if ``pool`` has no font of the wanted kind."""
        self.rng = rng
        self._families = families(pool, kept_for_evaluation=held_out)
        self._names = sorted(self._families)
        if not self._names:
            kind = "held-out" if held_out else "trained"
            raise ValueError(f"none of {len(pool)} fonts is of a {kind} family: install more, e.g. fonts-freefont-ttf")
        text_names = [name for name in self._names if len(self._families[name]) >= TEXT_STYLES]
        self._text_names = self._names if held_out or not text_names else text_names
        self._invent = Inventor(rng, held_out=held_out)
        self._things = sorted(
            {word for name in picture_names().values() for word in name.split() if len(word) <= MAX_CHARACTERS}
        )

    def word(self) -> str:
        """A word or number of at most ``MAX_CHARACTERS``."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.28:
            return self.number()
        if draw < 0.5:
            word = self._invent(rng.choice(("person", "place", "product"))).split()[0]
        elif draw < 0.65:
            word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 9)))
        else:
            word = rng.choice(self._things if draw < 0.85 else _EVERYDAY)
        word = word.strip(".,:;")[:MAX_CHARACTERS] or "word"
        return rng.choices((word.lower(), word.capitalize(), word.upper()), (0.35, 0.35, 0.3))[0]

    def number(self) -> str:
        rng = self.rng
        draw = rng.random()
        if draw < 0.55:
            return str(rng.randrange(10 ** rng.randint(1, 7)))
        if draw < 0.7:
            return f"{rng.randint(0, 99)}.{rng.randint(0, 99):02d}"
        if draw < 0.85:
            return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        return rng.choice("ABCDEFGHKLMNPRSTUVWXYZ") + f"-{rng.randint(1, 9999)}"

    def font(self) -> Font:
        """A family first, so that families of many fonts are not seen more often; to train mostly one for texts."""
        names = self._names
        if self._text_names is not names and self.rng.random() < TEXT_FAMILIES_SHARE:
            names = self._text_names
        return self.rng.choice(self._families[self.rng.choice(names)])

    def line(self, text: str, size_px: int, font: Font | None = None) -> Line:
        drawn = face((font or self.font()).path, max(6, size_px))
        left, top, right, bottom = drawn.getbbox(text)
        return Line(text, drawn, int(right - left), int(bottom - top))

    def fitted(self, text: str, width: float, height: float, font: Font | None = None) -> Line:
        """``text`` as large as fits into ``width`` × ``height`` pixels."""
        font = font or self.font()
        trial = self.line(text, 40, font)
        return self.line(text, int(40 * min(width / max(1, trial.width), height / max(1, trial.height))), font)

    def draw(self, canvas: Image.Image, line: Line, left: float, top: float, colour: Colour) -> list[Mark]:
        """Prints ``line`` with its ink beginning at (left, top)."""
        box = line.font.getbbox(line.text)
        x, y = left - box[0], top - box[1]
        ImageDraw.Draw(canvas).text((x, y), line.text, font=line.font, fill=colour)
        marks = []
        for i, character in enumerate(line.text):
            if character != " ":
                start = x + line.font.getlength(line.text[:i])
                ink = line.font.getbbox(character)
                middle = start + (ink[0] + ink[2]) / 2, y + (ink[1] + ink[3]) / 2
                begins = i == 0 or line.text[i - 1] == " "
                marks.append(Mark(character, *middle, begins, line.font.size))
        return marks


def contrasting(rng: random.Random, background: Colour) -> Colour:
    """An ink that is legible on ``background``."""
    light = _lightness(background)
    while True:
        if rng.random() < 0.5:
            ink = (20, 20, 22) if light > 128 else (245, 245, 245)
        else:
            ink = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if abs(_lightness(ink) - light) > MIN_CONTRAST:
            return ink


def _lightness(colour: Colour) -> float:
    return sum(share * value for share, value in zip(LIGHTNESS, colour, strict=True))
