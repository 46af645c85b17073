"""How tokens are chosen: against numpy, against llama.cpp's chain over the whole vocabulary, and by what they do."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import truncation
from hearth.models.errors import EngineError, RequestError
from hearth.models.llama import LlamaModel, native
from hearth.models.llama_context import DecodeStatus, LlamaContext
from hearth.models.llama_sampler import Candidates, NativeSampler, dry_sampler, suppressed_tokens
from hearth.models.types import SamplingParams
from tests.models.sampling.drawing import (
    ALL,
    SCHEMA,
    TRUNCATIONS,
    MakeSampler,
    Recorded,
    decode,
    generate,
    one_row,
    softmax,
    spread,
)


def reference(logits: NDArray[np.float32], sampling: SamplingParams) -> NDArray[np.float64]:
    """Probabilities of all tokens by the definitions, one truncation after another."""
    kept = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    if sampling.typical_p < 1:
        p = softmax(logits[kept])
        entropy = -(p * np.log(p)).sum()
        order = np.argsort(np.abs(-np.log(p) - entropy), kind="stable")
        kept = kept[order[: int(np.searchsorted(np.cumsum(p[order]), sampling.typical_p)) + 1]]
        kept = kept[np.argsort(-logits[kept], kind="stable")]
    if sampling.top_p < 1:
        kept = kept[: int(np.searchsorted(np.cumsum(softmax(logits[kept])), sampling.top_p)) + 1]
    if sampling.min_p:
        p = softmax(logits[kept])
        kept = kept[p >= sampling.min_p * p.max()]
    probabilities = np.zeros(len(logits))
    probabilities[kept] = softmax(logits[kept] / sampling.temperature)
    return probabilities


@pytest.mark.parametrize("sampling", TRUNCATIONS.values(), ids=TRUNCATIONS.keys())
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_draws_follow_the_definition(
    model: LlamaModel, make: MakeSampler, sampling: SamplingParams, scale: float
) -> None:
    row = spread(model.n_vocab, scale=scale)
    expected = reference(row, replace(sampling, top_k=sampling.top_k if sampling.top_k < model.n_vocab else 0))
    sampler = make(one_row(model, row), sampling)
    n = 3000
    counts = np.bincount([sampler.sample(0) for _ in range(n)], minlength=model.n_vocab)
    assert counts[expected == 0].sum() == 0
    often = expected * n >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * n
    chi_square = float(((observed - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())
    freedom = len(wanted) - 1
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom) + 5


def whole_native_chain(model: LlamaModel, sampling: SamplingParams) -> NativeSampler:
    """All stages in common_sampler's order, none left out, over the whole vocabulary."""
    stages: list[tuple[str, tuple[Any, ...]]] = []
    if sampling.logit_bias:
        pairs = [native.llama_logit_bias(*pair) for pair in sampling.logit_bias.items()]
        array = (native.llama_logit_bias * len(pairs))(*pairs)
        stages.append(("logit_bias", (model.n_vocab, len(pairs), array)))
    repeat = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    stages.append(("penalties", (model.n_vocab, sampling.repeat_last_n, *repeat)))
    breakers = (ctypes.c_char_p * 1)(b"\n")
    dry = (sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length, sampling.dry_penalty_last_n)
    stages.append(("dry", (model.vocab, *dry, breakers, 1)))
    if sampling.temperature == 0:
        return NativeSampler.chain([*stages, ("greedy", ())])
    stages.append(("top_k", (sampling.top_k,)))
    # a probability that is 0 in float32 makes llama.cpp's entropy NaN, and typical_p then keeps arbitrary tokens
    stages += [("min_p", (1e-30 if sampling.typical_p < 1 else 0.0, 1)), ("typical", (sampling.typical_p, 1))]
    stages += [("top_p", (sampling.top_p, 1)), ("min_p", (sampling.min_p, 1))]
    return NativeSampler.chain([*stages, ("temp", (sampling.temperature,)), ("dist", (1,))])


