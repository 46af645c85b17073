"""Reads the head of a GGUF file in bounded pure Python, so that a bad file is refused before native code sees it."""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from hearth.models.errors import ModelFileError

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
MAX_TENSORS = 100_000
MAX_METADATA_ENTRIES = 10_000
MAX_KEY_BYTES = 65_535
MAX_ARRAY_ITEMS = 8_000_000  # a vocabulary has some 100,000 strings
MAX_ARRAY_DEPTH = 4
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# ggml type → (elements in a block, bytes of a block); types not named here are only checked to start inside the file
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
_FOREIGN = (
    (b"PK\x03\x04", "a ZIP archive or PyTorch checkpoint"),
    (b"\x80\x02", "a Python pickle"),
    (b"ggjt", "a GGML file of before August 2023"),
    (b"lmgg", "a GGML file of before August 2023"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded"),
)

Scalar = int | float | bool | str


F32, F16, Q8_0, BF16 = 0, 1, 8, 30  # ggml types of tensors
FLOAT32 = 6  # type of a metadata value


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """``shape`` as the file has it: the width of a row first. ``kind`` is the ggml type; ``offset`` in bytes from the
    start of the data."""

    shape: tuple[int, ...]
    kind: int
    offset: int = 0


def tensor_bytes(tensor: GgufTensor) -> int:
    """What a tensor takes in the file; 0 for a type that is not known here."""
    per_block, block_bytes = _BLOCKS.get(tensor.kind, (1, 0))
    return math.prod(tensor.shape) // per_block * block_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the head of a file says. ``metadata`` has scalars and strings; arrays are left out. ``kinds`` are the types
    of all metadata, arrays included, by the numbers of the format; ``lengths`` the numbers of items of arrays,
    ``offsets`` where these stand."""

    path: Path
    version: int
    size_bytes: int
    n_tensors: int
    data_offset: int  # bytes from the start of the file to the first tensor
    metadata: dict[str, Scalar]
    kinds: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, GgufTensor] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)  # bytes, of arrays

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))


def check_gguf(path: Path) -> GgufHeader:
    """Reads the header, of all parts where a model is split, and returns the first part's with the tensors of all.

    Raises ModelFileError naming the path and what is wrong.
    """
    header = read_gguf_header(path)
    tensors = dict(header.tensors)
    for part in _other_parts(header):
        tensors |= read_gguf_header(part).tensors
    return replace(header, tensors=tensors)


def read_gguf_header(path: Path) -> GgufHeader:
    """Reads one file's header and checks that its tensors lie within the file. Raises ModelFileError."""
    try:
        if path.is_dir():
            raise ModelFileError(f"{path}: a folder, not a model file; name the .gguf file in it")
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; check the path of the model") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: no such file: {error}") from error


def array_items(header: GgufHeader, key: str, indices: Iterable[int]) -> dict[int, Scalar]:
    """The wanted items of an array of numbers or strings, by index; those that are not there are left out.

    Raises ModelFileError.
    """
    wanted = set(indices)
    if key not in header.offsets or not wanted:
        return {}
    try:
        with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(header.path, content).items(header.offsets[key], wanted)
    except OSError as error:
        raise ModelFileError(f"{header.path}: cannot be read: {error.strerror or error}") from error
    except _PastEndError:
        raise ModelFileError(f"{header.path}: truncated; download it again") from None


def _read(path: Path, file: BinaryIO) -> GgufHeader:
    start = file.read(64)
    if not start:
        raise ModelFileError(f"{path}: 0 bytes; download the model again")
    if start[:4] != MAGIC:
        raise ModelFileError(f"{path}: not a GGUF file but {_describe(start)}; convert it or choose a .gguf file")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(path, content)
        try:
            return reader.header()
        except _PastEndError:
            raise ModelFileError(
                f"{path}: truncated: its {len(content):,} bytes end inside the header; download it again"
            ) from None


def _describe(start: bytes) -> str:
    for magic, name in _FOREIGN:
        if start.startswith(magic):
            return name
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page"
    if len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30:
        return "a safetensors file"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        return "a text file"
    return f"a file that starts with {start[:4].hex(' ')}"


def _other_parts(header: GgufHeader) -> list[Path]:
    """Paths of parts 2..n of a split model, which llama.cpp opens by name."""
    count = header.metadata.get("split.count", 0)
    if not isinstance(count, int) or count <= 1:
        return []
    found = re.fullmatch(r"(.*)-00001-of-(\d{5})(\.gguf)", header.path.name)
    if found is None or int(found[2]) != count:
        raise ModelFileError(f"{header.path}: a part of a model in {count} parts; name the file ending -00001-of-…")
    return [header.path.with_name(f"{found[1]}-{i:05d}-of-{found[2]}{found[3]}") for i in range(2, count + 1)]


class _PastEndError(Exception):
    """The file ends before what its header announces."""


