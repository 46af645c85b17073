"""KV blocks on disk: what was read once is restored exactly, by another engine too; doubt means reading it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine, disk_cache
from hearth.models.engine.disk_cache import BLOCK_TOKENS, blocks
from hearth.models.engine.prompt import Entry, MediaSpan, count_tokens
from hearth.models.types import (
    Finished,
    GenerationRequest,
    MediaSegment,
    SamplingParams,
    Segment,
    TextDelta,
    TextSegment,
)
from hearth.store.kv_blocks import KvBlock, KvBlockStore
from tests.models import tiny_gguf
from tests.models.answers import assert_alike, result, tokens

Open = Callable[..., LlamaEngine]
LONG = 700


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny_gguf.write_tiny_gguf(
        tmp_path_factory.mktemp("models") / "long.gguf", n_ctx_train=4096, n_head=2, n_head_kv=1
    )
    return path


@pytest.fixture(params=[True, False], ids=["shared cells", "separate cells"])
def start(long_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Starts engines on one KV folder, one after another: each closes the one before."""
    running: list[LlamaEngine] = []

    def stop() -> None:
        while running:
            running.pop().close()

    def begin(path: Path = long_model, *, kept: bool = True, budget: int = 1 << 30, **options: object) -> LlamaEngine:
        stop()
        store = KvBlockStore(tmp_path / "kv", budget_bytes=budget) if kept else None
        usual = {"n_threads": 1, "n_ctx": 2048, "prompt_lookup": False, "kv_min_worth_s": 0.0}
        given = EngineOptions(**{**usual, "kv_unified": request.param, **options})  # type: ignore[arg-type]
        engine = LlamaEngine.load(path, given, store=store)
        running.append(engine)
        return engine

    yield begin
    stop()


def answer(engine: LlamaEngine, *segments: Segment, n: int = 32, owner: str | None = None) -> Finished:
    return result(engine.submit(GenerationRequest("r", segments, max_tokens=n, owner=owner)))


def picture(name: str, n_tokens: int = 16) -> tuple[MediaSegment, list[str]]:
    calls: list[str] = []

    def embed() -> NDArray[np.float32]:
        calls.append(name)
        rows = np.random.default_rng(len(name)).standard_normal((n_tokens, 64))
        return np.asarray(rows, np.float32)

    return MediaSegment(name, n_tokens, n_tokens, embed), calls


def test_blocks_end_at_their_256th_token_or_behind_the_picture() -> None:
    entries: list[Entry] = [*range(250), MediaSpan("p", 16, 16), *range(300)]
    found = list(blocks(entries))
    assert found == [(0, 251), (251, 507), (507, 551)]
    assert count_tokens(entries[:251]) == 250 + 16
    assert list(blocks(entries, 260)) == [(0, 250), (250, 491), (491, 551)]  # not longer than a sliding window
    assert list(blocks(entries, 15)) == [(15 * i, min(15 * i + 15, 250)) for i in range(17)] + [(250, 251)] + [
        (251 + 15 * i, 266 + 15 * i) for i in range(20)
    ]
    assert BLOCK_TOKENS == 256


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_after_a_restart_the_chat_goes_on_as_if_never_stopped(start: Open, kv_type: str) -> None:
    first = TextSegment(tokens(LONG))
    engine = start(kv_type=kv_type)
    said = answer(engine, first, owner="chat")
    second = (first, TextSegment((*said.tokens, *tokens(20, 1))))
    going_on = answer(engine, *second, n=100)
    assert going_on.cache.disk_tokens == 0
    engine = start(kv_type=kv_type)
    restored = answer(engine, *second, n=100)
    n_kept = LONG + len(said.tokens) - 1  # the last token generated was never decoded
    assert restored.cache.memory_tokens == 0
    assert restored.cache.disk_tokens >= n_kept
    assert restored.usage.cached_tokens == restored.cache.disk_tokens
    assert restored.tokens == going_on.tokens
    engine.check_integrity()


