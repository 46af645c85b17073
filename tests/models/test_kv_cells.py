"""Sequences with cells of their own: what is cut out of saved states, and engines whose chats share no cells."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine, disk_cache
from hearth.models.engine.kv_state import StrangeStateError, read_state, write_state
from hearth.models.errors import RequestError
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import ContextOptions, LlamaContext
from hearth.models.types import (
    Finished,
    GenerationRequest,
    MediaEmbeddings,
    MediaSegment,
    PrefillProgress,
    SamplingParams,
    Segment,
    TextSegment,
)
from hearth.store.kv_blocks import KvBlockStore
from tests.models import tiny_architectures, tiny_gguf
from tests.models.answers import assert_alike, result

ENDLESS = SamplingParams(logit_bias={tiny_gguf.special_id("<|end|>"): float("-inf")}, n_logprobs=8)
N_CTX = 1024
Load = Callable[..., LlamaEngine]


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write_tiny_gguf(
        tmp_path_factory.mktemp("models") / "long.gguf", n_ctx_train=4096, n_head=2, n_head_kv=1
    )


@pytest.fixture
def load(long_model: Path, tmp_path: Path) -> Iterator[Load]:
    """Loads engines whose sequences have cells of their own, with a KV folder; each closes the one before."""
    running: list[LlamaEngine] = []

    def stop() -> None:
        while running:
            running.pop().close()

    def begin(path: Path = long_model, **options: Any) -> LlamaEngine:
        stop()
        usual = {"n_threads": 1, "n_ctx": N_CTX, "prompt_lookup": False, "kv_min_worth_s": 0.0, "kv_unified": False}
        store = KvBlockStore(tmp_path / "kv", budget_bytes=1 << 30)
        running.append(LlamaEngine.load(path, EngineOptions(**(usual | options)), store=store))
        return running[-1]

    yield begin
    stop()


def tokens(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(0, 250, n))


def request(*segments: Segment, n: int = 24, **fields: Any) -> GenerationRequest:
    return GenerationRequest("r", segments, ENDLESS, max_tokens=n, **fields)


def answer(engine: LlamaEngine, *segments: Segment, n: int = 24) -> Finished:
    return result(engine.submit(request(*segments, n=n)))


# Saved states.


@pytest.fixture(params=["llama", "qwen2vl"])
def context(request: pytest.FixtureRequest, long_model: Path, tmp_path: Path) -> Iterator[LlamaContext]:
    """With 40 tokens in sequence 1 of three."""
    path = long_model if request.param == "llama" else tiny_architectures.write_qwen2vl(tmp_path / "vl.gguf")
    model = LlamaModel.load(path)
    made = LlamaContext(model, ContextOptions(n_ctx=3 * 256, n_seq_max=3, kv_unified=False))
    _decode(made, 1, tokens(40))
    yield made
    made.close()
    model.close()


def _decode(context: LlamaContext, seq_id: int, ids: tuple[int, ...], start: int = 0) -> NDArray[np.float32]:
    n = len(ids)
    wanted = np.zeros(n, np.int8)
    wanted[-1] = 1
    positions = np.arange(start, start + n, dtype=np.int32)
    context.decode_tokens(np.array(ids, np.int32), positions, np.full(n, seq_id, np.int32), wanted)
    return context.logits(n - 1).copy()


def test_parts_joined_again_are_the_whole(context: LlamaContext) -> None:
    saved = context.seq_state(1)
    state = read_state(saved)
    assert state.positions.tolist() == list(range(40))
    assert len(state.rows) == 2 * state.n_layers
    parts = [state.cut(0, 7), state.cut(7, 8).copy(), state.cut(8, 100)]
    assert [len(part.cells) for part in parts] == [7, 1, 32]
    expected = _decode(context, 1, (3, 4), 40)
    joined = write_state(parts, n_streams=3)
    assert context.set_seq_state(2, joined)
    assert np.array_equal(_decode(context, 2, (3, 4), 40), expected)
    block = write_state(parts[:2])  # as a cache with one stream for all writes it
    assert read_state(block).positions.tolist() == list(range(8))


@pytest.mark.parametrize("damage", [lambda s: s[:-1], lambda s: s[:20], lambda _: b"", lambda s: s + b"more"])
def test_what_is_no_state_is_strange(context: LlamaContext, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(StrangeStateError):
        read_state(damage(bytes(context.seq_state(1))))


def test_no_bytes_whatsoever_are_read_beyond_their_end(context: LlamaContext) -> None:
    saved = bytearray(context.seq_state(1))
    rng = np.random.default_rng(5)
    for _ in range(300):
        place = int(rng.integers(8, 64 + 12 * 40))
        broken = bytearray(saved)
        struct.pack_into("<I", broken, place, int(rng.integers(0, 1 << 32)))
        with suppress(StrangeStateError):
            read_state(bytes(broken))


def test_parts_of_different_kinds_are_not_joined(context: LlamaContext, long_model: Path) -> None:
    model = LlamaModel.load(long_model)
    other = LlamaContext(model, ContextOptions(n_ctx=256, n_seq_max=1, kv_type="q8_0"))
    _decode(other, 0, tokens(5))
    with pytest.raises(StrangeStateError, match="different"):
        write_state([read_state(context.seq_state(1)), read_state(other.seq_state(0))])
    other.close()
    model.close()


# Engines.


def test_side_by_side_equals_one_after_another(load: Load) -> None:
    prompts = [TextSegment(tokens(30 + 40 * seed, seed)) for seed in range(6)]
    alone = load(n_parallel=1)
    expected = [answer(alone, prompt) for prompt in prompts]
    together = load(n_parallel=4, kv_min_worth_s=100.0)
    handles = [together.submit(request(prompt)) for prompt in prompts]
    for handle, one in zip(handles, expected, strict=True):
        assert_alike(result(handle), one)
    together.check_integrity()


def test_every_chat_may_fill_the_context(load: Load) -> None:
    engine = load(n_parallel=3)
    assert engine.info.n_ctx == N_CTX
    handles = [engine.submit(request(TextSegment(tokens(N_CTX - 60, seed)), n=500)) for seed in range(3)]
    ended = [result(handle) for handle in handles]
    assert [(one.reason, len(one.tokens)) for one in ended] == [("length", 60)] * 3
    assert engine.stats()["n_preempted"] == 0
    engine.check_integrity()


def test_a_prefix_in_use_is_copied(load: Load) -> None:
    engine = load(n_parallel=2)
    beginning = tokens(300)
    first = engine.submit(request(TextSegment((*beginning, 1)), n=200))
    next(event for event in first.events() if not isinstance(event, PrefillProgress))
    second = answer(engine, TextSegment((*beginning, 2)))
    assert second.cache.memory_tokens == 300
    first.cancel()
    engine.check_integrity()
    assert_alike(second, answer(load(kv_min_worth_s=100.0, n_parallel=1), TextSegment((*beginning, 2))))


def test_blocks_serve_both_layouts(load: Load) -> None:
    chat = TextSegment(tokens(600))
    said = answer(load(), chat, n=40)
    longer = (chat, TextSegment((*said.tokens, *tokens(9, 1))))
    for unified in (True, False):
        restored = answer(load(kv_unified=unified), *longer)
        assert restored.cache.disk_tokens >= 600 + 39
    assert_alike(restored, answer(load(kv_min_worth_s=100.0, kv_type="f16"), *longer))


def test_a_cancel_between_two_blocks_leaves_what_was_there(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = TextSegment(tokens(900))
    answer(load(), chat, n=2)
    engine = load(n_parallel=1)
    monkeypatch.setattr(disk_cache, "MAX_STEP_S", 0.0)  # one block a step
    handles = [engine.submit(request(chat, TextSegment((7,)), n=4)) for _ in range(4)]
    for handle in handles[:3]:
        handle.cancel()
    for handle in handles[:3]:
        list(handle.events())
    assert result(handles[3]).usage.cached_tokens >= 900
    engine.check_integrity()


def test_pictures_with_rows_and_columns_come_back(load: Load, tmp_path: Path) -> None:
    path = tiny_architectures.write_qwen2vl(tmp_path / "vl.gguf")
    rows = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    grid = np.array([(0, i // 3, i % 3) for i in range(6)], np.int32)
    chat = (TextSegment(tokens(300)), MediaSegment("p", 6, 3, lambda: MediaEmbeddings(rows, grid)))
    said = answer(load(path), *chat, TextSegment(tokens(20, 1)))
    longer = (*chat, TextSegment((*tokens(20, 1), *said.tokens, 5)))
    restored = answer(load(path), *longer)
    assert restored.cache.disk_tokens >= 326
    assert_alike(restored, answer(load(path, kv_unified=True, kv_min_worth_s=100.0), *longer))


def test_after_a_fault_nothing_that_was_held_is_saved_as_something_else(load: Load) -> None:
    engine = load()
    answer(engine, TextSegment(tokens(300)), n=2)

    def fail() -> tuple[bool, bool]:  # on the engine's thread, which may still be saving
        cells = engine._core._cells
        before = bool(cells.dump(0, 0, 256))  # what it holds is remembered, as between two blocks of one save
        engine._core.start_over(RuntimeError("a fault"))
        return before, bool(cells.dump(0, 0, 256))

    assert engine._on_thread(fail) == (True, False)


@pytest.mark.parametrize("write", [tiny_architectures.write_mamba, tiny_architectures.write_gemma3])
def test_models_whose_state_cannot_be_cut_are_refused(load: Load, tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(RequestError, match=r"kv_unified false is not for model\.gguf"):
        load(write(tmp_path / "model.gguf"), check_fit=False)


def test_values_must_not_be_transposed() -> None:
    with pytest.raises(RequestError, match="needs flash_attention"):
        EngineOptions(kv_unified=False, flash_attention=False)
