"""What a drawn picture shows, with where each thing and each character of it lies."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

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
    begins with it.
    """

    character: str
    x: float
    y: float
    begins: bool = False
    size: float = 12.0


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: what is written under it, its colour and its height on the axis.

    ``first_mark`` is that of its label among the marks of the scene; those of its value follow if it is ``printed``.
    """

    label: str
    colour: str
    value: int
    first_mark: int = 0
    printed: bool = True

    @property
    def text(self) -> str:
        """What is printed of it, as it is read."""
        return f"{self.label} {self.value}" if self.printed else self.label


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
