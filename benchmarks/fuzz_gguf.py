"""Hostile GGUFs for fuzz.py: a model, an encoder and an adapter of a few kB, taken apart and put together wrongly."""

from __future__ import annotations

import importlib
import random
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fuzz_bytes import HOSTILE_NUMBERS, mutated
from sdist import ROOT

STRING, ARRAY, UINT32, FLOAT32, BOOL = 8, 9, 4, 6, 7
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
ARCHITECTURES = (
    *("qwen2", "qwen2moe", "gemma3", "phi3", "mamba", "rwkv6", "t5", "bert", "clip", "deepseek2", "gpt2", "lfm2"),
    *("", "no such", "llama" * 4000, "../../etc", "%s%n%p", "\x1b[2J"),
)


@dataclass
class Parts:
    """A GGUF in its parts. ``entries`` are (key, type, bytes of the value); ``tensors`` (name, dimensions, type,
    offset)."""

    entries: list[tuple[bytes, int, bytes]]
    tensors: list[tuple[bytes, list[int], int, int]]
    weights: bytes
    version: int = 3
    n_entries: int | None = None  # as announced; None for the truth
    n_tensors: int | None = None

    def head(self) -> bytes:
        out = bytearray(b"GGUF" + struct.pack("<I", self.version))
        out += struct.pack("<Q", len(self.tensors) if self.n_tensors is None else self.n_tensors)
        out += struct.pack("<Q", len(self.entries) if self.n_entries is None else self.n_entries)
        for key, kind, value in self.entries:
            out += text(key) + struct.pack("<I", kind) + value
        for name, shape, kind, offset in self.tensors:
            out += text(name) + struct.pack("<I", len(shape)) + b"".join(u64(n) for n in shape)
            out += struct.pack("<I", kind) + u64(offset)
        return bytes(out)

    def file(self) -> bytes:
        head = self.head()
        return head + bytes(-len(head) % 32) + self.weights

    def put(self, key: bytes, kind: int, value: bytes) -> None:
        """In the place of the entry, or at the end."""
        at = next((i for i, entry in enumerate(self.entries) if entry[0] == key), len(self.entries))
        self.entries[at : at + 1] = [(key, kind, value)]


def u64(value: int) -> bytes:
    return struct.pack("<Q", value & (2**64 - 1))


def text(value: bytes) -> bytes:
    return u64(len(value)) + value


def taken_apart(data: bytes) -> Parts:
    at = 24

    def number(format_: str) -> Any:
        nonlocal at
        value = struct.unpack_from("<" + format_, data, at)[0]
        at += struct.calcsize("<" + format_)
        return value

    def string() -> bytes:
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length : at]

    def skip(kind: int) -> None:
        if kind == STRING:
            string()
        elif kind == ARRAY:
            of, count = number("I"), number("Q")
            for _ in range(count):
                skip(of)
        else:
            number(_FORMATS[kind])

    n_tensors, n_entries = struct.unpack_from("<QQ", data, 8)
    entries, tensors = [], []
    for _ in range(n_entries):
        key, kind = string(), number("I")
        start = at
        skip(kind)
        entries.append((key, kind, data[start:at]))
    for _ in range(n_tensors):
        name = string()
        shape = [number("Q") for _ in range(number("I"))]
        tensors.append((name, shape, number("I"), number("Q")))
    return Parts(entries, tensors, data[at + (-at % 32) :])


