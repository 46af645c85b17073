"""Bars of a chart measured in the picture's own pixels: their colour, how high they reach, and those that were missed.

The reader of print finds them on the tiles, a pixel of which may be several of the picture's. What a picture shows
where a bar was found is certain: one colour below its edge, another above. And bars of a chart stand on one line and
are as wide as one another, so that one that is measured tells where others are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hearth.multimodal.print_cells import BARS, Printed
from hearth.multimodal.views import Frame

MOST_PX = 1024  # of the longer side of a picture that is measured
_INTO_PX = 3.0  # on the canvas, into a bar from its upper edge or its foot, where it is certainly to be seen
_OFF_PX = 12.0  # on the canvas, by which the reader is wrong about an edge at most
_ALIKE = 40.0  # between two shades of one colour at most, of red, green and blue together
_WIDEST = 0.6  # of a picture
_LOW_PX = 3  # high, bars are too low for their colour to be seen
_ONE_COLOUR = 0.9  # of the pixels of a bar that was missed, at least
_AS_WIDE = 0.75  # of one bar another is at least, and the other way round
# what people call so, at least once each of ``BARS``; red, green and blue
_CALLED: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((214, 40, 40), (255, 0, 0), (139, 0, 0), (240, 80, 80)),
    "orange": ((242, 130, 30), (255, 165, 0), (237, 125, 49), (255, 127, 14)),
    "yellow": ((248, 206, 40), (255, 255, 0), (255, 192, 0), (255, 240, 130)),
    "green": ((52, 158, 72), (0, 128, 0), (0, 255, 0), (112, 173, 71), (0, 90, 0), (144, 238, 144)),
    "blue": ((48, 104, 214), (0, 0, 255), (31, 119, 180), (91, 155, 213), (0, 0, 128), (135, 206, 235), (23, 190, 207)),
    "purple": ((132, 64, 176), (128, 0, 128), (148, 103, 189), (75, 0, 130)),
    "pink": ((242, 132, 180), (255, 192, 203), (227, 119, 194), (255, 20, 147)),
    "brown": ((126, 82, 48), (165, 42, 42), (140, 86, 75), (101, 67, 33)),
    "grey": ((136, 138, 142), (165, 165, 165), (105, 105, 105), (200, 200, 200)),
    "black": ((28, 28, 30), (0, 0, 0), (50, 50, 50)),
}
_NAMES = [name for name, shades in _CALLED.items() for _ in shades]
Pixels = NDArray[np.float64]


def _lab(rgb: Pixels) -> Pixels:
    """(…, 3) of 0 to 255 → CIELAB of the same shape, in which distances are as they look (CIE 1976, white D65)."""
    linear = np.where(rgb > 10.3148, ((rgb / 255 + 0.055) / 1.055) ** 2.4, rgb / 255 / 12.92)
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    roots = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(roots, -1, 0)
    lab: Pixels = np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)
    return lab


_SHADES = _lab(np.array([shade for shades in _CALLED.values() for shade in shades], np.float64))


def colour_name(rgb: Pixels) -> str:
    """What a colour is called, one of ``BARS``; (3,) of 0 to 255."""
    return _NAMES[int(((_SHADES - _lab(rgb)) ** 2).sum(1).argmin())]


@dataclass(frozen=True)
class _Bar:
    """In pixels: from ``left`` up to ``right``, from ``top`` down to ``foot``; its colour (3,)."""

    left: int
    right: int
    top: float
    foot: int
    colour: Pixels

    def is_beside(self, others: Sequence[_Bar]) -> bool:
        """It is none of ``others``, nor a part of one."""
        return all(self.right <= other.left or self.left >= other.right for other in others)


def measured(found: list[Printed], image: Image.Image, frame: Frame) -> list[Printed]:
    """Characters and bars that were ``found`` on the frame's canvas, the bars as they are in the picture; with those
    that were missed, if any was found. Bars that cannot be measured stay as they are. ``image`` is RGB.
    """
    given = [one for one in found if one.character in BARS]
    if not given:
        return found
    smaller = max(1, -(-max(image.size) // MOST_PX))
    pixels = np.asarray(image.reduce(smaller) if smaller > 1 else image, np.float64)
    scale = frame.scale * smaller  # pixels of the canvas for each that is measured
    bars: list[_Bar] = []
    names: list[str] = []
    left_over = []
    for one in given:
        x, y = ((at - corner) / scale for at, corner in zip((one.x, one.y), frame.corner, strict=True))
        bar = _bar(pixels, x, y, _INTO_PX / scale, _OFF_PX / scale)
        if bar is None:
            left_over.append(one)
        elif bar.is_beside(bars):
            bars.append(bar)
            names.append(colour_name(bar.colour) if bar.foot - bar.top > _LOW_PX else one.character)
    missed = _missed(pixels, bars, _INTO_PX / scale)
    bars += missed
    names += [colour_name(bar.colour) for bar in missed]
    left, top = frame.corner
    told = [
        Printed(name, left + (bar.left + bar.right) / 2 * scale, top + bar.top * scale, begins=True)
        for name, bar in zip(names, bars, strict=True)
    ]
    kept = [one for one in left_over if all(abs(one.x - bar.x) > _OFF_PX for bar in told)]
    return [one for one in found if one.character not in BARS] + told + kept


def _bar(pixels: Pixels, x: float, y: float, into: float, off: float) -> _Bar | None:
    """The bar whose upper edge is near (x, y); None if there is none to be seen."""
    height, width, _ = pixels.shape
    column, row = int(x), round(y + into)
    if not (0 <= column < width and 0 <= row < height):
        return None
    colour = np.median(pixels[row : row + max(1, round(into)), max(0, column - 1) : column + 2].reshape(-1, 3), axis=0)
    across = _alike(np.median(pixels[row : row + max(1, round(into))], axis=0), colour)
    left, right = _run(across, column)
    quarter = (right - left) // 4
    down = np.median(pixels[:, left + quarter : right - quarter], axis=1) if right > left else pixels[:, 0]
    top, foot = _run(_alike(down, colour), row)
    if not (1 < right - left < _WIDEST * width and top < foot < height and abs(top - y) <= off + 1):
        return None
    if top < 2:
        return None
    above = down[top - 2] - colour
    mixed = float(np.clip((down[top - 1] - colour) @ above / max(1.0, float(above @ above)), 0, 1))
    return _Bar(left, right, top - (1 - mixed), foot, colour)


def _alike(line: Pixels, colour: Pixels) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = np.abs(line - colour).sum(-1) < _ALIKE
    return same


def _run(same: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """Of what is the same around ``at``: its first, and the first behind it."""
    if not same[at]:
        return at, at
    others = np.flatnonzero(~same)
    before, behind = others[others < at], others[others > at]
    return int(before[-1]) + 1 if len(before) else 0, int(behind[0]) if len(behind) else len(same)


def _missed(pixels: Pixels, bars: list[_Bar], into: float) -> list[_Bar]:
    """Bars beside those that were measured: on the same line, and as wide."""
    if not bars:
        return []
    foot = float(np.median([bar.foot for bar in bars]))
    wide = float(np.median([bar.right - bar.left for bar in bars]))
    row = round(foot - max(1.0, into / 2))
    line = np.median(pixels[max(0, row - 1) : row + 1], axis=0)
    first = min(bars, key=lambda bar: bar.left)
    paper = line[max(0, first.left - 2)]
    inked = ~_alike(line, paper)
    found: list[_Bar] = []
    changes = np.flatnonzero(np.diff(np.r_[False, inked, False].astype(np.int8)))
    for left, right in changes.reshape(-1, 2).tolist():
        if not _AS_WIDE * wide <= right - left <= wide / _AS_WIDE:
            continue
        quarter = (right - left) // 4
        down = np.median(pixels[:, left + quarter : max(left + quarter + 1, right - quarter)], axis=1)
        colour = line[(left + right) // 2]
        top, end = _run(_alike(down, colour), row)
        bar = _Bar(left, right, float(top), end, colour)
        if not (top > 0 and end - top > _LOW_PX and abs(end - foot) <= max(2.0, into) and bar.is_beside(bars)):
            continue
        if _alike(pixels[top:end, left + 1 : right - 1], colour).mean() > _ONE_COLOUR:
            found.append(bar)
    return found
