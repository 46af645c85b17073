"""Print is read twice: cells tell where it is, then each strip of it is read as a line, brought to one size of font.

A cell tells one character at a time, by what lies around it; along a line they are told together, two alike apart, and
from as many pixels as the picture has there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hearth.multimodal.print_cells import BARS, CHARACTERS, SAID, Array, Printed
from hearth.multimodal.print_words import Word, words_of
from hearth.multimodal.views import Frame

LINE_PX = 32  # height of a strip as it is read
FONT_PX = 24  # size of its font
FRAME_PX = 2  # of its width are told together
WIDTHS_PX = 64  # strips are as wide as a multiple of it
SYMBOLS = ("", *CHARACTERS, " ")  # of a frame; the first one for none
LONGEST = 16  # characters of words that are read together
MOST = 200  # characters of a picture that are read twice, from its top
COLUMNS_PX = 8192  # width of the strips that are read at once
INK, _INKED = 4.0, 1.0  # standard deviations of a strip's ink at most, and of what certainly is ink
_SURE = 0.5  # chance of its characters on average, below which a strip stays as its cells had it
_EMPTY = 0.9  # chance that nothing stands on its frames, from which on there is nothing
_SEEN = 0.9  # chance of the characters that its cells had, from which on there is something all the same
# in sizes of the font:
_SAME = 0.3, 0.7  # between what is told twice, along the line and up or down, at most
_APART, _RISE = 2.2, 0.5  # to the next word that is read together at most, along the line and up or down
_MARGIN = 1.0  # of a strip on either side, half way to what stands there at most
_HALF = 0.35  # of a character, and so much of it at least
_LONG = 3.0  # strips, from which on it is seen how they slant
_SLOPE = 0.12  # at most
SIZES = 1.6  # of words that are read together, one by the other at most

LineReading = Callable[[Array], Array]
"""(n, 1, LINE_PX, width) strips → (n, width / FRAME_PX, len(SYMBOLS)) logits, see ``line_reader.LineReader``."""


@dataclass(frozen=True)
class Strip:
    """A part of a line in pixels of a canvas: the middle of its left edge, how long it is, how much it slants (radians,
    downwards) and the size of its font.
    """

    x: float
    y: float
    length: float
    slant: float
    size: float

    @property
    def width_px(self) -> int:
        """As it is read."""
        return max(1, round(self.length * FONT_PX / self.size))

    def at(self, frame: float) -> tuple[float, float]:
        """The middle of a frame, in pixels of the canvas."""
        along = (frame + 0.5) * FRAME_PX * self.size / FONT_PX
        return self.x + along * math.cos(self.slant), self.y + along * math.sin(self.slant)

    def seen_from(self, x: float, y: float) -> tuple[float, float]:
        """How far a point of the canvas lies along the strip and below its middle, in sizes of the font."""
        cos, sin, dx, dy = math.cos(self.slant), math.sin(self.slant), x - self.x, y - self.y
        return (cos * dx + sin * dy) / self.size, (cos * dy - sin * dx) / self.size


def strips_of(characters: Iterable[Printed]) -> list[tuple[Strip, Word]]:
    """Words that stand near one another in a line, ``LONGEST`` characters at most if there are several."""
    parts: list[Word] = []
    for word in sorted(words_of(characters), key=lambda word: word[0].x):
        near = [(word[0].x - part[-1].x, at) for at, part in enumerate(parts) if _joins(part, word)]
        if near:
            parts[min(near)[1]] += word
        else:
            parts.append(list(word))
    middles = np.array([(one.x, one.y) for part in parts for one in part], np.float64).reshape(-1, 2)
    return [(_strip(part, middles), part) for part in parts]


def _joins(part: Word, word: Word) -> bool:
    last, first = part[-1], word[0]
    smaller, larger = sorted((last.size, first.size))
    beside = 0 <= first.x - last.x < _APART * smaller and abs(first.y - last.y) < _RISE * smaller
    return beside and larger < SIZES * smaller and len(part) + len(word) <= LONGEST


def _strip(word: Word, middles: NDArray[np.float64]) -> Strip:
    """Of characters from left to right, among all whose ``middles`` are given, (n, 2)."""
    x, y, sizes = np.array([(one.x, one.y, one.size) for one in word], np.float64).T
    size = float(np.median(sizes))
    slope = 0.0
    if x[-1] - x[0] > _LONG * size and len(word) > 3:
        slope = float(np.clip(np.polyfit(x - x.mean(), y, 1)[0], -_SLOPE, _SLOPE))
    middle = float(np.median(y - slope * (x - x[0])))
    in_line = np.abs(middles[:, 1] - middle - slope * (middles[:, 0] - x[0])) < _RISE * size
    beside = middles[in_line, 0]
    before = x[0] - beside[beside < x[0]].max(initial=-np.inf)
    behind = beside[beside > x[-1]].min(initial=np.inf) - x[-1]
    left, right = (min(max(between / 2, _HALF * size), _MARGIN * size) for between in (before, behind))
    length = math.hypot(1, slope) * (x[-1] - x[0] + left + right)
    return Strip(float(x[0] - left), middle - slope * left, float(length), math.atan(slope), size)


def ink_of(image: Image.Image, frame: Frame, strip: Strip) -> Array:
    """A strip as it is read, (LINE_PX, width): how far its pixels lie from their mean along the principal axis of their
    colours, in standard deviations, ink above and ground below. ``frame`` says where the picture lies on the canvas.
    """
    step = strip.size / FONT_PX / frame.scale  # pixels of the picture for each that is read
    along = (np.arange(strip.width_px) + 0.5) * step
    down = (np.arange(LINE_PX) + 0.5 - LINE_PX / 2) * step
    cos, sin = math.cos(strip.slant), math.sin(strip.slant)
    left, top = (strip.x - frame.corner[0]) / frame.scale, (strip.y - frame.corner[1]) / frame.scale
    x = left + cos * along[None, :] - sin * down[:, None]
    y = top + sin * along[None, :] + cos * down[:, None]
    colours = _sampled(image, x, y, step).reshape(-1, 3)
    colours -= colours.mean(0)
    _, axes = np.linalg.eigh(colours.T @ colours)
    ink = colours @ axes[:, -1]
    ink *= np.sign((ink**3).mean()) or 1.0  # there is less ink than ground
    deviations: Array = (ink / max(1.0, float(ink.std()))).reshape(x.shape)
    return deviations.clip(-INK, INK).astype(np.float32)


def _sampled(image: Image.Image, x: Array, y: Array, step: float) -> Array:
    """Colours at points of a picture, (height, width, 3), each of about ``step`` pixels; at its edges these go on."""
    reach = 2 * step + 2
    box = (
        min(image.width - 1, max(0, math.floor(x.min() - reach))),
        min(image.height - 1, max(0, math.floor(y.min() - reach))),
        max(1, min(image.width, math.ceil(x.max() + reach))),
        max(1, min(image.height, math.ceil(y.max() + reach))),
    )
    box = (box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1))
    smaller = max(1, int(step))
    part = image.reduce(smaller, box) if smaller > 1 else image.crop(box)
    pixels = np.asarray(part, dtype=np.float32)
    x, y = ((at - corner) / smaller - 0.5 for at, corner in ((x, box[0]), (y, box[1])))
    x, y = x.clip(0, part.width - 1), y.clip(0, part.height - 1)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    right, low = np.minimum(column + 1, part.width - 1), np.minimum(row + 1, part.height - 1)
    across, under = (x - column)[..., None], (y - row)[..., None]
    upper = pixels[row, column] * (1 - across) + pixels[row, right] * across
    lower = pixels[low, column] * (1 - across) + pixels[low, right] * across
    mixed: Array = upper * (1 - under) + lower * under
    return mixed


def n_widths(strip: NDArray[Any]) -> int:
    """How many times ``WIDTHS_PX`` a strip takes, (LINE_PX, width)."""
    return math.ceil(int(strip.shape[1]) / WIDTHS_PX)


def padded(strips: list[Array]) -> Array:
    """(n, 1, LINE_PX, width): all as wide as the widest, rounded up to ``WIDTHS_PX``; nought stands behind them."""
    width = max(map(n_widths, strips)) * WIDTHS_PX
    batch = np.zeros((len(strips), 1, LINE_PX, width), np.float32)
    for row, strip in zip(batch, strips, strict=True):
        row[0, :, : strip.shape[1]] = strip
    return batch


def read_again(found: list[Printed], image: Image.Image, frame: Frame, reader: LineReading) -> list[Printed]:
    """Characters that were ``found`` on the frame's canvas, in no order, as ``reader`` tells their lines. Bars stay as
    they are, and so does what is too far down. ``image`` is RGB.
    """
    characters = sorted((one for one in found if one.character not in BARS), key=lambda one: one.y)
    strips = strips_of(characters[:MOST])
    told: list[Word] = []
    for batch in _batches([(strip, word, ink_of(image, frame, strip)) for strip, word in strips]):
        for (strip, word, ink), logits in zip(batch, reader(padded([ink for *_, ink in batch])), strict=True):
            read = told_along(strip, logits)
            if read:
                read = [one for part in words_of(read) for one in _levelled(part, strip, ink)]
            unlikely = not read and float(np.mean([one.sure for one in word])) > _SEEN
            told.append(word if read is None or unlikely else read)
    return [one for one in found if one.character in BARS] + characters[MOST:] + _once(told)


def _batches(strips: list[tuple[Strip, Word, Array]]) -> Iterator[list[tuple[Strip, Word, Array]]]:
    """Strips of one width, ``COLUMNS_PX`` wide together if they are several."""
    of_width: dict[int, list[tuple[Strip, Word, Array]]] = defaultdict(list)
    for one in strips:
        of_width[n_widths(one[2])].append(one)
    for width, members in of_width.items():
        n = max(1, COLUMNS_PX // (width * WIDTHS_PX))
        yield from (members[start : start + n] for start in range(0, len(members), n))


def _levelled(number: Word, strip: Strip, ink: Array) -> Word:
    """A number where its ink stands: a cell tells a height to half a cell, and an axis is told by its numbers. Other
    words stay as they are.
    """
    if not all(one.character.isdigit() for one in number):
        return number
    ends = sorted(strip.seen_from(one.x, one.y)[0] for one in (number[0], number[-1]))
    columns = slice(max(0, round((ends[0] - _HALF) * FONT_PX)), max(1, round((ends[1] + _HALF) * FONT_PX)))
    blank = np.flatnonzero(~(ink[:, columns] > _INKED).any(1))
    first, behind = (blank[blank < LINE_PX // 2].max(initial=-1) + 1, blank[blank >= LINE_PX // 2].min(initial=LINE_PX))
    if first >= behind - 1:  # there is no ink in its middle
        return number
    below = (float(first + behind) / 2 - LINE_PX / 2) * strip.size / FONT_PX
    return [
        replace(one, x=one.x - below * math.sin(strip.slant), y=one.y + below * math.cos(strip.slant)) for one in number
    ]


def _once(words: list[Word]) -> list[Printed]:
    """What two strips that overlap both tell is kept where it is surer."""
    everything = [(at, one) for at, word in enumerate(words) for one in word]
    places = np.array([(one.x, one.y, one.size, one.sure, at) for at, one in everything], np.float64).reshape(-1, 5)
    kept = []
    for (x, y, size, sure, at), (_, one) in zip(places.tolist(), everything, strict=True):
        near = (np.abs(places[:, 0] - x) < _SAME[0] * size) & (np.abs(places[:, 1] - y) < _SAME[1] * size)
        others = places[near & (places[:, 4] != at)]
        if not any((other[3], other[4]) > (sure, at) for other in others):
            kept.append(one)
    return kept


def told_along(strip: Strip, logits: Array) -> Word | None:
    """The characters of a strip by (frames, len(SYMBOLS)) ``logits``, the likeliest of each frame (Graves et al. 2006,
    connectionist temporal classification). None if they are not sure.
    """
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    best = chances.argmax(1)
    firsts = np.flatnonzero(np.r_[True, best[1:] != best[:-1]])
    lasts = np.r_[firsts[1:], len(best)]
    word: Word = []
    begins = True
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        symbol = SYMBOLS[best[first]]
        if symbol in ("", " "):
            begins = begins or symbol == " "
            continue
        peak = first + int(chances[first:last, best[first]].argmax())
        of_said = np.zeros(len(SAID), np.float32)
        of_said[: len(CHARACTERS)] = chances[peak, 1 : 1 + len(CHARACTERS)]
        word.append(Printed(symbol, *strip.at((first + last - 1) / 2), begins, strip.size, of_said))
        begins = False
    sure = float(np.mean([one.sure for one in word])) > _SURE if word else float(chances[:, 0].min()) > _EMPTY
    return word if sure else None
