"""The user's memory: documents, their passages and pictures, found again by meaning and by words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import RequestError
from hearth.store import document_rows as rows
from hearth.store.blobs import BlobStore
from hearth.store.database import Database
from hearth.store.document_rows import embedding_text
from hearth.store.document_vectors import DocumentVectors, as_matrix
from hearth.store.errors import NotFoundError
from hearth.store.identifiers import new_id
from hearth.store.ranking import reciprocal_rank_fusion, without_repetitions
from hearth.store.records import Document, DocumentKind, NewPassage, PassageRecord, SearchHit
from hearth.store.vectors import VectorIndex, Vectors
from hearth.store.words import match_any, storable

__all__ = ["DocumentStore", "NewPassage"]

N_CANDIDATES = 40  # of each side of a search, before fusion
INTERRUPTED = "interrupted"
_EMBED_TEXTS = 256  # passages embedded at once when reindexing
_EMBED_PICTURES = 16

# DocumentStore.list hides the built-in name from annotations
Documents = list[Document]
Passages = list[PassageRecord]
Hits = list[SearchHit]
Ids = Sequence[str]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
EmbedPictures = Callable[[Sequence[bytes]], NDArray[np.float32]]


class DocumentStore:
    """All methods may be called from any thread. Texts are in SQLite, Chroma has ids and vectors only.

    A document is "ingesting" from ``begin`` to ``finish`` or ``fail``; only "ready" ones are found. Vectors of one kind
    (text, pictures) are all of one model: for another, ``reindex`` first.
    """

    def __init__(self, database: Database, blobs: BlobStore, index: VectorIndex) -> None:
        """Marks what a crash left "ingesting" as failed. Raises StoreError."""
        self._database = database
        self._blobs = blobs
        self._vectors = DocumentVectors(database, index)
        with database.write() as transaction:
            transaction.execute(
                "UPDATE documents SET state = 'failed', detail = ? WHERE state = 'ingesting'", (INTERRUPTED,)
            )

    def begin(self, title: str, name: str, kind: DocumentKind, mime: str, sha256: str, n_pages: int) -> Document:
        """A new document, "ingesting"; failed ones of the same content go. Raises RequestError, StoreError."""
        if kind not in ("text", "picture"):
            raise RequestError(f"kind {kind!r}: must be text or picture")
        made = Document(
            new_id(), storable(title), storable(name), kind, mime, sha256, int(n_pages), 0, "ingesting", "", time.time()
        )
        with self._database.writer_lock:
            with self._database.write() as transaction:
                rows.delete_failed(transaction, sha256)
                rows.insert_document(transaction, made)
            self._blobs.named(sha256)
        return made

    def finish(
        self, document_id: str, passages: Sequence[NewPassage], vectors: NDArray[np.float32], model_id: str
    ) -> Document:
        """Makes a text document "ready" with all its passages, or changes nothing that a search could see.

        ``vectors``: float32, shape (len(passages), dimension). Raises NotFoundError (unknown, or forgotten meanwhile),
        RequestError (wrong shape), StoreError (already finished; vectors of another model in the index).
        """
        matrix = as_matrix(vectors, len(passages))
        self._require_ingesting(document_id)
        records = rows.new_records(document_id, passages)
        with self._vectors.adding("text", [record.id for record in records], matrix, model_id) as transaction:
            rows.make_ready(transaction, document_id, records)
        return self.get(document_id)

    def finish_picture(
        self, document_id: str, vector: NDArray[np.float32], model_id: str, passages: Sequence[NewPassage] = ()
    ) -> Document:
        """``finish`` for a picture with its vector, shape (dimension,); ``passages`` (a caption) are found by words."""
        matrix = as_matrix(vector[np.newaxis], 1)
        self._require_ingesting(document_id)
        records = rows.new_records(document_id, passages)
        with self._vectors.adding("pictures", [document_id], matrix, model_id) as transaction:
            rows.make_ready(transaction, document_id, records)
        return self.get(document_id)

    def fail(self, document_id: str, detail: str) -> None:
        """Marks a document that could not be read; ``detail`` says why. Raises NotFoundError, StoreError."""
        with self._database.write() as transaction:
            changed = transaction.execute(
                "UPDATE documents SET state = 'failed', detail = ? WHERE id = ?", (storable(detail), document_id)
            )
            if not changed.rowcount:
                raise rows.unknown(document_id)

    def get(self, document_id: str) -> Document:
        """Raises NotFoundError."""
        with self._database.read() as connection:
            return rows.document(rows.require(connection, document_id))

    def find(self, sha256: str) -> Document | None:
        """The document with this content: a ready one if there is, else one ingesting, else one that failed."""
        with self._database.read() as connection:
            found = [
                rows.document(row)
                for row in connection.execute("SELECT * FROM documents WHERE sha256 = ? ORDER BY number", (sha256,))
            ]
        return min(found, key=lambda one: ("ready", "ingesting", "failed").index(one.state), default=None)

    def n_ready(self, kind: DocumentKind | None = None) -> int:
        """How many documents (of ``kind``) can be found. Quick; says whether a search is worth an embedder."""
        with self._database.read() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM documents WHERE state = 'ready' AND (?1 IS NULL OR kind = ?1)", (kind,)
            ).fetchone()
        return int(count)

    def passages(self, document_id: str) -> Passages:
        """All passages in their order. Raises NotFoundError."""
        self.get(document_id)
        with self._database.read() as connection:
            return rows.of_document(connection, document_id)

    def neighbours(self, passage_id: str, *, before: int = 1, after: int = 1) -> Passages:
        """The passages around one in its document, itself not included, in their order. Raises NotFoundError."""
        with self._database.read() as connection:
            return rows.around(connection, passage_id, before, after)

    def forget(self, document_id: str) -> None:
        """Deletes a document, its passages, vectors and words, and its blob unless something else names it.

        Raises NotFoundError, StoreError. Vectors that cannot be deleted now are no longer found, and go later.
        """
        with self._database.writer_lock:
            with self._database.write() as transaction:
                sha256 = rows.delete_document(transaction, document_id)
            self._blobs.remove_unused([sha256])
            self._database.checkpoint()
        self._vectors.delete_strays()

    def search(
        self,
        query: str,
        vector: NDArray[np.float32] | None,
        *,
        k: int = 8,
        document_ids: Sequence[str] | None = None,
        model_id: str,
    ) -> Hits:
        """The ``k`` best passages by meaning (``vector``, shape (dimension,)) and by words, best first.

        Both rankings are fused by reciprocal rank; repeated passages are left out. ``document_ids`` limits the search.
        Without vector, or with an index that needs rebuilding (logged), words alone decide.
        Raises RequestError, StoreError.
        """
        _check_k(k)
        if not self.n_ready() or (document_ids is not None and not document_ids):
            return []
        dense = self._dense(vector, model_id, document_ids)
        expression = match_any(query)
        with self._database.read() as connection:
            words = rows.by_words(connection, expression, N_CANDIDATES, document_ids) if expression else []
            found = rows.ready_passages(connection, {*words, *dense})
        ranks_dense = _ranks(identity for identity in dense if identity in found)
        ranks_words = _ranks(words)
        fused = reciprocal_rank_fusion([list(ranks_dense), list(ranks_words)])
        hits = (
            SearchHit(
                *found[identity], score, dense.get(identity), ranks_dense.get(identity), ranks_words.get(identity)
            )
            for identity, score in fused.items()
        )
        best = [hit for hit, _ in zip(without_repetitions(hits), range(k), strict=False)]
        return self._with_distances(best, vector, model_id)

    def search_pictures(self, vector: NDArray[np.float32], *, k: int, model_id: str) -> Hits:
        """The ``k`` pictures nearest to ``vector``, shape (dimension,), best first; ``score`` is the cosine."""
        _check_k(k)
        if not self.n_ready("picture"):
            return []
        nearest = self._vectors.nearest("pictures", vector, k, model_id)
        hits = []
        for rank, (document_id, distance) in enumerate(nearest, 1):
            try:
                found = self.get(document_id)
            except NotFoundError:
                continue
            if found.state == "ready":
                hits.append(SearchHit(found, None, 1 - distance, distance, rank, None))
        return hits

    def list(self) -> Documents:
        """All documents, newest first."""
        with self._database.read() as connection:
            return [rows.document(row) for row in connection.execute("SELECT * FROM documents ORDER BY number DESC")]

    def self_check(self, model_id: str | None = None) -> str | None:
        """Why the passages' vectors need ``reindex`` (missing, incomplete, not of ``model_id``), or None.

        Loads Chroma only if there are passages.
        """
        return self._vectors.check("text", model_id)

    def self_check_pictures(self, model_id: str | None = None) -> str | None:
        """``self_check`` for pictures and ``reindex_pictures``."""
        return self._vectors.check("pictures", model_id)

    def reindex(self, embed: Embed, model_id: str) -> int:
        """Rebuilds the passages' vectors from their stored texts; returns how many.

        ``embed`` takes ``embedding_text`` of at most 256 passages at once and returns float32, shape (n, dimension).
        Raises what it raises, RequestError (wrong shape), StoreError; then ``self_check`` still asks for it.
        """
        return self._vectors.rebuild("text", model_id, self._embedded_texts(embed))

    def reindex_pictures(self, embed: EmbedPictures, model_id: str) -> int:
        """Rebuilds the pictures' vectors from their blobs; ``embed`` takes the files of at most 16 at once."""
        return self._vectors.rebuild("pictures", model_id, self._embedded_pictures(embed))

    def _embedded_texts(self, embed: Embed) -> Iterator[tuple[Ids, Vectors]]:
        with self._database.read() as connection:
            ids = [passage.id for _, passage in rows.all_ready_texts(connection)]
        for start in range(0, len(ids), _EMBED_TEXTS):
            with self._database.read() as connection:
                found = rows.ready_passages(connection, ids[start : start + _EMBED_TEXTS])
            texts = [embedding_text(document.title, passage) for document, passage in found.values()]
            yield tuple(found), as_matrix(embed(texts), len(texts))

    def _embedded_pictures(self, embed: EmbedPictures) -> Iterator[tuple[Ids, Vectors]]:
        pictures = [one for one in self.list() if one.kind == "picture" and one.state == "ready"]
        for start in range(0, len(pictures), _EMBED_PICTURES):
            batch = pictures[start : start + _EMBED_PICTURES]
            files = [self._blobs.get(one.sha256) for one in batch]
            yield tuple(one.id for one in batch), as_matrix(embed(files), len(files))

    def _require_ingesting(self, document_id: str) -> None:
        with self._database.read() as connection:
            rows.require_ingesting(connection, document_id)

    def _dense(
        self, vector: NDArray[np.float32] | None, model_id: str, document_ids: Sequence[str] | None
    ) -> dict[str, float]:
        """Cosine distance of the nearest passages, nearest first."""
        if vector is None or not self.n_ready("text"):
            return {}
        allowed = None
        if document_ids is not None:
            with self._database.read() as connection:
                allowed = rows.passage_ids(connection, document_ids)
        return dict(self._vectors.nearest("text", vector, N_CANDIDATES, model_id, allowed))

    def _with_distances(self, hits: Hits, vector: NDArray[np.float32] | None, model_id: str) -> Hits:
        """``hits`` with the distance also of those found by words alone, for the caller's floor of relevance."""
        wanted = [
            hit.passage.id for hit in hits if hit.passage and hit.distance is None and hit.document.kind == "text"
        ]
        if vector is None or not wanted:
            return hits
        known = dict(self._vectors.nearest("text", vector, len(wanted), model_id, wanted))
        return [
            replace(hit, distance=known.get(hit.passage.id)) if hit.passage and hit.distance is None else hit
            for hit in hits
        ]


def _ranks(identities: Iterable[str]) -> dict[str, int]:
    return {identity: rank for rank, identity in enumerate(identities, 1)}


def _check_k(k: int) -> None:
    if k < 1:
        raise RequestError(f"k = {k}: must be at least 1")
