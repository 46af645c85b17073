"""The models of one user: what the catalogue offers, what lies on this machine, what was added, which one is chosen."""

from __future__ import annotations

import difflib
import json
import logging
import os
import sys
from functools import cached_property
from pathlib import Path

from hearth import assets
from hearth.models.catalogue import CHAT_KINDS, Catalogue, CatalogueEntry, read_catalogue
from hearth.models.describe import describe
from hearth.models.discovery import Discovery, FoundModel, discover, named
from hearth.models.errors import ModelFileError
from hearth.models.places import TITLES, Place, find_places
from hearth.models.pulled import replace_file

log = logging.getLogger("hearth.models")
POCKET = "pocket"
ADDED_NAME = "added.json"  # files and folders that the user wants looked in
CHOICE_NAME = "choice.json"  # the model that was chosen on the page or by `hearth models use`
N_CLOSE = 4
_MAX_BYTES = 1 << 20


class ModelLibrary:
    """Looks at the disk when asked and keeps nothing; any thread may call. Opens no connection."""

    def __init__(self, data_dir: Path) -> None:
        self.models_dir = data_dir / "models"

    @cached_property
    def catalogue(self) -> Catalogue:
        return read_catalogue(assets.catalogue_file())

    def places(self) -> tuple[Place, ...]:
        """Where models are looked for."""
        return find_places(
            self.models_dir, home=Path.home(), environ=os.environ, platform=sys.platform, added=self.added()
        )

    def discover(self) -> Discovery:
        """What lies on this machine."""
        return discover(self.places())

    def entry(self, name: str) -> CatalogueEntry:
        """The entry of the catalogue. Raises ModelFileError with names that are close."""
        entry = self.catalogue.get(name.lower())
        if entry is None:
            raise ModelFileError(
                f"no model {name!r} in the catalogue{_close(name, list(self.catalogue))}; `hearth models list` shows it"
            )
        return entry

    def find(self, name: str) -> FoundModel:
        """The model on this machine that ``name`` means: one that answers.

        Raises ModelFileError: not pulled yet, of another kind, unknown, or ambiguous.
        """
        entry = self.catalogue.get(name.lower())
        if entry is not None and entry.kind not in CHAT_KINDS:
            raise ModelFileError(f"{name} is a model for {_PURPOSES[entry.kind]}, it does not answer questions")
        models = self.discover().models
        found = named(models, name)
        if not found:
            raise ModelFileError(self._unknown(name, entry, models))
        if len(found) > 1:
            listed = ", ".join(f"{model.name} ({model.path})" for model in found[:N_CLOSE])
            raise ModelFileError(f"{name!r} means {len(found)} models: {listed}; give the full name, or the path")
        details = describe(found[0])
        if details.problem or details.use != "chat":
            problem = details.problem or f"a model for {details.use}, it does not answer questions"
            raise ModelFileError(f"{found[0].name} ({found[0].path}): {problem}")
        return found[0]

    def _unknown(self, name: str, entry: CatalogueEntry | None, models: tuple[FoundModel, ...]) -> str:
        base, _, quant = name.lower().partition(":")
        if entry is None and quant and base in self.catalogue:
            return f"{name} is not on this machine; `hearth models pull {base} --quant {quant.upper()}` fetches it"
        if entry is not None:
            size = entry.download_bytes() / 2**30
            return f"{name} is not on this machine; `hearth models pull {entry.name}` fetches it ({size:.1f} GiB)"
        known = [POCKET, *self.catalogue, *(model.name for model in models), *(model.short_name for model in models)]
        return f"unknown model {name!r}{_close(name, known)}: give 'pocket', a name of `hearth models list`, or a path"

    # added by the user

    def added(self) -> list[Path]:
        """Files and folders that were added, in order. A damaged list counts as empty and is logged."""
        paths = self._read(ADDED_NAME).get("paths", [])
        return [Path(path) for path in paths if isinstance(path, str)] if isinstance(paths, list) else []

    def add(self, path: Path) -> tuple[FoundModel, ...]:
        """Looks in ``path``, a GGUF file or a folder, from now on; the files stay where they are and are not copied.

        The models found there. Raises ModelFileError if there are none, or the list cannot be written.
        """
        path = path.expanduser().absolute()
        if not path.exists():
            raise ModelFileError(f"{path}: no such file or folder; check the path")
        if path.is_file() and path.suffix.lower() != ".gguf":
            raise ModelFileError(f"{path}: not a .gguf file; add one, or a folder with some in it")
        found = discover([Place("added", path)])
        if not found.models:
            reason = f" ({found.notes[0]})" if found.notes else ""
            raise ModelFileError(f"{path}: no .gguf file in it{reason}; models in other formats cannot be used")
        if path not in self.added():
            self._write(ADDED_NAME, {"paths": [str(one) for one in [*self.added(), path]]})
        return found.models

    # chosen by the user

    def chosen(self) -> str | None:
        """The model to be used where the settings name none, or None: the pocket model."""
        name = self._read(CHOICE_NAME).get("model")
        return name if isinstance(name, str) and name else None

    def choose(self, name: str) -> None:
        """Makes ``name`` the model of every start whose settings name none. Raises ModelFileError if it is not here."""
        if name != POCKET:
            name = self.find(name).name
        self._write(CHOICE_NAME, {"model": name})

    def _read(self, name: str) -> dict[str, object]:
        path = self.models_dir / name
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: cannot be read (%s); it counts as empty", path, error)
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, name: str, content: dict[str, object]) -> None:
        path = self.models_dir / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be written: {error.strerror}") from error


_PURPOSES = {
    "embedding": "embeddings of texts",
    "speech": "transcription",
    "pictures": "embeddings of pictures",
}


def origin_title(model: FoundModel) -> str:
    """The program that a model's files belong to, in words."""
    return TITLES[model.origin]


def _close(name: str, known: list[str]) -> str:
    """“ (did you mean …?)”, or nothing."""
    names = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), names, n=N_CLOSE, cutoff=0.5)
    close += [one for one in names if name.lower() in one and one not in close][: max(N_CLOSE - len(close), 0)]
    return f" (did you mean {', '.join(names[one] for one in close)}?)" if close else ""
