"""LoRA adapters as owned Python objects. What would end the process in native code is refused before it gets there.

Adapters are loaded before the context is made, which counts them in its graph, and freed before the model.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hearth.models.errors import ModelFileError
from hearth.models.gguf_header import BF16, F16, F32, FLOAT32, Q8_0, GgufHeader, GgufTensor, read_gguf_header
from hearth.models.llama import LlamaModel, complaint, native

logger = logging.getLogger("hearth.llama")

_KINDS = (F32, F16, BF16, Q8_0)  # what converters write
_PARTS = (".lora_a", ".lora_b")
_EMBEDDING = "token_embd.weight"
_ALPHA = "adapter.lora.alpha"
_WRONG_BASE = "it was made for another model"


class LlamaAdapter:
    """One LoRA adapter of a loaded model. ``close()`` before the model's, after the contexts'."""

    def __init__(self, handle: Any, path: Path, sha256: str) -> None:
        """Takes ownership. Use ``LlamaAdapter.load``."""
        self.path = path
        self.sha256 = sha256  # of the whole file
        self._handle = handle

    @classmethod
    def load(cls, model: LlamaModel, path: Path, base: GgufHeader) -> LlamaAdapter:
        """Reads an adapter for ``model``, whose header is ``base``.

        Raises ModelFileError: missing, damaged, not an adapter, or one of another model.
        """
        header = read_gguf_header(path)
        _check_metadata(header, base)
        _check_tensors(header, base)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
        handle, reason = complaint(
            lambda: native.llama_adapter_lora_init(model.handle, str(path).encode()), "no reason given"
        )
        if not handle:
            raise ModelFileError(f"{path}: llama.cpp cannot load this adapter: {reason}")
        adapter = cls(handle, path, sha256)
        if native.llama_adapter_get_alora_n_invocation_tokens(handle):
            adapter.close()
            raise ModelFileError(f"{path}: an activated LoRA, for parts of a text; use a plain LoRA adapter")
        return adapter

    @property
    def handle(self) -> Any:
        assert self._handle is not None, "the adapter is closed"
        return self._handle

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            native.llama_adapter_lora_free(handle)


def _check_metadata(header: GgufHeader, base: GgufHeader) -> None:
    path, said = header.path, header.metadata
    if said.get("general.type") != "adapter":
        raise ModelFileError(f"{path}: a {said.get('general.type', 'model')}, not a LoRA adapter; name it as the model")
    if said.get("adapter.type") != "lora":
        raise ModelFileError(f"{path}: an adapter of type {said.get('adapter.type')!r}; only lora is supported")
    if said.get("general.architecture") != base.architecture:
        raise ModelFileError(
            f"{path}: an adapter for {said.get('general.architecture')!r} models, but {base.path.name} is "
            f"{base.architecture!r}; {_WRONG_BASE}"
        )
    if _ALPHA in header.kinds and header.kinds[_ALPHA] != FLOAT32:
        raise ModelFileError(f"{path}: damaged: {_ALPHA} is not a 32-bit float; convert the adapter again")
    alpha = said.get(_ALPHA, 0.0)
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise ModelFileError(f"{path}: damaged: {_ALPHA} is {alpha}; convert the adapter again")


def _check_tensors(header: GgufHeader, base: GgufHeader) -> None:
    """That every tensor has its pair, and every pair a weight of the model that it fits."""
    names = {name.removesuffix(part) for name in header.tensors for part in _PARTS if name.endswith(part)}
    if not names:
        raise ModelFileError(f"{header.path}: there are no LoRA tensors in it; convert the adapter again")
    for name in sorted(names):
        a, b = (header.tensors.get(name + part) for part in _PARTS)
        if a is None or b is None:
            missing = _PARTS[a is not None]
            raise ModelFileError(f"{header.path}: {name}{missing} is missing; convert the adapter again")
        weight = base.tensors.get(name)
        if weight is None:
            raise ModelFileError(f"{header.path}: {base.path.name} has no tensor {name}; {_WRONG_BASE}")
        if name == _EMBEDDING and "output.weight" not in base.tensors:
            raise ModelFileError(
                f"{header.path}: it changes {name}, which is the output of {base.path.name} too; llama.cpp cannot do "
                "that: merge the adapter into the model"
            )
        for part, tensor in zip(_PARTS, (a, b), strict=True):
            if tensor.kind not in _KINDS:
                raise ModelFileError(
                    f"{header.path}: {name}{part} is of ggml type {tensor.kind}; convert it to f32, f16, bf16 or q8_0"
                )
        if not _fits(name, a, b, weight):
            raise ModelFileError(
                f"{header.path}: {name} has lora_a {a.shape} and lora_b {b.shape}, which do not fit the model's "
                f"{weight.shape}; {_WRONG_BASE}"
            )
    norms = [name for name in header.tensors if name.endswith("_norm.weight")]
    if norms:
        logger.warning("%s: llama.cpp leaves out its %d tensors of norms", header.path, len(norms))


def _fits(name: str, a: GgufTensor, b: GgufTensor, weight: GgufTensor) -> bool:
    (n_in, n_out), experts = _matrix(weight), weight.shape[2:]
    if name == _EMBEDDING:  # looked up by rows, so lora_a is the other way round
        (rank, n_tokens), (b_rank, n_embd) = _matrix(a), _matrix(b)
        fits = (n_embd, n_tokens) == (n_in, n_out)
    else:
        (a_in, rank), (b_rank, b_out) = _matrix(a), _matrix(b)
        fits = (a_in, b_out) == (n_in, n_out)
    return fits and rank == b_rank > 0 and _stacked(a) == _stacked(b) == tuple(n for n in experts if n != 1)


def _matrix(tensor: GgufTensor) -> tuple[int, int]:
    """(width of a row, number of rows)."""
    shape = (*tensor.shape, 1, 1)
    return shape[0], shape[1]


def _stacked(tensor: GgufTensor) -> tuple[int, ...]:
    return tuple(n for n in tensor.shape[2:] if n != 1)


def load_adapters(model: LlamaModel, paths: Sequence[Path], base: GgufHeader) -> list[LlamaAdapter]:
    """All of them, or none if one fails."""
    adapters: list[LlamaAdapter] = []
    try:
        for path in paths:
            adapters.append(LlamaAdapter.load(model, path, base))
    except BaseException:
        for adapter in adapters:
            adapter.close()
        raise
    return adapters
