"""Draws simple bar charts: up to five bars, names under them, values on top or an axis to read them off."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw

from hearth.multimodal.print_cells import BARS
from training.printing import Printer
from training.scenes import Bar, Mark, Scene, Thing
from training.world import COLOURS

_LABELS = (
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    (
        "Anna",
        "Ben",
        "Carl",
        "Dora",
        "Emma",
        "Finn",
        "Gina",
        "Hans",
        "Ida",
        "Jan",
        "Kim",
        "Lea",
        "Max",
        "Nina",
        "Otto",
        "Paul",
    ),
    ("A", "B", "C", "D", "E", "F", "G"),
    ("2019", "2020", "2021", "2022", "2023", "2024", "2025"),
    ("tea", "milk", "bread", "fish", "rice", "eggs", "corn", "beer", "soup", "cake"),
    ("north", "south", "east", "west", "city", "lake", "hill", "coast"),
)
PRINTED_SHARE = 0.75  # of the charts have their values printed on the bars; the others an axis with lines
TITLED_SHARE = 0.2
# of the charts; the others have any words under their bars, more of them in training: such labels must be spelled
LISTED_SHARE, TAUGHT_LISTED_SHARE, NUMBERED_SHARE = 0.55, 0.25, 0.15
LONGEST_LABEL = 8  # characters
# of a chart's height, or of what it were in a picture of four by three; print is smaller by SMALLER at most
_TICK, _TEXT, SMALLER = 0.055, 0.075, 0.75


def chart_of(
    rng: random.Random, word: Callable[[], str], *, listed: float = LISTED_SHARE
) -> tuple[tuple[Bar, ...], int, bool]:
    """Bars, the top of their axis, and whether values are printed; bars of different colours, or all of one. ``word``
    draws what some are called by; a share of ``listed`` has the labels of a list.
    """
    count = rng.randint(2, 5)
    printed = rng.random() < PRINTED_SHARE
    top = rng.choice((10, 20, 50, 100))
    names = _names(rng, count, word, listed)
    step = 1 if printed or top <= 20 else top // 10
    values = [step * rng.randint(1, top // step) for _ in names]
    shades = rng.sample(BARS, count) if rng.random() < 0.75 else [rng.choice(BARS)] * count
    bars = (Bar(n, c, v, printed=printed) for n, c, v in zip(names, shades, values, strict=True))
    return tuple(bars), top, printed


def _names(rng: random.Random, count: int, word: Callable[[], str], listed: float) -> list[str]:
    """Different labels: of a list that all know, any words, or letters with numbers."""
    draw = rng.random()
    if draw < listed:
        return rng.sample(rng.choice(_LABELS), count)
    if draw < listed + NUMBERED_SHARE:
        letter, first = rng.choice("QWHKTRSPv"), rng.randint(1, 12)
        return [f"{letter}{first + at}" for at in range(count)]
    names: dict[str, str] = {}
    while len(names) < count:
        name = word()
        if len(name) <= LONGEST_LABEL and not name[0].isdigit():
            names[name.lower()] = name
    return list(names.values())


def ticks(top: int) -> range:
    """What an axis without printed values is marked with."""
    return range(0, top + 1, max(1, top // (5 if top != 20 else 4)))


def draw_chart(printer: Printer, rng: random.Random, width: int, height: int, listed: float = LISTED_SHARE) -> Scene:
    """A chart on a light ground; print is as large as people have it in charts of any proportions."""
    bars, top, printed = chart_of(rng, printer.word, listed=listed)
    paper = tuple(rng.randint(232, 255) for _ in range(3))
    canvas = Image.new("RGB", (width, height), paper)
    return _Drawing(canvas, printer, rng, bars, top, printed).scene()


class _Drawing:
    """One chart while it is drawn."""

    def __init__(
        self, canvas: Image.Image, printer: Printer, rng: random.Random, bars: tuple[Bar, ...], top: int, printed: bool
    ) -> None:
        self.canvas, self.printer, self.rng, self.bars, self.top, self.printed = (
            canvas,
            printer,
            rng,
            bars,
            top,
            printed,
        )
        self.pen = ImageDraw.Draw(canvas)
        self.font = printer.font()
        self.marks: list[Mark] = []
        self.scale = max(canvas.height, 0.75 * canvas.width) * rng.uniform(SMALLER, 1.0)
        self.left = canvas.width * (rng.uniform(0.05, 0.1) if printed else rng.uniform(0.14, 0.2))
        self.right = canvas.width * rng.uniform(0.9, 0.97)
        self.high = canvas.height * rng.uniform(0.1, 0.18)
        self.low = canvas.height * rng.uniform(0.82, 0.88)
        if rng.random() < TITLED_SHARE:
            self.high += self._title()

    def _y(self, value: float) -> float:
        return self.low - (self.low - self.high) * value / self.top

    def _title(self) -> float:
        """The height that it takes."""
        width, height = self.canvas.size
        words = " ".join(self.printer.word() for _ in range(self.rng.randint(1, 2)))
        line = self.printer.fitted(words, 0.7 * width, _TEXT * self.scale, self.font)
        self.marks += self.printer.draw(self.canvas, line, (width - line.width) / 2, 0.03 * height, (30, 30, 34))
        return 0.03 * height + line.height

    def _axis(self) -> None:
        ink = (70, 70, 74)
        for tick in ticks(self.top):
            y = self._y(tick)
            self.pen.line((self.left, y, self.right, y), fill=(205, 205, 210))
            line = self.printer.fitted(str(tick), self.left * 0.7, _TICK * self.scale, self.font)
            self.marks += self.printer.draw(self.canvas, line, self.left * 0.85 - line.width, y - line.height / 2, ink)

    def scene(self) -> Scene:
        if not self.printed:
            self._axis()
        width, height = self.canvas.size
        slot = (self.right - self.left) / len(self.bars)
        filled = slot * self.rng.uniform(0.5, 0.8)
        things, bars = [], []
        for i, bar in enumerate(self.bars):
            x = self.left + (i + 0.5) * slot
            box = (x - filled / 2, self._y(bar.value), x + filled / 2, self.low)
            self.pen.rectangle(box, fill=COLOURS[bar.colour])
            bars.append(replace(bar, first_mark=len(self.marks)))
            under = self.printer.fitted(bar.label, slot * 0.9, _TEXT * self.scale, self.font)
            self.marks += self.printer.draw(
                self.canvas, under, x - under.width / 2, self.low + height * 0.03, (40, 40, 44)
            )
            if self.printed:
                text = str(bar.value)
                over = self.printer.fitted(text, slot * 0.8, _TEXT * self.scale, self.font)
                above = box[1] - over.height - height * 0.015
                self.marks += self.printer.draw(self.canvas, over, x - over.width / 2, above, (30, 30, 34))
            things.append(Thing("bar", bar.colour, (min(2, int(3 * x / width)), 2), box))
        self.pen.line((self.left, self.low, self.right, self.low), fill=(70, 70, 74))
        return Scene(self.canvas, tuple(things), None, "chart", tuple(self.marks), "", tuple(bars))
