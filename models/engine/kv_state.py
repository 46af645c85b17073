"""The layout of what llama.cpp saves of one sequence, to cut a part out of it or to join parts.

    u32 magic, i32 sequence
    u32 streams, and of each u32 cells; of the one that has any:
        of each cell i32 position, u32 1, 12 bytes more where rows and columns are kept, i32 sequence
        u32 0 (values are not transposed), u32 layers
        of the keys of each layer, then of the values: i32 type, u64 bytes a cell, the cells

Read from llama.cpp's ``llama_kv_cache::state_write``. Models with a sliding window save two such parts, recurrent ones
something else: neither is understood here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELL_BYTES = (12, 24)  # the second with rows and columns
_MAX_STREAMS = 4096

Bytes = NDArray[np.uint8]


class StrangeStateError(ValueError):
    """A state is not laid out as is understood here."""


@dataclass(frozen=True, slots=True)
class SequenceState:
    """Some cells of a sequence. ``cells`` (n, cell bytes); ``rows`` of each layer's keys, then values, (n, row bytes),
    with ``row_types`` (ggml's). The arrays may be views of what they were read from."""

    head: bytes
    n_layers: int
    cells: Bytes
    row_types: tuple[int, ...]
    rows: tuple[Bytes, ...]

    @property
    def positions(self) -> NDArray[np.int32]:
        """(n,), in the order in which the cells are kept."""
        return np.ascontiguousarray(self.cells[:, :4]).view(np.int32).ravel()

    def cut(self, start: int, end: int) -> SequenceState:
        """The cells at positions [start, end)."""
        positions = self.positions
        found = np.flatnonzero((positions >= start) & (positions < end))
        if len(found) and found[-1] - found[0] + 1 == len(found):
            part: slice | NDArray[np.intp] = slice(int(found[0]), int(found[-1]) + 1)
        else:
            part = found
        rows = tuple(rows[part] for rows in self.rows)
        return SequenceState(self.head, self.n_layers, self.cells[part], self.row_types, rows)

    def copy(self) -> SequenceState:
        """The same in memory of its own."""
        rows = tuple(rows.copy() for rows in self.rows)
        return SequenceState(self.head, self.n_layers, self.cells.copy(), self.row_types, rows)


def read_state(state: bytes | memoryview) -> SequenceState:
    """Raises StrangeStateError."""
    for cell_bytes in _CELL_BYTES:
        try:
            return _read(state, cell_bytes)
        except (StrangeStateError, struct.error, ValueError):
            continue
    raise StrangeStateError(f"a sequence's state of {len(state):,} bytes is laid out in an unknown way")


def write_state(parts: Sequence[SequenceState], n_streams: int = 1) -> memoryview:
    """``parts`` one behind the other, as a context with so many streams takes it, read-only. Raises StrangeStateError
    if they are of different models."""
    first = parts[0]
    if any(_shape(part) != _shape(first) for part in parts[1:]):
        raise StrangeStateError("parts of different models, or with different KV types, cannot be joined")
    n_cells = sum(len(part.cells) for part in parts)
    if not n_cells:
        raise StrangeStateError("a state without cells")
    chunks: list[bytes | Bytes] = [first.head, struct.pack("<II", n_streams, n_cells)]
    chunks += [part.cells for part in parts]
    chunks.append(struct.pack("<II", 0, first.n_layers))
    for index, (row_type, rows) in enumerate(zip(first.row_types, first.rows, strict=True)):
        chunks.append(struct.pack("<iQ", row_type, rows.shape[1]))
        chunks += [part.rows[index] for part in parts]
    chunks.append(bytes(4 * (n_streams - 1)))  # the other streams have no cells
    written = np.empty(sum(len(chunk) if isinstance(chunk, bytes) else chunk.size for chunk in chunks), np.uint8)
    at = 0
    for chunk in chunks:
        flat = np.frombuffer(chunk, np.uint8) if isinstance(chunk, bytes) else chunk
        written[at : at + flat.size].reshape(flat.shape)[...] = flat
        at += flat.size
    return written.data.toreadonly()


def _shape(state: SequenceState) -> tuple[object, ...]:
    widths = tuple(rows.shape[1] for rows in state.rows)
    return state.n_layers, state.cells.shape[1], state.row_types, widths


def _read(state: bytes | memoryview, cell_bytes: int) -> SequenceState:
    content = np.frombuffer(state, np.uint8)
    (n_streams,) = struct.unpack_from("<I", state, 8)
    if not 1 <= n_streams <= _MAX_STREAMS:
        raise StrangeStateError("no number of streams")
    at, n_cells = 12, 0
    while not n_cells and n_streams:
        (n_cells,) = struct.unpack_from("<I", state, at)
        at, n_streams = at + 4, n_streams - 1
    cells, at = _table(content, at, n_cells, cell_bytes)
    transposed, n_layers = struct.unpack_from("<II", state, at)
    if transposed or not n_cells:
        raise StrangeStateError("no cells, or transposed values")
    at += 8
    end = len(state) - 4 * n_streams  # streams without cells follow
    types, rows = [], []
    while at < end:
        row_type, n_bytes = struct.unpack_from("<iQ", state, at)
        table, at = _table(content, at + 12, n_cells, n_bytes)
        types.append(row_type)
        rows.append(table)
    if at != end or content[end:].any() or not n_layers <= len(rows) <= 2 * n_layers:
        raise StrangeStateError("what follows the cells is not rows of keys and values")
    return SequenceState(bytes(state[:8]), n_layers, cells, tuple(types), tuple(rows))


def _table(content: Bytes, at: int, n_rows: int, n_bytes: int) -> tuple[Bytes, int]:
    end = at + n_rows * n_bytes
    if end > len(content):
        raise StrangeStateError("it ends too early")
    return content[at:end].reshape(n_rows, n_bytes), end
