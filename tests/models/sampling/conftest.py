"""A tiny model, its context, and samplers that are closed in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearth.models.engine.sampler import TokenSampler
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import ContextOptions, DecodeStatus, LlamaContext
from hearth.models.types import SamplingParams
from tests.models.sampling.drawing import (
    MakeSampler,
    Recorded,
    decode,
)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[LlamaModel]:
    loaded = LlamaModel.load(tiny_model)
    yield loaded
    loaded.close()


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    made = LlamaContext(model, ContextOptions(n_ctx=512))
    yield made
    made.close()


@pytest.fixture
def recorded(model: LlamaModel, context: LlamaContext) -> Recorded:
    """The rows of a batch of 64 tokens."""
    n = 64
    tokens = np.random.default_rng(0).integers(32, 127, n).astype(np.int32)
    assert decode(context, tokens.tolist(), 0) is DecodeStatus.DONE
    return Recorded(model, np.stack([context.logits(row) for row in range(n)]))


@pytest.fixture
def make() -> Iterator[MakeSampler]:
    made: list[TokenSampler] = []

    def sampler(source: Any, sampling: SamplingParams, before: Sequence[object] = (), seed: int = 1) -> TokenSampler:
        made.append(TokenSampler(source, sampling, seed, before))
        return made[-1]

    yield sampler
    for one in made:
        one.close()
