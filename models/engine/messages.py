"""What an engine process and its parent say to each other, and the pipes it passes through. No native code.

The parent sends one message a frame, the process lists of them. What comes from the process is read by an unpickler
that makes our own plain classes and nothing else.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hearth.models import types
from hearth.models.engine import options
from hearth.models.engine.options import EngineOptions
from hearth.models.errors import EngineError, HearthError
from hearth.models.types import Engine, EngineEvent, GenerationRequest, MediaEmbeddings

EngineFactory = Callable[..., Engine]
"""``make(path, options, on_progress=..., **arguments)``; a function or class method that pickles by its name."""

CALLS = frozenset(
    {"check_integrity", "detokenize", "encode_media", "flush", "forget", "pieces", "plan_media", "stats", "tokenize"}
)
"""Methods of the engine that may be called through the pipe."""

_FRAME_HEADER = struct.Struct("<Q")  # bytes of the pickle that follows
_JOINED_BYTES = 1 << 16  # frames below this go out in one write


# From the parent. ``serial`` names one exchange: a call with its answer, or a request until its last event.


@dataclass(frozen=True, slots=True)
class Load:
    """The first message. The answer, under serial 0, is the ModelInfo."""

    path: Path
    options: EngineOptions | None
    make_engine: EngineFactory | None  # None: LlamaEngine.load, without importing it here
    arguments: dict[str, Any]
    log_levels: dict[str, int]  # by the logger's name, "" for the root


@dataclass(frozen=True, slots=True)
class Submit:
    """The answer, None or an error, comes before the first event. Media segments come without ``embed``."""

    serial: int
    request: GenerationRequest


@dataclass(frozen=True, slots=True)
class Call:
    """Runs a method named in CALLS."""

    serial: int
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    serial: int


@dataclass(frozen=True, slots=True)
class PackedEmbeddings:
    """MediaEmbeddings as plain data: rows of float32 and places of int32, in C order."""

    shape: tuple[int, ...]
    rows: bytes
    places: bytes | None
    causal: bool


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What ``embed`` of the request's segment ``index`` gave."""

    serial: int
    index: int
    packed: PackedEmbeddings


@dataclass(frozen=True, slots=True)
class EmbedFailed:
    """``embed`` raised; the parent keeps the error and puts it into the request's last event."""

    serial: int
    index: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the engine, send what is left, exit."""


# From the process.


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error of the tree: the names of its class and that class's bases, nearest first, and its text."""

    names: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    fraction: float


@dataclass(frozen=True, slots=True)
class Answer:
    """To Load, Submit or Call: a pickled result or an error."""

    serial: int
    result: bytes = b""
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Anything but Failed."""

    serial: int
    event: EngineEvent


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands for the event Failed."""

    serial: int
    error: ErrorRecord


