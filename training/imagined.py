"""Scenes that are never drawn, and the visual tokens they would have: thousands of questions in the time of a picture.

To answer where a thing is, how many there are or which is bigger, the language model must find the tokens that say the
thing's name, and say what else they say. A drawn and encoded picture is a costly way to learn that. What a visual token
is to say is known for every scene; here its vector is what that makes of it on average, by a map fitted to real tokens,
and what is left of some real token is added as noise.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.locating import LIST_WORDS, list_of, place_of
from hearth.multimodal.named_things import words_of
from hearth.multimodal.print_cells import SAID, Printed
from hearth.multimodal.print_order import PRINT_TOKENS, PrintTokens, in_reading_order
from hearth.multimodal.views import TOKENS_A_SIDE, Frame, n_tokens, tile_frame, whole_frame
from training.answers import counts_of
from training.asking import BACKGROUND, Part, WordTokens, ask
from training.backgrounds import BACKGROUND_NAMES
from training.charts import SMALLER, TAUGHT_LISTED_SHARE, TITLED_SHARE, chart_of, ticks
from training.language import LanguageModel
from training.pictures import TEXTURED_SHARE, Painter, Placed, row_by_row
from training.scene_pool import FreshScenes, Scenes, encode_scenes, print_tokens
from training.scenes import Bar, Box, Mark, Scene, Thing, bar_ends
from training.view_batches import SIDE_PX
from training.world import NUMBERS

SCENE_PX = 2 * SIDE_PX
N_WHOLE = TOKENS_A_SIDE**2
N_SCENE = n_tokens(SCENE_PX, SCENE_PX)
FITTED_KINDS = ("single", "counted", "pair", "groups", "crowd", "crowd", "words", "chart")
FITTED_SCENES = 560
NOISE = 0.5  # of what is left of real tokens: some of it is what the map does not tell of a name, and not noise
ENCODED_TOGETHER = 60
MISREAD = 0.08  # of the letters of labels
MISPLACED = 0.2  # so many times as often as a letter a list of alike things is wrong
MISSED, TWICE = 0.5, 0.15  # of these; the others are taken for others
ADVANCE = 0.55  # from one character to the next, in sizes of a font
RIDGE = 0.3  # in tokens: how many it takes for a direction of word vectors to count


@dataclass(frozen=True)
class Told:
    """What the visual tokens of a scene are to say: ids of words with their shares, by token, and which are asked."""

    words: Tensor  # (n, 2): token, id
    shares: Tensor  # (n,), 1 in all for a token
    kinds: Tensor  # (tokens,): 0 not asked, 1 background, 2 a thing


def told_by(scene: Scene, tokens: WordTokens) -> Told:
    """What is asked of the tokens of a square scene, the whole first, then the tiles.

    Numbers are left out, which real tokens say badly: things are to be counted by their places.
    """
    words: list[tuple[int, int]] = []
    shares: list[float] = []
    frames = whole_frame(SCENE_PX, SCENE_PX, SIDE_PX), tile_frame(SCENE_PX, SCENE_PX, SIDE_PX)
    kinds = torch.zeros(N_WHOLE + (frames[1].canvas[0] * TOKENS_A_SIDE // SIDE_PX) ** 2, dtype=torch.long)
    for first, frame in zip((0, N_WHOLE), frames, strict=True):
        asked = ask(scene, Part(frame, (0, 0, *frame.canvas), tiles=first > 0), SIDE_PX)
        for cell, (words_there, _) in asked.words.items():
            of_cell = [(word, share) for word, share in words_there if word not in NUMBERS]
            kinds[first + cell] = 1 if of_cell[0][0] == BACKGROUND else 2
            for token, share in tokens.shares(of_cell):
                words.append((first + cell, token))
                shares.append(share)
    return Told(torch.tensor(words).view(-1, 2), torch.tensor(shares), kinds)


class TokenMaker:
    """Makes visual tokens from what they are to say. ``explained`` is how much of real ones' variance that tells."""

    def __init__(self, language: LanguageModel, tokenizer: Tokenizer) -> None:
        self._vectors = language.embedding.weight.detach().clone()
        self.words = WordTokens(tokenizer)
        self.explained = 0.0

    def fit(self, scenes: list[Scene], visual: list[Tensor], told: Sequence[Sequence[Printed]] = ()) -> None:
        """Fits the map to real scenes and their visual tokens, each of shape (n_tokens, n_embd). What is ``told`` of
        scenes without print stays as it is, if it is no list.

        A token is the mean token at its place and a linear map of the mean vector of its words (ridge regression).
        """
        asked_for = [told_by(scene, self.words) for scene in scenes]
        seen = torch.stack(visual)
        lists = [any(one.character in LIST_WORDS for one in of_scene) for of_scene in told] or [False] * len(scenes)
        plain = [not scene.marks and not is_listed for scene, is_listed in zip(scenes, lists, strict=True)]
        tokens, self._read = seen[:, :N_SCENE], seen[plain, N_SCENE:]
        asked = torch.stack([one.kinds > 0 for one in asked_for])
        said = torch.stack([self._said(one) for one in asked_for])
        self._middle = tokens.mean(0)
        self._said_middle = said.sum(0) / asked.sum(0).clamp(min=1)[:, None]
        x, y = (said - self._said_middle)[asked], (tokens - self._middle)[asked]
        gram = x.T @ x
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram)) / 100
        self._map = torch.linalg.solve(gram, x.T @ y)
        left = tokens - self._middle
        left[asked] -= x @ self._map
        self.explained = 1 - float(left[asked].square().sum() / y.square().sum())
        kinds = torch.stack([one.kinds for one in asked_for])
        is_tile = torch.arange(tokens.shape[1]).expand_as(kinds) >= N_WHOLE
        self._left = {
            (kind, tile): left[(kinds == kind) & (is_tile == tile)] for kind in (0, 1, 2) for tile in (False, True)
        }

    def make(self, told: Told, generator: torch.Generator, read: Tensor | None = None) -> Tensor:
        """Visual tokens of a scene, (n_tokens, n_embd); the last ones are what is ``read``, if something is."""
        asked = told.kinds > 0
        tokens = self._middle.clone()
        tokens[asked] += (self._said(told) - self._said_middle)[asked] @ self._map
        for (kind, tile), pool in self._left.items():
            chosen = told.kinds == kind
            chosen[N_WHOLE:] &= tile
            chosen[:N_WHOLE] &= not tile
            n = int(chosen.sum())
            if n and len(pool):
                tokens[chosen] += NOISE * pool[torch.randint(len(pool), (n,), generator=generator)]
        if read is None:
            read = self._read[int(torch.randint(len(self._read), (), generator=generator))]
        return torch.cat((tokens, read))

    def _said(self, told: Told) -> Tensor:
        """The mean vector of the words of every token."""
        found = torch.zeros(len(told.kinds), self._vectors.shape[1])
        if len(told.words):
            found.index_add_(0, told.words[:, 0], self._vectors[told.words[:, 1]] * told.shares[:, None])
        return found