BEFORE = [*range(40, 80), *range(40, 60)] * 2
EDITS = {
    "plain": {},
    "biases": {"logit_bias": {65: 3.5, 66: -math.inf, 101: -100.0}},
    "penalties": {"repeat_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": -0.2, "repeat_last_n": 20},
    "dry": {"dry_multiplier": 0.8, "dry_sequence_breakers": ("\n",), "dry_penalty_last_n": 200},
    "together": {"logit_bias": {41: 2.0}, "repeat_penalty": 1.1, "dry_multiplier": 1.2, "dry_base": 2.0},
}


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("base", [*TRUNCATIONS.values(), SamplingParams()], ids=[*TRUNCATIONS.keys(), "greedy"])
def test_tokens_equal_those_of_llama_cpp(
    model: LlamaModel, recorded: Recorded, make: MakeSampler, base: SamplingParams, edits: dict[str, Any]
) -> None:
    sampling = replace(base, **{"dry_sequence_breakers": ("\n",), **edits})
    sampler, chain = make(recorded, sampling, BEFORE), whole_native_chain(model, sampling)
    for token in BEFORE:
        chain.accept(token)
    rows = recorded.rows.copy()
    for row in range(len(rows)):
        candidates = Candidates(np.arange(model.n_vocab), recorded.rows[row])
        chain.apply(candidates)
        chain.accept(candidates.selected)
        assert sampler.sample(row) == candidates.selected
    assert (recorded.rows == rows).all(), "the logits are as the model gave them"
    chain.close()


@pytest.mark.parametrize("scale", [0.5, 3.0, 8.0])
def test_truncation_of_a_large_vocabulary_equals_sorting(scale: float) -> None:
    row = spread(60_000, scale=scale)
    row[::7] = -np.inf
    best, p = float(row.max()), softmax(row)
    order = np.argsort(-row, kind="stable")
    for mass in (0.0, 0.3, 0.95, 0.999):
        kept = truncation.nucleus(row, best, mass)
        n = int(np.searchsorted(np.cumsum(p[order]), mass)) + 1
        assert abs(len(kept) - n) <= 1 + n // 1000, "float32 against float64"
        assert set(order[: min(n, len(kept)) - 1]) <= set(kept)
    alive = np.flatnonzero(p > 0)
    surprise = -np.log(p[alive])
    distance = np.abs(surprise - (p[alive] * surprise).sum())
    typical = truncation.typical(row, best, 0.9)
    nearest = alive[np.argsort(distance, kind="stable")]
    n = int(np.searchsorted(np.cumsum(p[nearest]), 0.9)) + 1
    assert len(set(typical) ^ set(nearest[:n])) <= 2 + n // 200
    for k in (1, 40, 30_000, 60_000):
        for depth in (truncation.FIRST_DEPTH, 0.01, 90.0):
            found, _ = truncation.likeliest(row, best, k, depth)
            assert set(order[: min(k, len(alive))]) <= set(found) <= set(alive)


def test_greedy_is_the_argmax(recorded: Recorded, make: MakeSampler) -> None:
    sampler = make(recorded, SamplingParams())
    assert [sampler.sample(row) for row in range(64)] == recorded.rows.argmax(axis=1).tolist()


def test_biases_ban_and_force(model: LlamaModel, make: MakeSampler) -> None:
    source = one_row(model)
    best = np.argsort(-source.rows[0])[:3].tolist()
    banned = SamplingParams(logit_bias={best[0]: -math.inf, best[1]: -100})
    assert make(source, banned).sample(0) == best[2]
    hot = replace(ALL, temperature=2.0, logit_bias=dict.fromkeys(best, -math.inf))
    sampler = make(source, hot)
    assert not {sampler.sample(0) for _ in range(500)} & set(best)
    worst = int(source.rows[0].argmin())
    forced = make(source, replace(ALL, logit_bias={worst: 100}))
    assert {forced.sample(0) for _ in range(200)} == {worst}


def test_banning_everything_is_refused(model: LlamaModel, make: MakeSampler) -> None:
    source = one_row(model)
    before = source.rows.copy()
    for sampling in (SamplingParams(), ALL, TRUNCATIONS["typical_p"]):
        sampler = make(source, replace(sampling, logit_bias=dict.fromkeys(range(model.n_vocab), -math.inf)))
        with pytest.raises(RequestError, match="bans every token"):
            sampler.sample(0)
        assert (source.rows == before).all()


