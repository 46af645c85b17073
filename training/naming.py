"""The stage "names" of the image tower: crops with one thing each and one class a name.

Nothing that the other stages ask for teaches a convolutional network as quickly to tell five hundred things apart. The
crops are cut, turned and coloured as tensors, hundreds at a time, so that a step costs little more than the tower.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hearth.multimodal.clip import VisionNetwork
from training.aligning import normalised
from training.letters import CROP_PX
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.pictures import Material
from training.sprites import SPRITE_PX, shape_mask
from training.world import COLOURS, SHAPES

PHOTOGRAPH_PX = 128
CROPS_PER_STEP = 160
PHOTOGRAPH_SHARE = 0.2
STYLED_SHARE = 0.45  # of the emoji
SIZES = (0.3, 0.98)  # of a thing, as a share of the crop's side
CUTS = (1.0, 1.6)  # side of a photograph, as a multiple of the crop's side
TURN_DEGREES = 28.0
WARPED_SHARE = 0.6  # of the crops
WARP = 0.22  # at most, as a share of half the thing's side
WARP_KNOTS = 4  # a side
RETEXTURED_SHARE = 0.25  # of the crops
KERNELS_PX = (1, 3, 5)
SMOOTHING = 0.05


class Crops:
    """Draws crops of single things and of photographs; the classes are ``class_names``. One seed, one sequence."""

    def __init__(self, material: Material, seed: int, *, worn: bool = True) -> None:
        """``worn`` False: in the light and the colours that they have."""
        self._is_worn = worn
        self._random = torch.Generator().manual_seed(seed)
        own: dict[str, list[Image.Image]] = {}
        for sprite in material.sprites:
            own.setdefault(sprite.name, []).append(sprite.image)
        for shape in SHAPES:
            own[shape] = [_coloured_shape(shape, rgb) for rgb in COLOURS.values()]
        kept: list[Image.Image] = []
        self._own: list[list[int]] = []
        self._styled: list[list[int]] = []
        for name, images in own.items():
            styled = [sprite.image for sprite in material.styled.get(name, ())] or images
            for pools, pool in ((self._own, images), (self._styled, styled)):
                pools.append(list(range(len(kept), len(kept) + len(pool))))
                kept += pool
        self._things = _stacked([_squared(image) for image in kept])
        trained = [
            (photograph.product.name, image) for photograph, image in material.photographs if not photograph.held_out
        ]
        products = class_names(material)[len(own) :]
        self._shown = [[at for at, (name, _) in enumerate(trained) if name == product] for product in products]
        side = (PHOTOGRAPH_PX, PHOTOGRAPH_PX)
        self._photographs = _stacked([image.resize(side, Image.Resampling.BICUBIC) for _, image in trained])

    def batch(self, crops: int = CROPS_PER_STEP) -> tuple[Tensor, Tensor]:
        """Pixels (crops, 3, CROP_PX, CROP_PX), 0 to 255, and the index of each crop's name."""
        n_photographs = round(crops * PHOTOGRAPH_SHARE) if self._shown else 0
        drawn = [self._drawn(crops - n_photographs)]
        if n_photographs:
            drawn.append(self._photographed(n_photographs))
        pixels, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return self._worn(pixels) if self._is_worn else pixels, labels

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self._random)

    def _pick(self, count: int, *shape: int) -> Tensor:
        return torch.randint(count, shape, generator=self._random)

    def _one_of(self, pool: list[int]) -> int:
        return pool[int(self._pick(len(pool), 1))]

    def _drawn(self, n: int) -> tuple[Tensor, Tensor]:
        labels = self._pick(len(self._own), n)
        styled = (self._uniform(0, 1, n) < STYLED_SHARE).tolist()
        chosen = [
            self._one_of((self._styled if other else self._own)[label])
            for label, other in zip(labels, styled, strict=True)
        ]
        things = self._things[chosen].float()
        opaque = things[:, 3:] / 255
        sizes = self._uniform(*SIZES, n)
        room = (1 - sizes)[:, None]
        cut = self._cut(
            torch.cat((things[:, :3] * opaque, opaque), 1), sizes, self._uniform(-1, 1, n, 2) * room, "zeros"
        )
        return cut[:, :3] + (1 - cut[:, 3:]) * self._grounds(n), labels

    def _photographed(self, n: int) -> tuple[Tensor, Tensor]:
        labels = self._pick(len(self._shown), n)
        chosen = [self._one_of(self._shown[label]) for label in labels]
        sizes = self._uniform(*CUTS, n)
        shifts = self._uniform(-1, 1, n, 2) * (sizes - 1)[:, None]
        return self._cut(self._photographs[chosen].float(), sizes, shifts, "reflection"), labels + len(self._own)

    def _cut(self, pictures: Tensor, sizes: Tensor, shifts: Tensor, padding: str) -> Tensor:
        """Each picture at its size (1: the crop's side) and shifted (1: half of it); turned, stretched, mirrored."""
        n = len(pictures)
        turn = torch.deg2rad(self._uniform(-TURN_DEGREES, TURN_DEGREES, n)) * (self._uniform(0, 1, n) < 0.6)
        mirror = 2.0 * (self._uniform(0, 1, n) < 0.5) - 1
        stretch = self._uniform(0.85, 1.18, n).sqrt()
        wide, tall = sizes * stretch, sizes / stretch
        to_picture = torch.zeros(n, 2, 3)
        to_picture[:, 0, 0], to_picture[:, 0, 1] = mirror * turn.cos() / wide, mirror * turn.sin() / wide
        to_picture[:, 1, 0], to_picture[:, 1, 1] = -turn.sin() / tall, turn.cos() / tall
        to_picture[:, :, 2:] = -to_picture[:, :, :2] @ shifts[:, :, None]
        grid = F.affine_grid(to_picture, [n, pictures.shape[1], CROP_PX, CROP_PX], align_corners=False)
        return F.grid_sample(pictures, grid + self._warp(n), padding_mode=padding, align_corners=False)

    def _warp(self, n: int) -> Tensor:
        """Smooth displacements, (n, CROP_PX, CROP_PX, 2): the same thing, drawn by another hand."""
        strength = self._uniform(0, WARP, n, 1, 1, 1) * (self._uniform(0, 1, n, 1, 1, 1) < WARPED_SHARE)
        knots = self._uniform(-1, 1, n, 2, WARP_KNOTS, WARP_KNOTS) * strength
        side = (CROP_PX, CROP_PX)
        return F.interpolate(knots, size=side, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    def _grounds(self, n: int) -> Tensor:
        """One colour, blotches, or a photograph out of focus."""
        grounds = self._uniform(0, 255, n, 3, 1, 1).expand(n, 3, CROP_PX, CROP_PX).clone()
        kind = self._uniform(0, 1, n)
        grounds[kind < 0.2] = 248.0
        blotched = kind > 0.85
        blotches = self._uniform(0, 255, int(blotched.sum()), 3, 5, 5)
        grounds[blotched] = F.interpolate(blotches, size=(CROP_PX, CROP_PX), mode="bilinear")
        soft = (kind > 0.7) & ~blotched
        if len(self._photographs):
            behind = self._photographs[self._pick(len(self._photographs), int(soft.sum()))].float()
            grounds[soft] = F.interpolate(F.avg_pool2d(behind, 8), size=(CROP_PX, CROP_PX), mode="bilinear")
        return grounds

    def _retextured(self, pixels: Tensor) -> Tensor:
        """Some pictures under a random convolution, mixed with themselves: shapes stay, textures and colours do not.

        After RandConv (Xu et al. 2021, arXiv 2007.13003).
        """
        pixels = pixels.clone()
        chosen = self._uniform(0, 1, len(pixels)) < RETEXTURED_SHARE
        for of_kernel, side in zip(chosen.nonzero().flatten().chunk(len(KERNELS_PX)), KERNELS_PX, strict=False):
            before = pixels[of_kernel] - 128
            n = len(before)
            kernels = torch.randn(3 * n, 3, side, side, generator=self._random) / (3 * side * side) ** 0.5
            after = F.conv2d(before.reshape(1, 3 * n, CROP_PX, CROP_PX), kernels, padding=side // 2, groups=n)
            share = self._uniform(0, 1, n, 1, 1, 1)
            pixels[of_kernel] = (1 - share) * before + share * after.view_as(before) + 128
        return pixels

    def _worn(self, pixels: Tensor) -> Tensor:
        """In another light, with other colours now and then, and with noise."""
        n = len(pixels)
        pixels = self._retextured(pixels)
        lit = (pixels - 128) * self._uniform(0.75, 1.25, n, 1, 1, 1) + 128 + self._uniform(-25, 25, n, 1, 1, 1)
        mixing = torch.eye(3) + self._uniform(-0.35, 0.35, n, 3, 3) * (self._uniform(0, 1, n, 1, 1) < 0.25)
        mixed = torch.einsum("nij,njyx->niyx", mixing / mixing.sum(-1, keepdim=True).clamp(min=0.3), lit)
        noise = torch.randn(pixels.shape, generator=self._random)
        loudness = self._uniform(0, 12, n, 1, 1, 1) * (self._uniform(0, 1, n, 1, 1, 1) < 0.3)
        return (mixed + noise * loudness).clamp(0, 255)


def class_names(material: Material) -> list[str]:
    """Everything that is drawn, the shapes, then the products."""
    products = {photograph.product.name for photograph, _ in material.photographs if not photograph.held_out}
    drawn = dict.fromkeys([*(sprite.name for sprite in material.sprites), *SHAPES])  # a few shapes are emoji too
    return [*drawn, *sorted(products)]


def _coloured_shape(shape: str, rgb: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGBA", (SPRITE_PX, SPRITE_PX), (*rgb, 255))
    image.putalpha(shape_mask(shape))
    return image


def _squared(image: Image.Image) -> Image.Image:
    """The thing in the middle of a transparent square of ``CROP_PX``."""
    scale = CROP_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGBA", (CROP_PX, CROP_PX))
    square.paste(image.resize(size, Image.Resampling.BICUBIC), ((CROP_PX - size[0]) // 2, (CROP_PX - size[1]) // 2))
    return square


def _stacked(images: list[Image.Image]) -> Tensor:
    """uint8, (images, channels, height, width)."""
    if not images:
        return torch.zeros(0, 3, PHOTOGRAPH_PX, PHOTOGRAPH_PX, dtype=torch.uint8)
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()


class Naming(nn.Module):
    """The encoder, of which only the tower learns, and what only this stage needs: the classes, on the average of the
    tower's two deepest maps.
    """

    def __init__(self, vision: VisionNetwork, n_names: int) -> None:
        super().__init__()
        self.vision = vision
        self.classes = nn.Linear(vision.connector.input.in_channels, n_names)

    def forward(self, things: Tensor) -> Tensor:
        """Pixels of crops, 0 to 255 → (crops, n_names) logits."""
        maps = self.vision.feature_maps(normalised(things))
        logits: Tensor = self.classes(torch.cat([one.mean((2, 3)) for one in maps], dim=1))
        return logits


def run(plan: StagePlan, vision: VisionNetwork, material: Material, seed: int) -> None:
    """Trains the image tower; the rest of the encoder stands still."""
    device = pick_device()
    vision.to(device)
    vision.to(memory_format=torch.channels_last)
    naming = Naming(vision, len(class_names(material))).to(device)

    def prepare(step: int) -> Callable[[float], dict[str, Tensor]]:
        crops = Crops(material, seed + step)

        def losses(_progress: float) -> dict[str, Tensor]:
            pixels, labels = crops.batch()
            with autocast(device):
                named = naming(pixels.to(device))
            return {"names": F.cross_entropy(named.float(), labels.to(device), label_smoothing=SMOOTHING)}

        return losses

    run_stage(plan, naming, prepare)
