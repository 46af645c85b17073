"""Every kind of architecture: loads, chats in parallel, is saved, restored exactly, or says plainly what it cannot do.

Attention alone can be cut at any token. Recurrent and hybrid models have states that cannot: what they find again are
whole checkpoints, of turn ends and at intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models import llama as hearth_llama
from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.engine.scheduler import Scheduler, TokenChunk
from hearth.models.errors import ContextOverflowError, EngineError
from hearth.models.llama_context import DecodeStatus
from hearth.models.types import (
    Finished,
    GenerationRequest,
    MediaSegment,
    PrefillProgress,
    RequestHandle,
    SamplingParams,
    Segment,
    TextSegment,
)
from hearth.store.kv_blocks import KvBlockStore
from tests.models import tiny_architectures, tiny_gguf
from tests.models.answers import assert_alike, result, tokens
from tests.models.tiny_architectures import ARCHITECTURES, N_EMBD, SLIDING_WINDOW, Architecture

Start = Callable[..., LlamaEngine]
ENDLESS = SamplingParams(logit_bias={tiny_gguf.special_id("<|end|>"): -100.0}, n_logprobs=8)
WHOLE = [architecture for architecture in ARCHITECTURES if not architecture.sliceable]
NEXT_TURN = 7  # tokens; with the last one of the answer before, a prompt chunk on the slowest machine


def name_of(architecture: Architecture) -> str:
    return architecture.name


each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name_of)
each_whole = pytest.mark.parametrize("architecture", WHOLE, ids=name_of)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("architectures")
    return {one.name: one.write(folder / f"{one.name}.gguf") for one in ARCHITECTURES}


@pytest.fixture
def start(models: dict[str, Path], architecture: Architecture, tmp_path: Path) -> Iterator[Start]:
    """Starts engines on one KV folder, one after another: each closes the one before."""
    running: list[LlamaEngine] = []

    def stop() -> None:
        while running:
            running.pop().close()

    def begin(*, kept: bool = False, checkpoint_tokens: int | None = None, **options: Any) -> LlamaEngine:
        stop()
        store = KvBlockStore(tmp_path / "kv", budget_bytes=1 << 30) if kept else None
        given = EngineOptions(
            **{"n_threads": 1, "n_ctx": 1024, "prompt_lookup": False, "kv_min_worth_s": 0.0, **options}
        )
        engine = LlamaEngine.load(models[architecture.name], given, store=store)
        if engine._core._disk is not None:
            engine._core._disk.checkpoint_tokens = checkpoint_tokens or engine._core._disk.checkpoint_tokens
        running.append(engine)
        return engine

    yield begin
    stop()


def submit(engine: LlamaEngine, *parts: Segment | tuple[int, ...], n: int = 32, **fields: Any) -> RequestHandle:
    segments = tuple(TextSegment(part) if isinstance(part, tuple) else part for part in parts)
    return engine.submit(GenerationRequest("r", segments, max_tokens=n, **{"sampling": ENDLESS, **fields}))


def answer(engine: LlamaEngine, *parts: Segment | tuple[int, ...], n: int = 32, **fields: Any) -> Finished:
    return result(submit(engine, *parts, n=n, **fields))


def reference(path: Path, prompt: tuple[int, ...], n: int) -> list[int]:
    """What llama-cpp-python's own class says, greedily."""
    end = tiny_gguf.special_id("<|end|>")
    model = llama_cpp.Llama(
        str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, flash_attn=True, swa_full=True, verbose=False
    )
    try:
        said: list[int] = []
        wanted = list(prompt)
        while len(said) < n:
            model.eval(wanted)
            logits = np.ctypeslib.as_array(model._ctx.get_logits_ith(-1), shape=(model.n_vocab(),)).copy()
            assert np.isfinite(logits).all()
            logits[end] = -np.inf
            wanted = [int(logits.argmax())]
            said += wanted
        return said
    finally:
        model.close()
        hearth_llama.native.llama_log_set(hearth_llama._on_log, None)


