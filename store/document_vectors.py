"""Keeps the vector index and the database in step: what is in one and not in the other is known and mended."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import RequestError
from hearth.store.database import Database
from hearth.store.errors import StoreError
from hearth.store.vectors import Space, VectorIndex, Vectors

log = logging.getLogger("hearth.store")
_SPACES: tuple[Space, ...] = ("text", "pictures")
_EXPECTED = {
    "text": "SELECT coalesce(sum(n_passages), 0) FROM documents WHERE state = 'ready' AND kind = 'text'",
    "pictures": "SELECT count(*) FROM documents WHERE state = 'ready' AND kind = 'picture'",
}


class DocumentVectors:
    """Vectors of passages (by passage id) and of pictures (by document id).

    Ids are noted in ``stray_vectors`` before they go into the index and struck off in the transaction that makes their
    document ready; forgetting notes them again. So whatever a crash leaves in the index is known and deleted later.
    """

    def __init__(self, database: Database, index: VectorIndex) -> None:
        self._database = database
        self._index = index
        self._lock = threading.RLock()  # one change of the index at a time; searches do not wait for it

    @contextmanager
    def adding(self, space: Space, ids: Sequence[str], vectors: Vectors, model_id: str) -> Iterator[sqlite3.Connection]:
        """Adds vectors, shape (len(ids), dimension), then yields the transaction that makes their document ready.

        Raises StoreError; if the block raises, the vectors go again.
        """
        with self._lock:
            self._accept(space, model_id, vectors.shape[1] if len(ids) else None)
            noted = [(space, identity) for identity in ids]
            try:
                with self._database.write() as transaction:
                    transaction.executemany("INSERT OR IGNORE INTO stray_vectors (space, id) VALUES (?, ?)", noted)
                self._index.upsert(space, ids, vectors)
                with self._database.write() as transaction:
                    yield transaction
                    transaction.executemany("DELETE FROM stray_vectors WHERE space = ? AND id = ?", noted)
            except BaseException:
                self.delete_strays()
                raise

    def nearest(
        self, space: Space, vector: NDArray[np.float32], n: int, model_id: str, ids: Sequence[str] | None = None
    ) -> list[tuple[str, float]]:
        """At most ``n`` (id, cosine distance), nearest first; none (and a log line) if the index needs rebuilding."""
        query = as_matrix(vector[np.newaxis], 1)
        if not query.any():
            return []
        try:
            reason = self._mismatch(space, model_id, query.shape[1])
            if reason is None:
                return self._index.nearest(space, query[0], n, ids)
        except StoreError as error:
            reason = str(error)
        log.warning("search by meaning left out: %s", reason)
        return []

    def delete_strays(self) -> None:
        """Takes out of the index what no ready document has. What fails is logged and stays noted."""
        with self._lock:
            try:
                with self._database.read() as connection:
                    noted = [tuple(row) for row in connection.execute("SELECT space, id FROM stray_vectors")]
                if not noted:
                    return
                for space in _SPACES:
                    if self._expected(space):
                        self._index.delete(space, [identity for where, identity in noted if where == space])
                    else:
                        self._index.drop(space)  # leaves no trace, where Chroma keeps deleted vectors for a while
                with self._database.write() as transaction:
                    transaction.executemany("DELETE FROM stray_vectors WHERE space = ? AND id = ?", noted)
            except StoreError as error:
                log.warning("forgotten vectors stay in the index for now: %s", error)

    def check(self, space: Space, model_id: str | None) -> str | None:
        """Why ``space`` needs rebuilding, None if it does not. Loads Chroma only if there should be vectors."""
        with self._lock:
            expected = self._expected(space)
            if not expected:
                return None
            self.delete_strays()
            try:
                state = self._index.state(space)
                if state is None or state.count != expected:
                    count = 0 if state is None else state.count
                    return f"the index of {space} holds {count} vectors, memory has {expected}"
                return None if model_id is None else self._mismatch(space, model_id, state.dimension)
            except StoreError as error:
                return str(error)

    def rebuild(self, space: Space, model_id: str, batches: Iterable[tuple[Sequence[str], Vectors]]) -> int:
        """Empties ``space`` and fills it anew; returns how many vectors. Until it is done, ``check`` says so."""
        n_vectors = 0
        with self._lock:
            for ids, vectors in batches:
                if not n_vectors:
                    self._index.reset(space, model_id, vectors.shape[1])
                self._index.upsert(space, ids, vectors)
                n_vectors += len(ids)
        return n_vectors

    def _accept(self, space: Space, model_id: str, dimension: int | None) -> None:
        """Makes ``space`` ready for vectors of ``model_id``. Raises StoreError if it is in use by another model."""
        if dimension is None:
            return
        reason = self._mismatch(space, model_id, dimension)
        if reason is None:
            return
        if self._expected(space) and self._index.state(space) is not None:
            raise StoreError(f"{reason}; rebuild it before adding")
        self._index.reset(space, model_id, dimension)

    def _mismatch(self, space: Space, model_id: str, dimension: int) -> str | None:
        state = self._index.state(space)
        if state is None:
            return f"the index of {space} is missing"
        if state.model_id != model_id:
            return f"the index of {space} is of the model {state.model_id}, not {model_id}"
        if state.dimension != dimension:
            return f"the index of {space} has vectors of {state.dimension} numbers, not {dimension}"
        return None

    def _expected(self, space: Space) -> int:
        with self._database.read() as connection:
            return int(connection.execute(_EXPECTED[space]).fetchone()[0])


def as_matrix(vectors: NDArray[np.float32], n: int) -> Vectors:
    """``vectors`` as float32, checked to have shape (n, dimension) and finite numbers. Raises RequestError."""
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or len(matrix) != n or (n and not matrix.shape[1]):
        raise RequestError(f"vectors of shape {matrix.shape}: must be ({n}, dimension)")
    if not np.isfinite(matrix).all():
        raise RequestError("vectors hold numbers that are not finite; the embedder is broken")
    return matrix
