"""Pictures and sounds for the language model by its own encoder file (mmproj), through llama.cpp's mtmd.

The encoder belongs to one loaded model, of which it needs the vocabulary and the width of the embeddings, and lives
where that model does. One picture may become several pieces: a tile each, with tokens between them that the model was
trained to see there.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.mtmd_cpp as _bindings
import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import EngineError, ModelFileError
from hearth.models.fingerprint import model_fingerprint
from hearth.models.gguf_header import read_gguf_header
from hearth.models.llama import LlamaModel, build_id, log_callback, native
from hearth.models.types import MediaEmbeddings, MediaInfo, MediaPiece, MediaShape, TextSegment

mtmd: Any = _bindings  # as hearth.models.llama.native
_TEXT, _IMAGE = 0, 1  # enum mtmd_input_chunk_type; 2 is sound
_ERROR = 4  # enum ggml_log_level
MAX_SIDE_PX = 16_384
MAX_ASPECT = 200  # to 1; scaled to a model's size, a longer picture may be no pixel wide
MIN_SOUND_S, MAX_SOUND_S = 0.1, 30 * 60  # mtmd ends the process over less than two frames of 10 ms

Media = NDArray[Any]
"""A picture, uint8 of shape (height, width, 3), or a sound, float32 of shape (n,)."""

_errors: deque[str] = deque(maxlen=8)


@native.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, user_data: object) -> None:
    if level == _ERROR:
        _errors.append(text.decode("utf-8", "replace"))
    log_callback(level, text, user_data)


mtmd.mtmd_log_set(_on_log, None)
mtmd.mtmd_helper_log_set(_on_log, None)


def _explained(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a native call returned, and the first error that it logged: warnings come with calls that succeed too."""
    _errors.clear()
    result = call()
    first = _errors[0].partition(": ")[2] if _errors else "no reason given"
    return result, " ".join(first.partition("\nhint:")[0].removeprefix("error: ").split())