@each
def test_greedy_answers_equal_those_of_llama_cpp_python(
    start: Start, models: dict[str, Path], architecture: Architecture
) -> None:
    engine = start()
    prompt = tokens(32)  # one chunk for both
    said = answer(engine, prompt, n=64).tokens
    assert list(said) == reference(models[architecture.name], prompt, 64)
    assert len(set(said)) > 10  # not one word over and over: a wrong state would show
    assert said != answer(engine, tokens(32, 1), n=64).tokens
    engine.check_integrity()


@each
def test_side_by_side_each_gets_its_own_answer(start: Start) -> None:
    prompts = [tokens(n, n) for n in (100, 40, 150, 71)]
    engine = start(n_parallel=1)
    alone = [answer(engine, prompt) for prompt in prompts]
    engine = start(n_parallel=3)
    together = [result(handle) for handle in [submit(engine, prompt) for prompt in prompts]]
    for one, other in zip(together, alone, strict=True):
        assert_alike(one, other)
    engine.check_integrity()
    # all four are still there, each in a state of its own
    again = [submit(engine, prompt, one.tokens, (5,), n=4) for prompt, one in zip(prompts, together, strict=True)]
    assert [result(handle).cache.memory_tokens for handle in again] == [len(prompt) + 31 for prompt in prompts]
    engine.check_integrity()


@each
def test_the_second_turn_reads_only_what_is_new(start: Start) -> None:
    engine = start()
    first = tokens(120)
    said = answer(engine, first)
    second = (first, said.tokens, tokens(NEXT_TURN, 1))
    going_on = answer(engine, *second)
    assert going_on.cache.memory_tokens == len(first) + len(said.tokens) - 1  # the last one was never decoded
    assert going_on.cache.disk_tokens == 0
    assert_alike(going_on, answer(start(), *second))


@each
def test_an_answer_tried_again_begins_at_the_turn_before(start: Start, architecture: Architecture) -> None:
    engine = start()
    first = tokens(120)
    said = answer(engine, first)
    n_turn = len(first) + len(said.tokens) - 1
    second = (first, said.tokens, tokens(NEXT_TURN, 1))
    answers = [answer(engine, *second) for _ in range(3)]
    assert_alike(answers[1], answers[0])
    assert_alike(answers[2], answers[0])
    n_again = n_turn if not architecture.sliceable else n_turn + NEXT_TURN
    assert [one.cache.memory_tokens for one in answers] == [n_turn, n_again, n_again]
    assert bool(answers[1].cache.miss) is not architecture.sliceable
    engine.check_integrity()


@each
def test_after_a_restart_the_chat_goes_on_as_if_never_stopped(start: Start, architecture: Architecture) -> None:
    engine = start(kept=True)
    first = tokens(300)
    said = answer(engine, first, owner="chat")
    second = (first, said.tokens, tokens(NEXT_TURN, 1))
    never_stopped = answer(engine, *second, n=64)
    assert never_stopped.cache.disk_tokens == 0
    engine = start(kept=True)
    restored = answer(engine, *second, n=64)
    n_turn = len(first) + len(said.tokens) - 1
    if architecture.sliceable:
        assert restored.cache.disk_tokens >= n_turn
    else:
        assert restored.cache.disk_tokens == n_turn
    assert restored.cache.memory_tokens == 0
    assert restored.tokens == never_stopped.tokens
    engine.check_integrity()


@each
def test_a_branch_restores_what_it_shares(start: Start, architecture: Architecture) -> None:
    engine = start(kept=True)
    first = tokens(200)
    said = answer(engine, first, n=20)
    n_turn = 200 + 20 - 1
    second = (*first, *said.tokens, *tokens(60, 1))
    answer(engine, second)
    engine = start(kept=True)
    later = (*second[:250], *tokens(9, 2))
    restored = answer(engine, later)
    assert restored.cache.disk_tokens == (250 if architecture.sliceable else n_turn)
    assert_alike(restored, answer(start(), later))
    engine = start(kept=True)
    early = (*second[:100], *tokens(9, 2))
    restored = answer(engine, early)
    assert restored.cache.disk_tokens == (100 if architecture.sliceable else 0)
    assert ("cannot be cut" in restored.cache.miss) is not architecture.sliceable
    assert_alike(restored, answer(start(), early))


