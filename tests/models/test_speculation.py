"""Guesses change no answer, whoever made them: tokens, their distribution, ends, cancels and a full cache."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import LlamaEngine, draft, speculation
from hearth.models.engine.draft import DraftModel
from hearth.models.engine.speculation import Calibration, Speculation, StepCosts, Trial
from hearth.models.errors import ModelFileError
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import ContextOptions, LlamaContext
from hearth.models.types import (
    Finished,
    GenerationRequest,
    MediaSegment,
    SamplingParams,
    Segment,
    TextDelta,
    TextSegment,
)
from tests.models.answers import result
from tests.models.tiny_gguf import special_id, write_tiny_gguf

LoadEngine = Callable[..., LlamaEngine]
ENDLESS = SamplingParams(logit_bias={special_id("<|end|>"): float("-inf")})
N_SEEDS = 2000
CHI_SQUARE_P001 = {3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32, 8: 26.12, 9: 27.88}  # by degrees of freedom


def tokens(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(32, 127, n).tolist())


def request(prompt: tuple[int, ...] | tuple[Segment, ...], **fields: object) -> GenerationRequest:
    segments = prompt if isinstance(prompt[0], TextSegment | MediaSegment) else (TextSegment(prompt),)  # type: ignore[arg-type]
    return GenerationRequest("r", segments, **{"max_tokens": 60, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def related(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft model that is often right: the tiny model with weights a little off."""
    rng = np.random.default_rng(9)

    def change(_name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values * (1 + 0.1 * rng.standard_normal(values.shape))

    return write_tiny_gguf(tmp_path_factory.mktemp("drafts") / "related.gguf", change=change)


@pytest.fixture(scope="session")
def unrelated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("drafts") / "unrelated.gguf", n_layer=1, seed=5)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses whether they pay or not, which on a tiny model they do not, however unsure they are."""
    monkeypatch.setattr(speculation, "MIN_STEPS_MEASURED", 1 << 60)
    monkeypatch.setattr(speculation, "MIN_DRAFTS_MEASURED", 1 << 60)
    monkeypatch.setattr(speculation, "MIN_PLAIN_STEPS", 0)
    monkeypatch.setattr(speculation, "MAX_PLAIN_AGE", 1 << 60)
    monkeypatch.setattr(draft, "MIN_RATE", 0.0)
    monkeypatch.setattr(StepCosts, "best_length", lambda _self, rates, *_: len(rates))


class FakeSequence:
    """What a draft model sees of a request."""

    def __init__(self, text: list[int]) -> None:
        self.speculation = Speculation(text, StepCosts(), draft_vocab=1000)


def compare(plain: LlamaEngine, guessing: LlamaEngine, *requests: GenerationRequest) -> dict[str, float]:
    """Both give the same answers. What the guessing one counted."""
    for wanted in requests:
        expected, got = result(plain.submit(wanted)), result(guessing.submit(wanted))
        assert (got.tokens, got.text, got.reason) == (expected.tokens, expected.text, expected.reason)
    guessing.check_integrity()
    draft = guessing._core._draft
    assert draft is None or not draft._failed
    return guessing.stats()


# drafts


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_draft_model_changes_no_answer(load_engine: LoadEngine, related: Path, temperature: float) -> None:
    plain = load_engine(prompt_lookup=False)
    guessing = load_engine(prompt_lookup=False, draft_model=related)
    sampling = SamplingParams(temperature=temperature, seed=3)
    stats = compare(plain, guessing, *(request(tokens(40, i), sampling=sampling) for i in range(5)))
    assert 0 < stats["n_accepted"] < stats["n_guessed"], "some came true and some did not"
    assert stats["draft_s"] > 0
    assert plain.info.fingerprint == guessing.info.fingerprint, "saved KV does not depend on who guessed"


@pytest.mark.usefixtures("always")
def test_the_model_as_its_own_draft_is_always_right(load_engine: LoadEngine, tiny_model: Path) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=tiny_model)
    stats = compare(plain, guessing, request(tokens(40), max_tokens=200, sampling=ENDLESS))
    assert stats["n_accepted"] >= 0.95 * stats["n_guessed"]  # rows of a batch round a little differently
    assert stats["n_steps"] < 50


@pytest.mark.usefixtures("always")
def test_a_draft_that_is_always_wrong(load_engine: LoadEngine, unrelated: Path) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=unrelated)
    stats = compare(plain, guessing, request(tokens(40), max_tokens=200, sampling=ENDLESS))
    assert stats["n_guessed"] > 100
    assert stats["n_accepted"] < 0.1 * stats["n_guessed"]


@pytest.mark.usefixtures("always")
def test_lookup_goes_first_and_the_draft_fills_in(load_engine: LoadEngine, related: Path) -> None:
    plain, both = load_engine(prompt_lookup=False), load_engine(draft_model=related)
    lookup = load_engine()
    repeated = request(tokens(20) * 4, max_tokens=150, sampling=SamplingParams(temperature=0.7, seed=1))
    n_both = compare(plain, both, repeated)["n_guessed"]
    assert n_both > compare(plain, lookup, repeated)["n_guessed"]


@pytest.mark.usefixtures("always")
def test_two_at_a_time_are_guessed_for_and_three_are_not(load_engine: LoadEngine, related: Path) -> None:
    plain = load_engine(prompt_lookup=False, n_parallel=1)
    expected = [result(plain.submit(request(tokens(30, i), sampling=ENDLESS))).tokens for i in range(3)]
    guessing = load_engine(prompt_lookup=False, draft_model=related, n_parallel=3)
    pair = [guessing.submit(request(tokens(30, i), sampling=ENDLESS)) for i in range(2)]
    assert [result(handle).tokens for handle in pair] == expected[:2]
    assert guessing.stats()["n_accepted"] > 0
    long = ENDLESS
    handles = [guessing.submit(request(tokens(30, i), sampling=long)) for i in range(3)]
    assert [result(handle).tokens for handle in handles] == expected
    guessing.check_integrity()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 7])
def test_max_tokens_is_never_exceeded(load_engine: LoadEngine, tiny_model: Path, max_tokens: int) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=tiny_model)
    wanted = [request(tokens(30, i), max_tokens=max_tokens, sampling=ENDLESS) for i in range(3)]
    compare(plain, guessing, *wanted)
    assert len(result(guessing.submit(wanted[0])).tokens) == max_tokens


@pytest.mark.usefixtures("always")
def test_stop_strings_within_accepted_drafts(load_engine: LoadEngine, tiny_model: Path) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=tiny_model)
    text = result(plain.submit(request(tokens(30), max_tokens=40, sampling=ENDLESS))).text
    for start in range(3, 24, 3):
        wanted = request(tokens(30), max_tokens=40, sampling=ENDLESS, stop=(text[start : start + 3],))
        compare(plain, guessing, wanted)
    assert guessing.stats()["n_accepted"] > 0


@pytest.mark.usefixtures("always")
def test_an_answer_that_ends_by_itself(load_engine: LoadEngine, tiny_model: Path) -> None:
    plain = load_engine(prompt_lookup=False)
    said = result(plain.submit(request(tokens(30), sampling=ENDLESS))).tokens
    ending = write_tiny_gguf(tiny_model.with_name("ending.gguf"), eos_token_id=said[12])
    plain, guessing = (
        load_engine(ending, prompt_lookup=False),
        load_engine(ending, prompt_lookup=False, draft_model=ending),
    )
    compare(plain, guessing, request(tokens(30)))
    assert result(guessing.submit(request(tokens(30)))).reason == "stop"


@pytest.mark.usefixtures("always")
def test_grammars_hold_whatever_is_guessed(load_engine: LoadEngine, related: Path) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=related)
    sampling = SamplingParams(grammar='root ::= ("ab" | "cd")+', temperature=1.0, seed=4)
    compare(plain, guessing, request(tokens(30), sampling=sampling))


@pytest.mark.usefixtures("always")
def test_a_text_longer_than_the_window(
    load_engine: LoadEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft model starts again from the text's end, several times, and reads what stands there in parts."""
    small = write_tiny_gguf(tmp_path / "small.gguf", n_ctx_train=64)
    monkeypatch.setattr(draft, "FIRST_READ_TOKENS", 20)
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=small)
    stats = compare(plain, guessing, request(tokens(150), max_tokens=200, sampling=ENDLESS))
    assert stats["n_guessed"] > 100


