"""Perplexity and distance of distributions, against sums done by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearth.models.errors import EngineError, RequestError
from hearth.models.score import divergence, log_probabilities, score
from tests.models.tiny_gguf import write_tiny_gguf

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 40


def scored(path: Path, reference: Path, *, is_reference: bool, text: str = TEXT) -> dict[str, Any]:
    return score(lambda *_: None, path, text, 600, reference, is_reference, n_threads=1)


def test_log_probabilities_sum_to_one() -> None:
    logits = np.array([1.0, 2.0, -300.0, 80.0], np.float32)
    assert float(np.exp(log_probabilities(logits)).sum()) == pytest.approx(1)
    assert np.isfinite(log_probabilities(np.array([0.0, -np.inf], np.float32))).all()


def test_divergence() -> None:
    p, q = np.log(np.array([0.5, 0.5], np.float32)), np.log(np.array([0.9, 0.1], np.float32))
    assert divergence(p, p) == 0.0
    assert divergence(p, q) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-5)


def test_a_model_is_at_no_distance_from_itself_and_at_some_from_another(tiny_model: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference.f32"
    first = scored(tiny_model, reference, is_reference=True)
    assert (first["top1_agreement"], first["mean_kl"]) == (1.0, 0.0)
    assert first["perplexity"] > 1
    again = scored(tiny_model, reference, is_reference=False)
    assert again["top1_agreement"] == 1.0
    assert again["perplexity"] == first["perplexity"]
    assert reference.stat().st_size == 4 * first["n_tokens"] * 286 or first["n_tokens"] > 100
    other = scored(write_tiny_gguf(tmp_path / "other.gguf", seed=9), reference, is_reference=False)
    assert other["top1_agreement"] < 0.5
    assert other["mean_kl"] > 0.5


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tmp_path: Path) -> None:
    blind = write_tiny_gguf(tmp_path / "blind.gguf", change=lambda name, x: x * 0 if name == "output.weight" else x)
    found = scored(blind, tmp_path / "r", is_reference=True)
    from tests.models.tiny_gguf import vocabulary

    assert found["perplexity"] == pytest.approx(len(vocabulary()[0]), rel=1e-4)


def test_a_text_too_short_and_another_vocabulary_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the text has 1 tokens"):
        scored(tiny_model, tmp_path / "r", is_reference=True, text="a")
    scored(tiny_model, tmp_path / "r", is_reference=True)
    more = write_tiny_gguf(tmp_path / "more.gguf", further_tokens=("<|x|>",))
    with pytest.raises(EngineError, match="another vocabulary"):
        scored(more, tmp_path / "r", is_reference=False)
