"""The engine on tiny models: what it generates, what it reuses, how requests end."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.errors import ContextOverflowError, EngineError, HearthError, ModelError, RequestError
from hearth.models.types import (
    EngineEvent,
    Failed,
    Finished,
    GenerationRequest,
    MediaSegment,
    PrefillProgress,
    SamplingParams,
    Segment,
    TextDelta,
    TextSegment,
)
from tests.models.tiny_gguf import special_id, write_tiny_gguf

LoadEngine = Callable[..., LlamaEngine]
WARM = SamplingParams(temperature=1.0, seed=7)


def text_segment(*tokens: int) -> TextSegment:
    return TextSegment(tuple(tokens))


def prompt_tokens(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(32, 127, n).tolist())


def run(engine: LlamaEngine, *segments: Segment, **fields: object) -> list[EngineEvent]:
    request = GenerationRequest("r", segments, **{"max_tokens": 12, **fields})  # type: ignore[arg-type]
    events = list(engine.submit(request).events())
    engine.check_integrity()
    return events


def finish(engine: LlamaEngine, *segments: Segment, **fields: object) -> Finished:
    last = run(engine, *segments, **fields)[-1]
    assert isinstance(last, Finished), last
    return last


def picture(identity: str, n_tokens: int = 9, scale: float = 1.0) -> tuple[MediaSegment, list[str]]:
    """A media segment with random embeddings and the list of calls of its ``embed``."""
    calls: list[str] = []

    def embed() -> NDArray[np.float32]:
        calls.append(identity)
        seed = sum(identity.encode())
        return (np.random.default_rng(seed).standard_normal((n_tokens, 64)) * scale).astype(np.float32)

    return MediaSegment(identity, n_tokens, n_tokens, embed), calls


def test_events_come_in_order_and_agree(engine: LlamaEngine) -> None:
    events = run(engine, TextSegment(prompt_tokens(30)))
    progress = [event for event in events if isinstance(event, PrefillProgress)]
    assert progress == [PrefillProgress(0, 30), PrefillProgress(30, 30)]
    assert events[: len(progress)] == progress
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert last.text == engine.detokenize(list(last.tokens))
    assert last.usage.completion_tokens == len(last.tokens) == 12
    assert last.reason == "length"
    assert last.timings.ttft_s > 0
    assert last.timings.decode_tokens_per_s > 0


def test_greedy_equals_the_reference(tiny_model: Path, engine: LlamaEngine) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    reference = llama_cpp.Llama(str(tiny_model), n_ctx=512, n_threads=1, flash_attn=True, verbose=False)
    for seed in range(3):
        tokens = prompt_tokens(40, seed)
        expected = []
        for token in reference.generate(list(tokens), temp=0.0, repeat_penalty=1.0):
            expected.append(token)
            if len(expected) == 48:
                break
        assert list(finish(engine, TextSegment(tokens), max_tokens=48).tokens) == expected
    reference.close()


def test_an_integrity_error_is_the_engines(engine: LlamaEngine) -> None:
    finish(engine, TextSegment(prompt_tokens(20)))
    sequence = max(engine._core._cache.sequences, key=lambda one: len(one.entries))
    sequence.entries.pop()
    with pytest.raises(EngineError, match="lost count"):
        engine.check_integrity()


def test_a_fault_while_a_place_is_made_gives_the_place_back(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = engine._core

    def break_down(*_: int) -> bool:
        raise EngineError("a fault")

    prompt = TextSegment(prompt_tokens(40))
    with monkeypatch.context() as patch:
        patch.setattr(core._cells, "place", break_down)
        for _ in core._cache.sequences:
            assert isinstance(run(engine, prompt)[-1], Failed)
    assert not any(slot.busy or slot.entries for slot in core._cache.sequences)
    assert finish(engine, prompt).usage.completion_tokens
    engine.check_integrity()


def test_a_second_turn_reads_only_what_is_new(engine: LlamaEngine, load_engine: LoadEngine) -> None:
    first = prompt_tokens(100)
    answer = finish(engine, TextSegment(first), max_tokens=20)
    second = (*first, *answer.tokens, *prompt_tokens(30, seed=1))
    warm = run(engine, TextSegment(second), max_tokens=20)
    assert warm[0] == PrefillProgress(119, 150), "the last sampled token was never decoded, all before it was"
    assert isinstance(warm[-1], Finished)
    assert warm[-1].usage.cached_tokens == 119
    cold = finish(load_engine(), TextSegment(second), max_tokens=20)
    assert cold.usage.cached_tokens == 0
    assert warm[-1].tokens == cold.tokens


def test_a_prefix_may_end_inside_a_segment(engine: LlamaEngine) -> None:
    first = prompt_tokens(60)
    finish(engine, TextSegment(first))
    assert finish(engine, TextSegment((*first[:41], *prompt_tokens(9, seed=2)))).usage.cached_tokens == 41


def test_the_same_prompt_again_decodes_one_token(engine: LlamaEngine) -> None:
    once, again = (finish(engine, TextSegment(prompt_tokens(50))) for _ in range(2))
    assert again.usage.cached_tokens == 49
    assert once.tokens == again.tokens


def test_conversations_stay_warm_side_by_side(engine: LlamaEngine) -> None:
    system = prompt_tokens(40)
    chats = {seed: (*system, *prompt_tokens(30, seed)) for seed in (1, 2, 3)}
    for seed, chat in chats.items():
        expected = 0 if seed == 1 else 40
        assert finish(engine, TextSegment(chat)).usage.cached_tokens == expected
    for chat in chats.values():
        assert finish(engine, TextSegment(chat)).usage.cached_tokens == 69


def test_old_conversations_make_room(load_engine: LoadEngine) -> None:
    engine = load_engine(n_ctx=512)
    answers = [finish(engine, TextSegment(prompt_tokens(300, seed))).tokens for seed in range(3)]
    assert finish(engine, TextSegment(prompt_tokens(300, 2))).usage.cached_tokens == 299
    forgotten = finish(engine, TextSegment(prompt_tokens(300, 0)))
    assert forgotten.usage.cached_tokens == 0
    assert forgotten.tokens == answers[0]


def test_one_sequence_is_enough(load_engine: LoadEngine) -> None:
    engine = load_engine(n_sequences=1)
    first = prompt_tokens(60)
    finish(engine, TextSegment(first))
    assert finish(engine, TextSegment((*first[:20], *prompt_tokens(50, 1)))).usage.cached_tokens == 20


def test_chunked_prefill_changes_nothing(load_engine: LoadEngine) -> None:
    tokens = prompt_tokens(200)
    whole = finish(load_engine(), TextSegment(tokens))
    events = run(load_engine(n_batch=64, n_ubatch=32), TextSegment(tokens))
    done = [event.done for event in events if isinstance(event, PrefillProgress)]
    assert done == [0, 64, 128, 192, 200]
    assert isinstance(events[-1], Finished)
    assert events[-1].tokens == whole.tokens


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_quantized_kv(tmp_path: Path, load_engine: LoadEngine, kv_type: str) -> None:
    path = write_tiny_gguf(tmp_path / "wide.gguf", n_embd=128)
    engine = load_engine(path, kv_type=kv_type)
    once, again = (finish(engine, TextSegment(prompt_tokens(50))) for _ in range(2))
    assert again.usage.cached_tokens == 49
    assert once.tokens == again.tokens


def test_media_is_embedded_once_and_matched_whole(engine: LlamaEngine, load_engine: LoadEngine) -> None:
    (apple, apple_calls), (pear, pear_calls) = picture("apple"), picture("pear")
    segments = (text_segment(1, 2, 3), apple, text_segment(4, 5))
    first = finish(engine, *segments)
    assert first.usage.prompt_tokens == 14
    assert first.timings.encode_s > 0
    again = finish(engine, *segments, text_segment(*prompt_tokens(5)))
    assert again.usage.cached_tokens == 14
    assert apple_calls == ["apple"]
    other = finish(engine, text_segment(1, 2, 3), pear, text_segment(4, 5))
    assert other.usage.cached_tokens == 3, "nothing of a picture is shared with another one"
    assert pear_calls == ["pear"]
    cold = finish(load_engine(), *segments, text_segment(*prompt_tokens(5)))
    assert cold.tokens == again.tokens


def test_media_changes_the_answer_and_may_stand_anywhere(load_engine: LoadEngine) -> None:
    engine = load_engine(n_batch=16, n_ubatch=16)
    (apple, _), (pear, _) = picture("apple", n_tokens=40), picture("pear", n_tokens=40)
    orders: dict[str, list[Segment]] = {
        "first": [apple, pear, text_segment(9)],
        "swapped": [pear, apple, text_segment(9)],
        "last": [text_segment(9), apple, pear],
    }
    answers = {name: finish(engine, *segments).tokens for name, segments in orders.items()}
    assert len(set(answers.values())) == 3
    assert finish(load_engine(), apple, pear, text_segment(9)).tokens == answers["first"]


def test_media_equals_the_tokens_it_stands_for(tiny_model: Path, engine: LlamaEngine) -> None:
    import gguf

    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny_model).tensors}
    table, tokens = tensors["token_embd.weight"], prompt_tokens(10)
    media = MediaSegment("words", 10, 10, lambda: np.array(table[list(tokens)], np.float32))
    as_media = finish(engine, text_segment(1), media, text_segment(2))
    assert as_media.tokens == finish(engine, text_segment(1, *tokens, 2)).tokens


def test_a_failing_encoder_ends_its_request_only(engine: LlamaEngine, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> NDArray[np.float32]:
        raise ZeroDivisionError("no pixels")

    class PictureError(HearthError):
        pass

    def refused() -> NDArray[np.float32]:
        raise PictureError("a.png: not a picture")

    before = finish(engine, TextSegment(prompt_tokens(20)))
    with caplog.at_level(logging.ERROR):
        failed = run(engine, TextSegment(prompt_tokens(20)), MediaSegment("x", 4, 4, broken))[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineError)
    assert isinstance(failed.error.__cause__, ZeroDivisionError)
    assert "no pixels" in caplog.text
    failed = run(engine, MediaSegment("y", 4, 4, refused))[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, PictureError)
    wrong = run(engine, MediaSegment("z", 4, 4, lambda: np.zeros((4, 7), np.float32)))[-1]
    assert isinstance(wrong, Failed)
    assert "(4, 7)" in str(wrong.error)
    after = finish(engine, TextSegment(prompt_tokens(20)))
    assert after.tokens == before.tokens
    assert after.usage.cached_tokens == 19


def test_stop_strings_split_over_tokens(engine: LlamaEngine) -> None:
    whole = finish(engine, TextSegment(prompt_tokens(30)), max_tokens=40)
    text = whole.text
    stop = text[9:13]
    events = run(engine, TextSegment(prompt_tokens(30)), max_tokens=40, stop=(stop, "never there"))
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.reason == "stop"
    assert last.text == text[: text.index(stop)]
    assert last.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert last.tokens == whole.tokens[: len(last.tokens)]


def test_an_end_of_generation_token_ends_it(tmp_path: Path, load_engine: LoadEngine) -> None:
    tokens = TextSegment(prompt_tokens(30))
    free = finish(load_engine(), tokens, max_tokens=30)
    third = free.tokens[3]
    expected = free.tokens[: free.tokens.index(third) + 1]
    engine = load_engine(write_tiny_gguf(tmp_path / "ends.gguf", eos_token_id=third))
    ended = finish(engine, tokens, max_tokens=30)
    assert ended.reason == "stop"
    assert ended.tokens == expected, "the token that ended it belongs to the sequence"
    assert ended.text == engine.detokenize(list(expected[:-1]))


def test_seeds_make_answers_repeatable(engine: LlamaEngine) -> None:
    tokens = TextSegment(prompt_tokens(30))
    once, again = (finish(engine, tokens, sampling=WARM) for _ in range(2))
    assert once.tokens == again.tokens
    assert once.seed == 7
    free = [finish(engine, tokens, sampling=SamplingParams(temperature=1.0)) for _ in range(2)]
    assert free[0].seed != free[1].seed
    replayed = finish(engine, tokens, sampling=SamplingParams(temperature=1.0, seed=free[0].seed))
    assert replayed.tokens == free[0].tokens


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_json_schema_is_obeyed(engine: LlamaEngine, temperature: float) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
        "required": ["ok", "colour"],
    }
    sampling = SamplingParams(temperature=temperature, seed=3, json_schema=schema)
    done = finish(engine, TextSegment(prompt_tokens(20)), max_tokens=300, sampling=sampling)
    if done.reason == "stop":  # a model of random weights may write white space until it is cut off
        answer = json.loads(done.text)
        assert isinstance(answer["ok"], bool)
        assert answer["colour"] in ("red", "green")
    else:
        assert done.text.lstrip().startswith("{")


def test_repeat_penalty_changes_greedy(engine: LlamaEngine) -> None:
    tokens = TextSegment(prompt_tokens(30))
    plain = finish(engine, tokens, max_tokens=60)
    penalized = finish(engine, tokens, max_tokens=60, sampling=SamplingParams(repeat_penalty=1.8))
    assert len(set(penalized.tokens)) > len(set(plain.tokens))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sampling": SamplingParams(temperature=-1)}, "temperature is -1; it must be within 0..10"),
        ({"sampling": SamplingParams(temperature=float("nan"))}, "temperature is nan"),
        ({"sampling": SamplingParams(top_p=1.5)}, "top_p is 1.5"),
        ({"sampling": SamplingParams(top_k=-3)}, "top_k is -3"),
        ({"sampling": SamplingParams(min_p=2)}, "min_p is 2"),
        ({"sampling": SamplingParams(repeat_penalty=0)}, "repeat_penalty is 0"),
        ({"sampling": SamplingParams(seed=2**32 - 1)}, "seed is 4294967295"),
        ({"sampling": SamplingParams(seed=True)}, "seed is True"),
        ({"sampling": SamplingParams(json_schema=[1])}, "json_schema is list"),  # type: ignore[arg-type]
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": "9"}, "max_tokens is '9'"),
        ({"stop": ("",)}, "0 characters"),
        ({"stop": "word"}, "stop is str"),
        ({"stop": ("x",) * 17}, "17 strings"),
        ({"segments": ()}, "prompt is empty"),
        ({"segments": (TextSegment((1, 9999)),)}, "token id 9999 is not within 0..285"),
        ({"segments": (TextSegment((-1,)),)}, "token id -1"),
        ({"segments": (picture("a", 0)[0],)}, "0 tokens"),
        ({"segments": (MediaSegment("qwen", 9, 3, lambda: np.zeros((9, 64), np.float32)),)}, "M-RoPE"),
    ],
)
def test_bad_parameters_are_named_with_their_range(engine: LlamaEngine, fields: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        engine.submit(GenerationRequest(**{"request_id": "r", "segments": (text_segment(1),), **fields}))  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_schema_that_is_none_fails_its_request(engine: LlamaEngine) -> None:
    sampling = SamplingParams(json_schema={"type": "nonsense"})
    failed = run(engine, text_segment(1), sampling=sampling)[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, RequestError)
    assert finish(engine, text_segment(1)).reason == "length"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_type": "q9"}, "kv_type is 'q9'"),
        ({"kv_type": "q8_0", "flash_attention": False}, "needs flash_attention"),
        ({"n_ctx": 1}, "n_ctx is 1"),
        ({"n_sequences": 257}, "n_sequences is 257"),
        ({"n_batch": 64, "n_ubatch": 128}, "larger than n_batch"),
    ],
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        EngineOptions(**options)  # type: ignore[arg-type]


def test_too_long_a_prompt_says_what_to_do(load_engine: LoadEngine) -> None:
    engine = load_engine(n_ctx=256)
    with pytest.raises(ContextOverflowError, match=r"has 300 tokens, the context holds 256 .* by 45 or raise n_ctx"):
        engine.submit(GenerationRequest("r", (TextSegment(prompt_tokens(300)),)))
    full = finish(engine, TextSegment(prompt_tokens(255)), max_tokens=50)
    assert (full.reason, full.usage.completion_tokens) == ("length", 1)
    filled = finish(engine, TextSegment(prompt_tokens(200)), max_tokens=500)
    assert (filled.reason, filled.usage.completion_tokens) == ("length", 56)


def test_requests_are_answered_in_turn(engine: LlamaEngine) -> None:
    handles = [
        engine.submit(GenerationRequest(str(i), (TextSegment(prompt_tokens(40, i)),), max_tokens=5)) for i in range(6)
    ]
    answers = [list(handle.events())[-1] for handle in handles]
    for i, answer in enumerate(answers):
        assert isinstance(answer, Finished)
        assert answer.tokens == finish(engine, TextSegment(prompt_tokens(40, i)), max_tokens=5).tokens


def test_tokens_and_text(engine: LlamaEngine) -> None:
    text = "the cat <|end|> żółw 🐢\x00 sat"
    plain = engine.tokenize(text)
    assert special_id("<|end|>") not in plain
    assert engine.detokenize(plain) == text
    special = engine.tokenize(text, parse_special=True, add_bos=True)
    assert special[0] == special_id("<|bos|>")
    assert special_id("<|end|>") in special
    assert engine.detokenize(special, special=True) == "<|bos|>" + text
    assert engine.tokenize("") == []
    with pytest.raises(ModelError):
        engine.detokenize([9999])


def test_the_fingerprint_follows_model_and_kv(tmp_path: Path, load_engine: LoadEngine) -> None:
    reference = load_engine().info
    assert load_engine(n_ctx=128, n_sequences=2).info.fingerprint == reference.fingerprint
    other = load_engine(write_tiny_gguf(tmp_path / "other.gguf", seed=1))
    changed = {load_engine(flash_attention=False).info.fingerprint, other.info.fingerprint}
    assert reference.fingerprint not in changed
    assert len(changed) == 2
    assert (reference.bos_token, reference.eos_token, reference.add_bos) == ("<|bos|>", "<|end|>", True)
    assert reference.n_ctx_train == 512
    assert reference.chat_template is not None


def test_nothing_reaches_stderr(
    tiny_model: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="hearth.llama"), LlamaEngine.load(tiny_model) as engine:
        finish(engine, TextSegment(prompt_tokens(300)), sampling=WARM)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out == ""
    assert any(record.name == "hearth.llama" for record in caplog.records)


def test_events_may_be_delivered_instead_of_read(engine: LlamaEngine) -> None:
    prompt = TextSegment(prompt_tokens(30))
    read = finish(engine, prompt, max_tokens=20)
    delivered: list[EngineEvent] = []
    ended = threading.Event()

    def take(events: list[EngineEvent]) -> None:
        delivered.extend(events)
        if isinstance(delivered[-1], Finished | Failed):
            ended.set()

    handle = engine.submit(GenerationRequest("r", (prompt,), max_tokens=20))
    time.sleep(0.01)  # some of them have happened by now
    handle.deliver_to(take)
    assert ended.wait(10)
    last = delivered[-1]
    assert isinstance(last, Finished)
    assert last.tokens == read.tokens
    assert "".join(event.text for event in delivered if isinstance(event, TextDelta)) == last.text
    assert delivered[0] == PrefillProgress(29, 30)


def test_what_several_requests_have_in_one_step_is_flushed_once(engine: LlamaEngine) -> None:
    calls: list[str] = []
    last: list[EngineEvent] = []
    ended = threading.Event()

    def take(index: int, events: list[EngineEvent]) -> None:
        calls.append(str(index))
        last.extend(event for event in events if isinstance(event, Finished | Failed))

    def flush() -> None:
        calls.append("flush")
        if len(last) == 2:
            ended.set()

    for index in range(2):
        request = GenerationRequest(str(index), (TextSegment(prompt_tokens(30)),), max_tokens=150)
        engine.submit(request).deliver_to(partial(take, index), flush)
    assert ended.wait(20)
    assert {"01", "10"} & set("".join(calls).split("flush"))


def test_the_last_event_is_flushed_without_another_step(engine: LlamaEngine) -> None:
    held: list[EngineEvent] = []
    passed_on: list[EngineEvent] = []
    ended = threading.Event()

    def flush() -> None:
        passed_on.extend(held)
        held.clear()
        if passed_on and isinstance(passed_on[-1], Finished | Failed):
            ended.set()

    handle = engine.submit(GenerationRequest("r", (TextSegment(prompt_tokens(30)),), max_tokens=20))
    handle.deliver_to(held.extend, flush)
    assert ended.wait(10)
    assert not held
