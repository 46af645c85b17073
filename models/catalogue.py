"""The catalogue: which models can be fetched by name, read from a TOML file and checked. No network."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from hearth.models.errors import ModelFileError

SCHEMA = 1
Kind = Literal["chat", "vision", "hearing", "embedding", "speech", "pictures"]
CHAT_KINDS: tuple[Kind, ...] = ("chat", "vision", "hearing")  # those that answer
MODEL_SUFFIXES = (".gguf", ".safetensors", ".pt")
COMPANION_SUFFIXES = (".json", ".txt")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_QUANT = re.compile(r"[A-Za-z0-9_]{1,24}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("title", "licence", "note", "languages", "revision", "default_quant")
_FLAGS = ("sees", "hears", "tools", "reasons")
_COUNTS = ("n_ctx", "n_layers", "n_kv_heads", "head_dim")
_NUMBERS = ("parameters_b", "active_b")
_KNOWN = {"name", "kind", "repository", "files", "companions", "mmproj", *_TEXTS, *_FLAGS, *_COUNTS, *_NUMBERS}
_KNOWN_OF_FILE = {"quant", "path", "paths", "size_bytes", "approximate", "sha256", "url"}

KV_BYTES_PER_VALUE = 2  # f16
# Where the catalogue does not say what a token takes: as much as models of 14 B with grouped queries do
UNKNOWN_KV_BYTES_PER_TOKEN = 160 * 1024
# What llama.cpp allocates to compute a batch of 512 tokens, for vocabularies of up to 260,000
COMPUTE_BYTES = 512 * 2**20
ENCODER_COMPUTE_BYTES = 512 * 2**20  # a picture of usual size on its way through an encoder


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """What is fetched together under one quantization: several ``paths`` for a model in parts, their size in all.

    ``approximate`` marks a size that is not known exactly. ``url`` is for files outside the hub; these have a
    ``sha256``.
    """

    paths: tuple[str, ...]
    size_bytes: int
    quant: str = ""
    approximate: bool = False
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model of the catalogue. None and "" stand for what the catalogue does not say."""

    name: str
    kind: Kind
    title: str
    files: tuple[CatalogueFile, ...]
    repository: str | None = None
    revision: str = "main"
    licence: str = ""
    note: str = ""
    languages: str = ""
    default_quant: str = ""
    parameters_b: float | None = None  # billions
    active_b: float | None = None  # billions that are computed for a token; None: all
    n_ctx: int | None = None  # tokens it was made for
    n_layers: int | None = None
    n_kv_heads: int | None = None
    head_dim: int | None = None
    sees: bool = False
    hears: bool = False
    tools: bool = False
    reasons: bool = False
    mmproj: CatalogueFile | None = None
    companions: tuple[CatalogueFile, ...] = ()

    def file(self, quant: str | None = None) -> CatalogueFile:
        """The files of a quantization; None is the usual one. Raises ModelFileError naming those there are."""
        wanted = (quant or self.default_quant or self.files[0].quant).upper()
        for file in self.files:
            if file.quant.upper() == wanted:
                return file
        known = ", ".join(file.quant for file in self.files)
        raise ModelFileError(f"{self.name}: no quantization {quant!r} in the catalogue; there are {known}")

    def download_bytes(self, quant: str | None = None) -> int:
        """Size of all that a pull fetches."""
        extra = (*self.companions, *([self.mmproj] if self.mmproj is not None else []))
        return self.file(quant).size_bytes + sum(file.size_bytes for file in extra)

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Keys and values of one token in all layers, in f16; None where the catalogue does not say."""
        if self.n_layers is None or self.n_kv_heads is None or self.head_dim is None:
            return None
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * KV_BYTES_PER_VALUE


Catalogue = Mapping[str, CatalogueEntry]


def memory_need_bytes(entry: CatalogueEntry, n_ctx: int, quant: str | None = None) -> int:
    """What computing ``entry`` with a context of ``n_ctx`` tokens takes, about, before a file of it is there.

    The weights, the encoder with what a picture takes in it, the KV cache in f16, and the buffers of a batch. Sliding
    windows save nothing, as the engine keeps all cells. Raises ModelFileError for an unknown quantization.
    """
    weights_bytes = entry.file(quant).size_bytes
    if entry.kind not in CHAT_KINDS:
        return weights_bytes + COMPUTE_BYTES
    per_token_bytes = entry.kv_bytes_per_token
    kv_bytes = n_ctx * (UNKNOWN_KV_BYTES_PER_TOKEN if per_token_bytes is None else per_token_bytes)
    encoder_bytes = 0 if entry.mmproj is None else entry.mmproj.size_bytes + ENCODER_COMPUTE_BYTES
    return weights_bytes + encoder_bytes + kv_bytes + COMPUTE_BYTES


def read_catalogue(path: Path) -> Catalogue:
    """The entries of a catalogue by name, in the file's order. Raises ModelFileError naming entry and mistake."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}; install Hearth again") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: not a valid catalogue: {error}") from error
    if content.get("schema") != SCHEMA:
        raise ModelFileError(f"{path}: catalogue of schema {content.get('schema')!r}; this Hearth reads {SCHEMA}")
    entries: dict[str, CatalogueEntry] = {}
    for position, fields in enumerate(content.get("model", []), 1):
        place = f"{path}: model {fields.get('name', position)!r}"
        entry = _Checked(place).entry(fields)
        if entry.name in entries:
            raise ModelFileError(f"{place}: the name is there twice")
        entries[entry.name] = entry
    return entries


