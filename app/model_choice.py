"""Which files a model's name stands for, and what that model can do."""

from __future__ import annotations

import difflib
import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hearth import assets
from hearth.models.errors import ModelFileError
from hearth.models.gguf_header import GgufHeader, Scalar, read_gguf_header

log = logging.getLogger("hearth.models")
DEFAULT_TEMPERATURE = 0.7  # for a model that says nothing
POCKET = "pocket"
SYSTEM_PROMPT = (
    "You are Hearth, a helpful assistant on the user's own machine. Answer briefly and say so when you do not know. "
    "When numbered sources are given, answer from them alone and end each statement with its source's number like [1]."
)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A language model's file and what goes with it. ``None`` means: decided from the model once it is loaded."""

    name: str
    path: Path | None  # None: it is on a server elsewhere
    vision_dir: Path | None  # encoder and connector of the MM1 path
    mmproj: Path | None  # the model's own encoder; without either it sees nothing
    n_ctx: int | None  # tokens
    retrieval_budget_tokens: int | None  # tokens of retrieved passages in a turn
    temperature: float
    system: str | None


def choose(model: str, mmproj: Path | None = None) -> ModelChoice:
    """The files for a catalogue name or the path of a GGUF, with its encoder ``mmproj`` or the one that lies beside it.

    Raises ModelFileError naming the path and the reason.
    """
    if model == POCKET:
        if mmproj is not None:
            raise ModelFileError(f"mmproj {mmproj}: the pocket model has an encoder of its own; choose another model")
        return _pocket(assets.pocket_dir())
    path = Path(model).expanduser()
    if path.suffix.lower() != ".gguf" and not path.exists() and path.name == model:
        close = " (did you mean pocket?)" if difflib.get_close_matches(model, [POCKET]) else ""
        raise ModelFileError(f"unknown model {model!r}{close}: give 'pocket' or the path of a GGUF file")
    mmproj = mmproj or find_mmproj(path)
    return ModelChoice(path.stem, path, None, mmproj, None, None, DEFAULT_TEMPERATURE, SYSTEM_PROMPT)


def elsewhere(name: str) -> ModelChoice:
    """A model on a server that is not ours to load."""
    return ModelChoice(name, None, None, None, None, None, DEFAULT_TEMPERATURE, SYSTEM_PROMPT)


def find_mmproj(model: Path) -> Path | None:
    """The encoder in the model's folder, if there is exactly one that gives what the model takes."""
    beside = [path for path in sorted(model.parent.glob("*.gguf")) if "mmproj" in path.name.lower() and path != model]
    if not beside:
        return None
    header = _header(model)
    width = header.metadata.get(f"{header.architecture}.embedding_length") if header is not None else None
    fitting = [path for path in beside if width is not None and width in _widths(path)]
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        log.warning("%s: several encoders fit (%s); name one by the setting mmproj", model, names)
    return fitting[0] if len(fitting) == 1 else None


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


def _pocket(folder: Path) -> ModelChoice:
    manifest_path = folder / "pocket.toml"
    try:
        manifest = tomllib.loads(manifest_path.read_text("utf-8"))
        return ModelChoice(
            name=POCKET,
            path=folder / manifest["language"],
            vision_dir=folder,
            mmproj=None,
            n_ctx=int(manifest["n_ctx"]),
            retrieval_budget_tokens=int(manifest["retrieval_budget_tokens"]),
            temperature=0.0,
            system=None,
        )
    except OSError as error:
        raise ModelFileError(f"{manifest_path}: {error.strerror}; reinstall Hearth or run `make train`") from error
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{manifest_path}: not a valid manifest ({error}); reinstall Hearth") from error
