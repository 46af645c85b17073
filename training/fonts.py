"""The fonts that words are printed in: whatever Debian packages have installed, whole families kept for evaluation."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")
# families that training never prints in; the first ones are on nearly every Linux machine, so that the evaluation
# runs there
HELD_OUT_FAMILIES = (
    "DejaVu", "Liberation", "Cabin", "EB Garamond", "EBGaramond", "Courier Prime",
    "Comic Neue", "Open Sans", "Vollkorn",
    "Hack",
)  # fmt: skip
# no fonts for reading: symbols, mathematics, pictures, or letters that are not Latin
_LEFT_OUT = (
    "symbol",
    "emoji",
    "math",
    "music",
    "dingbat",
    "icons",
    "jsmath",
    "d050000l",
    "fontin",
    "mono-bitmap",
    "opens___",
    "keyboard",
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class Font:
    family: str
    path: Path


def held_out(family: str) -> bool:
    return family.startswith(HELD_OUT_FAMILIES)


def folders(extra: str = "") -> list[Path]:
    """Where fonts are looked for: where Debian's packages put them, then ``extra`` or POCKET_FONTS."""
    return [Path(folder) for folder in (*FOLDERS, extra or os.environ.get("POCKET_FONTS", "")) if folder]


@functools.lru_cache(maxsize=4)
def fonts(extra: str = "") -> tuple[Font, ...]:
    """Every usable font of the machine and of the folder ``extra`` (or of POCKET_FONTS), in a fixed order."""
    found: dict[tuple[str, str], Font] = {}
    for folder in folders(extra):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (".ttf", ".otf") and not any(word in str(path).lower() for word in _LEFT_OUT):
                named = _name(path)
                if named is not None:
                    found.setdefault(named, Font(named[0], path))
    return tuple(found[key] for key in sorted(found))


def _name(path: Path) -> tuple[str, str] | None:
    """(family, style), or None if the font does not draw every letter and digit apart."""
    try:
        font = ImageFont.truetype(str(path), 24)
        shapes = {bytes(font.getmask(character)) for character in _ALPHABET}
    except (OSError, ValueError):
        return None
    if len(shapes) < len(_ALPHABET) - 20:  # fonts of capitals only draw small letters alike
        return None
    family, style = font.getname()
    return (family or path.stem, style or "")


@functools.lru_cache(maxsize=4096)
def face(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size_px)


def families(pool: tuple[Font, ...], *, kept_for_evaluation: bool) -> dict[str, list[Font]]:
    """Family → its fonts, either those trained on or those held out."""
    chosen: dict[str, list[Font]] = {}
    for font in pool:
        if held_out(font.family) == kept_for_evaluation:
            chosen.setdefault(font.family, []).append(font)
    return chosen
