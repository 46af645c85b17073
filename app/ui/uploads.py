"""Sorts uploaded files into pictures, recordings and documents by their content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hearth.multimodal.errors import PerceptionError


@dataclass(frozen=True, slots=True)
class Uploads:
    """Files by what they are."""

    images: tuple[Path, ...] = ()
    audio: tuple[Path, ...] = ()
    documents: tuple[Path, ...] = ()


def sort_uploads(paths: Iterable[Path]) -> Uploads:
    """By content, not by name. What is not recognised goes with the documents, whose reader says what it found.

    Raises PerceptionError if a file has gone.
    """
    from hearth.multimodal.kinds import sniff

    sorted_paths: dict[str, list[Path]] = {"picture": [], "sound": [], "document": []}
    for path in paths:
        try:
            kind = sniff(path.read_bytes(), path.name)
        except OSError as error:
            raise PerceptionError(f"{path.name}: cannot be read ({error.strerror}); attach it again") from error
        by_kind = {"picture": "picture", "sound": "sound", "video": "sound"}
        sorted_paths[by_kind.get(kind, "document")].append(path)
    return Uploads(tuple(sorted_paths["picture"]), tuple(sorted_paths["sound"]), tuple(sorted_paths["document"]))
