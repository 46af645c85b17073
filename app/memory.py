"""The assistant's memory: files go in, passages and pictures are found again by meaning and by words."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from hearth.attachments import RawFile, Source, read_files
from hearth.background import Background
from hearth.models.errors import HearthError, RequestError
from hearth.multimodal.errors import PerceptionCancelled, PerceptionError
from hearth.runtime import Runtime
from hearth.speech import keep_transcript, transcribed
from hearth.store.errors import NotFoundError
from hearth.store.records import Document, SearchHit

if TYPE_CHECKING:
    from hearth.multimodal.documents import DocumentText
    from hearth.multimodal.picture_encoder import PictureEncoder
    from hearth.multimodal.text_embedding import TextEmbedder

log = logging.getLogger("hearth.memory")
# A passage is taken for an answer's source only if it is at least this near to the question (cosine distance of MiniLM
# vectors), or nearly so and the best by words too. `python benchmarks/retrieval.py` shows what other floors would give.
MAX_DISTANCE = 0.62
MAX_DISTANCE_WITH_WORDS = 0.75
# text to picture, in the pocket CLIP's space: names of what a drawn scene shows lie nearer 95 times in 100, questions
# for it in unseen words 85 times, what has nothing to do with pictures once (training/distances.py)
MAX_PICTURE_DISTANCE = 0.65
EMBED_BATCH = 64  # passages embedded between two looks at progress and cancel
MAX_QUERY_CHARS = 2000  # of a question used for retrieval; the head and the tail of a longer one
_PRONOUN = re.compile(r"\b(it|its|that|this|these|those|they|them|their|he|she|him|her|his|there|one|ones|and)\b", re.I)
RECORDING_MIME = "audio"
RECORDING_TOKENS, RECORDING_OVERLAP_TOKENS = 70, 10  # about 20 s of speech, as a source plays from a passage's start
_STANDALONE_WORDS = 12  # a longer question is taken to stand for itself

Progress = Callable[[float], None]
Cancelled = Callable[[], bool]
Documents = list[Document]  # inside Memory the name ``list`` is a method
Hits = list[SearchHit]


class ScannedDocumentError(PerceptionError):
    """A document has no text of its own, only scanned pages; there is nothing that memory could find again."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """A document that is in memory; ``new`` is False when the same bytes were there before."""

    document: Document
    new: bool
    notices: tuple[str, ...] = ()


def _never() -> bool:
    return False


class Memory:
    """Documents and pictures kept for later questions. All methods may be called from any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._documents = runtime.store.documents
        # checked and repaired once, by a thread of its own because importing Chroma takes seconds
        self._text_index: Background[TextEmbedder] = Background("check-passages", self._open_text_index)
        self._picture_index: Background[PictureEncoder] = Background("check-pictures", self._open_picture_index)

    def add(self, path: Source, on_progress: Progress | None = None, cancelled: Cancelled | None = None) -> Document:
        """Reads a document, picture or recording into memory; the same content is kept once.

        Raises PerceptionError (cannot be read), PerceptionCancelled, StoreError.
        """
        return self.ingest(read_files(path, "file")[0], on_progress, cancelled).document

    def ingest(
        self, file: RawFile, on_progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Ingested:
        """``add`` for bytes that were already read."""
        from hearth.multimodal.documents import READABLE
        from hearth.multimodal.kinds import describe, sniff

        known = self._documents.find(hashlib.sha256(file.data).hexdigest())
        if known is not None and known.state == "ready":
            return Ingested(known, new=False)
        kind = sniff(file.data, file.name)
        step, stop = on_progress or (lambda _: None), cancelled or _never
        if kind == "picture":
            return Ingested(self._add_picture(file), new=True)
        if kind in ("sound", "video"):
            return self._add_recording(file, step, stop)
        if kind == "document":
            return self._add_document(file, step, stop)
        raise PerceptionError(f"{file.name}: {describe(file.data)}; memory takes {READABLE}, pictures and recordings")

    def search(self, query: str, k: int = 5) -> Hits:
        """The ``k`` best passages and pictures for ``query``, best first; a hit without passage is a picture."""
        if not query.strip():
            raise RequestError("the search is empty; give a few words")
        if not 1 <= k <= 100:
            raise RequestError(f"k = {k}: must be between 1 and 100")
        texts = self._search_text(query, k)
        pictures = self._search_pictures(query, k)
        # Distances of the two spaces cannot be compared: take turns by rank, text first.
        merged = [hit for pair in zip_longest(texts, pictures) for hit in pair if hit is not None]
        return merged[:k]

    def recall(
        self, query: str, k: int, document_ids: Sequence[str] | None = None, cancelled: Cancelled | None = None
    ) -> Hits:
        """Passages good enough to answer ``query`` from, best first; none if nothing is near.

        Passages of documents that the user named (``document_ids``) need not pass the relevance floor. Raises
        background.Cancelled.
        """
        hits = self._search_text(query, k, document_ids, cancelled or _never)
        return hits if document_ids else [hit for hit in hits if _relevant(hit)]

    def list(self) -> Documents:
        """All documents, newest first."""
        return self._documents.list()

    def recording_of(self, document_id: str) -> str | None:
        """The SHA-256 of the recording that a document is made of, to play it; None if it is none, or forgotten."""
        try:
            document = self._documents.get(document_id)
        except NotFoundError:
            return None
        return document.sha256 if document.mime == RECORDING_MIME else None

    def forget(self, document_id: str) -> None:
        """Deletes a document with its passages, vectors and file. Raises NotFoundError."""
        self._documents.forget(document_id)

    def warm(self) -> None:
        """Begins to open what a search needs, without waiting for it; nothing if the memory is empty."""
        if self._documents.n_ready("text"):
            self._text_index.start()

    def _search_text(
        self, query: str, k: int, document_ids: Sequence[str] | None = None, cancelled: Cancelled = _never
    ) -> Hits:
        if not self._documents.n_ready("text"):
            return []
        if len(query) > MAX_QUERY_CHARS:
            query = query[: MAX_QUERY_CHARS // 2] + " " + query[-MAX_QUERY_CHARS // 2 :]
        embedder = self._text_index.get(cancelled)
        vector = embedder.embed([query])[0]
        return self._documents.search(query, vector, k=k, document_ids=document_ids, model_id=embedder.model_id)

    def _search_pictures(self, query: str, k: int) -> Hits:
        if not self._documents.n_ready("picture"):
            return []
        vision = self._picture_index.get()
        hits = self._documents.search_pictures(vision.embed_text(query), k=k, model_id=vision.fingerprint)
        return [hit for hit in hits if hit.distance is None or hit.distance <= MAX_PICTURE_DISTANCE]

    def _open_text_index(self) -> TextEmbedder:
        """The embedder, once the vectors are known to be its own: they are rebuilt from the stored text if not."""
        embedder = self._runtime.text_embedder.get()
        reason = self._documents.self_check(embedder.model_id)
        if reason is not None:
            log.warning("rebuilding the index of passages: %s", reason)
            self._documents.reindex(embedder.embed, embedder.model_id)
        return embedder

    def _open_picture_index(self) -> PictureEncoder:
        """The encoder, once the vectors are known to be its own: they are rebuilt from the stored files if not."""
        import numpy as np

        from hearth.multimodal.pictures import read_picture

        vision = self._runtime.vision.get()
        reason = self._documents.self_check_pictures(vision.fingerprint)
        if reason is not None:
            log.warning("rebuilding the index of pictures: %s", reason)
            self._documents.reindex_pictures(
                lambda files: np.stack([vision.embed_picture(read_picture(f, "picture").image) for f in files]),
                vision.fingerprint,
            )
        return vision

    def _add_picture(self, file: RawFile) -> Document:
        from hearth.multimodal.pictures import read_picture

        picture = read_picture(file.data, file.name)
        vision = self._picture_index.get()  # new vectors must be of the index's encoder
        vector = vision.embed_picture(picture.image)
        self._runtime.store.blobs.put(file.data, name=file.name, mime=picture.mime)
        document = self._documents.begin(file.name, file.name, "picture", picture.mime, picture.sha256, 1)
        return self._documents.finish_picture(document.id, vector, vision.fingerprint)

    def _add_recording(self, file: RawFile, step: Progress, stop: Cancelled) -> Ingested:
        from hearth.multimodal.documents import DocumentText, Page
        from hearth.multimodal.sound import read_sound

        sound = read_sound(file.data, file.name, cancelled=stop)
        transcript = transcribed(
            self._runtime, sound, on_progress=lambda fraction: step(0.9 * fraction), cancelled=stop
        )
        page = Page(number=None, text=transcript.text, section="")
        text = DocumentText(file.name, RECORDING_MIME, sound.sha256, (page,), (), ())
        added = self._ingest_text(file, text, lambda fraction: step(0.9 + 0.1 * fraction), stop, transcript.times_of)
        keep_transcript(self._runtime, sound.sha256, transcript)
        return added

    def _add_document(self, file: RawFile, step: Progress, stop: Cancelled) -> Ingested:
        from hearth.documents_apart import read_document

        text = read_document(file.data, file.name, on_progress=lambda fraction: step(0.3 * fraction), cancelled=stop)
        return self._ingest_text(file, text, step, stop)

    def _ingest_text(
        self,
        file: RawFile,
        text: DocumentText,
        step: Progress,
        stop: Cancelled,
        times_of: Callable[[int, int], tuple[float, float] | None] = lambda *_: None,
    ) -> Ingested:
        """``times_of`` tells of a recording when the characters from start to end are said."""
        import numpy as np

        from hearth.multimodal.passages import embedding_text, split_passages
        from hearth.store.documents import NewPassage

        spoken = text.mime == RECORDING_MIME
        sizes = {"target_tokens": RECORDING_TOKENS, "overlap_tokens": RECORDING_OVERLAP_TOKENS} if spoken else {}
        passages = split_passages(text, **sizes)
        if not passages:
            raise ScannedDocumentError(
                f"{file.name}: its {len(text.scanned_pages)} pages are scans without text; "
                "send it with a question in the chat, where scanned pages are looked at as pictures"
            )
        embedder = self._text_index.get(stop)  # new vectors must be of the index's embedder
        self._runtime.store.blobs.put(file.data, name=file.name, mime=text.mime)
        document = self._documents.begin(text.title, file.name, "text", text.mime, text.sha256, len(text.pages))
        try:
            vectors = []
            for start in range(0, len(passages), EMBED_BATCH):
                if stop():
                    raise PerceptionCancelled(f"{file.name}: adding it to memory was stopped; nothing was kept")
                batch = passages[start : start + EMBED_BATCH]
                vectors.append(embedder.embed([embedding_text(text, passage) for passage in batch]))
                step(0.3 + 0.7 * min(1.0, (start + EMBED_BATCH) / len(passages)))
            new = [
                NewPassage(p.text, p.page, p.start, p.end, p.section, *(times_of(p.start, p.end) or (None, None)))
                for p in passages
            ]
            done = self._documents.finish(document.id, new, np.concatenate(vectors), embedder.model_id)
        except PerceptionCancelled:
            self._documents.forget(document.id)
            raise
        except HearthError as error:
            self._documents.fail(document.id, str(error))
            raise
        return Ingested(done, new=True, notices=text.notices)


def standalone_query(text: str, previous: str | None) -> str:
    """``text`` as a query that stands alone: a short follow-up with a pronoun takes the question before along."""
    follows_up = previous and len(text.split()) <= _STANDALONE_WORDS and _PRONOUN.search(text)
    return f"{previous} {text}" if follows_up else text


def _relevant(hit: SearchHit) -> bool:
    if hit.distance is None:
        return hit.rank_words is not None and hit.rank_words <= 1
    limit = MAX_DISTANCE_WITH_WORDS if hit.rank_words is not None and hit.rank_words <= 3 else MAX_DISTANCE
    return hit.distance <= limit
