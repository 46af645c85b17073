"""The record beside a pulled model: which commit it came from and what each of its files must be."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hearth.models.errors import ModelFileError

RECORD_NAME = "pulled.json"  # in a model's folder; checkpoints that share one have NAME.pulled.json
SCHEMA = 1
_MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PulledFile:
    """A file in the model's folder. ``quant`` is "" for what belongs to all of them, the encoder among them."""

    name: str
    remote: str  # path in the repository, or the URL
    commit: str
    size_bytes: int
    sha256: str
    quant: str = ""
    is_mmproj: bool = False


@dataclass(frozen=True, slots=True)
class PulledRecord:
    """What was pulled of one model. Later pulls keep to ``commit``, which is "" for files outside the hub."""

    name: str
    repository: str
    revision: str
    commit: str
    files: tuple[PulledFile, ...] = ()

    def with_file(self, file: PulledFile) -> PulledRecord:
        """The record with ``file`` in place of what had its name."""
        return replace(self, files=(*(one for one in self.files if one.name != file.name), file))

    def of_quant(self, quant: str) -> tuple[PulledFile, ...]:
        """The model's files of a quantization, in order of their parts."""
        return tuple(file for file in self.files if file.quant.upper() == quant.upper() and not file.is_mmproj)

    @property
    def quants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file.quant for file in self.files if file.quant and not file.is_mmproj))

    @property
    def mmproj(self) -> PulledFile | None:
        return next((file for file in self.files if file.is_mmproj), None)


def read_record(path: Path) -> PulledRecord | None:
    """The record, or None if there is none. Raises ModelFileError for one that cannot be understood."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_RECORD_BYTES))
        if content["schema"] != SCHEMA:
            raise ModelFileError(
                f"{path}: of schema {content['schema']!r}; this Hearth reads {SCHEMA}; delete it and pull"
            )
        files = tuple(_file(fields) for fields in content["files"])
        texts = {key: str(content[key]) for key in ("name", "repository", "revision", "commit")}
        return PulledRecord(**texts, files=files)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: not a record of a pull ({error!r}); delete it and pull again") from error


def _file(fields: dict[str, Any]) -> PulledFile:
    file = PulledFile(**fields)
    if Path(file.name).name != file.name or file.name in ("", ".", ".."):
        raise ValueError(f"{file.name!r} is not a file name")
    if not isinstance(file.size_bytes, int):
        raise ValueError(f"{file.size_bytes!r} is not a size")
    return file


def write_record(path: Path, record: PulledRecord) -> None:
    """Replaces the record in one step. Raises OSError."""
    content = {"schema": SCHEMA, **asdict(record)}
    replace_file(path, json.dumps(content, indent=2) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Writes a small text file so that a reader sees the old or the new one, never a part. Raises OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def missing_files(folder: Path, files: Sequence[PulledFile]) -> list[str]:
    """Names of those that are not there, or of another size than when they were pulled."""
    missing = []
    for file in files:
        try:
            if (folder / file.name).stat().st_size != file.size_bytes:
                missing.append(file.name)
        except OSError:
            missing.append(file.name)
    return missing
