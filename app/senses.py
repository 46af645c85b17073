"""Pictures and sounds as pieces of the prompt, by the encoder that goes with the model: Hearth's own, or its mmproj."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hearth.held_files import HeldFiles
from hearth.models.types import Engine, MediaEmbeddings, MediaPiece, MediaShape, TextSegment
from hearth.prompt import FrozenSegment, MediaContent, MediaRecord, SoundContent

if TYPE_CHECKING:
    from hearth.multimodal.picture_encoder import PictureEncoder
    from hearth.store.derived import DerivedFiles

EMBEDDINGS_VERSION = 1  # of how they are written
EMBEDDINGS_KEPT = 256  # pieces of media whose embeddings stay in RAM
SHAPES_KEPT = 1024

Media = NDArray[Any]
"""A picture, uint8 of shape (height, width, 3), or a sound, float32 of shape (n,)."""


class Encoder(Protocol):
    """What makes embeddings. ``fingerprint`` changes whenever they might."""

    @property
    def fingerprint(self) -> str: ...

    def plan(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        """What media of this shape become in the prompt."""

    def encode(self, media: Media) -> tuple[MediaEmbeddings, ...]:
        """The embeddings of every MediaPiece of its plan."""


class PocketEncoder:
    """Hearth's own: one piece for every picture, and no sounds."""

    def __init__(self, encoder: PictureEncoder) -> None:
        self._encoder = encoder
        self.fingerprint = encoder.fingerprint

    def plan(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        n_tokens = self._encoder.n_tokens(shape.width, shape.height)
        return (MediaPiece(n_tokens, n_tokens),)

    def encode(self, media: Media) -> tuple[MediaEmbeddings, ...]:
        from PIL import Image

        return (MediaEmbeddings(self._encoder.encode(Image.fromarray(media))),)


class ModelEncoder:
    """The one in a model's mmproj, which runs beside the model."""

    def __init__(self, engine: Engine) -> None:
        """For an engine that has one."""
        self._engine = engine
        self.fingerprint = engine.info.media.fingerprint if engine.info.media is not None else ""

    def plan(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        return self._engine.plan_media(shape)

    def encode(self, media: Media) -> tuple[MediaEmbeddings, ...]:
        return self._engine.encode_media(media)


class Senses:
    """Stored pictures and sounds through one encoder, each encoded once. Methods may be called from any thread.

    Embeddings are kept in RAM and on disk, as long as the file is.
    """

    def __init__(self, encoder: Encoder, files: HeldFiles, derived: DerivedFiles) -> None:
        self._encoder = encoder
        self._files = files
        self._derived = derived
        digest = hashlib.sha256(encoder.fingerprint.encode()).hexdigest()
        self._made_by = f"embeddings{EMBEDDINGS_VERSION}x{digest[:32]}"
        self._lock = threading.Lock()  # guards both below
        self._embeddings: OrderedDict[str, MediaEmbeddings] = OrderedDict()
        self._shapes: OrderedDict[str, MediaShape] = OrderedDict()

    def segments(self, content: MediaContent) -> tuple[FrozenSegment, ...]:
        """What a picture or sound becomes in the prompt. Raises EngineError, and what reading its file raises."""
        is_sound = isinstance(content, SoundContent)
        found: list[FrozenSegment] = []
        part = 0
        for piece in self._encoder.plan(self._shape(content.sha256, is_sound=is_sound)):
            if isinstance(piece, TextSegment):
                found.append(piece)
            else:
                identity = f"{content.sha256}.{self._encoder.fingerprint}" + (f".{part}" if part else "")
                found.append(MediaRecord(identity, content.sha256, piece.n_tokens, piece.n_pos, part, is_sound))
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
            pieces = self._encoder.encode(self._read(record.sha256, is_sound=record.is_sound))
            if not self._files.is_held(record.sha256):
                self._derived.put(record.sha256, self._made_by, _dump(pieces))
        first = record.identity.removesuffix(f".{record.part}") if record.part else record.identity
        with self._lock:
            for part, embeddings in enumerate(pieces):
                self._embeddings[f"{first}.{part}" if part else first] = embeddings
            while len(self._embeddings) > max(EMBEDDINGS_KEPT, len(pieces)):
                self._embeddings.popitem(last=False)
        return pieces

    def _shape(self, sha256: str, *, is_sound: bool) -> MediaShape:
        """Of the picture or sound as it is encoded."""
        with self._lock:
            shape = self._shapes.get(sha256)
        if shape is None:
            size = self._read(sha256, is_sound=is_sound).shape
            shape = MediaShape(n_samples=size[0]) if is_sound else MediaShape(width=size[1], height=size[0])
            with self._lock:
                self._shapes[sha256] = shape
                while len(self._shapes) > SHAPES_KEPT:
                    self._shapes.popitem(last=False)
        return shape

    def _read(self, sha256: str, *, is_sound: bool) -> Media:
        data, name = self._files.get(sha256), sha256[:12]
        if is_sound:
            from hearth.multimodal.sound import read_sound

            return read_sound(data, name).samples
        from hearth.multimodal.pictures import read_picture

        return np.asarray(read_picture(data, name).image)


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
