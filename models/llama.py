"""The only door to llama.cpp: its library and log, and models as owned Python objects with typed methods.

Nothing here or in llama_context.py decides anything: no scheduling, no caching, no text. Native objects are freed in
the right order by ``close()``, which may be called twice. A model's vocabulary may be read from any thread.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

# Read once, when OpenMP is loaded. By default its threads spin at barriers as long as it takes, so that beside other
# work two threads are ten times slower than one; threads that sleep at once halve the speed of an idle machine. Tried
# on two cores with a 0.5 B model: 100,000 rounds (some milliseconds) lose a twentieth there and keep some 30 tokens/s
# beside two busy programs, where 2,000 to 20,000 rounds, which are neither, leave 3 to 9.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")

import llama_cpp.llama_cpp as _bindings
from llama_cpp._ggml import libggml as libggml
from llama_cpp.llama_grammar import json_schema_to_gbnf as json_schema_to_gbnf

from hearth.models.errors import EngineError, ModelFileError
from hearth.models.gguf_header import check_gguf

native: Any = _bindings  # ctypes functions: their annotations describe C, not what may be passed
logger = logging.getLogger("hearth.llama")

_M_ROPE_TYPES = (native.LLAMA_ROPE_TYPE_MROPE, native.LLAMA_ROPE_TYPE_IMROPE)
_LOG_WARN, _LOG_ERROR = 3, 4  # enum ggml_log_level
_recent_complaints: deque[str] = deque(maxlen=8)  # warnings and errors, to say why a load failed
_captured: list[str] | None = None
_backend_lock = threading.Lock()
_backend_started = False


@native.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if line in ("", "."):
        return
    if level in (_LOG_WARN, _LOG_ERROR):
        _recent_complaints.append(line)
    if _captured is not None:
        _captured.append(line)
    logger.debug("%s", line)


log_callback = _on_log
native.llama_log_set(log_callback, None)


def start_backend() -> None:
    """Once a process; loading a model does it too."""
    global _backend_started
    with _backend_lock:
        if not _backend_started:
            native.llama_backend_init()
            _backend_started = True


def build_id() -> str:
    """Version and commit of the llama.cpp that is loaded: KV caches of another build are not trusted."""
    parts = [native.llama_version()]
    for name in ("ggml_version", "ggml_commit"):
        function = getattr(libggml, name, None)
        if function is not None:
            function.restype = ctypes.c_char_p
            parts.append(function())
    return "-".join(part.decode("ascii", "replace") for part in parts if part)


@contextmanager
def capture_log() -> Iterator[list[str]]:
    """The lines that llama.cpp logs meanwhile. Not for two threads at once."""
    global _captured
    lines: list[str] = []
    _captured = lines
    try:
        yield lines
    finally:
        _captured = None


def complaint(call: Callable[[], Any], fallback: str) -> tuple[Any, str]:
    """What a native call returned, and its most telling message."""
    forget_complaints()
    return call(), last_complaint(fallback)


def forget_complaints() -> None:
    """Before a native call whose failure is to be explained."""
    _recent_complaints.clear()


def last_complaint(fallback: str) -> str:
    """The most telling native message since then, without its function name, on one line."""
    for marker in ("error loading model", "failed", ""):
        for line in _recent_complaints:
            if marker in line:
                return line.partition(": ")[2] or line
    return fallback


class LlamaModel:
    """The weights and the vocabulary of one GGUF file."""

    def __init__(self, handle: int, path: Path) -> None:
        self.path = path
        self._handle: int | None = handle
        self.vocab = native.llama_model_get_vocab(handle)
        self.n_vocab = int(native.llama_vocab_n_tokens(self.vocab))
        self.n_ctx_train = int(native.llama_model_n_ctx_train(handle))
        self.n_embd_inp = int(native.llama_model_n_embd_inp(handle))
        self.n_layer = int(native.llama_model_n_layer(handle))
        self.n_params = int(native.llama_model_n_params(handle))
        self.size_bytes = int(native.llama_model_size(handle))
        self.add_bos = bool(native.llama_vocab_get_add_bos(self.vocab))
        self.is_recurrent = bool(native.llama_model_is_recurrent(handle))  # a state of fixed size, no KV cells
        self.n_swa = int(native.llama_model_n_swa(handle))  # tokens of the sliding window; 0: there is none
        self.is_hybrid = bool(native.llama_model_is_hybrid(handle))  # such states beside KV cells
        rope_type = int(native.llama_model_rope_type(handle))
        self.has_rope = rope_type != native.LLAMA_ROPE_TYPE_NONE
        self.has_m_rope = rope_type in _M_ROPE_TYPES
        self.rope_freq_scale_train = float(native.llama_model_rope_freq_scale_train(handle))
        self._piece_buffer = ctypes.create_string_buffer(256)
        self._pieces: dict[int, bytes | None] = {}  # of tokens that were generated

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        n_gpu_layers: int = -1,
        progress: Callable[[float], bool] | None = None,
        no_alloc: bool = False,
    ) -> LlamaModel:
        """Reads the file. ``progress`` gets 0..1 and returns False to stop. ``no_alloc``: without the weights, for
        planning; contexts of such a model take no memory and cannot decode.

        Raises ModelFileError (missing, not a GGUF, truncated, of an architecture that llama.cpp does not know) and
        EngineError (stopped by ``progress``); what ``progress`` itself raises comes out unchanged.
        """
        check_gguf(path)
        start_backend()
        raised: list[BaseException] = []
        stopped: list[bool] = []

        def on_progress(fraction: float, _user_data: object) -> bool:
            try:
                go_on = progress is None or bool(progress(float(fraction)))
            except BaseException as error:  # an exception cannot cross native frames: carried over and raised below
                raised.append(error)
                go_on = False
            if not go_on:
                stopped.append(True)
            return go_on

        callback = native.llama_progress_callback(on_progress)
        params = native.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        # weights in the processor's own layout: 1.4 times as fast. That of AMX crashes with Q8_0 in a batch of several
        # tokens (llama.cpp 0c1e57098), and cannot be left out by itself
        params.use_extra_bufts = b"AMX_INT8 = 1" not in native.llama_print_system_info()
        params.progress_callback = callback
        if no_alloc:
            params.no_alloc, params.load_mode = True, native.LLAMA_LOAD_MODE_NONE
        forget_complaints()
        handle = native.llama_model_load_from_file(str(path).encode(), params)
        if raised:
            if handle:
                native.llama_model_free(handle)
            raise raised[0]
        if not handle:
            if stopped:
                raise EngineError(f"loading {path.name} was stopped")
            raise ModelFileError(f"{path}: llama.cpp cannot load it: {last_complaint('no reason given')}")
        if not native.llama_model_has_decoder(handle) or native.llama_model_has_encoder(handle):
            native.llama_model_free(handle)
            raise ModelFileError(f"{path}: not a model that generates text; choose a decoder-only chat model")
        return cls(handle, path)

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise EngineError("the model is closed")
        return self._handle

    def metadata(self, key: str) -> str | None:
        """A value of the GGUF's metadata as text, or None."""
        size = native.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        native.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        source = native.llama_model_chat_template(self.handle, None)
        return source.decode("utf-8", "replace") if source else None

    def special_token(self, kind: Literal["bos", "eos"]) -> str:
        """The text of the special token, "" if the vocabulary has none."""
        token = native.llama_vocab_bos(self.vocab) if kind == "bos" else native.llama_vocab_eos(self.vocab)
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def token_text(self, token: int) -> bytes:
        """A token as the vocabulary has it, not as it is written. Any thread."""
        text: bytes = native.llama_vocab_get_text(self.vocab, token)
        return text

    def is_eog(self, token: int) -> bool:
        """Whether the token ends generation."""
        return bool(native.llama_vocab_is_eog(self.vocab, token))

    def generated_piece(self, token: int) -> bytes | None:
        """As ``piece``; None for a token that ends generation.

        Remembered, because native code is slow to call when the weights have driven it out of the processor's caches.
        """
        try:
            return self._pieces[token]
        except KeyError:
            piece = self._pieces[token] = None if self.is_eog(token) else self.piece(token)
            return piece

    def tokenize(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        raw = text.encode("utf-8", "replace")
        capacity = len(raw) + 8
        buffer = (ctypes.c_int32 * capacity)()
        count = native.llama_tokenize(self.vocab, raw, len(raw), buffer, capacity, add_bos, parse_special)
        if count < 0:
            capacity = -count
            buffer = (ctypes.c_int32 * capacity)()
            count = native.llama_tokenize(self.vocab, raw, len(raw), buffer, capacity, add_bos, parse_special)
        if count < 0:
            raise EngineError(f"a text of {len(raw):,} bytes could not be tokenized; shorten it")
        return list(buffer[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for, possibly a part of a character. Not for two threads at once."""
        buffer = self._piece_buffer
        size = native.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if size < 0:
            self._piece_buffer = buffer = ctypes.create_string_buffer(-size)
            size = native.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(size, 0)]

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of all tokens together; bytes that are no UTF-8 become U+FFFD."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        capacity = 16 * len(tokens) + 16
        buffer = ctypes.create_string_buffer(capacity)
        size = native.llama_detokenize(self.vocab, ids, len(tokens), buffer, capacity, False, special)
        if size < 0:
            capacity = -size
            buffer = ctypes.create_string_buffer(capacity)
            size = native.llama_detokenize(self.vocab, ids, len(tokens), buffer, capacity, False, special)
        return buffer.raw[:size].decode("utf-8", "replace")

    def close(self) -> None:
        """Frees the weights. Contexts must have been closed before."""
        handle, self._handle = self._handle, None
        if handle is not None:
            native.llama_model_free(handle)