@pytest.mark.parametrize("n_ctx_train", [64, 512])
def test_guesses_follow_the_text_however_it_goes_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_ctx_train: int
) -> None:
    """What the draft model holds is the text's end: one that reads that anew guesses the same."""
    monkeypatch.setattr(draft, "MIN_RATE", 0.0)
    path = write_tiny_gguf(tmp_path / "draft.gguf", n_ctx_train=n_ctx_train)
    target = LlamaContext(LlamaModel.load(tiny_model), ContextOptions(n_ctx=512, n_seq_max=2))

    def guess(model: DraftModel, sequence: FakeSequence, n: int) -> list[int]:
        for _ in range(100):
            drafts = model._guess({sequence: n})  # type: ignore[dict-item]
            if drafts:
                return drafts[sequence].tokens  # type: ignore[index]
        raise AssertionError("it never comes to guess")

    def start_of(model: DraftModel, sequence: FakeSequence) -> int:
        return next(one.start for one in model._followed if one.owner is sequence)

    model = DraftModel(LlamaModel.load(path), target, n_threads=1)
    n_compared = 0
    rng = np.random.default_rng(1)
    chats = [FakeSequence(list(tokens(20, i))) for i in range(3)]
    for step in range(60):
        chat = chats[int(rng.integers(3))]
        guessed = guess(model, chat, int(rng.integers(1, 8)))
        fresh = DraftModel(LlamaModel.load(path), target, n_threads=1)
        again = FakeSequence(list(chat.speculation.text))
        guessed_again = guess(fresh, again, len(guessed))
        if start_of(fresh, again) == start_of(model, chat):
            assert guessed_again == guessed, step
            n_compared += 1
        fresh.close()
        n_right = int(rng.integers(0, len(guessed) + 1))
        chat.speculation.text += [*guessed[:n_right], int(rng.integers(32, 127))]
        for followed in model._followed:
            assert model._context.seq_pos_max(followed.seq_id) + 1 == len(followed.tokens) <= min(n_ctx_train, 512)
    assert n_compared >= 20
    model.close()
    target.close()
    target.model.close()


