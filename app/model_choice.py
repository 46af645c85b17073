"""Which files a model's name stands for, and what that model can do."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hearth import assets
from hearth.models.errors import ModelFileError

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
    path: Path
    vision_dir: Path | None  # encoder and connector of the MM1 path; None: the model sees nothing
    n_ctx: int | None  # tokens
    retrieval_budget_tokens: int | None  # tokens of retrieved passages in a turn
    temperature: float
    system: str | None


def choose(model: str) -> ModelChoice:
    """The files for a catalogue name or the path of a GGUF. Raises ModelFileError naming the path and the reason."""
    if model == POCKET:
        return _pocket(assets.pocket_dir())
    path = Path(model).expanduser()
    if path.suffix.lower() != ".gguf" and not path.exists() and path.name == model:
        close = " (did you mean pocket?)" if difflib.get_close_matches(model, [POCKET]) else ""
        raise ModelFileError(f"unknown model {model!r}{close}: give 'pocket' or the path of a GGUF file")
    return ModelChoice(path.stem, path, None, None, None, DEFAULT_TEMPERATURE, SYSTEM_PROMPT)


def _pocket(folder: Path) -> ModelChoice:
    manifest_path = folder / "pocket.toml"
    try:
        manifest = tomllib.loads(manifest_path.read_text("utf-8"))
        return ModelChoice(
            name=POCKET,
            path=folder / manifest["language"],
            vision_dir=folder,
            n_ctx=int(manifest["n_ctx"]),
            retrieval_budget_tokens=int(manifest["retrieval_budget_tokens"]),
            temperature=0.0,
            system=None,
        )
    except OSError as error:
        raise ModelFileError(f"{manifest_path}: {error.strerror}; reinstall Hearth or run `make train`") from error
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{manifest_path}: not a valid manifest ({error}); reinstall Hearth") from error
