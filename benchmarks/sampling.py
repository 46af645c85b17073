"""Time to choose one token from the logits of a large vocabulary, for each way of sampling.

The limit is numpy's argmax, which reads every logit once. Logits are made up: "peaked" falls off with the logarithm of
the rank as a trained model's do, "flat" is a model of random weights at its worst. Prints a table and, as the last
line, one JSON object. Microseconds are medians; the fastest round is beside them, for busy machines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from hearth.models.engine.sampler import TokenSampler
from hearth.models.llama import LlamaModel
from hearth.models.types import SamplingParams

N_EMBD = 32
PROMPT = list(range(1000, 1064))  # tokens that the penalties look back on
ALL = SamplingParams(temperature=0.8, top_k=0, top_p=1.0, min_p=0.0)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
CASES = {
    "greedy": SamplingParams(),
    "greedy, 100 biases": SamplingParams(logit_bias=dict.fromkeys(range(100), -1.0)),
    "greedy, penalties": SamplingParams(repeat_penalty=1.1, presence_penalty=0.1),
    "greedy, DRY": SamplingParams(dry_multiplier=0.8),
    "greedy, 5 logprobs": SamplingParams(n_logprobs=5),
    "top_k 40, top_p, min_p": SamplingParams(temperature=0.8),
    "the same, penalties": SamplingParams(temperature=0.8, repeat_penalty=1.1),
    "the same, typical_p": SamplingParams(temperature=0.8, typical_p=0.9),
    "top_k 1000": replace(ALL, top_k=1000),
    "min_p": replace(ALL, min_p=0.05),
    "top_p": replace(ALL, top_p=0.95),
    "typical_p": replace(ALL, typical_p=0.95),
    "mirostat 1": replace(ALL, mirostat=1),
    "mirostat 2": replace(ALL, mirostat=2),
    "temperature alone": ALL,
}


@dataclass
class Recorded:
    """Stands for a context: one row of logits that never changes."""

    model: LlamaModel
    row: NDArray[np.float32]

    def logits(self, _row: int) -> NDArray[np.float32]:
        return self.row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=128_256, help="tokens (default 128256)")
    parser.add_argument("--rounds", type=int, default=200, help="tokens per way of sampling (default 200)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = LlamaModel.load(write_model(Path(folder) / "large.gguf", options.vocabulary))
        result = {name: measure(model, row, options.rounds) for name, row in distributions(model.n_vocab).items()}
        model.close()
    print(json.dumps({"benchmark": "sampling", "vocabulary": options.vocabulary, "median_us": result}))
    return 0


def distributions(n_vocab: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(n_vocab) * 0.5
    peaked = 15 - 2 * np.log(1 + rng.permutation(n_vocab)) + noise
    return {"peaked": peaked.astype(np.float32), "flat": noise.astype(np.float32)}


def measure(model: LlamaModel, row: NDArray[np.float32], rounds: int) -> dict[str, float]:
    """Prints a table. Median µs by the name of the case."""
    medians: dict[str, float] = {}

    def add(name: str, choose: Callable[[], object], n: int = rounds) -> None:
        times_us = sorted(_us(choose) for _ in range(n + 1))[: n or 1]
        medians[name] = round(statistics.median(times_us), 1)
        print(f"{name:<26}{medians[name]:>10.1f} µs {times_us[0]:>10.1f} fastest")

    print(f"nucleus of 0.95: {nucleus_size(row):,} of {len(row):,} tokens")
    add("numpy argmax (the limit)", row.argmax)
    for name, sampling in CASES.items():
        sampler = TokenSampler(Recorded(model, row), sampling, 1, PROMPT)
        wants_logprobs = sampling.n_logprobs is not None
        add(name, (lambda s=sampler: s.logprobs(0, s.sample(0))) if wants_logprobs else (lambda s=sampler: s.sample(0)))
        sampler.close()
    add("JSON, '{' likely", lambda: one_json_token(model, row, likely=True), 20)
    add("JSON, '{' unlikely", lambda: one_json_token(model, row, likely=False), 5)
    print()
    return medians


def one_json_token(model: LlamaModel, row: NDArray[np.float32], *, likely: bool) -> None:
    """Makes the grammar too, and chooses the first token, which the schema decides."""
    (brace,) = model.tokenize("{")
    row = row.copy()
    row[brace] = row.max() - (2.0 if likely else 14.0)
    sampler = TokenSampler(Recorded(model, row), SamplingParams(temperature=0.8, json_schema=SCHEMA), 1, PROMPT)
    assert sampler.sample(0) == brace
    sampler.close()


def nucleus_size(row: NDArray[np.float32]) -> int:
    probabilities = np.sort(np.exp(row - row.max(), dtype=np.float64))[::-1]
    return int(np.searchsorted(np.cumsum(probabilities) / probabilities.sum(), 0.95)) + 1


def _us(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e6


def write_model(path: Path, n_vocab: int) -> Path:
    """One layer of random weights under a vocabulary of bytes and made-up words."""
    rng = np.random.default_rng(0)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    codes = {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}
    tokens = [chr(codes[byte]) for byte in range(256)]
    tokens += [f"w{i}" for i in range(n_vocab - len(tokens) - 1)] + ["<|end|>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(N_EMBD)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(N_EMBD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (n_vocab - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["w 0"])
    writer.add_bos_token_id(n_vocab - 1)
    writer.add_eos_token_id(n_vocab - 1)

    def weights(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    for name, rows in (("token_embd", n_vocab), ("output", n_vocab)):
        writer.add_tensor(f"{name}.weight", weights(rows, N_EMBD))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(N_EMBD, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(N_EMBD, N_EMBD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


if __name__ == "__main__":
    sys.exit(main())
