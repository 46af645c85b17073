"""Pictures for tests, drawn from scratch: coloured shapes on a plain background."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (214, 40, 40), "blue": (40, 80, 214), "green": (40, 160, 60), "yellow": (245, 210, 50)}


def shape(name: str, colour: str, *, side: str = "middle", edge_px: int = 256, number: int = 1) -> Image.Image:
    """``number`` shapes (circle, square or triangle) of a colour, at a side of a white square picture."""
    image = Image.new("RGB", (edge_px, edge_px), "white")
    pen = ImageDraw.Draw(image)
    size = edge_px // 3 if number == 1 else edge_px // (number + 2)
    centre_x = {"left": 0.25, "middle": 0.5, "right": 0.75}[side] * edge_px
    for index in range(number):
        x = centre_x if number == 1 else edge_px * (index + 1) / (number + 1)
        box = (x - size / 2, edge_px / 2 - size / 2, x + size / 2, edge_px / 2 + size / 2)
        fill = COLOURS[colour]
        if name == "circle":
            pen.ellipse(box, fill=fill)
        elif name == "square":
            pen.rectangle(box, fill=fill)
        else:
            pen.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=fill)
    return image


def png(image: Image.Image) -> bytes:
    """``image`` as the bytes of a PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def save(image: Image.Image, path: Path) -> Path:
    """Writes ``image`` as PNG and returns the path."""
    path.write_bytes(png(image))
    return path
