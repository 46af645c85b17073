"""The shop photographs: 81 products of 43 kinds, their names, and which photographs are kept for evaluation."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HELD_OUT_SHARE = 0.2
_NUMBER = re.compile(r"_(\d+)\.jpg$")
# class of the data set -> how it is said, where that is not the class in lower case
_SAID = {
    "Golden-Delicious": "Golden Delicious apple",
    "Granny-Smith": "Granny Smith apple",
    "Pink-Lady": "Pink Lady apple",
    "Red-Delicious": "Red Delicious apple",
    "Royal-Gala": "Royal Gala apple",
    "Cantaloupe": "cantaloupe melon",
    "Galia-Melon": "Galia melon",
    "Honeydew-Melon": "honeydew melon",
    "Satsumas": "satsuma",
    "Anjou": "Anjou pear",
    "Conference": "Conference pear",
    "Kaiser": "Kaiser pear",
    "Tropicana-Golden-Grapefruit": "Tropicana golden grapefruit juice",
    "Tropicana-Juice-Smooth": "Tropicana smooth juice",
    "Tropicana-Mandarin-Morning": "Tropicana mandarin morning juice",
    "Carrots": "carrot",
    "Regular-Tomato": "regular tomato",
}
_KINDS = {"Satsumas": "satsuma", "Carrots": "carrot", "Pepper": "bell pepper", "Passion-Fruit": "passion fruit"}
_BRANDS = ("Bravo", "God Morgon", "Tropicana", "Arla", "Garant", "Oatly", "Alpro", "Valio", "Yoggi")


@dataclass(frozen=True)
class Product:
    """``name`` is exact (``Golden Delicious apple``), ``kind`` what one would call it at a glance (``apple``)."""

    name: str
    kind: str
    category: str  # fruit, vegetable or package


@dataclass(frozen=True)
class Photograph:
    product: Product
    path: Path
    held_out: bool


def said(class_name: str) -> str:
    """The everyday name of a class; brands keep their capital letters."""
    if class_name in _SAID:
        return _SAID[class_name]
    words = class_name.replace("-", " ")
    brand = next((b for b in _BRANDS if words.startswith(b + " ")), "")
    return (brand + words[len(brand) :].lower()) if brand else words.lower()


def products(data: Path) -> dict[str, Product]:
    """Class of the data set → product. Raises FileNotFoundError naming the missing file."""
    table = data / "grocery" / "classes.csv"
    if not table.is_file():
        raise FileNotFoundError(f"no {table}: give the folder that has grocery/ with --data")
    folders = {path.name: path for path in (data / "grocery" / "train").rglob("*") if path.is_dir()}
    found: dict[str, Product] = {}
    with table.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            name, coarse = row["Class Name (str)"], row["Coarse Class Name (str)"]
            folder = folders.get(name)
            top = folder.relative_to(data / "grocery" / "train").parts[0] if folder else ""
            kind = _KINDS.get(coarse, coarse.replace("-", " ").lower())
            found[name] = Product(said(name), kind, {"Fruit": "fruit", "Vegetables": "vegetable"}.get(top, "package"))
    return found


def photographs(data: Path) -> list[Photograph]:
    """Every photograph in order. A fifth of each class is held out, as one run of the order they were taken in.

    Pictures taken one after the other show the same pile of fruit. The run starts where two neighbours differ most,
    so that it hardly shares a pile with what is trained on.
    """
    named = products(data)
    found: list[Photograph] = []
    for folder in sorted(path for path in (data / "grocery" / "train").rglob("*") if path.is_dir()):
        paths = sorted(folder.glob("*.jpg"), key=_order)
        if paths:
            start, end = held_out_run([_thumbnail(path) for path in paths])
            product = named[folder.name]
            found += [Photograph(product, path, start <= i < end) for i, path in enumerate(paths)]
    return found


def _order(path: Path) -> int:
    match = _NUMBER.search(path.name)
    return int(match[1]) if match else 0


def _thumbnail(path: Path) -> NDArray[np.float32]:
    small = Image.open(path).convert("RGB").resize((8, 8), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def held_out_run(thumbnails: list[NDArray[np.float32]]) -> tuple[int, int]:
    """(start, end) of the held-out pictures: a run at either end of the order, cut where the neighbours differ most."""
    count = len(thumbnails)
    wanted = max(1, round(count * HELD_OUT_SHARE))
    jumps = [0.0] + [float(np.abs(a - b).mean()) for a, b in pairwise(thumbnails)]
    slack = max(1, wanted // 4)
    lengths = range(max(1, wanted - slack), min(count - 1, wanted + slack) + 1)
    cuts = [(jumps[length], 0, length) for length in lengths]
    cuts += [(jumps[count - length], count - length, count) for length in lengths]
    _, start, end = max(cuts)
    return start, end
