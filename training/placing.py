"""The stage "places": a small network learns from visual tokens where things stand, and whether all are of one kind.

The rest of the encoder stands still. Drawing and encoding a scene takes a hundred times as long as learning from it, so
that scenes are kept and learnt from several times.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.locating import PLACES, looks_at, place_of
from hearth.multimodal.views import tile_frame, token_grid
from training.answers import counts_of
from training.loop import StagePlan, run_head
from training.pictures import Material, Painter
from training.printing import Printer
from training.scene_pool import FreshScenes, encode_tiles
from training.scenes import Scene
from training.view_batches import SIDE_PX, new_fonts

# kind of scene → share of those drawn
MIXTURE = {
    "counted": 0.35, "groups": 0.15, "crowd": 0.06, "single": 0.18, "coloured": 0.04, "pair": 0.1,
    "photograph": 0.05, "words": 0.04, "chart": 0.03,
}  # fmt: skip
SIDES_PX = (2 * SIDE_PX, 3 * SIDE_PX, 4 * SIDE_PX)  # of pictures; people's are larger than what is seen of them
DRAWN = 32  # scenes at a time
STEPS_A_DRAW = 12
KEPT = 6000
SCENES_PER_STEP = 48


def wanted(scene: Scene) -> Tensor:
    """(10,): 1 for each place where a thing stands, row by row, then whether all things are of one kind.

    In photographs and on print nothing is counted.
    """
    said = torch.zeros(len(PLACES) + 1)
    if scene.kind == "things":
        for thing in scene.things:
            said[place_of(thing.cell)] = 1.0
        said[-1] = float(len(counts_of(scene)) == 1)
    return said


@dataclass(frozen=True)
class _Placed:
    """Visual tokens of tiles (rows, columns, n_embd) in half precision, where to look, and what is to be said."""

    tokens: Tensor
    looks: Tensor
    said: Tensor


class Placing:
    """Losses of the stage. ``vision`` needs a locator."""

    def __init__(self, vision: VisionNetwork, painter: Painter, device: torch.device) -> None:
        self._vision = vision
        self._device = device
        self._painter = painter
        self._fresh = FreshScenes(painter)
        self._kept: deque[_Placed] = deque(maxlen=KEPT)
        self._step = 0

    def losses(self, _progress: float) -> dict[str, Tensor]:
        assert self._vision.locator is not None
        if self._step % STEPS_A_DRAW == 0:
            self._draw()
        self._step += 1
        rng = self._painter.rng
        shape = rng.choice(self._kept).tokens.shape  # scenes of one canvas are learnt from together
        chosen = rng.choices([one for one in self._kept if one.tokens.shape == shape], k=SCENES_PER_STEP)
        tokens, looks, said = (
            torch.stack([getattr(one, part) for one in chosen]).to(self._device).float()
            for part in ("tokens", "looks", "said")
        )
        return placing_losses(self._vision.locator(tokens, looks), said)

    @torch.no_grad()
    def _draw(self) -> None:
        rng = self._painter.rng
        self._painter.side_px = rng.choice(SIDES_PX)
        kinds = rng.choices(tuple(MIXTURE), tuple(MIXTURE.values()), k=DRAWN)
        scenes = [scene for kind in kinds for scene in self._fresh.draw(kind)]
        for scene, tokens in zip(scenes, encode_tiles(scenes, self._vision, self._device), strict=True):
            frame = tile_frame(*scene.image.size, SIDE_PX)
            rows, columns = token_grid(frame, SIDE_PX)
            placed = _Placed(
                tokens.half().cpu().reshape(rows, columns, -1),
                torch.from_numpy(looks_at(frame, SIDE_PX)).half(),
                wanted(scene),
            )
            self._kept.append(placed)


def placing_losses(logits: Tensor, said: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of what a locator says, (batch, 10), by what is ``wanted``."""
    there = said[:, :-1].any(1)
    alike = F.binary_cross_entropy_with_logits(logits[there, -1], said[there, -1], reduction="sum")
    return {
        "taken": F.binary_cross_entropy_with_logits(logits[:, :-1], said[:, :-1]),
        "alike": alike / len(PLACES) / max(1, len(said)),
    }


def run(plan: StagePlan, vision: VisionNetwork, material: Material, seed: int) -> None:
    """Trains the locator of ``vision``, which must have one."""
    assert vision.locator is not None

    def prepare(step: int, device: torch.device) -> Callable[[float], dict[str, Tensor]]:
        rng = random.Random(seed + step)
        return Placing(vision, Painter(material, rng, Printer(new_fonts(), rng)), device).losses

    run_head(plan, vision, vision.locator, prepare)