@pytest.mark.usefixtures("always")
def test_the_next_turn_and_another_chat(load_engine: LoadEngine, related: Path) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=related)
    chats = [tokens(30, i) for i in range(3)]
    for turn in range(3):
        for i, chat in enumerate(chats):
            wanted = request(chat, max_tokens=10, sampling=ENDLESS)
            compare(plain, guessing, wanted)
            chats[i] = (*chat, *result(plain.submit(wanted)).tokens, *tokens(8, turn))


@pytest.mark.usefixtures("always")
def test_a_picture_is_passed_over(load_engine: LoadEngine, related: Path) -> None:
    def embed() -> NDArray[np.float32]:
        return np.random.default_rng(1).standard_normal((9, 64)).astype(np.float32)

    prompt = (TextSegment(tokens(10)), MediaSegment("p", 9, 9, embed), TextSegment(tokens(20, 1)))
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=related)
    assert compare(plain, guessing, request(prompt))["n_guessed"] > 0


@pytest.mark.usefixtures("always")
def test_cancelling_while_the_draft_model_works(load_engine: LoadEngine, related: Path) -> None:
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=related)
    for i in range(8):
        handle = guessing.submit(request(tokens(200, i), max_tokens=300, sampling=ENDLESS))
        events = handle.events()
        for event in events:
            if isinstance(event, TextDelta):
                break
        time.sleep(0.0007 * i)
        handle.cancel()
        last = list(events)[-1]
        assert isinstance(last, Finished)
        assert last.reason == "cancelled"
    compare(plain, guessing, request(tokens(200), max_tokens=100, sampling=ENDLESS))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("way", ["lookup", "draft"])