class Imaginer(Painter):
    """Lays scenes out as a painter does, without drawing them: square, with an empty picture that all share."""

    blank = Image.new("1", (SCENE_PX, SCENE_PX))

    def _scene(self, placed: list[Placed], background: str, *, plain: bool = False) -> Scene:
        plain = plain or self.rng.random() >= TEXTURED_SHARE
        things = tuple(
            Thing(sprite.name, sprite.colour, cell, self._box(sprite.image.size, cell, size))
            for sprite, cell, size in row_by_row(placed)
        )
        return Scene(self.blank, things, background if plain else None)

    def _box(self, sprite_size: tuple[int, int], cell: tuple[int, int], size: float) -> Box:
        rng = self.rng
        scale = size * SCENE_PX / max(sprite_size) * rng.uniform(1.0, 1.15)
        box = []
        for at, extent in zip(cell, sprite_size, strict=True):
            drawn = extent * scale
            centre = ((at + 0.5) / 3 + rng.uniform(-0.2, 0.2) / 3) * SCENE_PX
            box.append((min(max(centre - drawn / 2, 1), max(1, SCENE_PX - drawn - 1)), drawn))
        (left, width), (top, height) = box
        return left, top, left + width, top + height

    def words(self) -> Scene:
        """A word somewhere, as large as it fits or smaller."""
        rng, text = self.rng, self._printer().word()
        width = SCENE_PX * rng.uniform(0.45, 0.92)
        size = min(width / len(text) / ADVANCE, 0.6 * SCENE_PX)
        left = rng.uniform(0, SCENE_PX - ADVANCE * size * len(text))
        marks = self._written(text, (left, rng.uniform(0.2, 0.8) * SCENE_PX), size)
        return Scene(self.blank, (), rng.choice(BACKGROUND_NAMES), "words", marks, text)

    def chart(self) -> Scene:
        """As ``training.charts`` draws it, within a few pixels."""
        rng = self.rng
        bars, top, printed = chart_of(rng, self._printer().word, listed=TAUGHT_LISTED_SHARE)
        left, right = (SCENE_PX * share for share in (0.08 if printed else 0.17, 0.93))
        low, high = 0.85 * SCENE_PX, 0.14 * SCENE_PX
        slot, size = (right - left) / len(bars), 0.1 * SCENE_PX * rng.uniform(SMALLER, 1.0)
        filled = slot * rng.uniform(0.5, 0.8)
        marks: list[Mark] = []
        things: list[Thing] = []
        placed: list[Bar] = []

        def write(text: str, x: float, y: float, width: float) -> None:
            fitted = min(size, width / ADVANCE / len(text))
            marks.extend(self._written(text, (x - ADVANCE * fitted * len(text) / 2, y), fitted))

        if rng.random() < TITLED_SHARE:
            write(self._printer().word(), SCENE_PX / 2, 0.07 * SCENE_PX, 0.7 * SCENE_PX)
            high += 0.1 * SCENE_PX
        for tick in () if printed else ticks(top):
            write(str(tick), left / 2, low - (low - high) * tick / top, 0.7 * left)
        for at, bar in enumerate(bars):
            x, head = left + (at + 0.5) * slot, low - (low - high) * bar.value / top
            box = (x - filled / 2, head, x + filled / 2, low)
            things.append(Thing("bar", bar.colour, (min(2, int(3 * x / SCENE_PX)), 2), box))
            placed.append(replace(bar, first_mark=len(marks)))
            write(bar.label, x, low + 0.07 * SCENE_PX, 0.9 * slot)
            if printed:
                write(str(bar.value), x, head - 0.05 * SCENE_PX, 0.8 * slot)
        return Scene(self.blank, tuple(things), None, "chart", tuple(marks), "", tuple(placed))

    @staticmethod
    def _written(text: str, start: tuple[float, float], size: float) -> tuple[Mark, ...]:
        """Marks of ``text`` from where its first character begins, at the height of their middle."""
        return tuple(
            Mark(character, start[0] + (at + 0.5) * ADVANCE * size, start[1], at == 0, size)
            for at, character in enumerate(text)
        )


