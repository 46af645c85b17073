"""What lies under the visual tokens of a scene, for looking it up: things, the ground they are on, characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hearth.multimodal.print_cells import CELL_PX, Printed
from hearth.multimodal.print_order import PRINT_TOKENS
from hearth.multimodal.views import TOKENS_A_SIDE, tile_frame, whole_frame
from training.asking import Part, ask
from training.scenes import Scene, read_marks
from training.view_batches import SIDE_PX

BACKGROUND = -1  # in place of a thing
MARKS = 1000  # in place of a thing, and the number of a character more
NEAR_PX = 2 * CELL_PX  # of a character on the canvas from where it is read
Seen = tuple[int, int]  # picture and thing, both by number
NOTHING = frozenset({(-1, -1)})


@dataclass(frozen=True, order=True)
class Sight:
    """What lies under visual tokens of one picture, in the view of the whole or in its tiles, where print is read."""

    seen: Seen
    whole: bool


def sights(scene: Scene, picture: int, printed: Sequence[Printed] = ()) -> list[Sight | None]:
    """For each visual token of a scene: those of the whole, of the tiles, then what is ``printed``; None where nothing
    is looked up.
    """
    found: list[Sight | None] = []
    for whole, make in ((True, whole_frame), (False, tile_frame)):
        frame = make(*scene.image.size, SIDE_PX)
        in_view: list[Sight | None] = [None] * (frame.canvas[0] * frame.canvas[1] * TOKENS_A_SIDE**2 // SIDE_PX**2)
        if scene.kind in ("things", "chart"):
            asked = ask(scene, Part(frame, (0, 0, *frame.canvas), tiles=not whole), SIDE_PX)
            for cell, thing in asked.things.items():
                in_view[cell] = Sight((picture, BACKGROUND if thing is None else thing), whole)
        found += in_view
    read = [Sight((picture, MARKS + mark), False) if mark is not None else None for mark in _marks(scene, printed)]
    return found + read + [None] * (PRINT_TOKENS - len(read))


def mark_of(picture: int, mark: int) -> Seen:
    """What is read of a scene, by its number among ``training.scenes.read_marks``."""
    return picture, MARKS + mark


def _marks(scene: Scene, printed: Sequence[Printed]) -> list[int | None]:
    """For each character and bar that is read the number of what is there, if it is the same."""
    frame = tile_frame(*scene.image.size, SIDE_PX)
    marks = read_marks(scene)
    places = [frame.on_canvas(mark.x, mark.y) for mark in marks]
    found: list[int | None] = []
    for one in printed[:PRINT_TOKENS]:
        far = [math.hypot(x - one.x, y - one.y) for x, y in places]
        same = [at for at, mark in enumerate(marks) if mark.character == one.character and far[at] < NEAR_PX]
        found.append(min(same, key=far.__getitem__, default=None))
    return found
