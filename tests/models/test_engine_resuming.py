"""The chat used last is loaded before it is asked for. It goes on as any other does, and nobody waits for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hearth.engine_factory import KvFolder, make_engine
from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.engine.process import ProcessEngine
from hearth.models.types import Finished, GenerationRequest, MediaSegment, Segment, TextDelta, TextSegment
from hearth.store.kv_blocks import KvBlockStore
from tests.models import tiny_gguf
from tests.models.answers import result, tokens
from tests.models.tiny_architectures import ARCHITECTURES, Architecture

LONG = 700
NEXT_TURN = tuple(range(7))
KINDS = [one for one in ARCHITECTURES if one.name in ("llama", "gemma3-swa") or not one.sliceable]

Start = Callable[..., LlamaEngine]
Payload = bytes | memoryview | None


class SlowStore(KvBlockStore):
    """Reads nothing until it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, budget_bytes=1 << 30)
        self._slow = ThreadPoolExecutor(2)
        self.let = threading.Event()
        self.asked: list[str] = []

    def read_async(self, keys: Sequence[str]) -> list[Future[Payload]]:
        self.asked += keys
        return [self._slow.submit(self._read_late, key) for key in keys]

    def _read_late(self, key: str) -> Payload:
        self.let.wait(20)
        return self._read(key)

    def close(self) -> None:
        self.let.set()
        self._slow.shutdown()
        super().close()


