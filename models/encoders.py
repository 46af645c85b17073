"""Which encoder file (mmproj) belongs to a model, told by the width of its embeddings and by the names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hearth.models.errors import ModelFileError
from hearth.models.gguf_header import GgufHeader, Scalar, read_gguf_header

log = logging.getLogger("hearth.models")
PRECISIONS = ("f16", "q8_0", "bf16", "f32")  # of an encoder's file, the preferred first
_QUANTIZATION = re.compile(r"(?:ud[-_])?(?:iq\d|q\d|tq\d)(?:_[a-z0-9]+)*|bf16|fp?16|f32|mxfp4(?:_moe)?")
_PART = re.compile(r"-\d{5}-of-\d{5}$")


def is_encoder_name(path: Path) -> bool:
    """Whether a file is an encoder, as far as its name tells."""
    return "mmproj" in path.name.lower()


def encoder_for(model: Path, candidates: Iterable[Path]) -> Path | None:
    """The one of ``candidates`` that gives embeddings as ``model`` takes them, or None if none fits or several do.

    Several that differ only in their precision count as one, and so do those whose name is the model's.
    """
    beside = [path for path in candidates if is_encoder_name(path) and path != model]
    if not beside:
        return None
    header = _header(model)
    width = header.metadata.get(f"{header.architecture}.embedding_length") if header is not None else None
    fitting = [path for path in beside if width is not None and width in _widths(path)]
    same = [path for path in fitting if _family(path) == _family(model)]
    found = same or fitting
    if len({_family(path) for path in found}) > 1:
        names = ", ".join(path.name for path in found)
        log.warning("%s: several encoders fit (%s); name one by the setting mmproj", model, names)
        return None
    return preferred(found)


def preferred(encoders: Sequence[Path]) -> Path | None:
    """Of files of one encoder, that of the precision to be taken."""

    def rank(path: Path) -> int:
        name = path.stem.lower()
        return next((place for place, word in enumerate(PRECISIONS) if _word(word, name)), len(PRECISIONS))

    return min(encoders, key=rank, default=None)


def _word(word: str, name: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", name) is not None


def _family(path: Path) -> str:
    """What a file's name says besides its quantization and that it is an encoder: ``qwen3vl 4b instruct``."""
    bare = _QUANTIZATION.sub(" ", _PART.sub("", path.stem.lower()).replace("mmproj", " "))
    return " ".join(word for word in re.split(r"[^a-z0-9]+", bare) if word not in ("", "model"))


def _widths(mmproj: Path) -> set[Scalar | None]:
    """Of the embeddings that an encoder gives."""
    header = _header(mmproj)
    if header is None:
        return set()
    return {header.metadata.get(f"clip.{kind}.projection_dim") for kind in ("vision", "audio")}


def _header(path: Path) -> GgufHeader | None:
    """None for a file that is none, or damaged: who loads it says so."""
    try:
        return read_gguf_header(path)
    except ModelFileError as error:
        log.debug("not looked at: %s", error)
        return None
