"""What lies behind things, and what happens to pictures on their way: noise, blur, light and JPEG."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from training.world import COLOURS

BACKGROUND_NAMES = (
    "white",
    "white",
    "white",
    "grey",
    "black",
    "yellow",
    "blue",
    "green",
    "red",
    "pink",
    "orange",
    "purple",
)


def paint(rng: random.Random, width: int, height: int, background: str) -> Image.Image:
    """A sheet of one colour, now and then with a slight gradient, as a photographed sheet of paper has."""
    jitter = 8 if background == "white" else 20
    base = np.array([c + rng.uniform(-jitter, jitter) for c in COLOURS[background]], dtype=np.float32)
    if rng.random() >= 0.3:
        rgb = np.clip(base, 0, 255).astype(np.uint8)
        return Image.new("RGB", (width, height), (int(rgb[0]), int(rgb[1]), int(rgb[2])))
    slope = np.linspace(-1, 1, width if rng.random() < 0.5 else height, dtype=np.float32) * rng.uniform(3, 14)
    lines = slope[None, :, None] if len(slope) == width else slope[:, None, None]
    pixels = np.broadcast_to(base + lines, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def textured(rng: random.Random, width: int, height: int, photograph: Image.Image | None) -> Image.Image:
    """A ground without one colour: blotches, stripes, or ``photograph`` out of focus."""
    if photograph is not None:
        soft = photograph.resize((width, height), Image.Resampling.BILINEAR)
        return soft.filter(ImageFilter.BoxBlur(rng.randint(2, 6)))
    first, second = (np.array(COLOURS[rng.choice(BACKGROUND_NAMES)], dtype=np.float32) for _ in range(2))
    if rng.random() < 0.5:
        cells = np.random.default_rng(rng.getrandbits(32)).random((rng.randint(2, 9), rng.randint(2, 9)))
        mask = Image.fromarray((cells * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        share = np.asarray(mask, dtype=np.float32)[..., None] / 255
    else:
        down, across = np.mgrid[0:height, 0:width]
        phase = (across * rng.uniform(-1, 1) + down * rng.uniform(-1, 1)) % rng.uniform(14, 50)
        share = (phase > rng.uniform(5, 12)).astype(np.float32)[..., None]
    blend = first * share + second * (1 - share)
    return Image.fromarray(blend.astype(np.uint8))


def worn(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture after a camera, a screen or a network had it; half of them unchanged."""
    if rng.random() < 0.35:
        return image
    if rng.random() < 0.4:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.2))
    if rng.random() < 0.3:
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.75, 1.25))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.25:
        pixels = np.asarray(image, dtype=np.float32)
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, dtype=np.float32)
        image = Image.fromarray(np.clip(pixels + noise * rng.uniform(2, 14), 0, 255).astype(np.uint8))
    if rng.random() < 0.35:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(35, 92))
        image = Image.open(buffer).convert("RGB")
    return image