def test_a_preempted_request_is_taken_up_again(load_engine: LoadEngine, tiny_model: Path, way: str) -> None:
    alone = load_engine(n_ctx=1024, n_parallel=1, prompt_lookup=False)
    prompts = [tokens(40, i) for i in range(2)]
    expected = [result(alone.submit(request(p, max_tokens=350, sampling=ENDLESS))).tokens for p in prompts]
    given = {"prompt_lookup": True} if way == "lookup" else {"prompt_lookup": False, "draft_model": tiny_model}
    engine = load_engine(n_ctx=512, n_parallel=2, **given)
    handles = [engine.submit(request(p, max_tokens=350, sampling=ENDLESS)) for p in prompts]
    answers = [result(handle).tokens for handle in handles]
    assert [len(answer) for answer in answers] == [350, 350]
    # what is computed again after a preemption is computed in larger batches, which round differently
    assert [answer[:80] for answer in answers] == [answer[:80] for answer in expected]
    stats = engine.stats()
    assert stats["n_preempted"] > 0
    assert stats["n_accepted"] > 0
    engine.check_integrity()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("way", ["lookup", "draft"])
def test_guesses_do_not_overfill_the_context(load_engine: LoadEngine, tiny_model: Path, way: str) -> None:
    """At its end there are fewer cells than guesses; the answer goes on without them to the last one."""
    given = {"prompt_lookup": True} if way == "lookup" else {"prompt_lookup": False, "draft_model": tiny_model}
    plain, guessing = load_engine(n_ctx=256, prompt_lookup=False), load_engine(n_ctx=256, **given)
    wanted = request(tokens(20) * 5, max_tokens=500, sampling=ENDLESS)
    assert compare(plain, guessing, wanted)["n_guessed"] > 0
    finished = result(guessing.submit(wanted))
    assert finished.reason == "length"
    assert len(finished.tokens) == 256 - 100


def test_a_draft_that_does_not_pay_is_left_alone(load_engine: LoadEngine, unrelated: Path) -> None:
    engine = load_engine(prompt_lookup=False, draft_model=unrelated)
    for i in range(4):
        result(engine.submit(request(tokens(40, i), max_tokens=400, sampling=ENDLESS)))
    stats = engine.stats()
    n_tokens = 4 * 400
    assert stats["n_steps"] > 0.9 * n_tokens
    assert stats["n_guessed"] < 0.2 * n_tokens


# which draft models are refused


