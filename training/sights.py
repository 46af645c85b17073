"""What lies under the visual tokens of a scene, for looking it up: things, the ground they are on, characters."""

from __future__ import annotations

from dataclasses import dataclass

from hearth.multimodal.views import TOKENS_A_SIDE, Frame, tile_frame, whole_frame
from training.asking import Part, ask
from training.scenes import Scene
from training.view_batches import SIDE_PX

BACKGROUND = -1  # in place of a thing
MARKS = 1000  # in place of a thing, and the number of a character more
Seen = tuple[int, int]  # picture and thing, both by number
NOTHING = frozenset({(-1, -1)})


@dataclass(frozen=True, order=True)
class Sight:
    """What lies under visual tokens of one picture, in the view of the whole or in its tiles."""

    seen: Seen
    whole: bool


def sights(scene: Scene, picture: int) -> list[Sight | None]:
    """For each visual token of a scene's views, the whole first, then the tiles; None where nothing is looked up."""
    found: list[Sight | None] = []
    for whole, make in ((True, whole_frame), (False, tile_frame)):
        frame = make(*scene.image.size, SIDE_PX)
        in_view: list[Sight | None] = [None] * (frame.canvas[0] * frame.canvas[1] * TOKENS_A_SIDE**2 // SIDE_PX**2)
        if scene.kind == "things":
            asked = ask(scene, Part(frame, (0, 0, *frame.canvas), tiles=not whole), SIDE_PX)
            for cell, thing in asked.things.items():
                in_view[cell] = Sight((picture, BACKGROUND if thing is None else thing), whole)
        elif not whole:
            for at, cell in reversed(list(enumerate(_cells_of_marks(scene, frame)))):
                in_view[cell] = Sight((picture, MARKS + at), whole)
        found += in_view
    return found


def marks_of(scene: Scene, picture: int) -> list[Seen]:
    """For each character of a scene what is seen where it lies: the first one there."""
    cells = _cells_of_marks(scene, tile_frame(*scene.image.size, SIDE_PX))
    return [(picture, MARKS + cells.index(cell)) for cell in cells]


def _cells_of_marks(scene: Scene, frame: Frame) -> list[int]:
    step = SIDE_PX / TOKENS_A_SIDE
    columns, rows = (round(side / step) for side in frame.canvas)
    cells: list[int] = []
    for mark in scene.marks:
        x, y = frame.on_canvas(mark.x, mark.y)
        cells.append(min(max(int(y / step), 0), rows - 1) * columns + min(max(int(x / step), 0), columns - 1))
    return cells