def as_read(scene: Scene, misread: float = 0.0, names: Sequence[Sequence[str]] = ()) -> tuple[Printed, ...]:
    """What a reader says of ``scene`` that does not err, or that mistakes a share of the letters of bars' labels and,
    less often, where alike things stand and which of ``names`` they have, if it tells names. A scene has one reading.
    """
    frame = tile_frame(*scene.image.size, SIDE_PX)
    if scene.kind == "things":
        return tuple(_listed(scene, frame, misread * MISPLACED, names))
    marks = [*scene.marks, *bar_ends(scene)]
    rng = random.Random(f"{marks[0].x} {marks[-1].y}") if marks else random.Random()
    labels = {bar.first_mark + at for bar in scene.bars for at in range(len(bar.label))}
    told: list[Printed] = []
    for at, mark in enumerate(marks):
        if mark.character not in SAID:
            continue
        read = Printed(mark.character, *frame.on_canvas(mark.x, mark.y), mark.begins, mark.size * frame.scale)
        if at in labels and rng.random() < misread:
            told += _mistaken(read, rng)
        else:
            told.append(read)
    return tuple(in_reading_order(told)[:PRINT_TOKENS])


def _listed(scene: Scene, frame: Frame, mistaken: float, names: Sequence[Sequence[str]]) -> list[Printed]:
    """The list of alike things and their name, rarely with one of them missing, by another name or for things that
    differ, or no list.
    """
    rng = random.Random(f"{scene.things[0].box}")
    taken = [place_of(thing.cell) for thing in scene.things]
    alike = len(counts_of(scene)) == 1
    if rng.random() < mistaken:
        if alike and rng.random() < 0.5:
            taken.remove(rng.choice(taken))
        else:
            alike = not alike
    if not alike:
        return []
    told = [name for name in names if "".join(name).strip() == scene.things[0].name]
    if names and rng.random() < mistaken:
        told = [rng.choice(names)]
    return [*list_of(taken, frame), *(words_of(told[0], frame) if told else ())]