def test_tokens_that_the_model_suppresses_are_never_chosen(
    model: LlamaModel, make: MakeSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert suppressed_tokens(model) == []
    source = one_row(model)
    best = int(source.rows[0].argmax())
    monkeypatch.setattr("hearth.models.engine.sampler.suppressed_tokens", lambda _model: [best])
    assert make(source, SamplingParams()).sample(0) != best


@pytest.mark.parametrize("penalty", [{"repeat_penalty": 5.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}])
def test_penalties_look_back_on_prompt_and_answer(
    model: LlamaModel, make: MakeSampler, penalty: dict[str, float]
) -> None:
    row = np.zeros(model.n_vocab, np.float32)
    row[[65, 66, 67]] = 4.0, 3.5, 3.0
    source = one_row(model, row)
    sampling = SamplingParams(repeat_last_n=2, **penalty)
    assert make(source, sampling, [65, 66]).sample(0) == 67
    assert make(source, sampling, [65, "a picture", 66, object()]).sample(0) == 67, "what is no token is passed over"
    assert make(source, sampling, [65, 66, 1, 2]).sample(0) == 65, "out of the window"
    sampler = make(source, sampling)
    assert [sampler.sample(0) for _ in range(5)] == [65, 66, 67, 65, 66]
    assert make(source, replace(sampling, repeat_last_n=0), [65, 66]).sample(0) == 65


def test_negative_penalties_favour_what_was_said(model: LlamaModel, make: MakeSampler) -> None:
    row = np.zeros(model.n_vocab, np.float32)
    row[65] = 0.5
    assert make(one_row(model, row), SamplingParams(presence_penalty=-1.0), [70]).sample(0) == 70


def test_dry_ends_a_loop(model: LlamaModel, make: MakeSampler) -> None:
    def loop(sampling: SamplingParams, n: int = 60) -> list[int]:
        """A model that goes on with 65, 66, 67, 65, … whatever was said, and could also say 70."""
        rows = np.zeros((3, model.n_vocab), np.float32)
        rows[[0, 1, 2], [65, 66, 67]] = 5.0
        rows[:, 70] = 1.0
        sampler, answer = make(Recorded(model, rows), sampling), [67]
        for _ in range(n):
            answer.append(sampler.sample(answer[-1] - 64 if answer[-1] in (65, 66) else 0))
        return answer[1:]

    dry = SamplingParams(dry_multiplier=0.8, dry_sequence_breakers=())
    assert loop(SamplingParams()) == [65, 66, 67] * 20
    assert 70 in loop(dry)[:20]
    assert 70 not in loop(replace(dry, dry_penalty_last_n=4)), "it looks back on less than two rounds"
    breaker = model.piece(66).decode()
    assert 70 not in loop(replace(dry, dry_sequence_breakers=(breaker,))), "no repetition goes across a breaker"
    assert loop(dry).index(70) < loop(replace(dry, dry_allowed_length=12)).index(70)


def test_dry_samplers_are_copies_of_one_that_has_seen_nothing(model: LlamaModel) -> None:
    shape = (model, 0.8, 1.75, 2, 64, ("\n", "é", "…"))
    first = dry_sampler(*shape)
    for token in [65, 66, 67] * 5:
        first.accept(token)
    second = dry_sampler(*shape)
    logits = np.zeros(3, np.float32)
    for sampler, penalized in ((first, True), (second, False)):
        candidates = Candidates(np.array([65, 66, 67]), logits)
        sampler.apply(candidates)
        assert bool((candidates.logits < 0).any()) is penalized
    for changed in range(8):  # more than are kept
        dry_sampler(model, 0.8, 1.75, 2, 64 + changed, ()).close()
    first.accept(65)


@pytest.mark.parametrize("mirostat", [1, 2])
def test_mirostat_keeps_the_surprise_near_tau(model: LlamaModel, make: MakeSampler, mirostat: int) -> None:
    row = (-1.1 * np.log(1 + np.arange(model.n_vocab))).astype(np.float32)
    bits = -np.log2(softmax(row))
    means = []
    for tau in (1.5, 3.0, 4.5):
        sampling = replace(ALL, mirostat=mirostat, mirostat_tau=tau, mirostat_eta=0.1)
        samplers = [make(one_row(model, row), sampling, seed=5) for _ in range(2)]
        once, again = ([sampler.sample(0) for _ in range(1500)] for sampler in samplers)
        assert once == again
        means.append(float(bits[once[200:]].mean()))
    assert means[0] < means[1] < means[2]
    assert means[2] - means[0] > 1.0


def test_logprobs_equal_numpy(recorded: Recorded, make: MakeSampler) -> None:
    sampling = replace(ALL, n_logprobs=7, repeat_penalty=2.0, logit_bias={65: -math.inf})
    sampler = make(recorded, sampling, list(range(60, 90)))
    for row in range(20):
        token = sampler.sample(row)
        logits = recorded.rows[row].astype(np.float64)
        expected = logits - (logits.max() + np.log(np.exp(logits - logits.max()).sum()))
        found = sampler.logprobs(row, token)
        assert found is not None
        assert found.token == token
        assert found.logprob == pytest.approx(expected[token], abs=1e-5)
        assert [index for index, _ in found.top] == np.argsort(-recorded.rows[row], kind="stable")[:7].tolist()
        assert [value for _, value in found.top] == pytest.approx(np.sort(expected)[::-1][:7].tolist(), abs=1e-5)


def test_logprobs_only_when_asked_and_stable(model: LlamaModel, make: MakeSampler) -> None:
    row = np.full(model.n_vocab, -np.inf, np.float32)
    row[[3, 5]] = 1e30, 1e30
    source = one_row(model, row)
    assert make(source, SamplingParams()).logprobs(0, 3) is None
    none_beside = make(source, SamplingParams(n_logprobs=0)).logprobs(0, 3)
    assert none_beside is not None
    assert none_beside.top == ()
    found = make(source, SamplingParams(n_logprobs=20)).logprobs(0, 5)
    assert found is not None
    assert found.logprob == pytest.approx(math.log(0.5))
    assert [index for index, _ in found.top] == [3, 5], "no more than there are"


def test_the_same_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(
    recorded: Recorded, make: MakeSampler
) -> None:
    n = 32
    for sampling in (ALL, SamplingParams(temperature=1.5, repeat_penalty=1.2), replace(ALL, mirostat=2)):
        alone = make(recorded, sampling, seed=9)
        expected = [alone.sample(row) for row in range(n)]
        # the same rows at other places, between those of other requests with other parameters
        mixed = Recorded(recorded.model, np.repeat(recorded.rows[:n], 3, axis=0).copy())
        others = [make(mixed, SamplingParams(temperature=2.0, dry_multiplier=1.0), seed=seed) for seed in (9, 10)]
        sampler = make(mixed, sampling, seed=9)
        tokens = []
        for row in range(n):
            others[0].sample(3 * row + 1)
            tokens.append(sampler.sample(3 * row + row % 3))
            others[1].sample(3 * row + row % 3)
        assert tokens == expected
        other_seed = make(recorded, sampling, seed=10)
        assert [other_seed.sample(row) for row in range(n)] != expected


def test_guessed_tokens_are_checked_row_by_row(context: LlamaContext, make: MakeSampler) -> None:
    """A batch of the last token and guesses: as long as they come true, the answer is the one of single steps."""
    sampling = SamplingParams(temperature=0.7, repeat_penalty=1.2, dry_multiplier=0.8, json_schema=SCHEMA)
    prompt = [1, 2, 3]
    single = generate(context, make(context, sampling, prompt), 24, prompt)
    context.clear()
    sampler = make(context, sampling, prompt)
    assert decode(context, prompt, 0) is DecodeStatus.DONE
    answer = [sampler.sample(len(prompt) - 1)]
    guesses = [*single[1:8], single[8] + 1, *single[9:12]]  # the eighth is wrong
    assert decode(context, [answer[0], *guesses], len(prompt)) is DecodeStatus.DONE
    for row, guess in enumerate(guesses):
        answer.append(sampler.sample(row))
        if answer[-1] != guess:
            break
    assert answer == single[:9]
    assert context.seq_rm(0, len(prompt) + 8)
    while len(answer) < len(single):
        assert decode(context, answer[-1:], len(prompt) + len(answer) - 1) is DecodeStatus.DONE
        answer.append(sampler.sample(0))
    assert answer == single


def test_tokens_decided_elsewhere_count(model: LlamaModel, make: MakeSampler) -> None:
    row = np.zeros(model.n_vocab, np.float32)
    row[[65, 66]] = 4.0, 3.5
    sampler = make(one_row(model, row), SamplingParams(repeat_penalty=5.0))
    sampler.accept(65)
    assert sampler.sample(0) == 66
    for token in (-1, model.n_vocab):
        with pytest.raises(EngineError, match="is not within"):
            sampler.accept(token)


def test_outputs_that_are_no_numbers_are_refused(model: LlamaModel, make: MakeSampler) -> None:
    for bad in (np.nan, np.inf):
        row = spread(model.n_vocab)
        row[100] = bad
        for sampling in (SamplingParams(), ALL, SamplingParams(repeat_penalty=2.0, temperature=1.0)):
            with pytest.raises(EngineError, match="not a number"):
                make(one_row(model, row), sampling, [100, 101]).sample(0)
    with pytest.raises(EngineError, match="not a number"):
        make(one_row(model, np.full(model.n_vocab, -np.inf, np.float32)), ALL).sample(0)


def test_a_closed_sampler_says_so(model: LlamaModel, make: MakeSampler) -> None:
    sampler = make(one_row(model), replace(ALL, repeat_penalty=1.5))
    sampler.close()
    sampler.close()
    with pytest.raises(EngineError, match="closed"):
        sampler.sample(0)