class _Checked:
    """Turns tables of the file into entries; a mistake is raised with its ``place``."""

    def __init__(self, place: str) -> None:
        self._place = place

    def entry(self, fields: Mapping[str, Any]) -> CatalogueEntry:
        self._only(fields, _KNOWN)
        repository = fields.get("repository")
        if repository is not None:
            self._match(_REPOSITORY, repository, "repository", "owner/name")
        given: dict[str, Any] = {key: self._text(fields[key], key) for key in _TEXTS if key in fields}
        given |= {key: self._flag(fields[key], key) for key in _FLAGS if key in fields}
        given |= {key: self._count(fields[key], key) for key in _COUNTS if key in fields}
        given |= {key: self._number(fields[key], key) for key in _NUMBERS if key in fields}
        given.setdefault("title", fields.get("name"))
        entry = CatalogueEntry(
            name=self._match(_NAME, fields.get("name"), "name", "lower case, digits, dots and hyphens"),
            kind=self._kind(fields.get("kind")),
            files=tuple(self._file(file, MODEL_SUFFIXES) for file in self._tables(fields.get("files"), "files")),
            repository=repository,
            mmproj=self._file(fields["mmproj"], (".gguf",)) if "mmproj" in fields else None,
            companions=tuple(
                self._file(file, COMPANION_SUFFIXES)
                for file in self._tables(fields.get("companions", []), "companions")
            ),
            **given,
        )
        self._check_whole(entry)
        return entry

    def _check_whole(self, entry: CatalogueEntry) -> None:
        """What concerns several fields of an entry."""
        if not entry.files:
            raise self._wrong("files", "none")
        quants = [file.quant for file in entry.files]
        if len(set(quants)) != len(quants):
            raise self._wrong("files", "a quantization is there twice")
        if entry.default_quant and entry.default_quant not in quants:
            raise self._wrong("default_quant", f"{entry.default_quant!r} is not among {', '.join(quants)}")
        self._match(_REVISION, entry.revision, "revision", "a branch, tag or commit")
        if any((file.url is None) == (entry.repository is None) for file in entry.files):
            raise self._wrong("files", "give a repository, or a url for each file")
        if (entry.mmproj or entry.companions) and entry.repository is None:
            raise self._wrong("mmproj", "needs a repository")
        if (entry.sees or entry.hears) and entry.mmproj is None:
            raise self._wrong("mmproj", "a model that sees or hears needs its encoder")
        if len({value is None for value in (entry.n_layers, entry.n_kv_heads, entry.head_dim)}) > 1:
            raise self._wrong("n_layers", "give n_layers, n_kv_heads and head_dim, or none of them")

    def _file(self, fields: Any, suffixes: tuple[str, ...]) -> CatalogueFile:
        if not isinstance(fields, dict):
            raise self._wrong("files", f"{fields!r} is not a table")
        self._only(fields, _KNOWN_OF_FILE)
        url, sha256 = fields.get("url"), fields.get("sha256")
        if url is not None:
            self._match(re.compile(r"https://[\w.-]+/[\w./-]+"), url, "url", "https without a query")
            if sha256 is None:
                raise self._wrong("sha256", f"missing for {url}")
        if sha256 is not None:
            self._match(_SHA256, sha256, "sha256", "64 hex digits")
        paths = fields.get("paths", [fields["path"]] if "path" in fields else [PurePosixPath(url or "").name])
        if not isinstance(paths, list) or not paths:
            raise self._wrong("paths", f"{paths!r} is not a list of names")
        return CatalogueFile(
            paths=tuple(self._path(path, suffixes) for path in paths),
            size_bytes=self._count(fields.get("size_bytes"), "size_bytes"),
            quant=self._match(_QUANT, fields["quant"], "quant", "letters and digits") if "quant" in fields else "",
            approximate=self._flag(fields.get("approximate", False), "approximate"),
            sha256=sha256,
            url=url,
        )

    def _path(self, path: Any, suffixes: tuple[str, ...]) -> str:
        """A relative path within the repository: what it names must stay in the folder it is fetched to."""
        parts = self._text(path, "path").split("/")
        if any(part in ("", ".", "..") or not re.fullmatch(r"[\w.+-]+", part) for part in parts):
            raise self._wrong("path", f"{path!r} is not a plain relative path")
        if not parts[-1].lower().endswith(suffixes):
            raise self._wrong("path", f"{path!r} does not end in {', '.join(suffixes)}")
        return str(path)

    def _only(self, fields: Mapping[str, Any], known: set[str]) -> None:
        for key in fields:
            if key not in known:
                raise self._wrong(key, f"unknown; known are {', '.join(sorted(known))}")

    def _tables(self, value: Any, key: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._wrong(key, f"{value!r} is not a list of tables")
        return value

    def _kind(self, value: Any) -> Kind:
        for kind in get_args(Kind):
            if value == kind:
                return kind  # type: ignore[no-any-return]
        raise self._wrong("kind", f"{value!r} is not one of {', '.join(get_args(Kind))}")

    def _match(self, pattern: re.Pattern[str], value: Any, key: str, wanted: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._wrong(key, f"{value!r} is not {wanted}")
        return value

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self._wrong(key, f"{value!r} is not a line of text")
        return value

    def _flag(self, value: Any, key: str) -> bool:
        if not isinstance(value, bool):
            raise self._wrong(key, f"{value!r} is not true or false")
        return value

    def _count(self, value: Any, key: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 50:
            raise self._wrong(key, f"{value!r} is not a positive whole number")
        return value

    def _number(self, value: Any, key: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            raise self._wrong(key, f"{value!r} is not a positive number")
        return float(value)

    def _wrong(self, key: str, reason: str) -> ModelFileError:
        return ModelFileError(f"{self._place}: {key}: {reason}")
