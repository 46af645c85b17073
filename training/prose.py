"""English prose that people wrote: help pages, where they are at hand, and single sentences of them."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

_LINE = re.compile(r"^[>-] (.{20,110})[.:]$", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z0-9' ,-]+")


def help_pages(data: Path) -> list[str]:
    """The pages; none if the file is missing."""
    path = data / "tldr-pages.jsonl.xz"
    if not path.is_file():
        return []
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def sentences(pages: list[str]) -> list[str]:
    """What they say in words, without a full stop: mostly what to do (``Display the contents of a file``)."""
    found: list[str] = [line for page in pages for line in _LINE.findall(page)]
    return [line for line in found if _PLAIN.fullmatch(line)]
