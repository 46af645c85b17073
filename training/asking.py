"""What every visual token of a view is asked for: words of what lies under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from hearth.multimodal.views import TOKENS_A_SIDE, Frame
from training.scenes import Scene, Thing
from training.world import NUMBERS, PLACES, size_word

COLOUR_WEIGHT = 0.5
PLACE_WEIGHT = 0.5
NUMBER_WEIGHT = 0.3
SIZE_WEIGHT = 0.5
SEVERAL_WEIGHT = 1.0  # of the number where there is more than one
PLACE_WORDS = frozenset(("left", "right", "top", "bottom", "middle"))
EDGE_TOKEN_WEIGHT = 0.25  # of a visual token that a thing covers besides the one over its centre
PHOTOGRAPH_TOKEN_WEIGHT = 0.5  # of every token of a photograph
BACKGROUND_TOKEN_WEIGHT = 0.05  # there are a dozen of them in a picture
TEXT_TOKEN_WEIGHT = 0.1
BACKGROUND = "background"  # the first word of a token that lies on nothing else

Words = list[tuple[str, float]]


class WordTokens:
    """Words as tokens inside a sentence, each word tokenized once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def ids(self, word: str) -> list[int]:
        if word not in self._ids:
            self._ids[word] = self._tokenizer.encode(" " + word, add_special_tokens=False).ids
        return self._ids[word]

    def shares(self, words: Words) -> list[tuple[int, float]]:
        """Ids of ``words`` and their shares, 1 in all."""
        total = sum(share for _, share in words)
        return [(token, share / len(self.ids(word)) / total) for word, share in words for token in self.ids(word)]


@dataclass(frozen=True)
class Part:
    """What of a scene a view shows: its frame, and left, top, right, bottom of the part of its canvas."""

    frame: Frame
    box: tuple[int, int, int, int]
    tiles: bool


@dataclass
class Asked:
    """By visual token: its words and weight, and which thing lies there, None for the background."""

    words: dict[int, tuple[Words, float]] = field(default_factory=dict)
    things: dict[int, int | None] = field(default_factory=dict)


def words_of(scene: Scene, thing: Thing, *, whole: bool = True) -> Words:
    """The words that answers about a thing are made of, each with its weight: name, colour and place; and number and
    size where the ``whole`` picture is seen.
    """
    words: Words = [(thing.name, 1.0)]
    if scene.kind == "photo":
        return words
    if thing.colour:
        words.append((thing.colour, COLOUR_WEIGHT))
    place = [word for word in PLACES[thing.cell].split() if word in PLACE_WORDS]
    words += [(word, PLACE_WEIGHT / len(place)) for word in place]
    if whole:
        size = size_word(thing.area / (scene.image.width * scene.image.height)).split()
        words += [(word, SIZE_WEIGHT / len(size)) for word in size]
        together = sum(other.name == thing.name for other in scene.things)
        words.append((NUMBERS[together], SEVERAL_WEIGHT if together > 1 else NUMBER_WEIGHT))
    return words


def ask(scene: Scene, part: Part, side_px: int) -> Asked:
    """What the visual tokens of one view of ``scene`` are to say. Tokens on the padding are not asked."""
    step = side_px / TOKENS_A_SIDE
    columns, rows = (round((part.box[i + 2] - part.box[i]) / step) for i in (0, 1))
    asked = Asked()
    left, top = part.frame.corner
    width, height = part.frame.size
    boxes = [(*part.frame.on_canvas(*thing.box[:2]), *part.frame.on_canvas(*thing.box[2:])) for thing in scene.things]
    for cell in range(columns * rows):
        x = part.box[0] + (cell % columns + 0.5) * step
        y = part.box[1] + (cell // columns + 0.5) * step
        if left <= x < left + width and top <= y < top + height:
            _ask_token(asked, cell, (x, y), scene, boxes, step, whole=not part.tiles)
    for at, (thing, box) in enumerate(zip(scene.things, boxes, strict=True)):
        x, y = (box[0] + box[2]) / 2 - part.box[0], (box[1] + box[3]) / 2 - part.box[1]
        if scene.kind == "things" and 0 <= x < columns * step and 0 <= y < rows * step:
            cell = int(y / step) * columns + int(x / step)
            asked.words[cell], asked.things[cell] = (words_of(scene, thing, whole=not part.tiles), 1.0), at
    if scene.kind == "words":
        _ask_print(asked, scene, part, step, columns, rows)
    return asked


def _ask_token(
    asked: Asked,
    cell: int,
    at: tuple[float, float],
    scene: Scene,
    boxes: Sequence[tuple[float, ...]],
    step: float,
    *,
    whole: bool,
) -> None:
    if scene.kind == "words":
        return
    far = [
        max(
            abs(at[0] - (b[0] + b[2]) / 2) / max(1.0, b[2] - b[0]),
            abs(at[1] - (b[1] + b[3]) / 2) / max(1.0, b[3] - b[1]),
        )
        for b in boxes
    ]
    nearest = min(range(len(far)), key=far.__getitem__)
    if far[nearest] < 0.5:
        weight = PHOTOGRAPH_TOKEN_WEIGHT if scene.kind == "photo" else EDGE_TOKEN_WEIGHT
        asked.words[cell] = (words_of(scene, scene.things[nearest], whole=whole), weight)
        asked.things[cell] = nearest
    elif scene.background and all(
        at[0] + step / 2 < b[0] or at[0] - step / 2 > b[2] or at[1] + step / 2 < b[1] or at[1] - step / 2 > b[3]
        for b in boxes
    ):
        asked.words[cell] = ([(BACKGROUND, 0.5), (scene.background, 1.0)], BACKGROUND_TOKEN_WEIGHT)
        asked.things[cell] = None


def _ask_print(asked: Asked, scene: Scene, part: Part, step: float, columns: int, rows: int) -> None:
    """Tokens over print say that it is there; what it says, the reader of print does."""
    for mark in scene.marks:
        x, y = part.frame.on_canvas(mark.x, mark.y)
        x, y = x - part.box[0], y - part.box[1]
        if 0 <= x < columns * step and 0 <= y < rows * step:
            asked.words[int(y / step) * columns + int(x / step)] = ([("text", 1.0)], TEXT_TOKEN_WEIGHT)