@dataclass(frozen=True, slots=True)
class EmbedWanted:
    serial: int
    index: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record; ``exc_text`` is its formatted traceback."""

    name: str
    level: int
    text: str
    created_s: float
    thread: str
    exc_text: str | None


def protocol_id() -> str:
    """Differs when the fields of what passes do: a process that starts after an update of Hearth must not guess."""
    modules = (types, options, sys.modules[__name__])
    kinds = {
        f"{kind.__module__}.{name}": kind
        for module in modules
        for name, kind in vars(module).items()
        if isinstance(kind, type) and is_dataclass(kind)
    }
    lines = [f"{name} {[field.name for field in fields(kind)]}" for name, kind in sorted(kinds.items())]
    return f"{zlib.crc32(chr(10).join(lines).encode()):08x}"


def pack(given: MediaEmbeddings | NDArray[np.float32]) -> PackedEmbeddings:
    """``given`` without arrays, for the pipe."""
    if not isinstance(given, MediaEmbeddings):
        given = MediaEmbeddings(given)
    rows = np.ascontiguousarray(given.rows, dtype=np.float32)
    places = None if given.places is None else np.ascontiguousarray(given.places, dtype=np.int32).tobytes()
    return PackedEmbeddings(rows.shape, rows.tobytes(), places, given.causal)


def unpack(packed: PackedEmbeddings) -> MediaEmbeddings:
    """What was packed; its arrays cannot be written to."""
    rows = np.frombuffer(packed.rows, np.float32).reshape(packed.shape)
    places = None if packed.places is None else np.frombuffer(packed.places, np.int32).reshape(-1, 3)
    return MediaEmbeddings(rows, places, packed.causal)


class ParentEmbedError(EngineError):
    """Stands for the error of an ``embed`` in the parent, which alone knows it."""


def error_name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def record_of(error: BaseException) -> ErrorRecord:
    """An error outside the tree becomes an EngineError that names it, as in LlamaEngine."""
    if not isinstance(error, HearthError):
        error = EngineError(f"the engine failed: {type(error).__name__}: {error}")
    bases = [kind for kind in type(error).__mro__ if issubclass(kind, HearthError)]
    return ErrorRecord(tuple(error_name(kind) for kind in bases), str(error))


def error_of(record: ErrorRecord) -> HearthError:
    """The error again: of the same class where this process knows it, else of the nearest base it knows."""
    known = {error_name(kind): kind for kind in _error_tree(HearthError)}
    kind = next((known[name] for name in record.names if name in known), EngineError)
    return kind.__new__(kind, record.text)


def _error_tree(root: type[HearthError]) -> Iterator[type[HearthError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _error_tree(kind)


_plain_classes: dict[tuple[str, str], Any] = {}  # those that were asked for and may be made


class _PlainUnpickler(pickle.Unpickler):
    """Knows the data classes, enumerations and paths of this package only: no function can be named."""

    def find_class(self, module: str, name: str) -> Any:
        found = _plain_classes.get((module, name))
        if found is None:
            found = _plain_classes[module, name] = self._check(module, name)
        return found

    def _check(self, module: str, name: str) -> Any:
        is_ours = module.startswith("hearth.models.")
        is_path = module in ("pathlib", "pathlib._local") and name in ("PosixPath", "WindowsPath")
        if is_ours or is_path:
            found = super().find_class(module, name)
            if is_path or (isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum))):
                return found
        raise pickle.UnpicklingError(f"an engine process sent a {module}.{name}; only plain data may pass")


def read_plain(data: bytes) -> Any:
    """Unpickles what an engine process sent. Raises UnpicklingError for anything but plain data."""
    return _PlainUnpickler(io.BytesIO(data)).load()


class Channel:
    """Messages over a pair of pipes. Any thread may send; one receives. Owns both pipes."""

    def __init__(self, incoming_fd: int, outgoing_fd: int, read: Callable[[bytes], Any]) -> None:
        self._incoming: BinaryIO = open(incoming_fd, "rb", buffering=1 << 16)  # noqa: SIM115
        self._outgoing_fd: int | None = outgoing_fd
        self._read = read
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Waits until the pipe has taken it all. Raises what pickling raises, and OSError if nobody reads any more."""
        data = pickle.dumps(message, protocol=5)
        header = _FRAME_HEADER.pack(len(data))
        parts = (header + data,) if len(data) < _JOINED_BYTES else (header, data)
        with self._lock:
            if self._outgoing_fd is None:
                raise BrokenPipeError("the pipe is closed")
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(self._outgoing_fd, view) :]

    def receive(self) -> Any:
        """Waits for the next frame. Raises EOFError when the other side is gone, and what unpickling raises."""
        (n_bytes,) = _FRAME_HEADER.unpack(self._exactly(_FRAME_HEADER.size))
        return self._read(self._exactly(n_bytes))

    def _exactly(self, n_bytes: int) -> bytes:
        data = self._incoming.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError
        return data

    def close(self) -> None:
        """Only by the thread that receives, or when it has ended."""
        self._incoming.close()
        with self._lock:
            fd, self._outgoing_fd = self._outgoing_fd, None
        if fd is not None:
            os.close(fd)
