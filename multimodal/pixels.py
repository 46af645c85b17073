"""A picture as the pocket vision encoder's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# change it whenever pixels, views or what is told of them as words change: it is part of every embedding's identity
PREPROCESSING_VERSION = 5
_FILL = (128, 128, 128)


def to_pixels(image: Image.Image, side_px: int) -> NDArray[np.float32]:
    """The whole picture, fitted into a grey square and normalised; float32, shape (3, side_px, side_px)."""
    rgb = image.convert("RGB")
    scale = side_px / max(rgb.size)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    if size != (side_px, side_px):
        square = Image.new("RGB", (side_px, side_px), _FILL)
        square.paste(rgb, ((side_px - size[0]) // 2, (side_px - size[1]) // 2))
        rgb = square
    pixels = np.asarray(rgb, dtype=np.float32).transpose(2, 0, 1)
    return (pixels - 128.0) / 64.0
