"""What a token takes of the KV cache, by the header alone."""

from __future__ import annotations

from typing import Final

from hearth.models.gguf_header import GgufHeader

KV_ELEMENT_BYTES: Final = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


def kv_bytes_per_token(header: GgufHeader, kv_type: str) -> float | None:
    """K and V of one token in all layers; None for models that do not keep both of every token, and where the layers
    differ."""
    architecture = header.architecture

    def number(key: str) -> int:
        value = header.metadata.get(f"{architecture}.{key}", 0)
        return int(value) if isinstance(value, int) and value >= 0 else 0

    if any(key.startswith((f"{architecture}.ssm.", f"{architecture}.wkv.")) for key in header.metadata):
        return None
    if any(f"{architecture}.attention.{key}" in header.lengths for key in ("head_count", "head_count_kv")):
        return None
    n_head = number("attention.head_count")
    n_head_kv = number("attention.head_count_kv") or n_head
    head_dim = number("embedding_length") // n_head if n_head else 0
    key, value = number("attention.key_length") or head_dim, number("attention.value_length") or head_dim
    n_layers = number("block_count") - number("attention.shared_kv_layers")
    if n_layers <= 0 or not n_head_kv * (key + value):
        return None
    return n_layers * n_head_kv * (key + value) * KV_ELEMENT_BYTES[kv_type]
