"""The only door to llama.cpp: models and contexts as owned Python objects with typed methods.

Nothing here decides anything: no scheduling, no caching, no text. Native objects are freed in the right order by
``close()``, which may be called twice. A context belongs to one thread; a model's vocabulary may be read from any.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
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
import numpy as np
from llama_cpp._ggml import libggml as libggml
from llama_cpp.llama_grammar import json_schema_to_gbnf as json_schema_to_gbnf
from numpy.typing import NDArray

from hearth.models.errors import EngineError, ModelFileError
from hearth.models.gguf_header import check_gguf

native: Any = _bindings  # ctypes functions: their annotations describe C, not what may be passed
logger = logging.getLogger("hearth.llama")

KvType = Literal["f16", "q8_0", "q4_0"]
RopeScalingType = Literal["none", "linear", "yarn"]
_GGML_TYPES: dict[str, int] = {
    "f16": native.GGML_TYPE_F16,
    "q8_0": native.GGML_TYPE_Q8_0,
    "q4_0": native.GGML_TYPE_Q4_0,
}
_M_ROPE_TYPES = (native.LLAMA_ROPE_TYPE_MROPE, native.LLAMA_ROPE_TYPE_IMROPE)
_ROPE_SCALINGS: dict[str | None, int] = {
    None: native.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
    "none": native.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": native.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": native.LLAMA_ROPE_SCALING_TYPE_YARN,
}
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


# the binding's own gives a pointer object, whose address takes longer to get than to use
_logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", native._lib)
)
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
    _recent_complaints.clear()
    return call(), _complaint(fallback)


def _complaint(fallback: str) -> str:
    """The most telling native message since the last ``clear``, without its function name, on one line."""
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
        _recent_complaints.clear()
        handle = native.llama_model_load_from_file(str(path).encode(), params)
        if raised:
            if handle:
                native.llama_model_free(handle)
            raise raised[0]
        if not handle:
            if stopped:
                raise EngineError(f"loading {path.name} was stopped")
            raise ModelFileError(f"{path}: llama.cpp cannot load it: {_complaint('no reason given')}")
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


class DecodeStatus(IntEnum):
    """What ``LlamaContext.decode_*`` came to; anything else raises."""

    DONE = 0
    NO_CELLS = 1  # the KV cache has no room; nothing changed
    ABORTED = 2  # some of the batch may be in the KV cache


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How positions are turned, as llama.cpp takes it: None, 0 and negative values are the model's own."""

    scaling: RopeScalingType | None = None
    freq_base: float = 0.0
    freq_scale: float = 0.0  # 0.25 stretches the context four times
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_fast: float = -1.0
    yarn_beta_slow: float = -1.0
    yarn_orig_ctx: int = 0  # tokens


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How a context is made. Sizes in tokens; ``n_ctx`` cells are shared by ``n_seq_max`` sequences, or divided among
    them if not ``kv_unified``."""

    n_ctx: int
    n_batch: int = 512
    n_ubatch: int = 512
    n_seq_max: int = 8
    n_outputs_max: int = 0  # rows of a batch whose logits may be wanted, at least n_seq_max; 0: all
    n_threads: int = 1  # for one token at a time
    n_threads_batch: int = 1  # for prompts
    kv_type: KvType = "f16"
    flash_attention: bool = True
    kv_unified: bool = True
    rope: RopeScaling = RopeScaling()


class AbortFlag:
    """Stops a running decode from any thread.

    llama.cpp asks its abort callback before every graph node; a Python callback would take the GIL each time. The
    callback is libc's ``strlen`` and its argument this flag: an empty C string goes on, one of length 1 stops.
    """

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)
        libc = ctypes.CDLL("msvcrt") if hasattr(ctypes, "windll") else ctypes.CDLL(None)
        self.callback = ctypes.cast(libc.strlen, native.ggml_abort_callback)
        self.argument = ctypes.addressof(self._bytes)

    def set(self) -> None:
        self._bytes[0] = b"\x01"

    def clear(self) -> None:
        self._bytes[0] = b"\x00"


class LlamaContext:
    """KV cache and compute buffers of one model. All methods but ``abort.set()`` on one thread."""

    def __init__(self, model: LlamaModel, options: ContextOptions, abort: AbortFlag | None = None) -> None:
        """``abort`` is shared with another context. Raises EngineError if llama.cpp cannot make the context (memory,
        KV type)."""
        self.model = model
        self.options = options
        self.abort = abort or AbortFlag()
        params = native.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = options.n_ctx, options.n_batch, options.n_ubatch
        params.n_seq_max = options.n_seq_max
        params.n_outputs_max = options.n_outputs_max
        params.n_threads, params.n_threads_batch = options.n_threads, options.n_threads_batch
        params.type_k = params.type_v = _GGML_TYPES[options.kv_type]
        params.flash_attn_type = (
            native.LLAMA_FLASH_ATTN_TYPE_ENABLED if options.flash_attention else native.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.kv_unified = options.kv_unified
        params.swa_full = True  # a sliding window that forgets cells would make prefix reuse wrong
        _set_rope(params, options.rope)
        params.no_perf = True
        params.abort_callback = self.abort.callback
        params.abort_callback_data = self.abort.argument
        _recent_complaints.clear()
        self._handle: int | None = native.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise EngineError(
                f"{model.path.name}: no context of {options.n_ctx} tokens with KV type {options.kv_type}: "
                f"{_complaint('not enough memory')}; try a smaller n_ctx or kv_type f16"
            )
        self.n_ctx = int(native.llama_n_ctx(self._handle))  # cells
        self.n_ctx_seq = int(native.llama_n_ctx_seq(self._handle))  # that one sequence may have
        self._memory = native.llama_get_memory(self._handle)
        self._logits_row: Any = ctypes.c_float * model.n_vocab
        self._logits_rows: dict[int, NDArray[np.float32]] = {}  # by address: making a view takes longer than finding it
        self.n_ubatch = int(native.llama_n_ubatch(self._handle))
        self._make_batch(int(native.llama_n_batch(self._handle)))

    def _make_batch(self, n_batch: int) -> None:
        """One set of arrays, written through numpy and read by llama.cpp in place."""
        self.n_batch = n_batch
        self._tokens = np.zeros(n_batch, np.int32)
        self._positions = np.zeros(n_batch * (4 if self.model.has_m_rope else 1), np.int32)
        self._n_seq_ids = np.ones(n_batch, np.int32)
        self._seq_ids = np.zeros(n_batch, np.int32)
        self._seq_id_rows = self._seq_ids.ctypes.data + 4 * np.arange(n_batch + 1, dtype=np.uintp)
        self._seq_id_rows[n_batch] = 0
        self._wanted = np.zeros(n_batch, np.int8)
        batch = native.llama_batch()
        pointers = dict(native.llama_batch._fields_)
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._n_seq_ids),
            ("seq_id", self._seq_id_rows),
            ("logits", self._wanted),
        ):
            setattr(batch, name, ctypes.cast(array.ctypes.data, pointers[name]))
        self._batch = batch
        # not batch.token: a ctypes pointer read from a structure follows what is assigned to that field later
        self._token_pointer = ctypes.cast(self._tokens.ctypes.data, pointers["token"])
        self._no_tokens = pointers["token"]()
        self._embd_pointer_type = pointers["embd"]

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise EngineError("the context is closed")
        return self._handle

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """For one token at a time, and for prompts, from the next decode on."""
        native.llama_set_n_threads(self.handle, n_threads, n_threads_batch)

    def warm_up(self) -> float:
        """Decodes a token twice and forgets it: the first decode takes twice as long as the second, whose seconds it
        returns.

        On the thread that will decode. OpenMP has a team of threads for each thread that asks for one, and lets all of
        them sleep at once when they are more than the processors, which halves the speed.
        """
        zero, last = np.zeros(1, np.int32), np.full(1, self.options.n_seq_max - 1, np.int32)
        elapsed_s = 0.0
        for position in (0, 1):
            started_s = time.perf_counter()
            self.decode_tokens(zero, zero + position, last, np.ones(1, np.int8))
            self.logits(0)  # an accelerator has not finished before
            elapsed_s = time.perf_counter() - started_s
        self.clear()
        return elapsed_s

    def decode_tokens(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        seq_ids: NDArray[np.int32],
        wanted: NDArray[np.int8],
    ) -> DecodeStatus:
        """Decodes 1..n_batch tokens. All arrays have shape (n,); ``wanted`` marks rows whose logits are kept.

        Raises EngineError if llama.cpp refuses the batch or fails.
        """
        n = len(tokens)
        self._tokens[:n] = tokens
        self._batch.token, self._batch.embd = self._token_pointer, self._embd_pointer_type()
        return self._decode(n, positions, seq_ids, wanted)

    def decode_embeddings(
        self,
        embeddings: NDArray[np.float32],
        places: NDArray[np.int32],
        seq_ids: NDArray[np.int32],
        wanted: NDArray[np.int8],
        *,
        causal: bool = True,
    ) -> DecodeStatus:
        """As ``decode_tokens``, with ``embeddings`` of shape (n, n_embd_inp), C-contiguous, in place of tokens.

        ``places``, of shape (n, 3), are their positions in time, row and column; models without M-RoPE know the first
        only. Not ``causal``: each sees all n, which must be at most n_ubatch.
        """
        self._batch.token = self._no_tokens
        self._batch.embd = ctypes.cast(embeddings.ctypes.data, self._embd_pointer_type)
        n = len(embeddings)
        if self.model.has_m_rope:  # four sections, of which the last is not used
            self._positions[n : 3 * n] = places[:, 1:].T.ravel()
            self._positions[3 * n : 4 * n] = 0
        if causal:
            return self._decode(n, places[:, 0], seq_ids, wanted)
        native.llama_set_causal_attn(self.handle, False)
        try:
            return self._decode(n, places[:, 0], seq_ids, wanted)
        finally:
            native.llama_set_causal_attn(self.handle, True)

    def _decode(
        self, n: int, positions: NDArray[np.int32], seq_ids: NDArray[np.int32], wanted: NDArray[np.int8]
    ) -> DecodeStatus:
        self._positions[:n] = positions
        self._seq_ids[:n] = seq_ids
        self._wanted[:n] = wanted
        self._batch.n_tokens = n
        _recent_complaints.clear()
        status = int(native.llama_decode(self.handle, self._batch))
        if status in (0, 1, 2):
            return DecodeStatus(status)
        raise EngineError(f"llama.cpp could not decode {n} tokens (status {status}): {_complaint('no reason given')}")

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of batch row ``row``, shape (n_vocab,): a view that the next decode overwrites."""
        address = _logits_address(self.handle, row)
        rows = self._logits_rows
        if address not in rows:
            if not address:
                raise EngineError(f"no logits for row {row} of the batch")
            rows[address] = np.frombuffer(self._logits_row.from_address(address), np.float32)
        return rows[address]

    def set_adapters(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Adds these adapters (native handles of ones loaded before the context was made), each times its scale, to
        the weights; those set before are off."""
        n = len(adapters)
        handles = (native.llama_adapter_lora_p_ctypes * n)(*(handle for handle, _ in adapters))
        scales = (ctypes.c_float * n)(*(scale for _, scale in adapters))
        if native.llama_set_adapters_lora(self.handle, handles, n, scales):
            raise EngineError(f"llama.cpp refused the {n} adapters: {_complaint('no reason given')}")

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        """Forgets positions [start, end) of a sequence. False: this model cannot forget a part."""
        return bool(native.llama_memory_seq_rm(self._memory, seq_id, start, end))

    def seq_cp(self, source: int, target: int, start: int, end: int) -> None:
        """Lets ``target`` share positions [start, end) of ``source``; -1 as ``end`` is all that follow."""
        native.llama_memory_seq_cp(self._memory, source, target, start, end)

    def seq_state(self, seq_id: int) -> memoryview:
        """What a sequence holds, read-only, to be given to ``set_seq_state``; empty if llama.cpp gives nothing."""
        handle = self.handle
        size = int(native.llama_state_seq_get_size(handle, seq_id))
        buffer = np.empty(size, np.uint8)
        pointer = ctypes.cast(buffer.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        written = int(native.llama_state_seq_get_data(handle, pointer, size, seq_id))
        return buffer[:written].data.toreadonly()

    def set_seq_state(self, seq_id: int, state: bytes | memoryview) -> bool:
        """Replaces what a sequence holds. False: refused (another KV type, no room); it is empty then.

        A flipped bit is taken without complaint: check what comes from a disk before.
        """
        buffer = np.frombuffer(state, np.uint8)
        pointer = ctypes.cast(buffer.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        return int(native.llama_state_seq_set_data(self.handle, pointer, len(state), seq_id)) == len(state)

    def seq_pos_min(self, seq_id: int) -> int:
        """Lowest position of a sequence, -1 if it is empty."""
        return int(native.llama_memory_seq_pos_min(self._memory, seq_id))

    def seq_pos_max(self, seq_id: int) -> int:
        """Highest position of a sequence, -1 if it is empty."""
        return int(native.llama_memory_seq_pos_max(self._memory, seq_id))

    def clear(self) -> None:
        """Forgets all sequences."""
        native.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            native.llama_free(handle)


def _set_rope(params: Any, rope: RopeScaling) -> None:
    params.rope_scaling_type = _ROPE_SCALINGS[rope.scaling]
    params.rope_freq_base, params.rope_freq_scale = rope.freq_base, rope.freq_scale
    params.yarn_ext_factor, params.yarn_attn_factor = rope.yarn_ext_factor, rope.yarn_attn_factor
    params.yarn_beta_fast, params.yarn_beta_slow = rope.yarn_beta_fast, rope.yarn_beta_slow
    params.yarn_orig_ctx = rope.yarn_orig_ctx