def test_pictures_are_restored_and_not_encoded_again(start: Open) -> None:
    seen, calls = picture("apple")
    chat = (TextSegment(tokens(300)), seen, TextSegment(tokens(50, 1)))
    engine = start()
    said = answer(engine, *chat)
    assert calls == ["apple"]
    again, calls_again = picture("apple")
    engine = start()
    restored = answer(engine, chat[0], again, chat[2], TextSegment((*said.tokens, 5)))
    assert calls_again == []
    assert restored.cache.disk_tokens >= 366
    other, calls_other = picture("other")
    answer(engine, chat[0], other, chat[2])
    assert calls_other == ["other"]


def test_a_branch_restores_up_to_where_it_turns_off(start: Open) -> None:
    engine = start()
    answer(engine, TextSegment(tokens(LONG)))
    engine = start()
    branch = TextSegment((*tokens(400), *tokens(50, 9)))
    restored = answer(engine, branch)
    assert restored.cache.disk_tokens == 400
    assert restored.tokens == answer(start(kept=False), branch).tokens


def test_what_is_in_memory_is_not_read_from_disk(start: Open) -> None:
    engine = start()
    answer(engine, TextSegment(tokens(LONG)))
    engine = start()
    answer(engine, TextSegment(tokens(300)))
    restored = answer(engine, TextSegment(tokens(LONG)))
    assert restored.cache.memory_tokens >= 300
    assert restored.cache.memory_tokens + restored.cache.disk_tokens == LONG - 1
    engine.check_integrity()
    # tokens 256..300 were computed again, in a smaller batch, which rounds differently: equal for a while, not for ever
    assert restored.tokens[:8] == answer(start(kept=False), TextSegment(tokens(LONG))).tokens[:8]


