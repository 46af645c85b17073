"""Which models lie on this machine: other programs' files are found where they are and used in place.

Nothing here opens a model file; ``describe`` reads a header, bounded and in Python. Folders may be huge, damaged or
hostile: how many entries are looked at, how deep and for how long is limited, and loops of links end.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearth.models.encoders import encoder_for, is_encoder_name
from hearth.models.errors import ModelFileError
from hearth.models.places import Origin, Place
from hearth.models.pulled import RECORD_NAME, PulledRecord, missing_files, read_record

log = logging.getLogger("hearth.discovery")
MAX_ENTRIES = 50_000  # of folders, in one place
MAX_DEPTH = 8
MAX_MODELS = 2_000  # in one place
MAX_S = 5.0  # for one place: a slow drive must not hold up the rest
MAX_MANIFEST_BYTES = 1 << 20
OLLAMA_HOST = "registry.ollama.ai"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = "application/vnd.ollama.image."


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model's files on this machine. ``problem`` says why it cannot be used, "" if nothing speaks against it.

    ``mmproj`` is the encoder that certainly belongs to it; else ``encoders`` are those that may, by their place.
    """

    name: str
    origin: Origin
    path: Path  # the first part
    size_bytes: int
    parts: tuple[Path, ...] = ()
    mmproj: Path | None = None
    encoders: tuple[Path, ...] = ()
    problem: str = ""

    @property
    def short_name(self) -> str:
        """The name without the program it comes from."""
        return self.name.split(":", 1)[1] if self.origin not in ("hearth", "added") else self.name

    def encoder(self) -> Path | None:
        """The encoder to be used with it. Reads headers where the place alone does not tell."""
        return self.mmproj or encoder_for(self.path, self.encoders)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found, and what could not be looked at."""

    models: tuple[FoundModel, ...]
    notes: tuple[str, ...] = ()


def discover(places: Sequence[Place]) -> Discovery:
    """The models in all places; a file that is reached by several ways counts once. Raises nothing: see the notes."""
    models: list[FoundModel] = []
    notes: list[str] = []
    seen: set[str] = set()
    for place in places:
        scan = _Scan(place, notes)
        for model in scan.models():
            real = os.path.realpath(model.path)
            if model.problem or real not in seen:
                seen.add(real)
                models.append(model)
    return Discovery(tuple(models), tuple(notes))


def named(models: Sequence[FoundModel], name: str) -> list[FoundModel]:
    """Those that ``name`` means: by the full name, else without the program, else by the file's own name."""
    wanted = name.lower()
    asked = (wanted, f"{wanted}:latest")  # as Ollama reads a name without a tag
    for keys in zip(*((m.name, m.short_name, m.short_name.rsplit("/", 1)[-1]) for m in models), strict=True):
        found = [model for model, key in zip(models, keys, strict=True) if key.lower() in asked]
        if found:
            return found
    return []