@each_whole
def test_a_long_prompt_leaves_checkpoints_at_intervals(start: Start) -> None:
    options = {"kept": True, "checkpoint_tokens": 64, "n_batch": 32, "n_ubatch": 32}
    engine = start(**options)
    prompt = tokens(180)
    answer(engine, tokens(70, 3), n=4)  # what another chat had in the sequence before does not count
    answer(engine, prompt)
    engine = start(**options)
    branch = (*prompt[:150], *tokens(NEXT_TURN, 1))
    restored = answer(engine, branch)
    assert restored.cache.disk_tokens == 128
    assert "has 128 tokens" in restored.cache.miss
    assert_alike(restored, answer(start(), branch))
    assert answer(start(**options), prompt).cache.disk_tokens == 128


@each_whole
def test_the_longest_state_serves_wherever_it_is(start: Start) -> None:
    engine = start(kept=True)
    first = tokens(150)
    said = answer(engine, first)
    engine = start(kept=True)
    second = (*first, *said.tokens, *tokens(NEXT_TURN, 1))
    then = answer(engine, second)
    assert then.cache.disk_tokens == 150 + 31
    assert answer(engine, second).cache.disk_tokens == 150 + 31  # in memory its own answer has gone past it
    third = answer(engine, (*second, *then.tokens, *tokens(NEXT_TURN, 2))).cache
    assert (third.memory_tokens, third.disk_tokens) == (len(second) + 31, 0)
    engine.check_integrity()


@pytest.mark.parametrize("architecture", [one for one in ARCHITECTURES if one.name == "gemma3-swa"], ids=name_of)
@pytest.mark.parametrize(("n_shared", "kept"), [(200, False), (60, False), (60, True)])
def test_a_window_whose_cells_were_given_away_is_not_built_on(start: Start, n_shared: int, kept: bool) -> None:
    """llama.cpp lets others have the cells that are outside a chat's window, also when it keeps a full-size cache."""
    engine = start(n_ctx=512, kept=kept)
    long = tokens(300)
    answer(engine, tokens(60, 1), n=2)
    answer(engine, long, n=2)
    answer(engine, tokens(100, 2), n=2)
    answer(engine, tokens(100, 3), n=2)  # takes the place of the first, and what it lacks from the long one
    engine.check_integrity()
    n_gone = max(engine._core._context.seq_pos_min(slot.seq_id) for slot in engine._core._cache.sequences)
    assert 60 - SLIDING_WINDOW < n_gone < 200 - SLIDING_WINDOW
    branch = (*long[:n_shared], *tokens(20, 3))
    found = answer(engine, branch)
    assert found.cache.memory_tokens == (200 if n_shared == 200 else 0)
    assert found.cache.disk_tokens == (60 if kept else 0)
    engine.check_integrity()
    assert_alike(found, answer(start(), branch))


@each
def test_a_damaged_file_is_read_again_not_trusted(start: Start, tmp_path: Path) -> None:
    first = tokens(150)
    said = answer(start(kept=True), first)
    second = (first, said.tokens, tokens(NEXT_TURN, 1))
    expected = answer(start(), *second)
    for file in (tmp_path / "kv").glob("*/*"):
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 4
        file.write_bytes(raw)
    engine = start(kept=True)
    damaged = answer(engine, *second)
    assert damaged.cache.disk_tokens == 0
    assert_alike(damaged, expected)
    engine.check_integrity()


@each
def test_after_a_cancel_in_a_prompt_everything_goes_on(start: Start) -> None:
    engine = start(n_ctx=4096, n_batch=64, n_ubatch=64)
    chat = tokens(100)
    said = answer(engine, chat)
    running = submit(engine, tokens(50, 5))
    long = submit(engine, tokens(3500, 6))
    cancelled = None
    for event in long.events():
        if isinstance(event, PrefillProgress) and 0 < event.done < event.total:
            long.cancel()
        cancelled = event
    assert isinstance(cancelled, Finished)
    assert cancelled.reason == "cancelled"
    beside = result(running)
    engine.check_integrity()
    second = (chat, said.tokens, tokens(NEXT_TURN, 1))
    going_on = answer(engine, *second)
    assert going_on.cache.memory_tokens == 131  # nobody lost what it had
    begun = answer(engine, tokens(3500, 6))
    assert begun.cache.memory_tokens > 0  # nor did who was cancelled
    engine = start(n_ctx=4096)
    assert_alike(beside, answer(engine, tokens(50, 5)))
    assert_alike(going_on, answer(engine, *second))
    assert_alike(begun, answer(engine, tokens(3500, 6)))