class _Reader:
    """A cursor over the mapped file. Every read is checked against the file's end."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self._size = path, content, len(content)
        self._at = len(MAGIC)
        self._order = "<"

    def header(self) -> GgufHeader:
        version = self._version()
        n_tensors = self._bounded("Q", MAX_TENSORS, "tensors")
        n_entries = self._bounded("Q", MAX_METADATA_ENTRIES, "metadata entries")
        metadata: dict[str, Scalar] = {}
        kinds: dict[str, int] = {}
        lengths: dict[str, int] = {}
        offsets: dict[str, int] = {}
        for _ in range(n_entries):
            key = self._string(MAX_KEY_BYTES)
            kinds[key] = self._scalar("I")
            start = self._at
            value = self._value(kinds[key])
            if value is not None:
                metadata[key] = value
            elif kinds[key] == _ARRAY:
                offsets[key], lengths[key] = start, struct.unpack_from("<Q", self._content, start + 4)[0]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
            raise self._bad(f"general.alignment is {alignment!r}, not within 1..{MAX_ALIGNMENT}")
        tensors: dict[str, GgufTensor] = {}
        ends: list[tuple[str, int]] = []
        for _ in range(n_tensors):
            name, tensors[name], end = self._tensor()
            ends.append((name, end))
        data_offset = -(-self._at // alignment) * alignment
        for name, end in ends:
            if data_offset + end > self._size:
                needed = data_offset + max(end for _, end in ends)
                raise ModelFileError(
                    f"{self._path}: truncated: tensor {name} needs {needed:,} bytes of file, "
                    f"there are {self._size:,}; download it again"
                )
        return GgufHeader(
            self._path, version, self._size, n_tensors, data_offset, metadata, kinds, tensors, lengths, offsets
        )

    def items(self, offset: int, wanted: set[int]) -> dict[int, Scalar]:
        """Of the array at ``offset``."""
        self._at = offset
        kind, count = self._scalar("I"), self._scalar("Q")
        found: dict[int, Scalar] = {}
        for index in range(min(count, max(wanted) + 1)):
            if kind == _STRING and index not in wanted:
                self._skip(self._scalar("Q"))
            elif kind == _STRING:
                found[index] = self._string(MAX_KEY_BYTES)
            elif kind in _SCALARS:
                value = self._scalar(_SCALARS[kind])
                if index in wanted:
                    found[index] = value
        return found

    def _version(self) -> int:
        version = self._scalar("I")
        if version not in SUPPORTED_VERSIONS and version & 0xFFFF == 0:
            raise self._bad("it is big-endian, for another kind of processor")
        if version not in SUPPORTED_VERSIONS:
            raise self._bad(f"GGUF version {version}; versions {SUPPORTED_VERSIONS[0]} and 3 can be read")
        return int(version)

    def _tensor(self) -> tuple[str, GgufTensor, int]:
        """A tensor, by its name, and where it ends, in bytes from the start of the data."""
        name = self._string(MAX_KEY_BYTES)
        n_dimensions = self._bounded("I", MAX_DIMENSIONS, f"dimensions of tensor {name!r}")
        shape = tuple(self._scalar("Q") for _ in range(n_dimensions))
        kind, offset = self._scalar("I"), self._scalar("Q")
        tensor = GgufTensor(shape, kind, offset)
        return name, tensor, offset + tensor_bytes(tensor)

    def _value(self, kind: int, depth: int = 0) -> Scalar | None:
        if kind == _STRING:
            return self._string(self._size)
        if kind == _ARRAY:
            self._skip_array(depth)
            return None
        if kind not in _SCALARS:
            raise self._bad(f"metadata of unknown type {kind}")
        value: Scalar = self._scalar(_SCALARS[kind])
        return value

    def _skip_array(self, depth: int) -> None:
        kind = self._scalar("I")
        count = self._bounded("Q", MAX_ARRAY_ITEMS, "items in an array")
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            self._skip_strings(count)
        elif depth >= MAX_ARRAY_DEPTH:
            raise self._bad(f"arrays nested deeper than {MAX_ARRAY_DEPTH}")
        else:
            for _ in range(count):
                self._value(kind, depth + 1)

    def _skip_strings(self, count: int) -> None:
        content, at, end = self._content, self._at, self._size - 8
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at > end:
                raise _PastEndError
            at += 8 + unpack(content, at)[0]
        self._at = at
        self._skip(0)

    def _string(self, max_bytes: int) -> str:
        length = self._scalar("Q")
        start = self._at
        if length > max_bytes:
            raise _PastEndError if length > self._size else self._bad(f"a name of {length} bytes; limit {max_bytes}")
        self._skip(length)
        return self._content[start : self._at].decode("utf-8", "replace")

    def _bounded(self, format_: str, limit: int, what: str) -> int:
        value = int(self._scalar(format_))
        if value > limit:
            raise self._bad(f"it announces {value:,} {what}, the limit is {limit:,}")
        return value

    def _scalar(self, format_: str) -> int:
        start = self._at
        self._skip(struct.calcsize("<" + format_))
        value: int = struct.unpack_from("<" + format_, self._content, start)[0]
        return value

    def _skip(self, n_bytes: int) -> None:
        if self._at + n_bytes > self._size:
            raise _PastEndError
        self._at += n_bytes

    def _bad(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: damaged or unsupported GGUF: {reason}")
