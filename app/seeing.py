"""Pictures as pieces of the prompt, by the encoder that goes with the model: Hearth's own, or the model's mmproj."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hearth.models.types import Engine, MediaEmbeddings, MediaPiece, MediaShape, TextSegment
from hearth.prompt import FrozenSegment, MediaRecord, PictureContent

if TYPE_CHECKING:
    from hearth.multimodal.picture_encoder import PictureEncoder
    from hearth.multimodal.pictures import Picture
    from hearth.store.blobs import BlobStore
    from hearth.store.derived import DerivedFiles

EMBEDDINGS_VERSION = 1  # of how they are written
EMBEDDINGS_KEPT = 256  # pieces of pictures whose embeddings stay in RAM
SIZES_KEPT = 1024


class Eyes(Protocol):
    """An encoder. ``fingerprint`` changes whenever its embeddings might."""

    @property
    def fingerprint(self) -> str: ...

    def plan(self, width: int, height: int) -> tuple[TextSegment | MediaPiece, ...]:
        """What a picture of so many pixels becomes in the prompt."""

    def encode(self, picture: Picture) -> tuple[MediaEmbeddings, ...]:
        """The embeddings of every MediaPiece of its plan."""


class PocketEyes:
    """Hearth's own encoder: one piece for every picture."""

    def __init__(self, encoder: PictureEncoder) -> None:
        self._encoder = encoder
        self.fingerprint = encoder.fingerprint

    def plan(self, width: int, height: int) -> tuple[TextSegment | MediaPiece, ...]:  # noqa: ARG002
        return (MediaPiece(self._encoder.n_tokens, self._encoder.n_tokens),)

    def encode(self, picture: Picture) -> tuple[MediaEmbeddings, ...]:
        return (MediaEmbeddings(self._encoder.encode(picture.image)),)


class ModelEyes:
    """The encoder in a model's mmproj, which runs beside the model."""

    def __init__(self, engine: Engine) -> None:
        """Raises EngineError if the model has none."""
        self._engine = engine
        self.fingerprint = engine.info.media.fingerprint if engine.info.media is not None else ""

    def plan(self, width: int, height: int) -> tuple[TextSegment | MediaPiece, ...]:
        return self._engine.plan_media(MediaShape(width=width, height=height))

    def encode(self, picture: Picture) -> tuple[MediaEmbeddings, ...]:
        return self._engine.encode_media(np.asarray(picture.image))


class Sight:
    """Stored pictures through one encoder, each encoded once: embeddings are kept in RAM and on disk, as long as the
    picture is. Methods may be called from any thread."""

    def __init__(self, eyes: Eyes, blobs: BlobStore, derived: DerivedFiles) -> None:
        self._eyes = eyes
        self._blobs = blobs
        self._derived = derived
        self._made_by = f"embeddings{EMBEDDINGS_VERSION}x{hashlib.sha256(eyes.fingerprint.encode()).hexdigest()[:32]}"
        self._lock = threading.Lock()  # guards both below
        self._embeddings: OrderedDict[str, MediaEmbeddings] = OrderedDict()
        self._sizes: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def segments(self, content: PictureContent) -> tuple[FrozenSegment, ...]:
        """What the picture becomes in the prompt. Raises EngineError, and what reading its file raises."""
        found: list[FrozenSegment] = []
        part = 0
        for piece in self._eyes.plan(*self._size(content.sha256)):
            if isinstance(piece, TextSegment):
                found.append(piece)
            else:
                identity = f"{content.sha256}.{self._eyes.fingerprint}" + (f".{part}" if part else "")
                found.append(MediaRecord(identity, content.sha256, piece.n_tokens, piece.n_pos, part))
                part += 1
        return tuple(found)

    def embedder_of(self, record: MediaRecord) -> Callable[[], MediaEmbeddings]:
        """What the engine calls for embeddings if the prefix is not in the KV cache."""

        def embed() -> MediaEmbeddings:
            with self._lock:
                kept = self._embeddings.get(record.identity)
                if kept is not None:
                    self._embeddings.move_to_end(record.identity)
                    return kept
            return self._encode(record)[record.part]

        return embed

    def _encode(self, record: MediaRecord) -> tuple[MediaEmbeddings, ...]:
        kept = self._derived.get(record.sha256, self._made_by)
        pieces = _load(kept) if kept is not None else ()
        if len(pieces) <= record.part:
            pieces = self._eyes.encode(self._read(record.sha256))
            self._derived.put(record.sha256, self._made_by, _dump(pieces))
        first = record.identity.removesuffix(f".{record.part}") if record.part else record.identity
        with self._lock:
            for part, embeddings in enumerate(pieces):
                self._embeddings[f"{first}.{part}" if part else first] = embeddings
            while len(self._embeddings) > max(EMBEDDINGS_KEPT, len(pieces)):
                self._embeddings.popitem(last=False)
        return pieces

    def _size(self, sha256: str) -> tuple[int, int]:
        """Width and height of the picture as it is encoded, in pixels."""
        with self._lock:
            size = self._sizes.get(sha256)
        if size is None:
            size = self._read(sha256).image.size
            with self._lock:
                self._sizes[sha256] = size
                while len(self._sizes) > SIZES_KEPT:
                    self._sizes.popitem(last=False)
        return size

    def _read(self, sha256: str) -> Picture:
        from hearth.multimodal.pictures import read_picture

        return read_picture(self._blobs.get(sha256), sha256[:12])


def _dump(pieces: tuple[MediaEmbeddings, ...]) -> bytes:
    arrays = {"causal": np.array([piece.causal for piece in pieces])}
    for part, piece in enumerate(pieces):
        arrays[f"rows{part}"] = piece.rows
        if piece.places is not None:
            arrays[f"places{part}"] = piece.places
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _load(data: bytes) -> tuple[MediaEmbeddings, ...]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return tuple(
            MediaEmbeddings(arrays[f"rows{part}"], arrays.get(f"places{part}"), bool(causal))
            for part, causal in enumerate(arrays["causal"])
        )