@each
def test_a_full_context_makes_room_or_says_so(start: Start) -> None:
    prompts = [tokens(90, seed) for seed in range(4)]
    engine = start()
    alone = [answer(engine, prompt, n=60) for prompt in prompts]
    engine = start(n_ctx=256, n_parallel=4)
    handles = [submit(engine, prompt, n=60) for prompt in prompts]
    for handle, other in zip(handles, alone, strict=True):
        assert_alike(result(handle), other)
    engine.check_integrity()
    assert answer(engine, prompts[0], n=500).reason == "length"  # the context ends, the engine does not
    with pytest.raises(ContextOverflowError, match="the context holds 256"):
        submit(engine, tokens(256))
    engine.check_integrity()


@each
def test_a_preempted_request_is_taken_up_again(start: Start, architecture: Architecture) -> None:
    prompts = [tokens(30, seed) for seed in range(3)]
    engine = start()
    alone = [answer(engine, prompt, n=150) for prompt in prompts]
    engine = start(kept=True, n_ctx=256, n_parallel=3)
    handles = [submit(engine, prompt, n=150) for prompt in prompts]
    for handle, other in zip(handles, alone, strict=True):
        assert_alike(result(handle), other)
    has_cells = architecture.kind != "recurrent"  # those have a state each, and nothing that could be full
    assert (engine.stats()["n_preempted"] > 0) is has_cells
    engine.check_integrity()


@each
def test_guesses_are_made_only_where_they_can_be_taken_back(start: Start, architecture: Architecture) -> None:
    prompt = tokens(20) * 6
    expected = answer(start(prompt_lookup=False), prompt, n=150)
    engine = start(prompt_lookup=True)
    assert_alike(answer(engine, prompt, n=150), expected)
    assert (engine.stats()["n_guessed"] > 0) is architecture.sliceable
    engine.check_integrity()


