"""Scenes drawn and encoded ahead, for steps in which the vision half stands still; each is asked about often."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.line_reader import LineReader
from hearth.multimodal.locating import listed, looks_at
from hearth.multimodal.named_things import told_things, words_of
from hearth.multimodal.print_cells import Array, Printed, characters_of
from hearth.multimodal.print_order import PRINT_TOKENS, PrintTokens, with_list
from hearth.multimodal.print_reading import told_of
from hearth.multimodal.views import Frame, canvas_of, pixels_of, places_of, tile_frame, token_grid, whole_frame
from training.loop import autocast
from training.pictures import MAX_COUNT, Painter
from training.related import related
from training.scenes import Scene
from training.view_batches import SIDE_PX

ENCODE_BATCH = 32
USES = {"words": 2, "chart": 3}  # how often a scene is drawn; what is asked of these could be learnt by heart otherwise
OTHER_USES = 6
RENAMED = 0.25  # of things whose name is told rightly get another one: see ``renamed``
Scenes = tuple[Scene, ...]


@dataclass(frozen=True)
class Encoded:
    """The visual tokens of a scene, (n_tokens, n_embd): of the whole, of the tiles, then of what is ``printed``
    and listed.
    """

    tokens: Tensor
    printed: tuple[Printed, ...] = ()


def encode_scenes(scenes: list[Scene], vision: VisionNetwork, device: torch.device) -> list[Encoded]:
    """Keeps gradients, but not through what is printed or where things are told to stand."""
    whole, tiles = (_seen(scenes, vision, device, tiles=tiles) for tiles in (False, True))
    views = [torch.cat(parts) for parts in zip(whole.tokens, tiles.tokens, strict=True)]
    if vision.print is None:
        return [Encoded(tokens) for tokens in views]
    make = print_tokens(vision)
    with_print = []
    for scene, tokens, told in zip(scenes, views, tiles.told, strict=True):
        behind = torch.from_numpy(make.tokens(told, tile_frame(*scene.image.size, SIDE_PX)))
        with_print.append(Encoded(torch.cat((tokens, behind.to(tokens.device))), tuple(told[:PRINT_TOKENS])))
    return with_print


def encode_tiles(scenes: list[Scene], vision: VisionNetwork, device: torch.device) -> list[Tensor]:
    """Visual tokens of the tiles alone, (n_tokens, n_embd) each."""
    return _seen(scenes, vision, device, tiles=True, telling=False).tokens


@dataclass(frozen=True)
class _Seen:
    """Visual tokens of one view of each scene, and what is printed and listed if it is that of the tiles."""

    tokens: list[Tensor]
    told: list[list[Printed]]


def _seen(
    scenes: list[Scene], vision: VisionNetwork, device: torch.device, *, tiles: bool, telling: bool = True
) -> _Seen:
    by_canvas: dict[tuple[int, int], list[tuple[int, Frame]]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        frame = (tile_frame if tiles else whole_frame)(*scene.image.size, SIDE_PX)
        by_canvas[frame.canvas].append((index, frame))
    found = _Seen([torch.empty(0)] * len(scenes), [[] for _ in scenes])
    for members in by_canvas.values():
        for start in range(0, len(members), ENCODE_BATCH):
            part = members[start : start + ENCODE_BATCH]
            frames = [frame for _, frame in part]
            pixels = np.stack([pixels_of(canvas_of(scenes[index].image, frame)) for index, frame in part])
            places = np.stack([places_of(frame, SIDE_PX, tiles=tiles) for frame in frames])
            batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last).to(device)
            with autocast(device):
                maps = vision.feature_maps(batch)
                tokens = vision.visual_tokens(maps, torch.from_numpy(places).to(device)).float()
                images = [scenes[index].image for index, _ in part]
                told = _told(batch, maps.joined, tokens, images, frames, vision) if tiles and telling else []
            for at, (index, _) in enumerate(part):
                found.tokens[index] = tokens[at]
                if told:
                    found.told[index] = told[at]
    return found


@torch.no_grad()
def _told(
    pixels: Tensor, maps: Tensor, tokens: Tensor, images: list[Image.Image], frames: list[Frame], vision: VisionNetwork
) -> list[list[Printed]]:
    """What is printed on canvases of one size, and where things stand that are of one kind."""
    if vision.letters is None:
        return []
    found = [characters_of(said) for said in vision.letters(pixels).float().cpu().numpy()]
    reader = functools.partial(_told_of_lines, vision.lines, pixels.device) if vision.lines is not None else None
    read = [told_of(*of, reader) for of in zip(found, images, frames, strict=True)]
    if vision.locator is None:
        return read
    rows, columns = token_grid(frames[0], SIDE_PX)
    looks = torch.from_numpy(np.stack([looks_at(frame, SIDE_PX) for frame in frames])).to(tokens.device)
    with torch.autocast(tokens.device.type, enabled=False):  # as the runtime does: what is doubtful is cut at nought
        said = vision.locator(tokens.reshape(len(tokens), rows, columns, -1), looks).cpu().numpy()
        lying = vision.namer.lying(maps.float()).cpu().numpy() if vision.namer is not None else said
    things = (
        listed(places, frame)
        if vision.namer is None
        else told_things(image, frame, places, on, functools.partial(_look, vision, pixels.device), vision.names)
        for image, frame, places, on in zip(images, frames, said, lying, strict=True)
    )
    return [with_list(*both) for both in zip(read, things, strict=True)]


def _look(vision: VisionNetwork, device: torch.device, crops: Array) -> Array:
    said: Array = vision.names_of_crops(torch.from_numpy(crops).to(device)).float().cpu().numpy()
    return said


def _told_of_lines(lines: LineReader, device: torch.device, strips: Array) -> Array:
    told: Array = lines(torch.from_numpy(strips).to(device)).float().cpu().numpy()
    return told


def print_tokens(vision: VisionNetwork) -> PrintTokens:
    """Tokens of what is printed, listed and named, as the vectors of ``vision`` say them now."""
    assert vision.print is not None
    weights = {name: weight.detach().float().cpu().numpy() for name, weight in vision.print.state_dict().items()}
    return PrintTokens(weights, vision.name_words)


def _alone(draw: Callable[[], Scene]) -> Callable[[], Scenes]:
    return lambda: (draw(),)


class ScenePool:
    """Gives groups of scenes by kind, encoded. After some draws of every group (``USES``), the kind is drawn anew."""

    def __init__(self, painter: Painter, vision: VisionNetwork, device: torch.device, *, kind_size: int = 160) -> None:
        self.rng: random.Random = painter.rng
        self._vision = vision
        self._device = device
        self._kind_size = kind_size
        self._draw: dict[str, Callable[[], Scenes]] = {
            "counted": lambda: (painter.counted(self.rng.randint(2, MAX_COUNT)),),
            "related": lambda: related(painter),
        }
        for kind in ("single", "coloured", "pair", "groups", "crowd", "photograph", "words", "chart"):
            self._draw[kind] = _alone(getattr(painter, kind))
        self._groups: dict[str, list[Scenes]] = {}
        self._previous: dict[str, list[Scenes]] = {}  # drawn for the batch that is being put together
        self._drawn: dict[str, int] = {}
        self._encoded: dict[int, Encoded] = {}

    def visual(self, scene: Scene) -> Tensor:
        """The visual tokens of a scene of this pool, shape (n_tokens, n_embd)."""
        return self._encoded[id(scene)].tokens

    def printed(self, scene: Scene) -> tuple[Printed, ...]:
        """What is read of a scene of this pool."""
        return self._encoded[id(scene)].printed

    def draw(self, kind: str) -> Scenes:
        """One scene, or the scenes of a group for "related". KeyError for an unknown kind."""
        if kind not in self._groups or self._drawn[kind] >= self._room(kind):
            self._refill(kind)
        self._drawn[kind] += 1
        return self.rng.choice(self._groups[kind])

    def _room(self, kind: str) -> int:
        return USES.get(kind, OTHER_USES) * len(self._groups[kind])

    @torch.no_grad()
    def _refill(self, kind: str) -> None:
        for old in self._previous.get(kind, ()):
            for scene in old:
                self._encoded.pop(id(scene), None)
        self._previous[kind] = self._groups.get(kind, [])
        groups = [self._draw[kind]() for _ in range(self._kind_size)]
        scenes = [scene for group in groups for scene in group]
        was_training = self._vision.training
        self._vision.eval()
        encoded = encode_scenes(scenes, self._vision, self._device)
        if self._vision.namer is not None and kind != "related":
            scenes, encoded = self._some_renamed(scenes, encoded)
            groups = [(scene,) for scene in scenes]
        self._encoded.update({id(scene): one for scene, one in zip(scenes, encoded, strict=True)})
        self._vision.train(was_training)
        self._groups[kind] = groups
        self._drawn[kind] = 0

    def _some_renamed(self, scenes: list[Scene], encoded: list[Encoded]) -> tuple[list[Scene], list[Encoded]]:
        others = sorted({scene.things[0].name for scene in scenes if scene.kind == "things"})
        found = [
            renamed(scene, one, self.rng.choice(others), self._vision)
            if others and self.rng.random() < RENAMED
            else (scene, one)
            for scene, one in zip(scenes, encoded, strict=True)
        ]
        return [scene for scene, _ in found], [one for _, one in found]


def renamed(scene: Scene, encoded: Encoded, name: str, vision: VisionNetwork) -> tuple[Scene, Encoded]:
    """A scene of things alike whose name is told, as if that and theirs were another: what its views say of the name is
    not true then, as in pictures drawn in a manner that was never met, and what was looked at closely is to be trusted.
    Any other scene stays as it is.
    """
    words = {"".join(of_name).strip(): of_name for of_name in vision.names}
    alike = {thing.name for thing in scene.things} if scene.kind == "things" else set()
    own, other = words.get(alike.pop(), []) if len(alike) == 1 else [], words.get(name, [])
    if not own or not other or [one.character for one in encoded.printed[-len(own) :]] != own:
        return scene, encoded
    frame = tile_frame(*scene.image.size, SIDE_PX)
    printed = (*encoded.printed[: -len(own)], *words_of(other, frame))[:PRINT_TOKENS]
    told = torch.from_numpy(print_tokens(vision).tokens(list(printed), frame)).to(encoded.tokens.device)
    things = tuple(replace(thing, name=name) for thing in scene.things)
    return replace(scene, things=things), Encoded(torch.cat((encoded.tokens[:-PRINT_TOKENS], told)), printed)


class FreshScenes:
    """Stands in for a pool where nothing is encoded ahead: every scene is drawn when it is asked for."""

    def __init__(self, painter: Painter) -> None:
        self.rng: random.Random = painter.rng
        self._painter = painter

    def draw(self, kind: str) -> Scenes:
        if kind == "counted":
            return (self._painter.counted(self.rng.randint(2, MAX_COUNT)),)
        if kind == "related":
            return related(self._painter)
        return (getattr(self._painter, kind)(),)