def test_another_vocabulary_is_refused(
    load_engine: LoadEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models import tiny_gguf

    made, merges = tiny_gguf.vocabulary()
    path = tmp_path / "other.gguf"
    with monkeypatch.context() as patch:
        patch.setattr(tiny_gguf, "vocabulary", lambda: ([*made[:40], "a-z", *made[41:]], merges))
        write_tiny_gguf(path)
    with pytest.raises(
        ModelFileError, match=r"other\.gguf: its token 40 is 'a-z', that of tiny\.gguf is .*same vocabulary"
    ):
        load_engine(draft_model=path)
    with monkeypatch.context() as patch:
        extra = [f"<{i}>" for i in range(200)]
        patch.setattr(tiny_gguf, "vocabulary", lambda: ([*made[:-5], *extra, *made[-5:]], merges))
        write_tiny_gguf(path)
    with pytest.raises(ModelFileError, match=r"it has 486 tokens, tiny\.gguf has 286"):
        load_engine(draft_model=path)


@pytest.mark.usefixtures("always")
def test_a_padded_vocabulary_is_no_other(
    load_engine: LoadEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models import tiny_gguf

    made, merges = tiny_gguf.vocabulary()
    path = tmp_path / "padded.gguf"
    with monkeypatch.context() as patch:
        patch.setattr(tiny_gguf, "SPECIAL_TOKENS", (*tiny_gguf.SPECIAL_TOKENS, *(f"<{i}>" for i in range(60))))
        patch.setattr(tiny_gguf, "vocabulary", lambda: ([*made, *(f"<{i}>" for i in range(60))], merges))
        write_tiny_gguf(path)
    plain, guessing = load_engine(prompt_lookup=False), load_engine(prompt_lookup=False, draft_model=path)
    assert compare(plain, guessing, request(tokens(30)))["n_guessed"] > 0
    plain, guessing = (
        load_engine(path, prompt_lookup=False),
        load_engine(path, prompt_lookup=False, draft_model=plain.info.path),
    )
    unknown = 300
    prompts = (*tokens(30), unknown, *tokens(3)), (*tokens(30), unknown), (unknown,)
    assert compare(plain, guessing, *(request(prompt, sampling=ENDLESS) for prompt in prompts))["n_guessed"] > 0


def test_recurrent_models_are_refused(load_engine: LoadEngine, tmp_path: Path, tiny_model: Path) -> None:
    from tests.models.tiny_architectures import write_mamba

    mamba = write_mamba(tmp_path / "mamba.gguf")
    with pytest.raises(ModelFileError, match=r"mamba\.gguf: a recurrent model.*leave draft_model out"):
        load_engine(mamba, draft_model=tiny_model)
    with pytest.raises(ModelFileError, match=r"mamba\.gguf: a recurrent model.*choose another draft_model"):
        load_engine(draft_model=mamba)
    with pytest.raises(ModelFileError, match=r"absent\.gguf: no such file"):
        load_engine(draft_model=tmp_path / "absent.gguf")


# the distribution


WORDS = tokens(5, 7)
EVERY_PAIR = (0, 0, 1, 0, 2, 0, 3, 0, 4, 1, 1, 2, 1, 3, 1, 4, 2, 2, 3, 2, 4, 3, 3, 4, 4, 0)
COPYING = tuple(WORDS[i] for i in EVERY_PAIR), {"top_k": 0, "logit_bias": dict.fromkeys(WORDS, 50.0)}  # lookup knows
FREE = tokens(20), {"top_k": 6}


def first_tokens(
    engine: LlamaEngine, seeds: range, kind: tuple[tuple[int, ...], dict[str, object]]
) -> list[tuple[int, ...]]:
    """The beginnings of answers at temperature 1, by seed."""
    prompt, sampling = kind
    handles = []
    for seed in seeds:
        drawn = SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "seed": seed, **sampling})  # type: ignore[arg-type]
        handles.append(engine.submit(request(prompt, max_tokens=6, sampling=drawn)))
    return [result(handle).tokens for handle in handles]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("way", ["lookup", "draft"])
def test_the_distribution_of_answers_is_that_without_guesses(load_engine: LoadEngine, related: Path, way: str) -> None:
    """Of other seeds, so that they do not agree because random numbers are equal; for equal ones the tokens are."""
    given = {"draft_model": related, "prompt_lookup": False} if way == "draft" else {"prompt_lookup": True}
    kind = FREE if way == "draft" else COPYING
    expected = first_tokens(load_engine(prompt_lookup=False, n_parallel=1), range(N_SEEDS), kind)
    engine = load_engine(**given, n_parallel=1)
    equal = first_tokens(engine, range(200), kind)
    assert sum(a == b for a, b in zip(equal, expected, strict=False)) >= 198  # a row of a batch may round otherwise
    got = first_tokens(engine, range(10_000, 10_000 + N_SEEDS), kind)
    stats = engine.stats()
    assert 0.05 < stats["n_accepted"] / stats["n_guessed"] < 0.95
    for place in range(6):
        assert_same_distribution([a[place : place + 1] for a in expected], [a[place : place + 1] for a in got])
    assert_same_distribution([a[1:3] for a in expected], [a[1:3] for a in got])


