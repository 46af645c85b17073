"""Things that are alike by their name: found in the picture, cut out of it, looked at closely and told as words.

A thing of any size fills its crop, as those did that the image tower learnt names from; among a picture's visual tokens
it may be small, and drawn in a manner that they have not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from PIL import Image

from hearth.multimodal.locating import listed
from hearth.multimodal.print_cells import Array, Printed
from hearth.multimodal.views import Frame, pixels_of

CELL_PX = 16  # of the canvas, a cell of the maps
CROP_PX = 64
MARGIN = 1.12  # side of a crop, in longer sides of its thing
MAX_CROPS = 4
Box = tuple[float, float, float, float]  # left, top, right, bottom
Look = Callable[[Array], Array]
"""(n, 3, CROP_PX, CROP_PX) pixels of crops → (n, 1 + names) logits of nothing and of each name."""


def told_things(
    image: Image.Image, frame: Frame, places: Array, lying: Array, look: Look, names: Sequence[Sequence[str]]
) -> list[Printed]:
    """What follows what is printed: the list of alike things by what the locator says of ``places``, and their name by
    its words; ``lying`` as ``Namer`` says it of the tiles. Of things that differ there is neither.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    boxes = boxes_of(lying, frame)
    if boxes and places[-1] <= 0:
        return []
    name = name_of(look(np.stack([crop_of(image, box) for box in boxes or [(0, 0, *image.size)]])), is_one=bool(boxes))
    return [*listed(places, frame), *(words_of(names[name], frame) if name is not None else ())]


def boxes_of(lying: Array, frame: Frame) -> list[Box]:
    """Of the largest things, in pixels of the picture: of cells beside each other on which something lies. What lies
    beside the picture, on the rest of its canvas, is none.
    """
    chances: Array = (1 / (1 + np.exp(-lying))).astype(np.float32)
    found = sorted(_connected(lying > 0), key=len, reverse=True)
    boxes = (_box(np.array(cells), chances, frame) for cells in found)
    return list(islice((box for box in boxes if box[0] < box[2] and box[1] < box[3]), MAX_CROPS))


def _connected(taken: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Iterator[list[tuple[int, int]]]:
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(taken), strict=True)}
    while left:
        cells = [left.pop()]
        for row, column in cells:  # grows meanwhile
            beside = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)} & left
            left -= beside
            cells += beside
        yield cells


def _box(cells: np.ndarray[tuple[int, ...], np.dtype[np.int_]], chances: Array, frame: Frame) -> Box:
    """Around cells (n, 2); an outer row or column counts as far as something lies on it."""
    edges: list[float] = []
    for axis in (1, 0):
        first, last = cells[:, axis].min(), cells[:, axis].max()
        sure = [chances[tuple(cells[cells[:, axis] == at].T)].max() for at in (first, last)]
        edges += [float(first + 1 - sure[0]), float(last + sure[1])]
    left, right, top, bottom = (CELL_PX * edge for edge in edges)
    (x, y), scale = frame.corner, frame.scale
    box = (left - x) / scale, (top - y) / scale, (right - x) / scale, (bottom - y) / scale
    return max(0.0, box[0]), max(0.0, box[1]), min(frame.width, box[2]), min(frame.height, box[3])


def crop_of(image: Image.Image, box: Box) -> Array:
    """Pixels (3, CROP_PX, CROP_PX) of a thing with a margin, as far as the picture, in RGB, has one."""
    left, top, right, bottom = box
    half = MARGIN * max(right - left, bottom - top, 1) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    around = (max(0, x - half), max(0, y - half), min(image.width, x + half), min(image.height, y + half))
    crop = image.resize((CROP_PX, CROP_PX), Image.Resampling.BICUBIC, box=around)
    return pixels_of(crop)


def name_of(said: Array, *, is_one: bool) -> int | None:
    """Which of the names, by logits of crops of things alike, (n, 1 + names); None if it is nothing that has one, which
    cannot be where it ``is_one``.
    """
    sure = said - np.logaddexp.reduce(said, axis=1, keepdims=True)
    best = int(sure[:, is_one:].sum(0).argmax()) + is_one
    return best - 1 if best else None


def words_of(name: Sequence[str], frame: Frame) -> list[Printed]:
    """A name as if it stood in the middle of the picture."""
    middle = frame.on_canvas(frame.width / 2, frame.height / 2)
    return [Printed(word, *middle, begins=False) for word in name]


def words_of_names(names: Sequence[Sequence[str]]) -> list[str]:
    """Every word of ``names`` once, in the order in which their vectors are kept."""
    return sorted({word for name in names for word in name})
