"""The vector index: ids and vectors in Chroma, one folder per space. Nothing here knows texts; all can be rebuilt.

Chroma is imported at the first use, which takes seconds. It writes down deleted vectors until ``reset``, so no text is
ever given to it.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hearth.store.errors import StoreError, from_os_error

log = logging.getLogger("hearth.store")
Space = Literal["text", "pictures"]
Vectors = NDArray[np.float32]
UPSERT_BATCH = 500  # vectors; searches wait for one batch at most (about 0.3 s), Chroma takes up to 5,461
SCHEMA = 1  # of the collections' metadata
_SETTINGS: dict[str, Any] = {
    "_env_file": None,  # a .env in the working folder is none of ours
    "anonymized_telemetry": False,
    "allow_reset": False,
    "chroma_api_impl": "chromadb.api.rust.RustBindingsAPI",
}


@dataclass(frozen=True, slots=True)
class SpaceState:
    """What a space holds: ``count`` vectors of ``dimension`` numbers made by ``model_id``."""

    model_id: str
    dimension: int
    count: int


class VectorIndex:
    """Vectors by id, compared by cosine distance. All methods may be called from any thread and raise StoreError."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing yet."""
        self._folder = folder
        self._lock = threading.RLock()
        self._clients: dict[Space, Any] = {}
        self._collections: dict[Space, Any] = {}

    def state(self, space: Space) -> SpaceState | None:
        """What ``space`` holds, None if nothing was ever put into it."""
        with self._lock, self._translated(space):
            collection = self._collection(space)
            if collection is None:
                return None
            metadata = collection.metadata or {}
            return SpaceState(str(metadata.get("model_id")), int(metadata.get("dimension", 0)), int(collection.count()))

    def reset(self, space: Space, model_id: str, dimension: int) -> None:
        """Empties ``space``, on the disk too, and makes it take vectors of ``model_id``."""
        with self._lock, self._translated(space):
            self.drop(space)
            self._collections[space] = self._client(space).create_collection(
                _name(space),
                embedding_function=None,
                configuration={"hnsw": {"space": "cosine"}},
                metadata={"model_id": model_id, "dimension": dimension, "schema": SCHEMA},
            )
            self._keep_private(space)

    def drop(self, space: Space) -> None:
        """Deletes ``space`` with its files. Needs no Chroma unless it is open."""
        with self._lock, self._translated(space):
            self._close_space(space)
            if self._place(space).exists():
                shutil.rmtree(self._place(space))

    def upsert(self, space: Space, ids: Sequence[str], vectors: Vectors) -> None:
        """Puts vectors, shape (len(ids), dimension); an id that is there gets the new one. ``reset`` comes first."""
        for start in range(0, len(ids), UPSERT_BATCH):
            with self._lock, self._translated(space):
                batch = slice(start, start + UPSERT_BATCH)
                self._existing(space).upsert(ids=list(ids[batch]), embeddings=vectors[batch])
        with self._lock, self._translated(space):
            self._keep_private(space)

    def delete(self, space: Space, ids: Sequence[str]) -> None:
        """Takes vectors out; unknown ids are ignored."""
        for start in range(0, len(ids), UPSERT_BATCH):
            with self._lock, self._translated(space):
                collection = self._collection(space)
                if collection is not None:
                    collection.delete(ids=list(ids[start : start + UPSERT_BATCH]))

    def nearest(
        self, space: Space, vector: Vectors, n: int, ids: Sequence[str] | None = None
    ) -> list[tuple[str, float]]:
        """At most ``n`` (id, cosine distance), nearest first, of ``ids`` if given. ``vector``: shape (dimension,)."""
        if ids is not None and not ids:
            return []
        with self._lock, self._translated(space):
            collection = self._existing(space)
            found = collection.query(
                query_embeddings=vector[np.newaxis],
                n_results=n,
                include=["distances"],
                **({} if ids is None else {"ids": list(ids)}),
            )
        distances = (max(0.0, float(distance)) for distance in found["distances"][0])  # rounding can give -1e-7
        return list(zip(found["ids"][0], distances, strict=True))

    def close(self) -> None:
        """Closes what is open; later calls open it again. Idempotent."""
        with self._lock:
            for space in tuple(self._clients):
                with self._translated(space):
                    self._close_space(space)

    def _collection(self, space: Space) -> Any | None:
        if space not in self._collections:
            if not self._place(space).is_dir():
                return None
            from chromadb.errors import NotFoundError as NoCollection

            try:
                self._collections[space] = self._client(space).get_collection(_name(space), embedding_function=None)
            except NoCollection:
                return None
        return self._collections[space]

    def _existing(self, space: Space) -> Any:
        collection = self._collection(space)
        if collection is None:
            raise StoreError(f"{self._place(space)}: the vector index is missing; rebuild it")
        return collection

    def _client(self, space: Space) -> Any:
        if space not in self._clients:
            import chromadb
            from chromadb.config import Settings

            place = self._place(space)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
            try:
                self._clients[space] = chromadb.PersistentClient(path=str(place), settings=Settings(**_SETTINGS))
            except AttributeError:  # an opening that failed leaves a broken client in Chroma's cache, this clears it
                self._clients[space] = chromadb.PersistentClient(path=str(place), settings=Settings(**_SETTINGS))
        return self._clients[space]

    def _close_space(self, space: Space) -> None:
        self._collections.pop(space, None)
        client = self._clients.pop(space, None)
        if client is not None:
            client.close()

    def _place(self, space: Space) -> Path:
        return self._folder / space

    def _keep_private(self, space: Space) -> None:
        """Chroma makes its files with the process's mask; its folder is closed to others, this closes the files too."""
        for path in self._place(space).rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    @contextmanager
    def _translated(self, space: Space) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise from_os_error(self._place(space), error) from error
        except Exception as error:
            if not type(error).__module__.startswith("chromadb"):
                raise
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise StoreError(f"{self._place(space)}: the vector index failed ({reason}); rebuild it") from error


def _name(space: Space) -> str:
    return f"hearth-{space}"