def test_nothing_is_looked_for_on_disk_if_all_is_in_memory(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[int] = []
    match = KvBlockStore.match

    def noted(store: KvBlockStore, fingerprint: str, entries: Sequence[int | str]) -> list[KvBlock]:
        looked_for.append(len(entries))
        return match(store, fingerprint, entries)

    monkeypatch.setattr(KvBlockStore, "match", noted)
    engine = start()
    chat = TextSegment(tokens(LONG))
    said = answer(engine, chat)
    assert answer(engine, chat).tokens == said.tokens
    assert looked_for == [LONG - 1]
    answer(engine, chat, TextSegment((*said.tokens, *tokens(9, 1))))
    assert looked_for == [LONG - 1, LONG + len(said.tokens) + 8]


def test_chats_with_one_beginning_keep_it_once(start: Open, tmp_path: Path) -> None:
    engine = start(n_sequences=12)
    for i in range(6):
        answer(engine, TextSegment((*tokens(512), *tokens(40, 20 + i))), n=4, owner=f"chat {i}")
    engine.flush()
    sizes = sorted(path.stat().st_size for path in (tmp_path / "kv").glob("*/*"))
    assert len(sizes) == 2 + 6


def test_forgetting_a_chat_deletes_what_only_it_used(start: Open, tmp_path: Path) -> None:
    engine = start()
    for i in range(2):
        answer(engine, TextSegment((*tokens(512), *tokens(300, 20 + i))), n=4, owner=f"chat {i}")
    engine.flush()
    n_before = len(list((tmp_path / "kv").glob("*/*")))
    assert engine.forget("chat 0") == 2
    assert len(list((tmp_path / "kv").glob("*/*"))) == n_before - 2
    engine = start()
    assert answer(engine, TextSegment((*tokens(512), *tokens(300, 20)))).cache.disk_tokens == 512
    assert answer(engine, TextSegment((*tokens(512), *tokens(300, 21)))).usage.cached_tokens == 811


def test_a_running_answer_of_a_forgotten_chat_is_not_saved(start: Open, tmp_path: Path) -> None:
    engine = start()
    prompt = TextSegment(tokens(LONG))
    handle = engine.submit(GenerationRequest("r", (prompt,), max_tokens=400, owner="chat"))
    events = handle.events()
    assert any(isinstance(event, TextDelta) for event in events)
    engine.forget("chat")
    assert isinstance(list(events)[-1], Finished)
    engine.flush()
    assert list((tmp_path / "kv").glob("*/*")) == []
    assert answer(start(), prompt).cache.disk_tokens == 0


def test_all_is_saved_although_little_may_wait(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "MAX_PENDING_BYTES", 1)
    prompt = TextSegment(tokens(LONG))
    answer(start(), prompt)
    assert answer(start(), prompt).cache.disk_tokens == LONG - 1


def test_another_model_or_kv_type_finds_nothing(start: Open, tmp_path: Path) -> None:
    prompt = TextSegment(tokens(LONG))
    answer(start(), prompt)
    assert answer(start(kv_type="q8_0"), prompt).usage.cached_tokens == 0
    other = tiny_gguf.write_tiny_gguf(tmp_path / "other.gguf", n_ctx_train=4096, n_head=2, n_head_kv=1, seed=1)
    assert answer(start(other), prompt).usage.cached_tokens == 0
    assert answer(start(), prompt).usage.cached_tokens == LONG - 1


def test_a_damaged_block_is_read_again_not_trusted(start: Open, tmp_path: Path) -> None:
    prompt = TextSegment(tokens(LONG))
    expected = answer(start(kept=False), prompt).tokens
    answer(start(), prompt)
    start(kept=False)
    files = sorted((tmp_path / "kv").glob("*/*"))
    for file in files:
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 4
        file.write_bytes(raw)
    damaged = answer(start(), prompt)
    assert damaged.cache.disk_tokens == 0
    assert damaged.tokens == expected
    assert "nothing is cached" in damaged.cache.miss
    assert answer(start(), prompt).cache.disk_tokens == LONG - 1


def test_other_chats_go_on_while_one_is_restored(start: Open) -> None:
    engine = start()
    answer(engine, TextSegment(tokens(LONG)))
    engine = start()
    running = engine.submit(GenerationRequest("a", (TextSegment(tokens(5, 5)),), max_tokens=200))
    restored = engine.submit(GenerationRequest("b", (TextSegment(tokens(LONG)),), max_tokens=10))
    ended = [list(handle.events())[-1] for handle in (restored, running)]
    assert all(isinstance(event, Finished) for event in ended)
    assert isinstance(ended[0], Finished)
    assert ended[0].cache.disk_tokens == LONG - 1
    engine.check_integrity()


def test_what_is_evicted_from_memory_comes_back_from_disk(start: Open) -> None:
    engine = start(n_ctx=1024, n_sequences=2)
    prompts = [TextSegment(tokens(LONG, seed)) for seed in range(3)]
    first = [answer(engine, prompt, n=8) for prompt in prompts]
    again = [answer(engine, prompt, n=8) for prompt in prompts]
    assert [finished.tokens for finished in again] == [finished.tokens for finished in first]
    assert all(finished.usage.cached_tokens >= LONG - 1 for finished in again)
    assert sum(finished.cache.disk_tokens > 0 for finished in again) >= 2
    engine.check_integrity()


def test_a_block_of_which_little_is_wanted_finds_room(start: Open) -> None:
    answer(start(), TextSegment(tokens(LONG)), n=1)
    engine = start(n_ctx=1024)
    answer(engine, TextSegment(tokens(460, 5)), n=1)
    branch = TextSegment((*tokens(524), *tokens(20, 9)))  # with the other chat there is room for it, but not to spare
    assert answer(engine, branch, n=1).cache.disk_tokens == 524
    engine.check_integrity()


@pytest.mark.parametrize("start", [True], indirect=True)  # sequences with cells of their own need none of others
def test_a_preempted_answer_goes_on_from_disk(start: Open) -> None:
    endless = SamplingParams(logit_bias={tiny_gguf.special_id("<|end|>"): float("-inf")}, n_logprobs=8)
    wanted = [GenerationRequest("r", (TextSegment(tokens(40, i)),), endless, max_tokens=300) for i in range(3)]
    alone = start(kept=False)
    expected = [list(alone.submit(request).events())[-1] for request in wanted]
    engine = start(n_ctx=512, n_parallel=3)
    handles = [engine.submit(request) for request in wanted]
    ended = [list(handle.events())[-1] for handle in handles]
    assert engine.stats()["n_preempted"] > 0
    for one, other in zip(ended, expected, strict=True):
        assert isinstance(one, Finished)
        assert isinstance(other, Finished)
        assert len(one.tokens) == 300
        assert_alike(one, other)
    engine.check_integrity()


def test_without_room_on_disk_everything_works(start: Open) -> None:
    engine = start(budget=1000)
    said = answer(engine, TextSegment(tokens(LONG)))
    assert said.tokens == answer(start(kept=False), TextSegment(tokens(LONG))).tokens