class MediaEncoder:
    """An mmproj that is loaded for a model. Methods may be called from any thread; one picture is encoded at a time."""

    def __init__(self, handle: int, model: LlamaModel, fingerprint: str) -> None:
        """Takes ownership of ``handle``. Use ``load``."""
        self._handle: int | None = handle
        self._model = model
        self._lock = threading.Lock()
        self._marker: bytes = mtmd.mtmd_get_marker(handle)
        self.info = MediaInfo(
            sees=bool(mtmd.mtmd_support_vision(handle)),
            hears=bool(mtmd.mtmd_support_audio(handle)),
            sample_rate=max(int(mtmd.mtmd_get_audio_sample_rate(handle)), 0),
            fingerprint=fingerprint,
        )

    @classmethod
    def load(cls, path: Path, model: LlamaModel, *, n_threads: int, on_gpu: bool) -> MediaEncoder:
        """Reads the file. Raises ModelFileError: missing, damaged, not an encoder, or of another model."""
        header = read_gguf_header(path)
        if header.architecture != "clip":
            raise ModelFileError(
                f"{path}: a {header.architecture or 'nameless'} model, not an encoder; give the mmproj file of yours"
            )
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = on_gpu
        params.print_timings = params.warmup = False
        params.n_threads = n_threads
        handle, reason = _explained(lambda: mtmd.mtmd_init_from_file(str(path).encode(), model.handle, params))
        if not handle:
            raise ModelFileError(f"{path}: cannot be used with {model.path.name}: {reason}; name its own mmproj")
        return cls(handle, model, model_fingerprint(header, build_id()))

    def plan(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        """What a picture or a sound of this shape becomes in the prompt, without looking at it.

        Raises EngineError if the model takes no such media, or none of that size.
        """
        with self._tokenized(shape, None) as chunks:
            return tuple(_piece(chunk) for chunk in chunks)

    def encode(self, media: Media) -> tuple[MediaEmbeddings, ...]:
        """Embeddings of every MediaPiece of ``plan``: of a picture, uint8 of shape (height, width, 3), or of a sound,
        float32 of shape (n,) at ``info.sample_rate``. Raises EngineError."""
        shape = shape_of(media)

        def encode() -> tuple[MediaEmbeddings, ...]:
            with self._tokenized(shape, np.ascontiguousarray(media)) as chunks:
                return tuple(self._encode(chunk) for chunk in chunks if mtmd.mtmd_input_chunk_get_type(chunk) != _TEXT)

        # OpenMP's team of threads goes with the thread that asked for it; one that stays slows the engine down
        with ThreadPoolExecutor(1, thread_name_prefix="hearth-mtmd") as passing:
            return passing.submit(encode).result()

    def close(self) -> None:
        """Before the model. Idempotent."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                mtmd.mtmd_free(handle)

    @contextmanager
    def _tokenized(self, shape: MediaShape, data: Media | None) -> Iterator[list[Any]]:
        """The chunks of one picture or sound; placeholders without ``data``. Holds the lock."""
        self._check(shape)
        kind = ctypes.c_float if shape.is_sound else ctypes.c_uint8
        pointer = None if data is None else data.ctypes.data_as(ctypes.POINTER(kind))
        with self._lock:
            if self._handle is None:
                raise EngineError("the encoder is closed; load the model again")
            if shape.is_sound:
                bitmap = mtmd.mtmd_bitmap_init_from_audio(shape.n_samples, pointer)
            else:
                bitmap = mtmd.mtmd_bitmap_init(shape.width, shape.height, pointer)
            chunks = mtmd.mtmd_input_chunks_init()
            try:
                text = mtmd.mtmd_input_text(self._marker, len(self._marker), False, True)
                bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
                status, reason = _explained(
                    lambda: mtmd.mtmd_tokenize(self._handle, chunks, ctypes.byref(text), bitmaps, 1)
                )
                if status:
                    raise EngineError(f"{shape}: the encoder cannot take it ({reason}); make it larger or smaller")
                n_chunks = mtmd.mtmd_input_chunks_size(chunks)
                yield [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(n_chunks)]
            finally:
                mtmd.mtmd_input_chunks_free(chunks)
                mtmd.mtmd_bitmap_free(bitmap)

    def _check(self, shape: MediaShape) -> None:
        if shape.is_sound:
            if not self.info.hears:
                raise EngineError(f"{shape}: this model does not hear; its words can be transcribed instead")
            rate = self.info.sample_rate
            if not MIN_SOUND_S * rate <= shape.n_samples <= MAX_SOUND_S * rate:
                raise EngineError(
                    f"{shape}: it must last {MIN_SOUND_S}..{MAX_SOUND_S:,} s at {rate:,} Hz; "
                    "cut it or pad it with silence"
                )
        elif not self.info.sees:
            raise EngineError(f"{shape}: this model does not see; choose one that does")
        elif not (0 < shape.width <= MAX_SIDE_PX and 0 < shape.height <= MAX_SIDE_PX):
            raise EngineError(f"{shape}: both sides must be within 1..{MAX_SIDE_PX:,} pixels; make it smaller")
        elif max(shape.width, shape.height) > MAX_ASPECT * min(shape.width, shape.height):
            raise EngineError(f"{shape}: one side is over {MAX_ASPECT} times as long as the other; cut it")

    def _encode(self, chunk: Any) -> MediaEmbeddings:
        status, reason = _explained(lambda: mtmd.mtmd_encode_chunk(self._handle, chunk))
        if status:
            raise EngineError(f"the picture or sound could not be encoded: {reason}")
        n_tokens = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        pointer = mtmd.mtmd_get_output_embd(self._handle)
        rows = np.ctypeslib.as_array(pointer, shape=(n_tokens, self._model.n_embd_inp)).copy()
        if not np.isfinite(rows).all():
            raise EngineError("the embeddings of the picture or sound are not finite; is it, or the encoder, damaged?")
        causal = not mtmd.mtmd_decode_use_non_causal(self._handle, chunk)
        return MediaEmbeddings(rows, self._places(chunk, n_tokens), causal)

    def _places(self, chunk: Any, n_tokens: int) -> NDArray[np.int32] | None:
        """Where M-RoPE puts the tokens of a picture; a sound's follow each other."""
        if not self._model.has_m_rope or mtmd.mtmd_input_chunk_get_type(chunk) != _IMAGE:
            return None
        picture = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        places = (mtmd.mtmd_decoder_pos * n_tokens)()
        mtmd.mtmd_helper_image_get_decoder_pos(picture, 0, places)
        raw = np.frombuffer(places, np.uint32).reshape(n_tokens, 4)
        return raw[:, [0, 2, 1]].astype(np.int32)  # time, x, y → time, row, column


def shape_of(media: Media) -> MediaShape:
    """Raises EngineError for an array that is neither a picture nor a sound."""
    if media.dtype == np.uint8 and media.ndim == 3 and media.shape[2] == 3 and media.size:
        return MediaShape(width=media.shape[1], height=media.shape[0])
    if media.dtype == np.float32 and media.ndim == 1:
        return MediaShape(n_samples=len(media))
    raise EngineError(
        f"an array of {media.dtype} and shape {media.shape} is no media; give uint8 (height, width, 3) or float32 (n,)"
    )


def _piece(chunk: Any) -> TextSegment | MediaPiece:
    if mtmd.mtmd_input_chunk_get_type(chunk) == _TEXT:
        n = ctypes.c_size_t()
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
        ids = tuple(tokens[index] for index in range(n.value))
        if min(ids, default=0) < 0:
            raise EngineError("the model has no token that its encoder puts around pictures; name its own mmproj")
        return TextSegment(ids)
    return MediaPiece(
        n_tokens=int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)), n_pos=int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
    )
