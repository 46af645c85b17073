"""What a model file says of itself in its header: what it is for, its quantization, its context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from hearth.models.discovery import FoundModel
from hearth.models.errors import ModelFileError
from hearth.models.gguf_header import GgufHeader, read_gguf_header

Use = Literal["chat", "embedding", "speech", "encoder", "adapter", "unknown"]
KEPT_HEADERS = 512  # of files that did not change since they were read
# LLAMA_FTYPE, by number
_QUANTS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
_EMBEDDING_WORDS = ("bert", "t5encoder", "gemma-embedding")


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What the header tells; "" and None where it does not. ``problem`` is why the model cannot answer, or ""."""

    use: Use
    architecture: str = ""
    title: str = ""
    quant: str = ""
    n_ctx: int | None = None  # tokens it was trained on
    problem: str = ""


def describe(model: FoundModel) -> ModelDetails:
    """Reads the header of the model's first part; a file that cannot be read is described by its problem."""
    if model.problem:
        return ModelDetails("unknown", problem=model.problem)
    if model.path.suffix == ".pt":
        return ModelDetails("speech")
    if model.path.suffix == ".safetensors":
        return ModelDetails("embedding")
    try:
        status = model.path.stat()
    except OSError as error:
        return ModelDetails("unknown", problem=f"cannot be read: {error.strerror}")
    return _described(model.path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=KEPT_HEADERS)
def _described(path: Path, size_bytes: int, changed_ns: int) -> ModelDetails:  # noqa: ARG001  # they tell a changed file
    try:
        header = read_gguf_header(path)
    except ModelFileError as error:
        return ModelDetails("unknown", problem=str(error).removeprefix(f"{path}: "))
    quant = header.metadata.get("general.file_type")
    n_ctx = header.metadata.get(f"{header.architecture}.context_length")
    use = _use(header)
    return ModelDetails(
        use=use,
        architecture=header.architecture,
        title=str(header.metadata.get("general.name", "")),
        quant=_QUANTS.get(quant, "") if isinstance(quant, int) else "",
        n_ctx=n_ctx if isinstance(n_ctx, int) else None,
        problem=_problem(header, use),
    )


def _use(header: GgufHeader) -> Use:
    type_ = header.metadata.get("general.type", "model")
    if header.architecture == "clip" or type_ == "mmproj":
        return "encoder"
    if type_ == "adapter":
        return "adapter"
    if (
        any(word in header.architecture for word in _EMBEDDING_WORDS)
        or f"{header.architecture}.pooling_type" in header.kinds
    ):
        return "embedding"
    return "chat"


def _problem(header: GgufHeader, use: Use) -> str:
    if header.n_tensors == 0:
        return "a vocabulary without weights"
    if use == "encoder":
        return "an encoder (mmproj) alone, not a model that answers"
    if use == "adapter":
        return "a LoRA adapter, not a model; it is given by the setting lora"
    if use == "chat" and f"{header.architecture}.vision.block_count" in header.kinds:
        return "made for Ollama's own engine, with the encoder inside; llama.cpp does not load it: pull a GGUF of it"
    return ""