def break_off_once(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> list[int]:
    """Has the first decode of several sequences aborted by llama.cpp, or fail."""
    context, hits = engine._core._context, list[int]()
    decode = context.decode_tokens

    def once(ids: Any, positions: Any, seq_ids: Any, wanted: Any) -> Any:
        if not hits and len(set(seq_ids)) > 1 and positions.min() > 40:
            hits.append(len(ids))
            context.abort.set()
            status = decode(ids, positions, seq_ids, wanted)
            assert status == DecodeStatus.ABORTED
            if fails:
                raise EngineError("llama.cpp could not decode")
            return status
        return decode(ids, positions, seq_ids, wanted)

    monkeypatch.setattr(context, "decode_tokens", once)
    return hits


@each
@pytest.mark.parametrize("fails", [False, True])
def test_a_decode_that_breaks_off_makes_no_state_wrong(
    start: Start, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(n_parallel=2, n_sequences=5)
    chats = [tokens(50 + seed, seed) for seed in range(5)]
    said = [answer(engine, chat) for chat in chats]
    going_on = [(*chat, *one.tokens, *tokens(NEXT_TURN, 9)) for chat, one in zip(chats, said, strict=True)]
    expected = [answer(engine, prompt) for prompt in going_on]
    engine = start(n_parallel=2, n_sequences=5)
    assert [answer(engine, chat).tokens for chat in chats] == [one.tokens for one in said]
    hits = break_off_once(engine, monkeypatch, fails=fails)
    # two that are far from each other, so that llama.cpp brings their states together
    for handle in engine._on_thread(lambda: [submit(engine, going_on[0]), submit(engine, going_on[4])]):
        with suppress(EngineError):
            result(handle)
    assert hits
    engine.check_integrity()
    for prompt, other in zip(going_on, expected, strict=True):
        assert_alike(answer(engine, prompt), other)
    engine.check_integrity()


def embeddings_of(path: Path, ids: tuple[int, ...], architecture: Architecture) -> NDArray[np.float32]:
    """The rows that the model itself would look up."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    rows = np.asarray(tensors["token_embd.weight"].data, np.float32)[list(ids)]
    return rows * np.float32(np.sqrt(N_EMBD)) if architecture.name.startswith("gemma") else rows


@each
def test_a_picture_is_read_like_text_and_restored(
    start: Start, models: dict[str, Path], architecture: Architecture
) -> None:
    """Embeddings of words in place of a picture's give what the words would have given, and tell if they moved."""
    words = tokens(150, 7)
    rows = embeddings_of(models[architecture.name], words, architecture)
    calls: list[str] = []

    def embed() -> NDArray[np.float32]:
        calls.append("")
        return rows

    seen = MediaSegment("words", len(words), len(words), embed)
    before, after = tokens(20), tokens(10, 1)
    engine = start(kept=True)
    said = answer(engine, before, seen, after)
    assert len(calls) == 1
    engine.check_integrity()
    engine = start(kept=True)
    restored = answer(engine, before, seen, after, said.tokens, tokens(NEXT_TURN, 2))
    # this picture is longer than the window, and no longer block can be saved
    is_saved = architecture.name != "gemma3-swa"
    assert restored.cache.disk_tokens == (20 + 150 + 10 + 31 if is_saved else 20)
    assert len(calls) == (1 if is_saved else 2)
    engine = start()
    assert_alike(said, answer(engine, (*before, *words, *after)))
    in_words = (*before, *words, *after, *said.tokens, *tokens(NEXT_TURN, 2))
    assert_alike(restored, answer(engine, in_words))


@each_whole
def test_a_cancel_is_noticed_within_a_picture(start: Start) -> None:
    """It cannot be broken off inside a decode, so it is read in pieces."""
    engine = start()
    said = answer(engine, tokens(60))
    handles: list[RequestHandle] = []
    pieces: list[int] = []
    decode = engine._core._context.decode_embeddings

    def count(rows: NDArray[np.float32], *rest: Any, **fields: Any) -> Any:
        pieces.append(len(rows))
        handles[0].cancel()
        return decode(rows, *rest, **fields)

    engine._core._context.decode_embeddings = count  # type: ignore[method-assign]
    picture = MediaSegment("p", 400, 400, lambda: np.ones((400, N_EMBD), np.float32))
    handles.append(submit(engine, tokens(10, 3), picture))
    assert result(handles[0]).reason == "cancelled"
    assert pieces == [64]
    engine.check_integrity()
    second = answer(engine, tokens(60), said.tokens, (1, 2))
    assert second.cache.memory_tokens == 91


@each_whole
def test_forgetting_a_chat_deletes_its_checkpoints(start: Start) -> None:
    engine = start(kept=True)
    chats = {owner: tokens(100, seed) for seed, owner in enumerate("ab")}
    chats = {owner: (*chat, *answer(engine, chat, owner=owner, n=4).tokens, 1) for owner, chat in chats.items()}
    assert engine.forget("a") == 1
    engine = start(kept=True)
    found = {owner: answer(engine, chat).cache.disk_tokens for owner, chat in chats.items()}
    assert found == {"a": 0, "b": 103}
    engine.check_integrity()


def test_steps_that_cannot_be_broken_off_are_short() -> None:
    scheduler = Scheduler(max_running=1, max_chunk_tokens=512, interruptible=False)
    tried: list[int] = []
    for token_s in (0.05, 0.005, *[0.0001] * 100):
        n = scheduler._max_chunk_tokens
        tried.append(n)
        scheduler.measured([TokenChunk(None, [0] * n, 0, 0)], n * token_s)  # type: ignore[arg-type]
    assert tried[:3] == [32, 8, 8]
    assert tried[-1] == 512
    assert all(n & (n - 1) == 0 for n in tried)  # few shapes


def test_the_writers_know_their_kinds(models: dict[str, Path]) -> None:
    for architecture in tiny_architectures.ARCHITECTURES:
        model = hearth_llama.LlamaModel.load(models[architecture.name])
        kinds = {"recurrent": model.is_recurrent, "hybrid": model.is_hybrid}
        assert kinds == {kind: kind == architecture.kind for kind in kinds}
        model.close()
