"""Reads importance matrices: how much each input of a weight matters, as llama.cpp's imatrix tool measured it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import ModelFileError
from hearth.models.gguf_header import F32, MAGIC, GgufHeader, read_gguf_header

MAX_ENTRIES: Final = 100_000
MAX_NAME_BYTES: Final = 4096
MAX_VALUES: Final = 1 << 28
_SUMS, _COUNTS = ".in_sum2", ".counts"

Importance = dict[str, NDArray[np.float32]]
"""By the name of a weight: mean squares of its inputs, for every matrix where it is several."""


def read_imatrix(path: Path) -> Importance:
    """From a GGUF, or a file of the older format. Raises ModelFileError."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == MAGIC
        found = _read_gguf(read_gguf_header(path)) if is_gguf else _read_legacy(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except struct.error:
        raise ModelFileError(f"{path}: no importance matrix, or truncated; make it again with llama-imatrix") from None
    if not found:
        raise ModelFileError(f"{path}: there is no importance matrix in it; make one with llama-imatrix")
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ModelFileError(f"{path}: damaged: the importance of {name} is not finite; make it again")
    return found


def _read_gguf(header: GgufHeader) -> Importance:
    found: Importance = {}
    for name, tensor in header.tensors.items():
        counts = header.tensors.get(name.removesuffix(_SUMS) + _COUNTS)
        if not name.endswith(_SUMS) or counts is None:
            continue
        if tensor.kind != F32 or counts.kind != F32:
            raise ModelFileError(f"{header.path}: {name} is not of 32-bit floats; make the matrix again")
        n_inputs, n_matrices = (*tensor.shape, 1, 1)[:2]
        sums = _floats(header, name, n_inputs * n_matrices).reshape(n_matrices, n_inputs)
        n = _floats(header, name.removesuffix(_SUMS) + _COUNTS, n_matrices)[:, None]
        means = np.where(n > 0, sums / np.maximum(n, 1), 1.0)  # an expert that was never asked
        found[name.removesuffix(_SUMS)] = np.ascontiguousarray(means.ravel(), np.float32)
    return found


def _floats(header: GgufHeader, name: str, n: int) -> NDArray[np.float32]:
    tensor = header.tensors[name]
    if n > MAX_VALUES or n != int(np.prod(tensor.shape, dtype=np.int64)):
        raise ModelFileError(f"{header.path}: {name} has shape {tensor.shape}; make the matrix again")
    return np.fromfile(header.path, np.float32, n, offset=header.data_offset + tensor.offset)


def _read_legacy(path: Path) -> Importance:
    content = path.read_bytes()
    (n_entries,), at = struct.unpack_from("<i", content), 4
    if not 0 < n_entries <= MAX_ENTRIES:
        raise ModelFileError(f"{path}: not an importance matrix; make one with llama-imatrix")
    found: Importance = {}
    for _ in range(n_entries):
        (length,) = struct.unpack_from("<i", content, at)
        if not 0 < length <= MAX_NAME_BYTES:
            raise ModelFileError(f"{path}: not an importance matrix; make one with llama-imatrix")
        name = content[at + 4 : at + 4 + length].decode("utf-8", "replace")
        n_calls, n_values = struct.unpack_from("<ii", content, at + 4 + length)
        at += 12 + length
        if not 0 < n_values <= MAX_VALUES or at + 4 * n_values > len(content):
            raise struct.error
        values = np.frombuffer(content, np.float32, n_values, at)
        found[name] = np.ascontiguousarray(values / max(n_calls, 1), np.float32)
        at += 4 * n_values
    return found
