"""Where alike things stand in a picture, told as a list: "1 at the top left, 2 in the middle, two".

To count, a language model has to find the next of some things that look alike, again and again, and errs now and then.
A small network on all visual tokens of the tiles tells in which of nine places there is one; to copy a list is easy.
"""

from __future__ import annotations

import numpy as np

from hearth.multimodal.print_cells import Array, Printed
from hearth.multimodal.views import Frame, hats, token_grid

PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
"""Of a picture, row by row."""
_NUMBERS = ("one", "two", "three", "four", "five", "six")
MAX_LISTED = len(_NUMBERS)  # things; nobody has learnt to count more, and their list would be longer than its room
_OF_PLACES = dict.fromkeys(word for place in PLACES for word in place.split())
LIST_WORDS = tuple(f" {word}" for word in (*_OF_PLACES, *_NUMBERS))
_OFFSETS = (-1 / 3, 0.0, 1 / 3)  # of points from the middle of a place, in sides of it
POINTS = len(_OFFSETS) ** 2  # at which each place is looked at


def looks_at(frame: Frame, side_px: int) -> Array:
    """(9 · POINTS, n_tokens): weights of the visual tokens around each point, by bilinear interpolation. The tokens are
    those of tiles of ``side_px`` on the frame's canvas, row by row.
    """
    in_thirds = (np.arange(3)[:, None] + 0.5 + _OFFSETS) / 3  # (place, point) along a side
    of_canvas = (
        ((start + extent * in_thirds) / side).astype(np.float32)
        for start, extent, side in zip(frame.corner, frame.size, frame.canvas, strict=True)
    )
    rows, columns = token_grid(frame, side_px)
    across, down = (hats(shares, n) for shares, n in zip(of_canvas, (columns, rows), strict=True))
    # (row of places, column of places, point down, point across, token down, token across)
    weights = down[:, None, :, None, :, None] * across[None, :, None, :, None, :]
    return weights.reshape(len(PLACES) * POINTS, -1).astype(np.float32)


def place_of(cell: tuple[int, int]) -> int:
    """The number among ``PLACES`` of a (column, row) of the nine."""
    return cell[0] + 3 * cell[1]


def listed(said: Array, frame: Frame) -> list[Printed]:
    """What ``Locator`` says of one picture, (10,), as a list that could be printed there; none if things differ."""
    return list_of(np.flatnonzero(said[:-1] > 0).tolist(), frame) if said[-1] > 0 else []


def list_of(taken: list[int], frame: Frame) -> list[Printed]:
    """The places ``taken`` by their numbers among ``PLACES``, then how many they are; nothing if they are too many."""
    told: list[Printed] = []
    if not 0 < len(taken) <= MAX_LISTED:
        return told
    for number, place in enumerate(sorted(taken), 1):
        down, across = divmod(place, 3)
        x = frame.corner[0] + frame.size[0] * (across + 0.5) / 3
        y = frame.corner[1] + frame.size[1] * (down + 0.5) / 3
        words = (" ", str(number), *(f" {word}" for word in PLACES[place].split()), ",")
        told += [Printed(word, x, y, begins=False) for word in words]
    return [*told, Printed(f" {_NUMBERS[len(taken) - 1]}", told[-1].x, told[-1].y, begins=False)]
