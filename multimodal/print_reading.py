"""What is printed on a picture: found on its tiles, or closer where it is small there, and then read line by line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from hearth.multimodal.bar_edges import measured
from hearth.multimodal.print_cells import BARS, Array, Printed, characters_of
from hearth.multimodal.print_lines import LineReading, read_again
from hearth.multimodal.print_order import in_reading_order
from hearth.multimodal.views import Frame, canvas_of, pixels_of

SMALL_PX = 18.0  # size of a font on the tiles, below which print is looked at closer
MAX_CLOSER = 3  # times
_ENLARGED = 1.2  # a picture is at most by looking closer: there is nothing more to be seen of it


def read_print(
    image: Image.Image, frame: Frame, reader: Callable[[Array], Array], line_reader: LineReading | None = None
) -> list[Printed]:
    """The characters in reading order, a space behind each word, in pixels of ``frame``'s canvas.

    ``reader`` is asked once or twice what is printed on normalised pixels, (3, height, width), and says it as
    (CELL_SLOTS, N_SAID, height / CELL_PX, width / CELL_PX). Bars are those that were seen first: they are large.
    ``line_reader``, if there is one, is then asked for the strips that these characters stand on.
    """
    found = characters_of(reader(pixels_of(canvas_of(image, frame))))
    closer = times_closer(found, frame)
    if closer > 1:
        canvas = frame.canvas[0] * closer, frame.canvas[1] * closer
        seen = characters_of(reader(pixels_of(canvas_of(image, replace(frame, canvas=canvas)))))
        found = [one for one in found if one.character in BARS] + [
            replace(one, x=one.x / closer, y=one.y / closer, size=one.size / closer)
            for one in seen
            if one.character not in BARS
        ]
    return told_of(found, image, frame, line_reader)


def told_of(
    found: list[Printed], image: Image.Image, frame: Frame, line_reader: LineReading | None = None
) -> list[Printed]:
    """What was ``found`` on the frame's canvas as the picture itself shows it: bars measured in its pixels, print read
    by lines; in reading order.
    """
    rgb = image.convert("RGB")
    found = measured(found, rgb, frame)
    if line_reader is not None:
        found = read_again(found, rgb, frame, line_reader)
    return in_reading_order(found)


def times_closer(found: list[Printed], frame: Frame) -> int:
    """How much larger a picture is to be looked at, by what is ``found`` on it: 1 if its print is large enough."""
    sizes = [one.size for one in found if one.character not in BARS]
    if not sizes:
        return 1
    wanted = math.ceil(SMALL_PX / float(np.median(sizes)))
    return max(1, min(wanted, MAX_CLOSER, int(_ENLARGED / frame.scale)))
