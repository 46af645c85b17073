"""What a drawn picture shows, with where each thing and each character of it lies."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from hearth.multimodal.print_cells import CELL_PX
from hearth.multimodal.print_charts import READ_OFF_ADVANCE_PX

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the picture


@dataclass(frozen=True)
class Sprite:
    """A thing cut out: ``image`` is RGBA, cropped to what is visible; ``colour`` None when no colour dominates."""

    name: str
    image: Image.Image
    colour: str | None


@dataclass(frozen=True)
class Thing:
    """One thing in a scene; ``cell`` is (column, row) of the 3×3 grid its centre lies in."""

    name: str
    colour: str | None
    cell: tuple[int, int]
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        """In pixels of the picture."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> float:
        """Square pixels of its box."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class Mark:
    """A printed character: the middle of its ink and the size of its font in pixels of the picture, and whether a word
    begins with it. Or a bar, by its colour, and the middle of its end.
    """

    character: str
    x: float
    y: float
    begins: bool = False
    size: float = 12.0


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: what is written under it, its colour and its height on the axis.

    ``first_mark`` is that of its label among the marks of the scene; those of its value follow if it is ``printed``,
    as otherwise an axis tells it.
    """

    label: str
    colour: str
    value: int
    first_mark: int = 0
    printed: bool = True

    @property
    def text(self) -> str:
        """What is printed of it or read off the axis."""
        return f"{self.label} {self.value}"


@dataclass(frozen=True)
class Scene:
    """A picture and what is true of it. All copies of a counted thing are listed.

    ``kind`` is things, photo, words or chart. ``text`` is what is printed, its lines joined by line breaks.
    ``background`` is None where it has no one colour.
    """

    image: Image.Image
    things: tuple[Thing, ...]
    background: str | None
    kind: str = "things"
    marks: tuple[Mark, ...] = ()
    text: str = ""
    bars: tuple[Bar, ...] = ()


def bar_ends(scene: Scene) -> tuple[Mark, ...]:
    """Where the bars of a chart end, in their order."""
    bars = scene.things if scene.bars else ()
    return tuple(Mark(bar.colour or "", bar.centre[0], bar.box[1], begins=True) for bar in bars)


def bar_edges(scene: Scene, scale: float, offset: float) -> tuple[Mark, ...]:
    """The upper edges of bars cut into cells of ``CELL_PX`` on a canvas, on which the picture is ``scale`` times as
    large and ``offset`` pixels from the left: a mark for each that is covered by half at least, the first beginning it.
    """
    found = []
    for bar in scene.things if scene.bars else ():
        left, right = ((at * scale + offset) / CELL_PX for at in (bar.box[0], bar.box[2]))
        cells = range(round(left), round(right)) or range(int((left + right) / 2), int((left + right) / 2) + 1)
        found += [
            Mark(bar.colour or "", ((cell + 0.5) * CELL_PX - offset) / scale, bar.box[1], cell == cells[0])
            for cell in cells
        ]
    return tuple(found)


def read_marks(scene: Scene) -> tuple[Mark, ...]:
    """What is to be read of a scene: its marks, the ends of bars, and at these the values that an axis tells."""
    ends = bar_ends(scene)
    values = (_read_off(bar, end) for bar, end in zip(scene.bars, ends, strict=True) if not bar.printed)
    return (*scene.marks, *ends, *(mark for value in values for mark in value))


def marks_of_bar(scene: Scene, at: int) -> tuple[int, list[int]]:
    """Numbers among ``read_marks`` of the bar, and of the characters of its label and value."""
    bar, first_end = scene.bars[at], len(scene.marks)
    first_value = bar.first_mark + len(bar.label)
    if not bar.printed:
        first_value = first_end + len(scene.bars) + sum(len(str(other.value)) for other in scene.bars[:at])
    label = range(bar.first_mark, bar.first_mark + len(bar.label))
    return first_end + at, [*label, *range(first_value, first_value + len(str(bar.value)))]


def _read_off(bar: Bar, end: Mark) -> list[Mark]:
    text = str(bar.value)
    left = end.x - READ_OFF_ADVANCE_PX * (len(text) - 1) / 2
    return [Mark(digit, left + at * READ_OFF_ADVANCE_PX, end.y, at == 0) for at, digit in enumerate(text)]
