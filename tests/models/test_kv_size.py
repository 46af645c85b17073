"""KV bytes of a token, by the header."""

from __future__ import annotations

from pathlib import Path

from hearth.models.gguf_header import GgufHeader, read_gguf_header
from hearth.models.kv_size import kv_bytes_per_token


def header(architecture: str = "llama", **metadata: int) -> GgufHeader:
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return GgufHeader(Path("m.gguf"), 3, 0, 0, 0, {"general.architecture": architecture, **named})


def test_the_theoretical_size_follows_the_header(tiny_model: Path) -> None:
    dense = {"block_count": 24, "embedding_length": 896, "attention__head_count": 14, "attention__head_count_kv": 2}
    assert kv_bytes_per_token(header(**dense), "f16") == 12_288
    assert kv_bytes_per_token(header(**dense), "q8_0") == 12_288 * 17 / 32
    assert kv_bytes_per_token(header(**dense), "q4_0") == 12_288 * 9 / 32
    wide = {**dense, "attention__key_length": 128, "attention__value_length": 64}
    assert kv_bytes_per_token(header(**wide), "f16") == 24 * 2 * (128 + 64) * 2
    assert kv_bytes_per_token(header(**dense, ssm__state_size=16), "f16") is None
    assert kv_bytes_per_token(header("rwkv7", block_count=12), "f16") is None
    assert kv_bytes_per_token(read_gguf_header(tiny_model), "f16") == 256