@pytest.fixture(params=[True, False], ids=["shared cells", "separate cells"])
def unified(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def start(tmp_path: Path, unified: bool) -> Iterator[Start]:
    """Starts engines on one KV folder, one after another: each closes the one before."""
    running: list[LlamaEngine] = []
    usual = tiny_gguf.write_tiny_gguf(tmp_path / "long.gguf", n_ctx_train=4096, n_head=2, n_head_kv=1)

    def stop() -> None:
        while running:
            running.pop().close()

    def begin(
        path: Path = usual, *, store: KvBlockStore | None = None, kept: bool = True, **options: object
    ) -> LlamaEngine:
        stop()
        if kept and store is None:
            store = KvBlockStore(tmp_path / "kv", budget_bytes=1 << 30)
        given = {"n_threads": 1, "n_ctx": 2048, "prompt_lookup": False, "kv_min_worth_s": 0.0, "kv_resume": True}
        engine = LlamaEngine.load(path, EngineOptions(**{**given, "kv_unified": unified, **options}), store=store)  # type: ignore[arg-type]
        running.append(engine)
        return engine

    yield begin
    stop()


def answer(engine: LlamaEngine, *parts: Segment | tuple[int, ...], n: int = 32) -> Finished:
    segments = tuple(TextSegment(part) if isinstance(part, tuple) else part for part in parts)
    return result(engine.submit(GenerationRequest("r", segments, max_tokens=n)))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def resumed(engine: LlamaEngine) -> int:
    """The tokens that came back by themselves."""
    wait_until(lambda: not engine._core.has_work)
    return int(engine.stats()["resumed_tokens"])


def test_the_chat_used_last_is_there_before_it_is_asked_for(start: Start) -> None:
    engine = start()
    other, last = tokens(LONG, 1), tokens(LONG, 2)
    said = answer(engine, last)
    answer(engine, other)
    answer(engine, last, said.tokens, NEXT_TURN)
    going_on = answer(engine, last, said.tokens, NEXT_TURN, n=64)
    engine = start()
    n_tokens = resumed(engine)
    assert n_tokens >= LONG + len(said.tokens) + len(NEXT_TURN)
    again = answer(engine, last, said.tokens, NEXT_TURN, n=64)
    assert again.tokens == going_on.tokens
    # it is reported as what it is; only the time of reading it has passed before
    assert (again.cache.disk_tokens, again.cache.memory_tokens) == (again.usage.prompt_tokens - 1, 0)
    assert again.timings.restore_s == 0
    tried_again = answer(engine, last, said.tokens, NEXT_TURN, n=64)
    assert tried_again.cache.memory_tokens == again.usage.prompt_tokens - 1
    restored = answer(engine, other)
    assert restored.cache.disk_tokens == LONG - 1
    assert restored.timings.restore_s > 0
    engine.check_integrity()


@pytest.mark.parametrize("unified", [True], indirect=True)  # as most of these must be
@pytest.mark.parametrize("architecture", KINDS, ids=lambda one: one.name)
def test_every_kind_of_state_comes_back(start: Start, tmp_path: Path, architecture: Architecture) -> None:
    path = architecture.write(tmp_path / "model.gguf")
    first = tokens(300)
    engine = start(path)
    said = answer(engine, first)
    going_on = answer(engine, first, said.tokens, NEXT_TURN)
    engine = start(path)
    assert resumed(engine) >= 300 + len(said.tokens) - 1
    engine.check_integrity()
    if architecture.sliceable:
        again = answer(engine, first, said.tokens, NEXT_TURN)
        assert again.cache.disk_tokens > 300
        assert again.tokens == going_on.tokens
    longer = (first, said.tokens, NEXT_TURN, going_on.tokens, NEXT_TURN)
    assert answer(engine, *longer).usage.cached_tokens >= 300 + len(said.tokens) - 1
    engine.check_integrity()


def test_pictures_come_back_too(start: Start) -> None:
    calls: list[str] = []

    def embed() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        calls.append("")
        return np.random.default_rng(5).standard_normal((16, 64)).astype(np.float32)

    chat = (tokens(300), MediaSegment("apple:1:2", 16, 16, embed), tokens(50, 1))
    said = answer(start(), *chat)
    engine = start()
    assert resumed(engine) >= 366
    assert answer(engine, *chat, said.tokens, NEXT_TURN).cache.disk_tokens >= 366
    assert len(calls) == 1


def test_another_chat_does_not_wait_for_what_is_read(start: Start, tmp_path: Path) -> None:
    last = tokens(LONG)
    other = (last[0], *tokens(100, 1))  # as two chats begin alike
    expected = answer(start(kept=False), other).tokens
    answer(start(), last)
    start(kept=False)
    store = SlowStore(tmp_path / "kv")
    engine = start(store=store)
    wait_until(lambda: bool(store.asked))
    asked = answer(engine, other)
    assert not store.let.is_set()
    assert asked.tokens == expected
    assert asked.usage.cached_tokens <= 1
    assert engine.stats()["resumed_tokens"] == 0
    engine.check_integrity()


def test_a_request_of_the_same_chat_goes_on_from_what_is_read(start: Start, tmp_path: Path) -> None:
    last = tokens(4 * 256 + 100)
    expected = answer(start(kept=False), last).tokens
    answer(start(), last)
    start(kept=False)
    store = SlowStore(tmp_path / "kv")
    engine = start(store=store)
    wait_until(lambda: bool(store.asked))
    handle = engine.submit(GenerationRequest("r", (TextSegment(last),), max_tokens=32))
    time.sleep(0.1)
    store.let.set()
    asked = result(handle)
    assert asked.tokens == expected
    assert (asked.cache.memory_tokens, asked.cache.disk_tokens) == (0, len(last) - 1)
    assert len(store.asked) == len(set(store.asked))  # nothing twice
    assert engine.stats()["resumed_tokens"] == 2 * 256
    engine.check_integrity()


def test_for_another_chat_it_makes_room_at_once(start: Start) -> None:
    """Cells that nobody wants would make every step slower."""
    last, other = tokens(LONG), (*tokens(30), *tokens(100, 1))
    answer(start(), last)
    engine = start()
    assert resumed(engine) >= LONG
    answer(engine, other, n=4)
    assert engine.stats()["cells_held"] <= len(other) + 4
    assert answer(engine, last).cache.disk_tokens >= LONG - 1 - 30
    engine.check_integrity()


def test_it_is_reported_once(start: Start) -> None:
    last = tokens(LONG)
    answer(start(), last)
    engine = start()
    assert resumed(engine) >= LONG
    first = engine.submit(GenerationRequest("a", (TextSegment((*last, *NEXT_TURN)),), max_tokens=200))
    events = first.events()
    assert any(isinstance(event, TextDelta) for event in events)
    beside = answer(engine, last, NEXT_TURN, NEXT_TURN)
    assert (beside.cache.disk_tokens, beside.cache.memory_tokens) == (0, LONG + len(NEXT_TURN))
    ended = list(events)[-1]
    assert isinstance(ended, Finished)
    assert ended.cache.disk_tokens >= LONG


def test_forgetting_a_chat_forgets_what_was_loaded(start: Start) -> None:
    engine = start()
    result(engine.submit(GenerationRequest("r", (TextSegment(tokens(LONG)),), max_tokens=4, owner="chat")))
    engine = start()
    assert resumed(engine) >= LONG
    assert engine.forget("chat") > 0
    assert engine.stats()["cells_held"] == 0
    assert answer(engine, tokens(LONG)).usage.cached_tokens == 0
    engine.check_integrity()


def test_after_a_crash_nothing_is_loaded_ahead(start: Start, tmp_path: Path, unified: bool) -> None:
    answer(start(), tokens(LONG))
    start(kept=False)
    options = EngineOptions(n_threads=1, n_ctx=2048, kv_min_worth_s=0.0, kv_resume=True, kv_unified=unified)
    folder = KvFolder(tmp_path / "kv", 1 << 30)
    with ProcessEngine.load(tmp_path / "long.gguf", options, make_engine=make_engine, kv=folder) as engine:
        wait_until(lambda: engine.stats()["resumed_tokens"] >= LONG)
        process = engine._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: process.crashed_s is not None)
        prompt = (TextSegment(tokens(LONG)),)
        assert result(engine.submit(GenerationRequest("r", prompt, max_tokens=4))).cache.disk_tokens == LONG - 1
        assert engine.stats()["resumed_tokens"] == 0


