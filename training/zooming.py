"""The stage "zoom": two heads on the finished image tower tell where things lie and what one is called.

The tower stands still, and what it sees is kept and learnt from several times: it takes a hundred times as long as the
heads. Names are learnt from crops as in the stage "names", and that print, charts, grounds and several things together
have none.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.named_things import CELL_PX, CROP_PX
from hearth.multimodal.views import Frame, canvas_of, pixels_of, tile_frame
from training.aligning import normalised
from training.loop import StagePlan, autocast, run_head
from training.naming import Crops
from training.pictures import Material, Painter
from training.printing import Printer
from training.scene_pool import FreshScenes
from training.scenes import Scene
from training.view_batches import SIDE_PX, new_fonts

# kind of scene → share of those drawn
MIXTURE = {
    "single": 0.35, "counted": 0.2, "pair": 0.1, "groups": 0.1, "crowd": 0.05,
    "photograph": 0.05, "words": 0.08, "chart": 0.07,
}  # fmt: skip
SIDES_PX = (2 * SIDE_PX, 3 * SIDE_PX, 4 * SIDE_PX)
DRAWN, CROPS = 24, 160  # scenes and crops at a time
NAMELESS = ("words", "chart", "pair", "groups", "crowd")  # as a whole, and their corners
STEPS_A_DRAW = 4
KEPT_SCENES, KEPT_CROPS = 900, 40_000
SCENES_PER_STEP, CROPS_PER_STEP = 24, 1024
SMOOTHING = 0.1
CORNER = 0.35  # of a nameless scene's sides


def covered(scene: Scene, frame: Frame) -> Tensor:
    """(rows, columns), 1 for each cell of the canvas whose middle lies on a thing; nothing does in print and charts."""
    columns, rows = (side // CELL_PX for side in frame.canvas)
    on = torch.zeros(rows, columns)
    for thing in scene.things if scene.kind == "things" else ():
        left, top = frame.on_canvas(*thing.box[:2])
        right, bottom = frame.on_canvas(*thing.box[2:])
        across, down = ((torch.arange(n) + 0.5) * CELL_PX for n in (columns, rows))
        on += ((across >= left) & (across <= right))[None, :] * ((down >= top) & (down <= bottom))[:, None]
    return on.clamp(max=1)


class Zooming:
    """Losses of the stage. ``vision`` needs a namer whose names are the classes of ``crops``, in their order."""

    def __init__(self, vision: VisionNetwork, painter: Painter, crops: Crops, device: torch.device) -> None:
        self._vision = vision
        self._painter = painter
        self._crops = crops
        self._device = device
        self._fresh = FreshScenes(painter)
        self._scenes: dict[tuple[int, int], deque[tuple[Tensor, Tensor]]] = {}
        self._averages: deque[tuple[Tensor, Tensor]] = deque()
        self._step = 0

    def losses(self, _progress: float) -> dict[str, Tensor]:
        assert self._vision.namer is not None
        if self._step % STEPS_A_DRAW == 0:
            self._draw()
        self._step += 1
        rng = self._painter.rng
        shapes = list(self._scenes)
        (shape,) = rng.choices(shapes, [len(self._scenes[shape]) for shape in shapes])
        maps, on = _together(rng.choices(self._scenes[shape], k=SCENES_PER_STEP), self._device)
        lying = self._vision.namer.lying(maps)
        chosen = rng.choices(self._averages, k=max(1, CROPS_PER_STEP // CROPS))
        averages, labels = (torch.cat(parts).to(self._device) for parts in zip(*chosen, strict=True))
        named = self._vision.namer.of_average(averages.float())
        return {
            "lying": F.binary_cross_entropy_with_logits(lying, on),
            "names": F.cross_entropy(named, labels, label_smoothing=SMOOTHING),
        }

    @torch.no_grad()
    def _draw(self) -> None:
        rng = self._painter.rng
        self._painter.side_px = rng.choice(SIDES_PX)
        kinds = rng.choices(tuple(MIXTURE), tuple(MIXTURE.values()), k=DRAWN)
        scenes = [scene for kind in kinds for scene in self._fresh.draw(kind)]
        for scene in scenes:
            frame = tile_frame(*scene.image.size, SIDE_PX)
            pixels = torch.from_numpy(pixels_of(canvas_of(scene.image, frame)))[None].to(self._device)
            with autocast(self._device):
                maps = self._vision.feature_maps(pixels).joined[0]
            kept = self._scenes.setdefault((maps.shape[1], maps.shape[2]), deque())
            kept.append((maps.half().cpu(), covered(scene, frame)))
            if sum(map(len, self._scenes.values())) > KEPT_SCENES:
                max(self._scenes.values(), key=len).popleft()
        pixels, labels = self._crops.batch(CROPS)
        nameless = [
            np.asarray(crop)
            for kind, scene in zip(kinds, scenes, strict=True)
            if kind in NAMELESS
            for crop in self._nameless(scene)
        ]
        if nameless:
            pixels = torch.cat((pixels, torch.from_numpy(np.stack(nameless)).permute(0, 3, 1, 2).float()))
        labels = torch.cat((labels + 1, torch.zeros(len(nameless), dtype=labels.dtype)))
        with autocast(self._device):
            averages = self._vision.feature_maps(normalised(pixels.to(self._device))).joined.mean((2, 3))
        self._averages.append((averages.half().cpu(), labels))
        if len(self._averages) * CROPS > KEPT_CROPS:
            self._averages.popleft()

    def _nameless(self, scene: Scene) -> list[Image.Image]:
        """The whole of it, and a corner where no thing stands."""
        side, image = (CROP_PX, CROP_PX), scene.image.convert("RGB")
        found = [image.resize(side, Image.Resampling.BICUBIC)]
        width, height = (CORNER * extent for extent in image.size)
        left, top = (self._painter.rng.uniform(0, 0.65) * extent for extent in image.size)
        box = (left, top, left + width, top + height)
        if all(_apart(box, thing.box) for thing in scene.things):
            found.append(image.resize(side, Image.Resampling.BICUBIC, box=box))
        return found


def _apart(box: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1]


def _together(kept: list[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    maps, on = (torch.stack(parts).to(device).float() for parts in zip(*kept, strict=True))
    return maps, on


def run(plan: StagePlan, vision: VisionNetwork, material: Material, seed: int) -> None:
    """Trains the namer of ``vision``, which must have one."""
    assert vision.namer is not None

    def prepare(step: int, device: torch.device) -> Callable[[float], dict[str, Tensor]]:
        rng = random.Random(seed + step)
        crops = Crops(material, seed + step)
        return Zooming(vision, Painter(material, rng, Printer(new_fonts(), rng)), crops, device).losses

    run_head(plan, vision, vision.namer, prepare)