@dataclass
class _Scan:
    """One place being looked at, within its limits."""

    place: Place
    notes: list[str]
    entries_left: int = MAX_ENTRIES
    _until_s: float = field(default_factory=lambda: time.monotonic() + MAX_S)
    _told: bool = False

    def models(self) -> Iterator[FoundModel]:
        kinds = {"hearth": self._hearth, "huggingface": self._hugging_face, "ollama": self._ollama}
        find = kinds.get(self.place.origin, self._folder)
        for count, model in enumerate(find()):
            if count == MAX_MODELS:
                self._tell(f"more than {MAX_MODELS:,} models; the rest is not listed")
                return
            yield model

    # Hearth's own

    def _hearth(self) -> Iterator[FoundModel]:
        for folder in self._subfolders(self.place.path):
            records = [path for path in self._entries(folder, 0) if path.name.endswith(RECORD_NAME)]
            for path in records:
                try:
                    record = read_record(path)
                except ModelFileError as error:
                    self.notes.append(str(error))
                    continue
                if record is not None:
                    yield from self._pulled(folder, record)
            if not records:  # put there by hand
                yield from self._in_folder(list(self._files(folder)), "added", "")

    def _pulled(self, folder: Path, record: PulledRecord) -> Iterator[FoundModel]:
        for place, quant in enumerate(record.quants):
            files = record.of_quant(quant)
            mmproj = record.mmproj
            needed = [*files, *([mmproj] if mmproj is not None else [])]
            missing = missing_files(folder, needed)
            again = f"hearth models pull {record.name} --quant {quant}"
            yield FoundModel(
                name=record.name if place == 0 else f"{record.name}:{quant}",
                origin="hearth",
                path=folder / files[0].name,
                size_bytes=sum(file.size_bytes for file in needed),
                parts=tuple(folder / file.name for file in files),
                mmproj=folder / mmproj.name if mmproj is not None else None,
                problem=f"missing or changed: {', '.join(missing)}; `{again}`" if missing else "",
            )

    # the Hugging Face cache: models--OWNER--NAME/snapshots/COMMIT/…, links into blobs

    def _hugging_face(self) -> Iterator[FoundModel]:
        for repository in self._subfolders(self.place.path):
            if not repository.name.startswith("models--"):
                continue
            name = repository.name.removeprefix("models--").replace("--", "/")
            seen: set[str] = set()
            for snapshot in self._snapshots(repository):
                for model in self._in_folder(list(self._files(snapshot)), "huggingface", f"hf:{name}/"):
                    if model.name not in seen:  # an older snapshot may hold what the newest does not
                        seen.add(model.name)
                        yield model

    def _snapshots(self, repository: Path) -> list[Path]:
        """The one that ``main`` means, then the others, newest first."""
        try:
            with (repository / "refs" / "main").open("rb") as file:
                main = file.read(64).decode("ascii", "replace").strip()
        except OSError:
            main = ""
        snapshots = list(self._subfolders(repository / "snapshots"))
        return sorted(snapshots, key=lambda path: (path.name == main, _changed_s(path)), reverse=True)

    # Ollama: manifests/HOST/OWNER/MODEL/TAG name blobs by their digests

    def _ollama(self) -> Iterator[FoundModel]:
        root = self.place.path / "manifests"
        for path in self._files(root, suffix=""):
            parts = path.relative_to(root).parts
            if len(parts) < 3:
                continue
            host, *owner, model, tag = parts
            owner = [] if owner == ["library"] else owner
            name = "/".join([*([] if host == OLLAMA_HOST else [host]), *owner, model])
            found = self._manifest(path, f"ollama:{name}:{tag}")
            if found is not None:
                yield found

    def _manifest(self, path: Path, name: str) -> FoundModel | None:
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(MAX_MANIFEST_BYTES))
            layers = [layer for layer in content["layers"] if isinstance(layer, dict)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.notes.append(f"{path}: not a manifest of Ollama ({type(error).__name__})")
            return None
        weights, encoders = self._blobs(layers, "model"), self._blobs(layers, "projector")
        if not weights:
            return None  # a model of a remote service, or in another format than GGUF
        problem = (
            "" if all(map(_is_file, (*weights, *encoders))) else "a file of it is missing; pull it with Ollama again"
        )
        if len(weights) > 1:
            problem = "in several files, in a form of Ollama's own"
        elif self._blobs(layers, "adapter"):
            problem = problem or "has an adapter, which would be left out; give both files by `--model` and `lora`"
        mmproj = encoders[0] if encoders else None
        return FoundModel(name, "ollama", weights[0], _sizes((*weights, *encoders)), weights[:1], mmproj, (), problem)

    def _blobs(self, layers: list[dict[str, Any]], kind: str) -> tuple[Path, ...]:
        digests = [
            _DIGEST.fullmatch(str(layer.get("digest")))
            for layer in layers
            if layer.get("mediaType") == f"{_LAYER}{kind}"
        ]
        return tuple(self.place.path / "blobs" / f"sha256-{digest[1]}" for digest in digests if digest is not None)

    # any other folder

    def _folder(self) -> Iterator[FoundModel]:
        path, origin = self.place.path, self.place.origin
        if _is_file(path):
            beside = [one for one in self._entries(path.parent, 0) if _part_of(one) == _part_of(path)]
            yield from self._in_folder([*beside, *self._encoders_beside(path)], origin, "")
            return
        by_folder: dict[Path, list[Path]] = {}
        for file in self._files(path):
            by_folder.setdefault(file.parent, []).append(file)
        for folder, files in by_folder.items():
            prefix = {"lmstudio": f"lmstudio:{_relative(folder, path)}", "llama.cpp": "llama.cpp:"}.get(origin, "")
            yield from self._in_folder(files, origin, prefix)

    def _encoders_beside(self, path: Path) -> list[Path]:
        return [one for one in self._entries(path.parent, 0) if is_encoder_name(one)]

    def _in_folder(self, files: list[Path], origin: Origin, prefix: str) -> Iterator[FoundModel]:
        """The models among files that belong together, their encoders among them."""
        encoders = tuple(sorted(file for file in files if is_encoder_name(file)))
        groups: dict[tuple[Path, str], list[Path]] = {}
        for file in sorted(files):
            if not is_encoder_name(file):
                groups.setdefault((file.parent, _part_of(file)), []).append(file)
        for (_, stem), parts in groups.items():
            yield FoundModel(
                f"{prefix}{stem}", origin, parts[0], _sizes(parts), tuple(parts), None, encoders, _gap(parts)
            )

    # walking

    def _subfolders(self, folder: Path) -> Iterator[Path]:
        for path in self._entries(folder, 0):
            if path.is_dir():
                yield path

    def _files(self, folder: Path, suffix: str = ".gguf") -> Iterator[Path]:
        """Regular files below ``folder``, through links too; a folder that was visited is not visited again."""
        pending = [(folder, 0)]
        visited: set[tuple[int, int]] = set()
        while pending:
            current, depth = pending.pop()
            try:
                status = current.stat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            for path in self._entries(current, depth):
                try:
                    mode = path.stat().st_mode
                except OSError:  # a link to nothing, or not permitted
                    continue
                if stat.S_ISDIR(mode):
                    pending.append((path, depth + 1))
                elif stat.S_ISREG(mode) and path.name.lower().endswith(suffix):
                    yield path

    def _entries(self, folder: Path, depth: int) -> Iterator[Path]:
        """What is in a folder, in the order of names, without what is hidden, as long as the limits allow."""
        if depth > MAX_DEPTH:
            self._tell(f"deeper than {MAX_DEPTH} folders; {folder} is not looked at")
            return
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self.entries_left -= 1
                    if self.entries_left < 0 or time.monotonic() > self._until_s:
                        self._tell(f"more than {MAX_ENTRIES:,} entries or {MAX_S:.0f} s; the rest is not looked at")
                        break
                    if not entry.name.startswith("."):
                        names.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.notes.append(f"{folder}: not looked at: {error.strerror}")
            return
        for name in sorted(names):
            yield folder / name

    def _tell(self, reason: str) -> None:
        if not self._told:
            self._told = True
            self.notes.append(f"{self.place.path}: {reason}")


def _part_of(path: Path) -> str:
    """The name that all parts of a model share."""
    found = _PART.fullmatch(path.stem)
    return found[1] if found is not None else path.stem


def _gap(parts: Sequence[Path]) -> str:
    """Why a model in parts is not whole, "" if it is."""
    numbers = [(int(found[2]), int(found[3])) for path in parts if (found := _PART.fullmatch(path.stem))]
    if not numbers:
        return ""
    count = numbers[0][1]
    missing = sorted(set(range(1, min(count, len(parts) + MAX_MODELS) + 1)) - {number for number, _ in numbers})
    if len({total for _, total in numbers}) > 1:
        return "parts of different models have one name"
    return f"part {missing[0]} of {count} is missing" if missing else ""


def _relative(folder: Path, root: Path) -> str:
    parts = folder.relative_to(root).parts
    return "/".join(parts) + "/" if parts else ""


def _sizes(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
