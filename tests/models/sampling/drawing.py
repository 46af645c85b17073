"""What tests of sampling share: samplers on recorded logits, and answers by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearth.models.engine.sampler import TokenSampler
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import DecodeStatus, LlamaContext
from hearth.models.types import SamplingParams

ALL = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
    "required": ["ok", "colour"],
}
MakeSampler = Callable[..., TokenSampler]
TRUNCATIONS = {
    "temperature": ALL,
    "cold": replace(ALL, temperature=0.4),
    "hot": replace(ALL, temperature=2.5),
    "top_k": replace(ALL, top_k=7),
    "top_k 1": replace(ALL, top_k=1),
    "top_k beyond the vocabulary": replace(ALL, top_k=10**9, top_p=0.8),
    "top_p": replace(ALL, top_p=0.7),
    "top_p 0": replace(ALL, top_p=0.0),
    "min_p": replace(ALL, min_p=0.1),
    "min_p 1": replace(ALL, min_p=1.0),
    "typical_p": replace(ALL, typical_p=0.6),
    "typical_p with top_k": replace(ALL, typical_p=0.6, top_k=30),
    "typical_p, top_p": replace(ALL, typical_p=0.9, top_p=0.8),
    "all": replace(ALL, temperature=1.3, top_k=40, typical_p=0.95, top_p=0.9, min_p=0.02),
    "defaults": SamplingParams(temperature=0.8),
}


@dataclass
class Recorded:
    """Stands for a context: logits of shape (n_rows, n_vocab) that were computed before."""

    model: LlamaModel
    rows: NDArray[np.float32]

    def logits(self, row: int) -> NDArray[np.float32]:
        return self.rows[row]


def decode(context: LlamaContext, tokens: list[int], start: int) -> DecodeStatus:
    n = len(tokens)
    positions, seq_ids = np.arange(start, start + n, dtype=np.int32), np.zeros(n, np.int32)
    return context.decode_tokens(np.array(tokens, np.int32), positions, seq_ids, np.ones(n, np.int8))


def generate(context: LlamaContext, sampler: TokenSampler, n: int = 60, prompt: Sequence[int] = (1, 2, 3)) -> list[int]:
    """Up to ``n`` tokens, an end-of-generation token included."""
    context.clear()
    answer: list[int] = []
    pending = list(prompt)
    while len(answer) < n:
        assert decode(context, pending, len(prompt) + len(answer) - len(pending) if answer else 0) is DecodeStatus.DONE
        pending = [sampler.sample(len(pending) - 1)]
        answer += pending
        if context.model.is_eog(answer[-1]):
            break
    return answer


def spread(n: int, seed: int = 0, scale: float = 3.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def one_row(model: LlamaModel, row: NDArray[np.float32] | None = None) -> Recorded:
    return Recorded(model, (spread(model.n_vocab) if row is None else row)[np.newaxis].copy())


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())
