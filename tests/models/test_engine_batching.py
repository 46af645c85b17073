"""Several requests at a time: each gets the answer it would have had alone, in turn, within the cells there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.models.engine import LlamaEngine
from hearth.models.engine.prompt import Prompt
from hearth.models.engine.sampler import TokenSampler
from hearth.models.engine.scheduler import Scheduler
from hearth.models.engine.sequence import SEND_EVERY_S, Sequence
from hearth.models.engine.speculation import NgramIndex
from hearth.models.errors import EngineError
from hearth.models.types import (
    Failed,
    Finished,
    GenerationRequest,
    MediaSegment,
    RequestHandle,
    SamplingParams,
    Segment,
    TextDelta,
    TextSegment,
    TokenLogprobs,
)
from tests.models import tiny_gguf
from tests.models.answers import result

LoadEngine = Callable[..., LlamaEngine]
ENDLESS = SamplingParams(logit_bias={tiny_gguf.special_id("<|end|>"): float("-inf")})


def request(tokens: tuple[int, ...] | list[Segment], **fields: object) -> GenerationRequest:
    segments = tuple(tokens) if tokens and not isinstance(tokens[0], int) else (TextSegment(tuple(tokens)),)  # type: ignore[arg-type]
    return GenerationRequest("r", segments, **{"max_tokens": 24, **fields})  # type: ignore[arg-type]


def prompts(n: int, length: int = 30, seed: int = 0) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(int(t) for t in rng.integers(0, 250, length)) for _ in range(n)]


def test_side_by_side_equals_one_after_another(load_engine: LoadEngine) -> None:
    alone = load_engine(n_parallel=1, prompt_lookup=False)
    expected = [result(alone.submit(request(prompt))).tokens for prompt in prompts(6)]
    together = load_engine(n_parallel=4, prompt_lookup=False)
    handles = [together.submit(request(prompt)) for prompt in prompts(6)]
    assert [result(handle).tokens for handle in handles] == expected
    together.check_integrity()


@pytest.mark.parametrize("prompt_lookup", [False, True])
def test_answers_that_nothing_interrupts_go_on_without_being_scheduled(
    load_engine: LoadEngine, prompt_lookup: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(n_parallel=3, prompt_lookup=prompt_lookup)
    sampled = SamplingParams(temperature=0.9, seed=5, repeat_penalty=1.2, logit_bias=ENDLESS.logit_bias)
    n_scheduled = [0]
    schedule = Scheduler.schedule

    def counted(scheduler: Scheduler) -> object:
        n_scheduled[0] += 1
        return schedule(scheduler)

    monkeypatch.setattr(Scheduler, "schedule", counted)

    def answers() -> list[tuple[int, ...]]:
        chats = zip(prompts(3), (ENDLESS, sampled, sampled), strict=True)
        handles = [engine.submit(request(p, sampling=chosen, max_tokens=60)) for p, chosen in chats]
        return [result(handle).tokens for handle in handles]

    calm = answers()
    assert n_scheduled[0] < 40 or prompt_lookup, "60 tokens, and many more steps if each were scheduled"
    engine.check_integrity()
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            engine.stats()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert answers() == calm, "every step looked after others first"
    finally:
        over.set()
        thread.join()
    assert engine.stats()["n_step_sequences"] > 3 * 60
    engine.check_integrity()


def test_an_answer_that_fails_between_others_costs_only_itself(
    load_engine: LoadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(n_parallel=3, prompt_lookup=False)
    expected = [result(engine.submit(request(p, sampling=ENDLESS, max_tokens=40))).tokens for p in prompts(3)]
    n_sampled = [0]
    sample = TokenSampler.sample

    def failing(sampler: TokenSampler, row: int) -> int:
        if sampler._sampling.seed == 77:
            n_sampled[0] += 1
            if n_sampled[0] == 20:
                raise EngineError("no token can be chosen")
        return sample(sampler, row)

    monkeypatch.setattr(TokenSampler, "sample", failing)
    chosen = (ENDLESS, replace(ENDLESS, seed=77), ENDLESS)
    chats = zip(prompts(3), chosen, strict=True)
    first, second, third = [engine.submit(request(p, sampling=s, max_tokens=40)) for p, s in chats]
    with pytest.raises(EngineError, match="no token can be chosen"):
        result(second)
    assert [result(first).tokens, result(third).tokens] == [expected[0], expected[2]]
    engine.check_integrity()
    again = engine.submit(request(prompts(3)[1], sampling=ENDLESS, max_tokens=40))
    assert result(again).tokens == expected[1], "nothing wrong is left in the cache"


def test_seeds_hold_whatever_else_is_in_the_batch(load_engine: LoadEngine) -> None:
    sampling = SamplingParams(temperature=0.8, seed=11)
    engine = load_engine(n_parallel=4)
    alone = result(engine.submit(request(prompts(1)[0], sampling=sampling))).tokens
    handles = [engine.submit(request(p, sampling=SamplingParams(temperature=1.0))) for p in prompts(3, seed=1)]
    among = engine.submit(request(prompts(1)[0], sampling=sampling))
    assert result(among).tokens == alone
    for handle in handles:
        result(handle)


def test_equal_prompts_share_their_cells(load_engine: LoadEngine) -> None:
    engine = load_engine(n_ctx=512, n_parallel=4)
    (shared,) = prompts(1, length=200)
    result(engine.submit(request((*shared, 1))))
    handles = [engine.submit(request((*shared, i, i), max_tokens=8)) for i in range(2, 6)]
    assert [result(handle).usage.cached_tokens for handle in handles] == [200] * 4
    assert engine.stats()["cells_held"] < 300
    engine.check_integrity()


def test_more_than_fits_waits_and_nothing_fails(load_engine: LoadEngine) -> None:
    alone = load_engine(n_ctx=1024, n_parallel=1, prompt_lookup=False)
    many = prompts(6, length=150)
    expected = [result(alone.submit(request(prompt, max_tokens=60))).tokens for prompt in many]
    engine = load_engine(n_ctx=512, n_parallel=4, prompt_lookup=False)
    handles = [engine.submit(request(prompt, max_tokens=60)) for prompt in many]
    assert [result(handle).tokens for handle in handles] == expected
    engine.check_integrity()


def test_a_full_cache_preempts_the_youngest_and_takes_it_up_again(load_engine: LoadEngine) -> None:
    alone = load_engine(n_ctx=1024, n_parallel=1, prompt_lookup=False)
    many = prompts(3, length=40)
    expected = [result(alone.submit(request(prompt, max_tokens=300, sampling=ENDLESS))).tokens for prompt in many]
    engine = load_engine(n_ctx=512, n_parallel=3, prompt_lookup=False)
    handles = [engine.submit(request(prompt, max_tokens=300, sampling=ENDLESS)) for prompt in many]
    answers = [result(handle).tokens for handle in handles]
    assert [len(tokens) for tokens in answers] == [300] * 3
    # what is computed again after a preemption is computed in larger batches, which round differently
    assert [tokens[:100] for tokens in answers] == [tokens[:100] for tokens in expected]
    assert engine.stats()["n_preempted"] > 0
    engine.check_integrity()


def test_cancelling_a_preempted_request_keeps_its_text(load_engine: LoadEngine) -> None:
    engine = load_engine(n_ctx=256, n_parallel=2, prompt_lookup=False)
    first, second = (engine.submit(request(p, max_tokens=200, sampling=ENDLESS)) for p in prompts(2, length=20))
    deadline = time.monotonic() + 20
    while not engine.stats()["n_preempted"] and time.monotonic() < deadline:
        time.sleep(0.005)
    second.cancel()
    cancelled = result(second)
    assert cancelled.reason == "cancelled"
    assert cancelled.text
    assert len(result(first).tokens) == 200
    engine.check_integrity()


def test_a_short_question_does_not_wait_for_a_long_prompt(load_engine: LoadEngine) -> None:
    engine = load_engine(n_ctx=4096, n_batch=64, n_ubatch=64, n_parallel=2)
    ends: list[str] = []

    def wait(name: str, handle: RequestHandle) -> None:
        result(handle)
        ends.append(name)

    long = engine.submit(request(prompts(1, length=3000)[0], max_tokens=2))
    short = engine.submit(request(prompts(1, length=10)[0], max_tokens=2))
    threads = [threading.Thread(target=wait, args=pair) for pair in (("long", long), ("short", short))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == ["short", "long"]


def test_an_answer_goes_on_while_a_picture_is_encoded(load_engine: LoadEngine) -> None:
    engine = load_engine(n_parallel=2)
    encoding, go_on = threading.Event(), threading.Event()

    def embed() -> np.ndarray:
        encoding.set()
        assert go_on.wait(20)
        return np.ones((4, engine.info.n_embd), np.float32)

    seeing = engine.submit(request([MediaSegment("slow", 4, 4, embed), TextSegment((1, 2))]))
    assert encoding.wait(20)
    assert result(engine.submit(request(prompts(1)[0]))).tokens
    go_on.set()
    assert result(seeing).tokens


def test_a_failing_request_leaves_those_beside_it_alone(load_engine: LoadEngine) -> None:
    engine = load_engine(n_parallel=3)
    expected = result(engine.submit(request(prompts(1)[0], max_tokens=60))).tokens

    def embed() -> np.ndarray:
        raise ValueError("no picture")

    running = engine.submit(request(prompts(1)[0], max_tokens=60))
    failing = engine.submit(request([MediaSegment("bad", 4, 4, embed)]))
    assert isinstance(list(failing.events())[-1], Failed)
    assert result(running).tokens == expected


def test_cancelling_one_leaves_the_others_their_answers(load_engine: LoadEngine) -> None:
    alone = load_engine(prompt_lookup=False)
    expected = result(alone.submit(request(prompts(1)[0], max_tokens=200))).tokens
    engine = load_engine(n_parallel=3, prompt_lookup=False)
    kept = engine.submit(request(prompts(1)[0], max_tokens=200))
    others = [engine.submit(request(p, max_tokens=400, sampling=ENDLESS)) for p in prompts(4, seed=3)]
    for handle in others:
        assert isinstance(next(e for e in handle.events() if isinstance(e, TextDelta | Finished)), TextDelta | Finished)
        handle.cancel()
    assert result(kept).tokens == expected
    engine.check_integrity()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_guessing_changes_no_answer(load_engine: LoadEngine, temperature: float) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=True)
    (base,) = prompts(1, length=20)
    sampling = SamplingParams(temperature=temperature, seed=5)
    wanted = request(base * 6, sampling=sampling, max_tokens=150)
    assert result(guessing.submit(wanted)).tokens == result(plain.submit(wanted)).tokens
    assert guessing.stats()["n_guessed"] > 0
    guessing.check_integrity()


def test_guesses_come_true_where_text_repeats(load_engine: LoadEngine) -> None:
    """A tiny greedy model soon repeats itself: then most guesses are right, and steps fewer than tokens."""
    engine = load_engine(prompt_lookup=True)
    finished = result(engine.submit(request(prompts(1)[0], max_tokens=300)))
    stats = engine.stats()
    assert stats["n_accepted"] > 0
    assert stats["n_steps"] + stats["n_accepted"] >= len(finished.tokens) - 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=40), st.integers(1, 6))
def test_the_ngram_index_against_brute_force(tokens: list[int], n_max: int) -> None:
    index = NgramIndex()
    for token in tokens:
        index.extend([token])
    expected: list[int] = []
    for n in (3, 2):
        places = [i for i in range(n, len(tokens)) if tokens[i - n : i] == tokens[-n:]]
        if places and len(tokens) >= n:
            expected = tokens[places[-1] : places[-1] + n_max]
            break
    assert index.continuation(n_max) == expected


def test_a_copied_text_is_followed_over_a_changed_token() -> None:
    index = NgramIndex()
    text = list(range(100, 140))
    index.extend([*text, 1, 2, *text[:3]])
    assert index.continuation(3) == text[3:6]
    index.extend(text[3:12])
    assert index.continuation(3) == text[12:15]
    index.extend([7])  # in the place of text[12]
    assert index.continuation(3) == text[13:16]
    index.extend([8, 9, 10])
    assert index.continuation(3) == [], "it goes another way"


def test_a_short_match_is_not_followed_where_it_fails() -> None:
    index = NgramIndex()
    index.extend([1, 2, 3, 4, 5, 9, 1, 2])
    assert index.continuation(2) == [3, 4]
    index.extend([8])
    assert index.continuation(2) == []


@dataclass
class Timed:
    """As much of a sequence as decides how large a step may be."""

    submitted_s: float
    first_token_s: float | None = None

    def has_begun_after(self, moment_s: float) -> bool:
        return self.first_token_s is None or self.first_token_s > moment_s


def room(scheduler: Scheduler, answers: list[Timed], prompts: list[Timed]) -> int:
    return scheduler._shared_room(answers, prompts, len(answers))  # type: ignore[arg-type]


def test_prompts_beside_answers_take_what_keeps_these_even() -> None:
    scheduler = Scheduler(max_running=4, max_chunk_tokens=512)
    answer, newcomer = Timed(0.0, 1.0), Timed(2.0)
    assert room(scheduler, [answer], [newcomer]) == 3, "nothing is known yet"
    scheduler.answers_took(0.013)
    scheduler.prefill_token_s = 0.0033
    assert room(scheduler, [answer], [newcomer]) == 15
    scheduler._shared_token_s = 0.02
    assert room(scheduler, [answer], [newcomer]) == 3, "at least what fills the kernels' rows"
    scheduler._shared_token_s = 0.0001
    assert (room(scheduler, [answer], [newcomer]) + 1) % 4 == 0
    assert room(scheduler, [answer], [newcomer]) > 300
    scheduler._shared_token_s = 0.0
    assert room(scheduler, [answer] * 3, [newcomer]) <= 512


def test_answers_that_began_after_a_prompt_came_wait_longer_for_it() -> None:
    scheduler = Scheduler(max_running=4, max_chunk_tokens=512)
    scheduler.answers_took(0.013)
    scheduler._shared_token_s = 0.005
    assert room(scheduler, [Timed(0.0, 1.0)], [Timed(2.0)]) == 15
    assert room(scheduler, [Timed(0.0, 3.0)], [Timed(2.0)]) > 40
    assert room(scheduler, [Timed(0.0, 3.0), Timed(0.0, 1.0)], [Timed(2.0)]) < 20, "one has a reader by then"
    assert room(scheduler, [Timed(0.0, 3.0)] * 4, [Timed(2.0)] * 4) > 300, "nobody reads eight at once"


def test_the_first_answers_let_prompts_be_read_beside_them(load_engine: LoadEngine) -> None:
    scheduler = load_engine()._core._scheduler
    scheduler.prefill_token_s = 0.0001
    assert room(scheduler, [Timed(0.0, 1.0)], [Timed(2.0)]) > 100, "no step of answers alone was needed"


def test_the_first_word_comes_at_once_and_fast_ones_together() -> None:
    prompt = Prompt((TextSegment((1, 2)),), n_vocab=10, m_rope=False)
    sequence = Sequence(request((1, 2)), prompt, seed=0)

    def step(piece: bytes) -> int:
        sequence.append(3, piece)
        sequence.send()
        return sequence.events.qsize()

    assert step(b"a") == 1
    assert step(b"b") == step(b"c") == 1, "held back"
    time.sleep(SEND_EVERY_S)
    assert step(b"d") == step(b"e") == 2, "as one"
    sequence.finish("stop")
    texts = [sequence.events.get() for _ in range(sequence.events.qsize())]
    assert texts[:-1] == [TextDelta("a"), TextDelta("bcd"), TextDelta("e")]
    assert isinstance(texts[-1], Finished)


def test_text_that_is_sent_together_has_the_log_probabilities_of_its_own_tokens() -> None:
    prompt = Prompt((TextSegment((1, 2)),), n_vocab=10, m_rope=False)
    sequence = Sequence(request((1, 2)), prompt, seed=0)
    told = [TokenLogprobs(token, -1.0 - token, ()) for token in range(4)]
    for token, piece in enumerate((b"a", b"b", b"\xc3")):
        sequence.note_logprobs(told[token])
        sequence.append(token, piece)
    sequence.note_logprobs(told[3])
    sequence.note_token(3)  # ends it, without text
    sequence.send()
    assert sequence.events.get() == TextDelta("ab", tuple(told[:2]))
    sequence.finish("stop")
    assert sequence.events.get() == TextDelta("\ufffd", tuple(told[2:]))
