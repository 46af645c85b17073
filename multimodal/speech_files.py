"""Which files on this machine a speech model's name stands for. Nothing is ever downloaded."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from hearth.models.errors import ModelFileError

SIZES = (
    *("tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium"),
    *("large-v1", "large-v2", "large-v3", "large-v3-turbo"),
)
SAME_AS = {"large": "large-v3", "turbo": "large-v3-turbo"}
CONVERTED_FILE = "model.bin"  # in every folder of CTranslate2


@dataclass(frozen=True, slots=True)
class SpeechFiles:
    """``checkpoint`` is OpenAI's format (.pt), ``converted`` a folder of CTranslate2; at least one is there.

    ``size`` is the official size that the user named; None for a path.
    """

    name: str
    checkpoint: Path | None
    converted: Path | None
    size: str | None = None


def find_speech_model(name: str, folder: Path) -> SpeechFiles:
    """The files of a Whisper size, in ``folder`` or where whisper and faster-whisper keep theirs; or those of a path.

    Raises ModelFileError naming the places and the remedy.
    """
    size = name.removeprefix("whisper-")
    size = SAME_AS.get(size, size)
    if size in SIZES:
        return _official(size, folder)
    path = Path(name).expanduser()
    if path.is_file():
        return SpeechFiles(str(path), path, None)
    if (path / CONVERTED_FILE).is_file():
        return SpeechFiles(str(path), None, path)
    if path.is_dir():
        raise ModelFileError(
            f"speech model {path}: a folder without {CONVERTED_FILE}, so not one of CTranslate2; name a Whisper "
            "checkpoint (.pt) or such a folder"
        )
    if os.sep in name or path.suffix == ".pt":
        raise ModelFileError(f"speech model {path} does not exist; name a Whisper checkpoint (.pt) or a size")
    close = difflib.get_close_matches(name, [*SIZES, *SAME_AS], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"sizes are {', '.join(SIZES)}"
    raise ModelFileError(f"speech model {name!r} is neither a size of Whisper nor a file; {hint}")


def _official(size: str, folder: Path) -> SpeechFiles:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # as pulled, as OpenAI names it, and where the whisper package keeps it
    checkpoints = [folder / f"whisper-{size}.pt", folder / f"{size}.pt", cache / "whisper" / f"{size}.pt"]
    checkpoint = next((path for path in checkpoints if path.is_file()), None)
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub")
    snapshots = sorted((hub / f"models--Systran--faster-whisper-{size}" / "snapshots").glob("*"))
    folders = [folder / f"faster-whisper-{size}", *snapshots]
    converted = next((path for path in folders if (path / CONVERTED_FILE).is_file()), None)
    if checkpoint is None and converted is None:
        raise ModelFileError(
            f"speech model {size!r} is not on this machine (looked for {' and '.join(map(str, checkpoints))}); "
            f"`hearth models pull whisper-{size}` fetches it, or put OpenAI's {size}.pt there"
        )
    return SpeechFiles(size, checkpoint, converted, size)