def assert_same_distribution(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    """Chi-square test of homogeneity at 0.1 %, of the nine commonest outcomes and the rest."""
    commonest = [outcome for outcome, _ in Counter(one + other).most_common(9)]
    counts = np.array([[sum(o == c for o in sample) for c in commonest] for sample in (one, other)], float)
    rest = np.array([[len(sample)] for sample in (one, other)]) - counts.sum(axis=1, keepdims=True)
    counts = np.hstack([counts, rest]) if rest.sum() >= 10 else counts
    expected = counts.sum(axis=0) * counts.sum(axis=1, keepdims=True) / counts.sum()
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    n_free = counts.shape[1] - 1
    assert n_free >= 3, "there is something to compare"
    assert chi_square < CHI_SQUARE_P001[n_free], (chi_square, counts)


# policy


def test_a_trial_stops_where_it_does_not_pay_and_tries_again_later() -> None:
    trial = Trial(max_probe_every=128)
    for _ in range(3):
        assert trial.n_wanted(10)
        trial.checked(4, 0, 0.5)
    pauses = []
    for _ in range(4):
        n = 0
        while not trial.n_wanted(10):
            n += 1
        pauses.append(n)
        trial.checked(2, 0, 0.5)
    assert pauses == [31, 63, 127, 127]
    for _ in range(10):
        trial.checked(2, 2, 2.0)
    assert trial.n_wanted(10) == 10
    assert trial.n_wanted(3) == 3
    assert Trial(trial).n_wanted(10) == 10


def test_as_many_guesses_as_give_most_tokens_a_second() -> None:
    costs = StepCosts()
    costs.measured(1, 0, 0.010)
    assert costs.best_length([0.9, 0.8, 0.7], 1, 0.001) == 3, "to be found out"
    costs.measured(1, 2, 0.018)  # (1 + 0.9 + 0.8) / 19 > 1 / 11
    assert costs.best_length([0.9, 0.8], 1, 0.001) == 2
    assert costs.best_length([0.9, 0.8, 0.1], 1, 0.001) == 2
    assert costs.best_length([0.3, 0.1], 1, 0.001) == 0
    assert costs.best_length([], 1, 0.001) == 0
    costs.measured(1, 6, 0.020)
    expected = [10, 14, 18, 18.5, 19, 19.5, 20, 20.5]
    assert [costs._expected_s(1, n) for n in range(8)] == pytest.approx([ms / 1000 for ms in expected])


def test_what_comes_true_is_learnt_by_its_probability() -> None:
    calibration = Calibration()
    assert calibration.rate(0.25) == pytest.approx(0.25**0.25)
    for i in range(100):
        calibration.note(0.25, came_true=i % 10 > 0)
        calibration.note(1.0, came_true=False)
    assert calibration.rate(0.29) == pytest.approx(0.9, abs=0.05)
    assert calibration.rate(0.95) < 0.05
    assert calibration.rate(0.35) == pytest.approx(0.35**0.25)


def test_the_drafts_own_time_is_part_of_the_cost() -> None:
    costs = StepCosts()
    for _ in range(5):
        costs.measured(1, 0, 0.010)
    costs.measured(1, 4, 0.014)
    assert costs.of_guesses(4, 0.0) == pytest.approx(1.4)
    assert costs.of_guesses(4, 0.006) == pytest.approx(2.0)
    for _ in range(5):
        costs.measured(2, 0, 0.010)
    costs.measured(2, 6, 0.016)
    # half of 6 ms more, for which two requests wait, on top of a step
    assert costs.of_guesses(3, 0.0) == pytest.approx(1.6)
    costs.mixed()
    assert costs.of_guesses(3, 0.0) is None
    assert costs.plain_is_known(1)
    assert not costs.plain_is_known(3)


def test_drafts_are_asked_for_where_lookup_knows_nothing() -> None:
    costs = StepCosts()
    guesses = Speculation([1, 2, 3, 4, 5], costs, draft_vocab=10)
    assert guesses.n_drafts_wanted(10, 1) == 0, "what a step costs without is not known"
    for _ in range(3):
        costs.measured(1, 0, 0.01)
    assert guesses.n_drafts_wanted(12, 1) == 10
    assert guesses.n_drafts_wanted(3, 1) == 3
    guesses.take_drafts([7, 8], [0.9, 0.5], 1, 0.001)
    assert guesses.n_drafts_wanted(10, 1) == 0
    assert guesses.propose(10) == [7, 8]
    assert guesses.propose(1) == [7], "asked again, as after a step that was interrupted"
    costs.measured(1, 1, 0.01)
    guesses.note([1, 2])
    guesses.checked(1, 1)
    assert guesses.n_drafts_wanted(10, 1) == 0, "1, 2 has stood before"
    assert guesses.propose(2) == [3, 4]
    guesses.note([9])
    assert guesses.n_drafts_wanted(10, 1) > 0
    guesses.take_drafts([], [], 1, 0.001)
    assert guesses.propose(10) == []
    guesses.pause()
    assert guesses.n_drafts_wanted(10, 1) == 0
    assert guesses.propose(10) == []
