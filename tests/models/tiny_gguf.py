"""Writes Llama-architecture GGUFs with random weights and a byte-level vocabulary, for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

SPECIAL_TOKENS = ("<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_MERGED_WORDS = (" the", " cat", " sat", " on", " mat", "ing", " and", " dog", "ello")


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in a GPT-2 vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    codes = {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}
    return [chr(codes[byte]) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges): 256 bytes, some words built by merges, then the special tokens."""
    characters = _byte_characters()
    tokens, merges = list(characters), []
    for word in _MERGED_WORDS:
        parts = [characters[byte] for byte in word.encode()]
        while len(parts) > 1:
            left, right, *rest = parts
            if f"{left} {right}" not in merges:
                merges.append(f"{left} {right}")
            if left + right not in tokens:
                tokens.append(left + right)
            parts = [left + right, *rest]
    return [*tokens, *SPECIAL_TOKENS], merges


def special_id(name: str) -> int:
    """Token id of a special token, such as "<|end|>"."""
    return vocabulary()[0].index(name)


def write_tiny_gguf(
    path: Path,
    *,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ff: int = 128,
    n_ctx_train: int = 512,
    seed: int = 0,
    eos_token_id: int | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
    architecture: str = "llama",
    tied: bool = False,
    metadata: Mapping[str, float | str] | None = None,
    further_tokens: Sequence[str] = (),
    change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> Path:
    """Writes the file and returns its path. Equal arguments give equal files.

    ``metadata`` are further keys, of floats and strings; ``further_tokens`` are special and come last; ``change`` gets
    each tensor and gives what is written.
    """
    rng = np.random.default_rng(seed)
    tokens, merges = vocabulary()
    n_special = len(SPECIAL_TOKENS) + len(further_tokens)
    tokens += further_tokens
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny-{seed}")
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv)
    writer.add_rope_dimension_count(n_embd // n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    n_normal = len(tokens) - n_special
    writer.add_token_types([gguf.TokenType.NORMAL] * n_normal + [gguf.TokenType.CONTROL] * n_special)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|bos|>"))
    writer.add_eos_token_id(tokens.index("<|end|>") if eos_token_id is None else eos_token_id)
    writer.add_add_bos_token(True)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    def weights(*shape: int) -> NDArray[np.float32]:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), np.float32)

    for key, value in (metadata or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)

    def add(name: str, values: NDArray[np.float32]) -> None:
        writer.add_tensor(name, values if change is None else np.ascontiguousarray(change(name, values), np.float32))

    n_kv = n_embd // n_head * n_head_kv
    add("token_embd.weight", weights(len(tokens), n_embd) * np.float32(4))
    add("output_norm.weight", np.ones(n_embd, np.float32))
    if not tied:
        add("output.weight", weights(len(tokens), n_embd) * np.float32(4))
    for layer in range(n_layer):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", np.ones(n_embd, np.float32))
        add(f"{block}.ffn_norm.weight", np.ones(n_embd, np.float32))
        add(f"{block}.attn_q.weight", weights(n_embd, n_embd) * np.float32(2))
        add(f"{block}.attn_k.weight", weights(n_kv, n_embd) * np.float32(2))
        add(f"{block}.attn_v.weight", weights(n_kv, n_embd) * np.float32(2))
        add(f"{block}.attn_output.weight", weights(n_embd, n_embd) * np.float32(2))
        add(f"{block}.ffn_gate.weight", weights(n_ff, n_embd))
        add(f"{block}.ffn_up.weight", weights(n_ff, n_embd))
        add(f"{block}.ffn_down.weight", weights(n_embd, n_ff))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
