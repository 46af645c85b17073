"""Writes GGUFs with the shape of real models and random Q4_0 weights: speed does not depend on the weights.

    python benchmarks/random_models.py [--only 0.5b 0.5b-chain 3b tiny tiny-chain] [--force]

`0.5b` and `3b` have the shapes of Qwen2.5-0.5B and -3B with tied embeddings. Their layers outweigh the embedding of the
last token, so that every answer depends on all of the KV cache: a wrong restore shows at once. `…-chain` has layers
that hardly count and an output matrix of its own, made of the rows of the embeddings in another order: after each token
it says the next one of a fixed cycle through the words of the vocabulary, without ever ending. With it a text can be
copied, and an answer be had of which every token shows. The cycle is written beside it (`.cycle.npy`).

Prints a table and one JSON line. Files that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import mmap
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from sdist import MODELS, llama_cpp_source

BLOCK = 32  # weights that share a scale in Q4_0
BLOCK_BYTES = 2 + BLOCK // 2
NIBBLE_STD = 4.61  # of the numbers -8..7
SPREAD = 0.1  # standard deviation of the embeddings
SHARPNESS = 1.5  # of queries and keys: attention that looks at a few places
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model of architecture qwen2."""

    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    head_dim: int = 64
    n_ctx_train: int = 32768


SHAPES = {
    "tiny": Shape(64, 2, 2, 1, 128, head_dim=32, n_ctx_train=16384),
    "0.5b": Shape(896, 24, 14, 2, 4864),
    "3b": Shape(2048, 36, 16, 2, 11008, head_dim=128),
}
NAMES = ("0.5b", "0.5b-chain", "3b", "tiny", "tiny-chain")


def model_path(name: str) -> Path:
    return MODELS / f"random-{name}-q4_0.gguf"


def cycle_path(model: Path) -> Path:
    """Where the cycle of a chain model is: token ids in their order."""
    return model.with_suffix(".cycle.npy")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=["0.5b", "0.5b-chain", "3b"])
    parser.add_argument("--force", action="store_true", help="write files again that are there")
    options = parser.parse_args()
    written: dict[str, dict[str, Any]] = {}
    metadata: dict[str, Any] = {}
    for name in options.only:
        path = model_path(name)
        started_s = time.perf_counter()
        if options.force or not path.is_file():
            metadata = metadata or read_vocabulary(llama_cpp_source() / "models" / "ggml-vocab-qwen2.gguf")
            print(f"writing {path.name}", file=sys.stderr)
            write_model(path, SHAPES[name.removesuffix("-chain")], metadata, chain=name.endswith("-chain"))
        size, elapsed_s = path.stat().st_size, time.perf_counter() - started_s
        print(f"{name:<12} {size / 1e6:8.0f} MB   {elapsed_s:6.1f} s   {path}")
        written[name] = {"bytes": size, "seconds": round(elapsed_s, 1)}
    print(json.dumps({"benchmark": "random_models", "models": written}))
    return 0