def _mistaken(read: Printed, rng: random.Random) -> list[Printed]:
    """It is not seen, seen twice, or taken for another of its kind."""
    way = rng.random()
    if way < MISSED:
        return []
    if way < MISSED + TWICE:
        return [read, replace(read, x=read.x + read.size / 4, begins=False)]
    kind = string.digits if read.character.isdigit() else string.ascii_lowercase
    return [replace(read, character=rng.choice(kind))]


class ImaginedScenes:
    """Stands in for a pool of drawn scenes; tokens are made when they are asked for."""

    def __init__(self, painter: Painter, imaginer: Imaginer, maker: TokenMaker) -> None:
        self.rng = imaginer.rng
        self._layouts = FreshScenes(imaginer)
        self._maker = maker
        self._generator = torch.Generator().manual_seed(self.rng.randrange(2**31))
        self._painter = painter
        self._print_tokens: PrintTokens | None = None
        self._listing = True  # as an encoder with a locator does
        self._names: Sequence[Sequence[str]] = ()  # that one with a namer tells

    def fit(self, vision: VisionNetwork, device: torch.device) -> None:
        """Draws and encodes some scenes for the maker to learn from."""
        drawn = FreshScenes(self._painter)
        scenes: list[Scene] = []
        while len(scenes) < FITTED_SCENES:
            (scene,) = drawn.draw(FITTED_KINDS[len(scenes) % len(FITTED_KINDS)])
            if scene.image.size == (SCENE_PX, SCENE_PX):
                scenes.append(scene)
        was_training = vision.training
        vision.eval()
        with torch.no_grad():
            encoded = [
                one
                for start in range(0, len(scenes), ENCODED_TOGETHER)
                for one in encode_scenes(scenes[start : start + ENCODED_TOGETHER], vision, device)
            ]
        vision.train(was_training)
        self._print_tokens = print_tokens(vision) if vision.print else None
        self._names = vision.names
        self._listing = vision.locator is not None
        self._maker.fit(scenes, [one.tokens.cpu() for one in encoded], [one.printed for one in encoded])

    def draw(self, kind: str) -> Scenes:
        """One scene, or the scenes of a group for "related"."""
        return self._layouts.draw(kind)

    def visual(self, scene: Scene) -> Tensor:
        """Visual tokens, shape (n_tokens, n_embd); others with every call."""
        read = None
        told = list(self.printed(scene))
        if told and self._print_tokens:
            read = torch.from_numpy(self._print_tokens.tokens(told, tile_frame(*scene.image.size, SIDE_PX)))
        return self._maker.make(told_by(scene, self._maker.words), self._generator, read)

    def printed(self, scene: Scene) -> tuple[Printed, ...]:
        """What is read and listed of a scene."""
        return as_read(scene, MISREAD, self._names) if scene.marks or self._listing else ()
