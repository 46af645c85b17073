"""Requests are ended from outside, at any point, and the engine goes on as if they had never been."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import LlamaEngine
from hearth.models.errors import EngineError
from hearth.models.types import (
    Failed,
    Finished,
    GenerationRequest,
    MediaSegment,
    PrefillProgress,
    TextDelta,
    TextSegment,
)
from tests.models.tiny_gguf import write_tiny_gguf

LoadEngine = Callable[..., LlamaEngine]


def tokens(n: int, seed: int = 0) -> TextSegment:
    return TextSegment(tuple(np.random.default_rng(seed).integers(32, 127, n).tolist()))


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a prompt of some thousand tokens takes seconds."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    return write_tiny_gguf(path, n_embd=512, n_layer=8, n_head=8, n_head_kv=4, n_ff=1536, n_ctx_train=8192)


@pytest.fixture
def slow_engine(slow_model: Path, load_engine: LoadEngine) -> LlamaEngine:
    return load_engine(slow_model)


def last_of(events: Iterator[object]) -> Finished:
    last = list(events)[-1]
    assert isinstance(last, Finished), last
    return last


def test_cancel_inside_a_prefill_chunk(slow_model: Path, load_engine: LoadEngine) -> None:
    # the whole prompt is one chunk: only the abort callback can end it early
    engine = load_engine(slow_model, n_batch=8000, n_ubatch=8000)
    handle = engine.submit(GenerationRequest("long", (tokens(7900),)))
    events = handle.events()
    assert next(events) == PrefillProgress(0, 7900)
    timer = threading.Timer(0.1, handle.cancel)
    timer.start()
    cancelled = last_of(events)
    assert (cancelled.reason, cancelled.tokens, cancelled.text) == ("cancelled", (), "")
    engine.check_integrity()


def test_after_a_cancelled_prefill_what_was_read_is_reused(slow_engine: LlamaEngine) -> None:
    handle = slow_engine.submit(GenerationRequest("long", (tokens(6000),)))
    events = handle.events()
    for event in events:
        if isinstance(event, PrefillProgress) and event.done >= 512:
            break
    handle.cancel()
    assert last_of(events).reason == "cancelled"
    slow_engine.check_integrity()
    short = TextSegment(tokens(6000).tokens[:600])
    again = last_of(slow_engine.submit(GenerationRequest("short", (short,), max_tokens=4)).events())
    assert again.usage.cached_tokens >= 512
    slow_engine.check_integrity()


def test_cancel_while_generating(engine: LlamaEngine) -> None:
    prompt = tokens(40)
    whole = last_of(engine.submit(GenerationRequest("r", (prompt,), max_tokens=200)).events())
    handle = engine.submit(GenerationRequest("r", (prompt,), max_tokens=400))
    events = handle.events()
    shown = ""
    for event in events:
        if isinstance(event, TextDelta):
            shown += event.text
            handle.cancel()
            break
    rest = list(events)
    last = rest[-1]
    assert isinstance(last, Finished)
    assert last.reason == "cancelled"
    assert last.text == shown + "".join(event.text for event in rest if isinstance(event, TextDelta))
    assert last.tokens == whole.tokens[: len(last.tokens)]
    engine.check_integrity()
    after = last_of(engine.submit(GenerationRequest("r", (prompt,), max_tokens=200)).events())
    assert after.tokens == whole.tokens


def test_a_waiting_request_ends_without_waiting(slow_engine: LlamaEngine) -> None:
    running = slow_engine.submit(GenerationRequest("running", (tokens(3000),)))
    waiting = slow_engine.submit(GenerationRequest("waiting", (tokens(10),)))
    waiting.cancel()
    ended = last_of(waiting.events())
    assert (ended.reason, ended.usage.completion_tokens) == ("cancelled", 0)
    running.cancel()
    assert last_of(running.events()).reason == "cancelled"


def test_an_abort_meant_for_another_only_costs_time(slow_engine: LlamaEngine) -> None:
    request = GenerationRequest("r", (tokens(300),), max_tokens=8)
    expected = last_of(slow_engine.submit(request).events())
    other = slow_engine.submit(GenerationRequest("other", (tokens(300, seed=5),), max_tokens=8))
    dead = slow_engine.submit(GenerationRequest("dead", (tokens(5),)))
    for _ in range(20):
        dead.cancel()
    assert last_of(other.events()).reason == "length"
    again = last_of(slow_engine.submit(request).events())
    assert again.tokens == expected.tokens
    slow_engine.check_integrity()


def test_cancel_of_a_request_that_is_over_does_nothing(engine: LlamaEngine) -> None:
    handle = engine.submit(GenerationRequest("r", (tokens(5),), max_tokens=3))
    assert last_of(handle.events()).reason == "length"
    handle.cancel()
    after = engine.submit(GenerationRequest("r", (tokens(5),), max_tokens=3))
    assert last_of(after.events()).reason == "length"


def test_cancel_while_a_picture_is_read(engine: LlamaEngine) -> None:
    started, go_on = threading.Event(), threading.Event()

    def embed() -> NDArray[np.float32]:
        started.set()
        assert go_on.wait(30)
        return np.ones((4, 64), np.float32)

    handle = engine.submit(GenerationRequest("r", (tokens(20), MediaSegment("p", 4, 4, embed), tokens(3))))
    assert started.wait(30)
    handle.cancel()
    go_on.set()
    assert last_of(handle.events()).reason == "cancelled"
    engine.check_integrity()


def test_close_ends_everything(slow_model: Path, load_engine: LoadEngine) -> None:
    engine = load_engine(slow_model)
    running = engine.submit(GenerationRequest("running", (tokens(6000),)))
    waiting = engine.submit(GenerationRequest("waiting", (tokens(10),)))
    events = running.events()
    next(events)
    engine.close()
    assert last_of(events).reason == "cancelled"
    refused = list(waiting.events())[-1]
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, EngineError)
    for use in (
        lambda: engine.submit(GenerationRequest("late", (tokens(5),))),
        lambda: engine.tokenize("late"),
        lambda: engine.detokenize([1]),
    ):
        with pytest.raises(EngineError, match="closed"):
            use()
    engine.close()
