"""A llama.cpp context as an owned Python object: batches are decoded in it, and it holds the KV cache.

A context belongs to one thread.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import EngineError
from hearth.models.llama import LlamaModel, forget_complaints, last_complaint, native

KvType = Literal["f16", "q8_0", "q4_0"]
RopeScalingType = Literal["none", "linear", "yarn"]
_GGML_TYPES: dict[str, int] = {
    "f16": native.GGML_TYPE_F16,
    "q8_0": native.GGML_TYPE_Q8_0,
    "q4_0": native.GGML_TYPE_Q4_0,
}
_ROPE_SCALINGS: dict[str | None, int] = {
    None: native.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
    "none": native.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": native.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": native.LLAMA_ROPE_SCALING_TYPE_YARN,
}
# the binding's own gives a pointer object, whose address takes longer to get than to use
_logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", native._lib)
)


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
        forget_complaints()
        self._handle: int | None = native.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise EngineError(
                f"{model.path.name}: no context of {options.n_ctx} tokens with KV type {options.kv_type}: "
                f"{last_complaint('not enough memory')}; try a smaller n_ctx or kv_type f16"
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

    def decode_again(self, tokens: list[int]) -> DecodeStatus:
        """As ``decode_tokens`` with the rows of its last call, which had one token of each sequence, at the positions
        behind."""
        n = len(tokens)
        self._tokens[:n] = tokens
        self._positions[:n] += 1
        return self._decode_batch()

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
        return self._decode_batch()

    def _decode_batch(self) -> DecodeStatus:
        forget_complaints()
        status: int = native.llama_decode(self.handle, self._batch)
        if status == 0:
            return DecodeStatus.DONE
        if status in (1, 2):
            return DecodeStatus(status)
        n = self._batch.n_tokens
        raise EngineError(
            f"llama.cpp could not decode {n} tokens (status {status}): {last_complaint('no reason given')}"
        )

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
            raise EngineError(f"llama.cpp refused the {n} adapters: {last_complaint('no reason given')}")

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