def test_the_engine_closes_in_the_middle_of_it(start: Start, tmp_path: Path) -> None:
    answer(start(), tokens(LONG))
    start(kept=False)
    start(store=SlowStore(tmp_path / "kv")).close()
    assert resumed(start()) >= LONG


def test_a_damaged_block_ends_it(start: Start, tmp_path: Path) -> None:
    prompt = tokens(LONG)
    expected = answer(start(kept=False), prompt).tokens
    answer(start(), prompt)
    start(kept=False)
    for file in (tmp_path / "kv").glob("*/*"):
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 4
        file.write_bytes(raw)
    engine = start()
    assert resumed(engine) == 0
    assert answer(engine, prompt).tokens == expected
    engine.check_integrity()


def test_what_is_too_long_for_this_context_stays_on_disk(start: Start) -> None:
    answer(start(), tokens(LONG))
    engine = start(n_ctx=512)
    assert resumed(engine) == 0
    assert answer(engine, tokens(400)).cache.disk_tokens == 399


@pytest.mark.parametrize("unified", [True], indirect=True)  # else there is room for both
def test_it_goes_first_when_room_is_needed(start: Start) -> None:
    answer(start(n_ctx=1024), tokens(LONG))
    engine = start(n_ctx=1024, n_sequences=2)
    assert resumed(engine) >= LONG
    assert answer(engine, tokens(900, 1)).usage.cached_tokens == 0
    assert answer(engine, tokens(LONG)).cache.disk_tokens == LONG - 1
    engine.check_integrity()


def test_nothing_is_loaded_unless_it_is_wanted_or_there(start: Start) -> None:
    assert resumed(start()) == 0
    answer(start(), tokens(LONG))
    engine = start(kv_resume=False)
    assert resumed(engine) == 0
    assert answer(engine, tokens(LONG)).cache.disk_tokens == LONG - 1


def test_an_error_of_the_store_is_told_and_harms_nobody(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer(start(), tokens(LONG))
    start(kept=False)

    def fail(*_: object, **__: object) -> list[Future[Payload]]:
        raise RuntimeError("no threads left")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(KvBlockStore, "read_async", fail)
        engine = start()
        assert resumed(engine) == 0
    assert "it is when it is asked for" in caplog.text
    assert answer(engine, tokens(LONG)).cache.disk_tokens == LONG - 1
    engine.check_integrity()
