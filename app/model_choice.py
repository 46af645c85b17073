"""Which files a model's name stands for, and what that model can do."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hearth import assets
from hearth.model_library import POCKET, ModelLibrary
from hearth.models.encoders import encoder_for
from hearth.models.errors import ModelFileError
from hearth.settings import Settings

DEFAULT_TEMPERATURE = 0.7  # for a model that says nothing
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
    quotes_sources: bool = False  # answers as ``hearth.quoting`` reads them


def choose_by(settings: Settings) -> ModelChoice:
    """The model that the settings name, else the one that was chosen on the page or by `hearth models use`.

    Raises ModelFileError.
    """
    library = ModelLibrary(settings.data_dir)
    chosen = None if settings.names_model else library.chosen()
    if chosen is None:
        return choose(settings.model, settings.mmproj, library)
    try:
        return choose(chosen, settings.mmproj, library)
    except ModelFileError as error:
        raise ModelFileError(f"the chosen model: {error}; or choose another, `hearth models use {POCKET}`") from error


def choose(model: str, mmproj: Path | None = None, library: ModelLibrary | None = None) -> ModelChoice:
    """The files for a name or the path of a GGUF, with its encoder ``mmproj`` or the one that goes with it.

    Names are those of ``library``: of the catalogue once pulled, and of what was found on this machine. Raises
    ModelFileError naming the path and the reason.
    """
    if model == POCKET:
        if mmproj is not None:
            raise ModelFileError(f"mmproj {mmproj}: the pocket model has an encoder of its own; choose another model")
        return _pocket(assets.pocket_dir())
    path = Path(model).expanduser()
    if path.exists() or path.suffix.lower() == ".gguf" or library is None or _is_path(model):
        return _chosen(path.stem, path, mmproj or find_mmproj(path))
    found = library.find(model)
    return _chosen(found.name, found.path, mmproj or found.encoder())


def elsewhere(name: str) -> ModelChoice:
    """A model on a server that is not ours to load."""
    return ModelChoice(name, None, None, None, None, None, DEFAULT_TEMPERATURE, SYSTEM_PROMPT)


def find_mmproj(model: Path) -> Path | None:
    """The encoder in the model's folder, if there is exactly one that gives what the model takes."""
    return encoder_for(model, sorted(model.parent.glob("*.gguf")))


def _is_path(model: str) -> bool:
    """Whether a name of a file that is not there was meant as a path: absolute, or from here or home."""
    return model.startswith(("/", "./", "../", "~", "\\")) or Path(model).is_absolute() or os.sep + os.sep in model


def _chosen(name: str, path: Path, mmproj: Path | None) -> ModelChoice:
    return ModelChoice(name, path, None, mmproj, None, None, DEFAULT_TEMPERATURE, SYSTEM_PROMPT)


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
            quotes_sources=bool(manifest.get("quotes_sources", False)),  # files before version 13 have none
        )
    except OSError as error:
        raise ModelFileError(f"{manifest_path}: {error.strerror}; reinstall Hearth or run `make train`") from error
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{manifest_path}: not a valid manifest ({error}); reinstall Hearth") from error