@cache
def originals() -> dict[str, bytes]:
    """Sound files by the writers of the tests: "model", "encoder", "adapter", and the "text" the encoder is for."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    tiny, lora, mmproj, texts = (
        importlib.import_module(f"tests.models.{name}")
        for name in ("tiny_gguf", "tiny_lora", "tiny_mmproj", "tiny_architectures")
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.gguf"
        return {
            "model": tiny.write_tiny_gguf(path).read_bytes(),
            "adapter": lora.random_lora(1).write(path).read_bytes(),
            "encoder": mmproj.write_llava(path).read_bytes(),
            "text": texts.write_llama(path).read_bytes(),
        }


def hostile(rng: random.Random, number: int) -> tuple[str, str, bytes]:
    """(what is hostile, which of ``originals`` it was, the file)."""
    role = ("model", "model", "model", "encoder", "adapter")[number % 5]
    way = WAYS[number % len(WAYS)]
    parts = taken_apart(originals()[role])
    made = way(rng, parts)
    return way.__name__.strip("_"), role, made if made is not None else parts.file()


def _flip_header(rng: random.Random, parts: Parts) -> bytes:
    head = bytearray(parts.head())
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        head[rng.randrange(len(head))] ^= 1 << rng.randrange(8)
    return bytes(head) + bytes(-len(head) % 32) + parts.weights


def _mutate_header(rng: random.Random, parts: Parts) -> bytes:
    return mutated(rng, parts.head()) + parts.weights


def _huge_count(rng: random.Random, parts: Parts) -> None:
    if rng.random() < 0.5:
        parts.n_tensors = rng.choice(HOSTILE_NUMBERS)
    else:
        parts.n_entries = rng.choice(HOSTILE_NUMBERS)


def _huge_length(rng: random.Random, parts: Parts) -> None:
    at = rng.choice([i for i, entry in enumerate(parts.entries) if entry[1] in (STRING, ARRAY)])
    key, kind, value = parts.entries[at]
    length = u64(rng.choice(HOSTILE_NUMBERS))
    parts.entries[at] = (key, kind, length + value[8:] if kind == STRING else value[:4] + length + value[12:])


def _bad_number(rng: random.Random, parts: Parts) -> None:
    numbers = [i for i, entry in enumerate(parts.entries) if entry[1] not in (STRING, ARRAY)]
    for at in rng.sample(numbers, rng.choice((1, 1, 1, 2))):
        key, kind, _ = parts.entries[at]
        if kind in (FLOAT32, 12):
            value = struct.pack("<f" if kind == FLOAT32 else "<d", rng.choice((0.0, -1.0, 1e38, float("nan"), 1e-40)))
        else:
            size = struct.calcsize(_FORMATS[kind])
            value = (rng.choice(HOSTILE_NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        parts.entries[at] = (key, kind, value)


def _bad_type(rng: random.Random, parts: Parts) -> None:
    at = rng.randrange(len(parts.entries))
    kind, value = rng.choice(
        [
            (STRING, text(b"7")),
            (STRING, text(b"\xff\xfe\x00")),
            (ARRAY, struct.pack("<IQ", UINT32, 0)),
            (ARRAY, struct.pack("<IQ", UINT32, 3) + bytes(12)),
            (ARRAY, struct.pack("<IQ", STRING, 1) + text(b"x")),
            (FLOAT32, struct.pack("<f", 1.5)),
            (BOOL, b"\x02"),
            (11, struct.pack("<q", -1)),
            (13, bytes(8)),
            (2**32 - 1, b""),
        ]
    )
    parts.entries[at] = (parts.entries[at][0], kind, value)


def _cut(rng: random.Random, parts: Parts) -> bytes:
    whole, head = parts.file(), len(parts.head())
    return whole[
        : rng.choice((rng.randrange(64), rng.randrange(head), head, len(whole) - 1, rng.randrange(len(whole))))
    ]


def _nested_array(rng: random.Random, parts: Parts) -> None:
    depth = rng.choice((3, 5, 64, 100_000))
    value = struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", UINT32, 1) + bytes(4)
    parts.put(rng.choice((b"general.name", b"tokenizer.ggml.tokens", b"x")), ARRAY, value)


def _wide_nested_array(_rng: random.Random, parts: Parts) -> None:
    inner = struct.pack("<IQ", UINT32, 0)
    parts.put(b"x", ARRAY, struct.pack("<IQ", ARRAY, 400_000) + inner * 400_000)


def _alignment(rng: random.Random, parts: Parts) -> None:
    parts.put(b"general.alignment", UINT32, struct.pack("<I", rng.choice((0, 1, 3, 7, 33, 4096, 2**31, 2**32 - 1))))


def _tensor_offset(rng: random.Random, parts: Parts) -> None:
    at = rng.randrange(len(parts.tensors))
    name, shape, kind, offset = parts.tensors[at]
    wrong = rng.choice((1, offset + 1, len(parts.weights), 2**40, 2**63 - 1, 2**64 - 32, 0))
    parts.tensors[at] = (name, shape, kind, wrong)


def _tensor_shape(rng: random.Random, parts: Parts) -> None:
    at = rng.randrange(len(parts.tensors))
    name, shape, kind, offset = parts.tensors[at]
    wrong = rng.choice(
        [
            [],
            [0] * len(shape),
            [1] * 4,
            [2**32, 2**32],
            [2**63],
            shape[::-1],
            [*shape, 1, 1, 1, 1],
            [n + 1 for n in shape],
            [max(1, n // 2) for n in shape],
            [2**31, 2**31, 4],
            [0, *shape[1:]],
        ]
    )
    parts.tensors[at] = (name, wrong, kind, offset)


def _tensor_type(rng: random.Random, parts: Parts) -> None:
    at = rng.randrange(len(parts.tensors))
    name, shape, _, offset = parts.tensors[at]
    parts.tensors[at] = (
        name,
        shape,
        rng.choice((1, 2, 4, 5, 8, 12, 19, 24, 31, 36, 39, 43, 255, 2**31, 2**32 - 1)),
        offset,
    )


def _duplicated_key(rng: random.Random, parts: Parts) -> None:
    key, kind, value = rng.choice(parts.entries)
    if rng.random() < 0.5:
        kind, value = UINT32, struct.pack("<I", rng.choice((0, 1, 2**31)))
    parts.entries.append((key, kind, value))


def _duplicated_tensor(rng: random.Random, parts: Parts) -> None:
    parts.tensors.append(rng.choice(parts.tensors))


def _missing(rng: random.Random, parts: Parts) -> None:
    if rng.random() < 0.5:
        del parts.entries[rng.randrange(len(parts.entries))]
    else:
        del parts.tensors[rng.randrange(len(parts.tensors))]


def _architecture(rng: random.Random, parts: Parts) -> None:
    name = rng.choice(ARCHITECTURES).encode()
    old = next((value[8:] for key, _, value in parts.entries if key == b"general.architecture"), b"llama")
    parts.entries = [(key.replace(old + b".", name[:60] + b"."), kind, value) for key, kind, value in parts.entries]
    parts.put(b"general.architecture", STRING, text(name))


def _shape_numbers(rng: random.Random, parts: Parts) -> None:
    """Widths, heads and layers that do not agree with the tensors."""
    words = (b"embedding_length", b"block_count", b"head_count", b"head_count_kv", b"feed_forward_length")
    words += (
        b"rope.dimension_count",
        b"context_length",
        b"patch_size",
        b"image_size",
        b"projection_dim",
        b"expert_count",
    )
    for at, (key, kind, value) in enumerate(parts.entries):
        if kind == UINT32 and key.endswith(words) and rng.random() < 0.4:
            number = struct.unpack("<I", value)[0]
            wrong = rng.choice((0, 1, 3, number * 2, number // 2, number + 1, 2**16, 2**31 - 1, 2**32 - 1))
            parts.entries[at] = (key, kind, struct.pack("<I", wrong & 0xFFFFFFFF))


def _vocabulary(rng: random.Random, parts: Parts) -> None:
    """Fewer or odd tokens, types and merges."""
    at = rng.choice([i for i, entry in enumerate(parts.entries) if entry[1] == ARRAY] or [0])
    key, kind, value = parts.entries[at]
    if kind != ARRAY:
        return _bad_type(rng, parts)
    of = struct.unpack_from("<I", value)[0]
    if of == STRING:
        words = [b"", b" ", b"a", b"\xff\xff", b"x" * 100_000, b"\x00", b"a  b", b"<|end|>"]
        made = [rng.choice(words) for _ in range(rng.choice((0, 1, 50, 300)))]
        value = struct.pack("<IQ", STRING, len(made)) + b"".join(map(text, made))
    else:
        n = rng.choice((0, 1, 10_000))
        value = struct.pack("<IQ", 5, n) + struct.pack("<i", rng.choice((-1, 6, 99, 2**31 - 1))) * n
    parts.entries[at] = (key, kind, value)
    return None


def _token_ids(rng: random.Random, parts: Parts) -> None:
    for name in (b"bos", b"eos", b"eot", b"unknown", b"padding", b"fim_pre"):
        number = rng.choice((0, 260, 261, 262, 10_000, 2**31 - 1, 2**31, 2**32 - 1))
        parts.put(b"tokenizer.ggml." + name + b"_token_id", UINT32, struct.pack("<I", number))


def _tokenizer(rng: random.Random, parts: Parts) -> None:
    model = rng.choice((b"llama", b"bert", b"t5", b"rwkv", b"plamo2", b"none", b"no_vocab", b"", b"nothing"))
    parts.put(b"tokenizer.ggml.model", STRING, text(model))
    parts.put(b"tokenizer.ggml.pre", STRING, text(rng.choice((b"default", b"llama3", b"unheard of", b""))))


def _template(rng: random.Random, parts: Parts) -> None:
    from fuzz_templates import hostile as hostile_template

    parts.put(b"tokenizer.chat_template", STRING, text(hostile_template(rng, rng.randrange(200))[1].encode()))


def _weights(rng: random.Random, parts: Parts) -> None:
    """Not a number, infinite, or noise."""
    way = rng.randrange(3)
    n = len(parts.weights) // 4
    filled = struct.pack("<f", float("nan") if way == 0 else float("inf")) * n if way < 2 else rng.randbytes(n * 4)
    parts.weights = filled + parts.weights[n * 4 :]


def _rope_and_more(rng: random.Random, parts: Parts) -> None:
    prefix = next((value[8:] for key, _, value in parts.entries if key == b"general.architecture"), b"llama")
    for name in (b"rope.freq_base", b"rope.scaling.factor", b"attention.scale", b"attention.layer_norm_rms_epsilon"):
        wrong = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
        parts.put(prefix + b"." + name, FLOAT32, struct.pack("<f", wrong))
    for name in (b"attention.sliding_window", b"expert_count", b"expert_used_count", b"attention.key_length"):
        if rng.random() < 0.4:
            parts.put(prefix + b"." + name, UINT32, struct.pack("<I", rng.choice((0, 1, 7, 2**16, 2**31, 2**32 - 1))))


def _split(rng: random.Random, parts: Parts) -> None:
    parts.put(b"split.count", 2, struct.pack("<H", rng.choice((1, 2, 65_535))))
    parts.put(b"split.no", 2, struct.pack("<H", rng.choice((0, 1, 65_535))))


def _long_names(rng: random.Random, parts: Parts) -> None:
    parts.entries.append(
        (rng.choice((b"k" * 70_000, b"\xff" * 60, b"", b"a\x00b")), STRING, text(b"\x1b]0;x\x07" * 99))
    )
    name = rng.choice((b"t" * 64, b"t" * 200, b"", b"\xff\xfe", b"blk.999999999.attn_q.weight"))
    parts.tensors.append((name, [1], 0, 0))


WAYS: list[Callable[[random.Random, Parts], bytes | None]] = [
    *(_flip_header, _mutate_header, _huge_count, _huge_length, _bad_number, _bad_type, _cut, _nested_array, _alignment),
    *(_tensor_offset, _tensor_shape, _tensor_type, _duplicated_key, _duplicated_tensor, _missing, _architecture),
    *(_shape_numbers, _vocabulary, _token_ids, _tokenizer, _template, _weights, _rope_and_more, _split, _long_names),
    *(_wide_nested_array, _shape_numbers, _bad_number, _flip_header),
]
