"""What the file of a speech model says of itself, read in milliseconds: neither torch nor CTranslate2 is loaded."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hearth.models.errors import ModelFileError
from hearth.multimodal.speech_files import CONVERTED_FILE

ENGLISH_VOCABULARY = 51_864  # of Whisper's models for English alone; with more tokens come the languages
MOST_INDEX_BYTES = 8 << 20  # of a checkpoint's table of tensors; that of the largest Whisper takes 0.2 MB
MOST_VARIABLES = 100_000  # of a CTranslate2 model; the largest Whisper has some 2,000
CONVERTED_VERSIONS = range(4, 7)  # of CTranslate2's binary format, laid out alike
CONVERTED_NAME = "WhisperSpec"
# without the tokenizer faster-whisper would ask the network for it
CONVERTED_BESIDE = (("tokenizer.json",), ("vocabulary.json", "vocabulary.txt"))
_INDEX = "data.pkl"
_OLD_FORMAT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # PyTorch's before 1.6, no zip
_DIMS = (
    *("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer"),
    *("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer"),
)
_BROKEN_PICKLE = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError),
    *(OverflowError, MemoryError, RecursionError),
)


@dataclass(frozen=True, slots=True)
class SpeechHeader:
    """``knows_languages``: more than English; None where the file does not say."""

    size_bytes: int
    knows_languages: bool | None


def read_checkpoint_header(checkpoint: Path) -> SpeechHeader:
    """Of a Whisper checkpoint in PyTorch's format (a zip of a pickled table and tensors): that it is whole, and has the
    dimensions and all tensors of its table. Nothing in it is run. Of one in PyTorch's old format only the first bytes
    are looked at. Raises ModelFileError."""
    try:
        with checkpoint.open("rb") as file:
            size_bytes, begins = os.fstat(file.fileno()).st_size, file.read(len(_OLD_FORMAT))
        if begins == _OLD_FORMAT:
            return SpeechHeader(size_bytes, None)
        with zipfile.ZipFile(checkpoint) as archive:
            sizes = {one.filename: one.file_size for one in archive.infolist()}
            table = next((name for name in sizes if name.rpartition("/")[2] == _INDEX), None)
            if table is None:
                raise _refused(checkpoint, "a zip without a table of tensors")
            if sizes[table] > MOST_INDEX_BYTES:
                raise _refused(checkpoint, f"its table of tensors has {sizes[table]} bytes, at most {MOST_INDEX_BYTES}")
            index = _TensorTable(archive.read(table))
        content = index.load()
    except OSError as error:
        raise ModelFileError(f"{checkpoint}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, *_BROKEN_PICKLE) as error:
        raise _refused(checkpoint, _first_line(error)) from error
    folder = table.removesuffix(_INDEX)
    missing = [key for key in index.stored if f"{folder}data/{key}" not in sizes]
    if missing or not index.stored:
        raise _refused(checkpoint, f"{len(missing)} of {len(index.stored)} tensors are missing")
    dims = content.get("dims") if isinstance(content, Mapping) else None
    if not isinstance(dims, Mapping) or any(not isinstance(dims.get(name), int) for name in _DIMS):
        raise _refused(checkpoint, "it has no dimensions of Whisper")
    return SpeechHeader(size_bytes, dims["n_vocab"] > ENGLISH_VOCABULARY)


def read_converted_header(folder: Path) -> SpeechHeader:
    """Of a folder of CTranslate2: that it is Whisper's, that its variables go to the end of the file, and that what
    faster-whisper wants lies beside. Raises ModelFileError."""
    for names in CONVERTED_BESIDE:
        if not any((folder / name).is_file() for name in names):
            raise ModelFileError(f"{folder} has no {' or '.join(names)}; convert or copy the model again, with it")
    path = folder / CONVERTED_FILE
    try:
        with path.open("rb") as file:
            _walk(path, file, size_bytes := os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise _refused(path, "it ends in the middle, or is another file", "model of CTranslate2") from error
    return SpeechHeader(size_bytes, None)


def _walk(path: Path, file: BinaryIO, size_bytes: int) -> None:
    (version,) = _unpack(file, "<I")
    if version not in CONVERTED_VERSIONS:
        raise _refused(path, f"its binary version is {version}", "model of CTranslate2")
    name = _text(file)
    if name != CONVERTED_NAME:
        raise _refused(path, f"it holds a {name[:40]!r}", "Whisper model of CTranslate2")
    _, n_variables = _unpack(file, "<II")
    if n_variables > MOST_VARIABLES:
        raise _refused(path, f"it claims {n_variables} variables", "model of CTranslate2")
    for _ in range(n_variables):
        _text(file)
        (rank,) = _unpack(file, "<B")
        *_, n_bytes = _unpack(file, f"<{rank}IBI")
        end = file.seek(n_bytes, os.SEEK_CUR)
        if end > size_bytes:
            raise _refused(path, f"{end - size_bytes} bytes or more are missing", "model of CTranslate2")


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    (raw,) = _unpack(file, f"<{length}s")
    return bytes(raw).rstrip(b"\0").decode("utf-8")


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


class _TensorTable(pickle.Unpickler):
    """The pickled table of a checkpoint with nothing behind its tensors; ``stored`` are the names of their files."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.stored: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _no_tensor
        if module == "torch" and name.endswith("Storage"):
            return _no_tensor
        raise pickle.UnpicklingError(f"it names {module}.{name}"[:120])

    def persistent_load(self, pid: Any) -> None:
        if not isinstance(pid, tuple) or len(pid) < 3 or not isinstance(pid[2], str):
            raise pickle.UnpicklingError("a tensor without a file")
        self.stored.add(pid[2])


def _no_tensor(*_: Any) -> None:
    return None


def _refused(path: Path, reason: str, what: str = "Whisper checkpoint") -> ModelFileError:
    return ModelFileError(f"{path} is not a {what} or is cut off: {reason}")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