def write_model(path: Path, shape: Shape, vocabulary: dict[str, Any], *, chain: bool) -> None:
    """Writes the file whole or not at all. Equal arguments give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "qwen2")
    _add_metadata(writer, path.stem, shape, vocabulary)
    tokens = vocabulary["tokenizer.ggml.tokens"]
    tensors = _tensors(shape, len(tokens), chain=chain)
    for name, rows, columns, _ in tensors:
        if columns % BLOCK == 0 and rows > 1:
            n_bytes = columns // BLOCK * BLOCK_BYTES
            writer.add_tensor_info(
                name, (rows, n_bytes), np.dtype(np.uint8), rows * n_bytes, gguf.GGMLQuantizationType.Q4_0
            )
        else:
            writer.add_tensor_info(name, (columns,), np.dtype(np.float32), columns * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(20_250)
    embeddings: NDArray[np.uint8] | None = None
    for name, rows, columns, std in tensors:
        if name == "output.weight":
            assert embeddings is not None
            cycle = words_in_a_cycle(tokens)
            np.save(cycle_path(path), cycle)
            data = embeddings.copy()
            data[np.roll(cycle, -1)] = embeddings[cycle]  # the row of what follows a token is that token's
        elif rows > 1:
            data = random_q4_0(rng, rows, columns, std)
        elif name.endswith("norm.weight"):
            data = np.ones(columns, np.float32)
        else:
            data = (rng.standard_normal(columns) * std).astype(np.float32)
        if name == "token_embd.weight" and chain:
            embeddings = data
        writer.write_tensor_data(data)
    writer.close()
    partial.replace(path)


def _tensors(shape: Shape, n_vocab: int, *, chain: bool) -> list[tuple[str, int, int, float]]:
    """(name, rows, columns, standard deviation); one row is a vector."""
    n, n_q, n_kv = shape.n_embd, shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    out = 1e-4 if chain else 1.0  # what the layers add, in units of the residual stream
    found = [("token_embd.weight", n_vocab, n, SPREAD), ("output_norm.weight", 1, n, 0.0)]
    if chain:
        found.append(("output.weight", n_vocab, n, SPREAD))
    for layer in range(shape.n_layer):
        block = f"blk.{layer}"
        found += [
            (f"{block}.attn_norm.weight", 1, n, 0.0),
            (f"{block}.attn_q.weight", n_q, n, SHARPNESS / n**0.5),
            (f"{block}.attn_k.weight", n_kv, n, SHARPNESS / n**0.5),
            (f"{block}.attn_v.weight", n_kv, n, 1 / n**0.5),
            (f"{block}.attn_q.bias", 1, n_q, 0.1),
            (f"{block}.attn_k.bias", 1, n_kv, 0.1),
            (f"{block}.attn_v.bias", 1, n_kv, 0.1),
            (f"{block}.attn_output.weight", n, n_q, out / n_q**0.5),
            (f"{block}.ffn_norm.weight", 1, n, 0.0),
            (f"{block}.ffn_gate.weight", shape.n_ff, n, 1 / n**0.5),
            (f"{block}.ffn_up.weight", shape.n_ff, n, 1 / n**0.5),
            (f"{block}.ffn_down.weight", n, shape.n_ff, 2 * out / shape.n_ff**0.5),
        ]
    return found


def random_q4_0(rng: np.random.Generator, rows: int, columns: int, std: float) -> NDArray[np.uint8]:
    """Q4_0 blocks of about that standard deviation, shape (rows, bytes of a row)."""
    n_blocks = rows * columns // BLOCK
    blocks = np.empty((n_blocks, BLOCK_BYTES), np.uint8)
    # scales differ a little, as they do in real models
    scales = (rng.uniform(0.8, 1.2, n_blocks) * std / NIBBLE_STD).astype(np.float16)
    blocks[:, :2] = scales[:, None].view(np.uint8)
    blocks[:, 2:] = np.frombuffer(rng.bytes(n_blocks * (BLOCK // 2)), np.uint8).reshape(n_blocks, BLOCK // 2)
    return blocks.reshape(rows, columns // BLOCK * BLOCK_BYTES)


def words_in_a_cycle(tokens: list[bytes]) -> NDArray[np.int64]:
    """The ids of tokens that are plain words with a space before them, shuffled."""
    space = "Ġ".encode()
    words = [i for i, token in enumerate(tokens) if token.startswith(space) and token[len(space) :].isalpha()]
    words = [i for i in words if tokens[i][len(space) :].isascii()]
    return np.random.default_rng(1).permutation(np.array(words, np.int64))


def _add_metadata(writer: gguf.GGUFWriter, name: str, shape: Shape, vocabulary: dict[str, Any]) -> None:
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary["tokenizer.ggml.tokens"])
    writer.add_token_types(vocabulary["tokenizer.ggml.token_type"])
    writer.add_token_merges(vocabulary["tokenizer.ggml.merges"])
    writer.add_bos_token_id(vocabulary["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(vocabulary["tokenizer.ggml.eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(vocabulary["tokenizer.chat_template"].decode())


def read_vocabulary(path: Path) -> dict[str, Any]:
    """The `tokenizer.…` metadata of a GGUF, strings as bytes. The package's own reader takes half a minute for it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        magic, version, _, n_entries = struct.unpack_from("<4sIQQ", content)
        if magic != b"GGUF" or version not in (2, 3):
            raise SystemExit(f"{path}: not a GGUF that can be read")
        at, found = 24, {}
        for _ in range(n_entries):
            key, at = _string(content, at)
            (kind,) = struct.unpack_from("<I", content, at)
            value, at = _value(content, at + 4, kind)
            if key.startswith(b"tokenizer."):
                found[key.decode()] = value
    return found


def _string(content: mmap.mmap, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", content, at)
    return content[at + 8 : at + 8 + length], at + 8 + length


def _value(content: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(content, at)
    if kind != _ARRAY:
        (value,) = struct.unpack_from("<" + _SCALARS[kind], content, at)
        return value, at + struct.calcsize(_SCALARS[kind])
    inner, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if inner in _SCALARS:
        size = struct.calcsize(_SCALARS[inner])
        values = struct.unpack_from(f"<{count}{_SCALARS[inner]}", content, at)
        return list(values), at + size * count
    items = []
    for _ in range(count):
        item, at = _string(content, at)
        items.append(item)
    return items, at


if __name__ == "__main__":
    sys.exit(main())
