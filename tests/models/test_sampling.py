"""How tokens are chosen: against numpy, against llama.cpp's chain over the whole vocabulary, and by what they do."""

from __future__ import annotations

import ctypes
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import truncation
from hearth.models.engine.request_checks import check_request
from hearth.models.engine.sampler import TokenSampler
from hearth.models.errors import EngineError, RequestError
from hearth.models.llama import LlamaModel, native
from hearth.models.llama_context import ContextOptions, DecodeStatus, LlamaContext
from hearth.models.llama_sampler import Candidates, Grammar, NativeSampler, dry_sampler, suppressed_tokens
from hearth.models.types import GenerationRequest, SamplingParams, TextSegment
from tests.models.tiny_gguf import special_id

ALL = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
    "required": ["ok", "colour"],
}
MakeSampler = Callable[..., TokenSampler]


@dataclass
class Recorded:
    """Stands for a context: logits of shape (n_rows, n_vocab) that were computed before."""

    model: LlamaModel
    rows: NDArray[np.float32]

    def logits(self, row: int) -> NDArray[np.float32]:
        return self.rows[row]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[LlamaModel]:
    loaded = LlamaModel.load(tiny_model)
    yield loaded
    loaded.close()


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    made = LlamaContext(model, ContextOptions(n_ctx=512))
    yield made
    made.close()


@pytest.fixture
def recorded(model: LlamaModel, context: LlamaContext) -> Recorded:
    """The rows of a batch of 64 tokens."""
    n = 64
    tokens = np.random.default_rng(0).integers(32, 127, n).astype(np.int32)
    assert decode(context, tokens.tolist(), 0) is DecodeStatus.DONE
    return Recorded(model, np.stack([context.logits(row) for row in range(n)]))


@pytest.fixture
def make() -> Iterator[MakeSampler]:
    made: list[TokenSampler] = []

    def sampler(source: Any, sampling: SamplingParams, before: Sequence[object] = (), seed: int = 1) -> TokenSampler:
        made.append(TokenSampler(source, sampling, seed, before))
        return made[-1]

    yield sampler
    for one in made:
        one.close()


def decode(context: LlamaContext, tokens: list[int], start: int) -> DecodeStatus:
    n = len(tokens)
    positions, seq_ids = np.arange(start, start + n, dtype=np.int32), np.zeros(n, np.int32)
    return context.decode_tokens(np.array(tokens, np.int32), positions, seq_ids, np.ones(n, np.int8))


def generate(context: LlamaContext, sampler: TokenSampler, n: int = 60, prompt: Sequence[int] = (1, 2, 3)) -> list[int]:
    """Up to ``n`` tokens, an end-of-generation token included."""
    context.clear()
    answer: list[int] = []
    pending = list(prompt)
    while len(answer) < n:
        assert decode(context, pending, len(prompt) + len(answer) - len(pending) if answer else 0) is DecodeStatus.DONE
        pending = [sampler.sample(len(pending) - 1)]
        answer += pending
        if context.model.is_eog(answer[-1]):
            break
    return answer


def spread(n: int, seed: int = 0, scale: float = 3.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def one_row(model: LlamaModel, row: NDArray[np.float32] | None = None) -> Recorded:
    return Recorded(model, (spread(model.n_vocab) if row is None else row)[np.newaxis].copy())


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())


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


TRUNCATIONS = {
    "temperature": ALL,
    "cold": replace(ALL, temperature=0.4),
    "hot": replace(ALL, temperature=2.5),
    "top_k": replace(ALL, top_k=7),
    "top_k 1": replace(ALL, top_k=1),
    "top_k beyond the vocabulary": replace(ALL, top_k=10**9, top_p=0.8),
    "top_p": replace(ALL, top_p=0.7),
    "top_p 0": replace(ALL, top_p=0.0),
    "min_p": replace(ALL, min_p=0.1),
    "min_p 1": replace(ALL, min_p=1.0),
    "typical_p": replace(ALL, typical_p=0.6),
    "typical_p with top_k": replace(ALL, typical_p=0.6, top_k=30),
    "typical_p, top_p": replace(ALL, typical_p=0.9, top_p=0.8),
    "all": replace(ALL, temperature=1.3, top_k=40, typical_p=0.95, top_p=0.9, min_p=0.02),
    "defaults": SamplingParams(temperature=0.8),
}


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


# Grammars


@pytest.mark.parametrize("sampling", [SamplingParams(), *TRUNCATIONS.values(), replace(ALL, mirostat=1)])
def test_a_grammar_holds(context: LlamaContext, make: MakeSampler, sampling: SamplingParams) -> None:
    grammar = 'root ::= "(" [a-c]{2,4} (", " number)* ")"\nnumber ::= "-"? [1-9] [0-9]{0,2} # up to 999'
    answer = generate(context, make(context, replace(sampling, grammar=grammar)), 40)
    text = context.model.detokenize(answer)
    if context.model.is_eog(answer[-1]):
        assert re.fullmatch(r"\([a-c]{2,4}(, -?[1-9][0-9]{0,2})*\)", text)
    else:
        assert re.match(r"\([a-c]{2,4}(, -?[1-9][0-9]{0,2})*", text)


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(temperature=1.2), replace(ALL, top_p=0.9)])
def test_a_json_schema_holds(context: LlamaContext, make: MakeSampler, sampling: SamplingParams) -> None:
    for seed in range(3):
        sampler = make(context, replace(sampling, json_schema=SCHEMA, n_logprobs=2), seed=seed)
        answer = generate(context, sampler, 200)
        assert context.model.is_eog(answer[-1])
        found = json.loads(context.model.detokenize(answer))
        assert isinstance(found["ok"], bool)
        assert found["colour"] in ("red", "green")


def test_greedy_under_a_grammar_takes_the_best_allowed_token_and_reports_its_logprob(
    model: LlamaModel, make: MakeSampler
) -> None:
    sampling = SamplingParams(grammar='root ::= [x-z] [0-9] "!"', n_logprobs=3)
    for seed in range(20):
        source = one_row(model, spread(model.n_vocab, seed, scale=6.0))
        sampler = make(source, sampling)
        for allowed in ("xyz", "0123456789", "!"):
            ids = [model.tokenize(character)[0] for character in allowed]
            token = sampler.sample(0)
            assert token == ids[int(source.rows[0][ids].argmax())]
            found = sampler.logprobs(0, token)
            assert found is not None
            assert found.logprob == pytest.approx(math.log(softmax(source.rows[0])[token]), abs=1e-4)
        assert sampler.sample(0) == special_id("<|end|>"), "nothing else may follow"


@pytest.mark.parametrize("likely", [0.0, -9.0, -40.0])
def test_draws_under_a_grammar_come_from_the_allowed_tokens(
    model: LlamaModel, make: MakeSampler, likely: float
) -> None:
    """Allowed tokens at the given distance below all others keep their proportions."""
    row = np.zeros(model.n_vocab, np.float32)
    ids = np.array([model.tokenize(character)[0] for character in "abc"])
    row[ids] = np.float32(likely) + np.log(np.array([0.6, 0.3, 0.1], np.float32))
    source, n = one_row(model, row), 400
    sampling = replace(ALL, grammar="root ::= [a-c]+", logit_bias={special_id("<|end|>"): -math.inf})
    counts = np.zeros(3)
    sampler = make(source, sampling, seed=3)
    for _ in range(n):
        counts[ids.tolist().index(sampler.sample(0))] += 1
    assert counts / n == pytest.approx([0.6, 0.3, 0.1], abs=0.08)
    typical = make(source, replace(sampling, typical_p=0.3, top_k=40), seed=3)
    assert {typical.sample(0) for _ in range(20)} <= set(ids.tolist())


def test_only_allowed_tokens_are_accepted(model: LlamaModel, make: MakeSampler) -> None:
    sampler = make(one_row(model), SamplingParams(grammar='root ::= "ab"'))
    (a,), (b,) = model.tokenize("a"), model.tokenize("b")
    for wrong in (b, special_id("<|end|>")):
        with pytest.raises(EngineError, match="does not fit the grammar"):
            sampler.accept(wrong)
    sampler.accept(a)
    assert sampler.sample(0) == b


def test_a_grammar_without_a_way_on_is_an_error(model: LlamaModel, make: MakeSampler) -> None:
    (a,) = model.tokenize("a")
    for sampling in (SamplingParams(), ALL):
        sampler = make(one_row(model), replace(sampling, grammar='root ::= "a"', logit_bias={a: -math.inf}))
        with pytest.raises(EngineError, match="grammar: no token"):
            sampler.sample(0)


def test_an_ambiguous_grammar_is_stopped(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearth.models.llama_sampler.MAX_TOKEN_S", 0.02)
    grammar = Grammar(model, 'root ::= "a" root "b" | "a" root "c" | "a"', "grammar")
    (a,) = model.tokenize("a")

    def read_many() -> None:
        for _ in range(20):
            grammar.accept(a)

    with pytest.raises(EngineError, match="too many ways"):
        read_many()
    grammar.close()


BAD_GRAMMARS = {
    "empty": ("", "no rule 'root'"),
    "no root": ('start ::= "a"', "no rule 'root'"),
    "unknown rule": ('root ::= "a"\n\nb ::= item', "line 3: rule 'item' is not defined"),
    "left recursion": ('root ::= root "a" | "b"', "left recursion"),
    "hidden left recursion": ('root ::= a root "x" | "y"\na ::= b\nb ::= "c"?', "left recursion"),
    "a repeated nothing": ('root ::= ("a"?)*', "left recursion"),
    "nothing to repeat": ("root ::= *", "nothing to repeat"),
    "open string": ('root ::= "a', "line 1: a string"),
    "open class": ("root ::= [a", "a \\[class\\]"),
    "open parenthesis": ('root ::= ("a"', "'\\)' was expected"),
    "escape": (r'root ::= "\q"', "escapes"),
    "no arrow": ('root = "a"', "'::=' was expected"),
    "two on a line": ('root ::= "a" b ::= "c"', "end of the rule"),
    "token": ("root ::= <[7]>", "tokens"),
    "counted down": ('root ::= "a"{3,1}', "smaller"),
    "counted too far": ('root ::= "a"{99999999999999999999}', "2,000"),
    "nested counts": ('root ::= "a"{40}{60}', "2,000"),
    "written out": (f'root ::= "{"a" * 2000}"{{2000}}', "elements"),
    "deep": ("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "parentheses"),
    "long chain": ("root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(3000)) + 'r3000 ::= "a"', "1,000"),
    "exponential": (
        "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(60)) + 'r60 ::= "a"',
        "same",
    ),
    "optional in a row": ('root ::= ("a" | "b")?{1999}', "in a row"),
    "NUL": ('root ::= "\0"', "NUL"),
    "surrogate": ('root ::= "\ud800"', "surrogate"),
    "1 MB": ("root ::= " + '"a" ' * 250_000, "1,000,009 characters; the limit is 65,536"),
}


@pytest.mark.parametrize(("grammar", "words"), BAD_GRAMMARS.values(), ids=BAD_GRAMMARS.keys())
def test_bad_grammars_are_refused_at_once_and_in_silence(
    model: LlamaModel, make: MakeSampler, capfd: pytest.CaptureFixture[str], grammar: str, words: str
) -> None:
    sampling = SamplingParams(grammar=grammar)
    started = time.thread_time()
    with pytest.raises(RequestError, match=words) as caught:
        check_request(GenerationRequest("r", (TextSegment((1,)),), sampling))
    assert time.thread_time() - started < 1.0
    assert str(caught.value).startswith("grammar")
    assert "\n" not in str(caught.value)
    if len(grammar) < 100_000:
        with pytest.raises(RequestError):
            make(one_row(model), sampling)
    assert capfd.readouterr() == ("", "")


GOOD_GRAMMARS = {
    "json": r"""root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}""",
    "comments and lines": '# first\r\nroot ::= ( # inside\n "a" |\n "b" )\r\n\n# last',
    "japanese": 'root ::= jp-char+ ([ \\t\\n] jp-char+)*\njp-char ::= [ぁ-ゟ] | [゠-ヿ] | [一-龯] | "\\U0001F422"',
    "counts": 'root ::= "a"{2} "b"{,}'.replace("{,}", "{0,}") + " .{1,3} [^x]{0,2000}",
    "right recursion": 'root ::= "a" root | "b"',
    "redefined": 'root ::= "a"\nroot ::= "b"',
    "nested": "root ::= " + "(" * 900 + '"a"' + ")" * 900,
    "numbers and dashes in names": 'root ::= a-1\na-1 ::= "x"',
    "classes": r'root ::= [\]\[\-"] [a-] [^\n] [\x41-\u0042]',
}


@pytest.mark.parametrize("grammar", GOOD_GRAMMARS.values(), ids=GOOD_GRAMMARS.keys())
def test_good_grammars_pass_and_llama_cpp_agrees(
    model: LlamaModel, make: MakeSampler, capfd: pytest.CaptureFixture[str], grammar: str
) -> None:
    sampling = replace(ALL, grammar=grammar)
    check_request(GenerationRequest("r", (TextSegment((1,)),), sampling))
    sampler = make(one_row(model), sampling)
    for _ in range(10):
        if model.is_eog(sampler.sample(0)):
            break
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string", "maxLength": 300}, "maxItems": 50},
        {"type": "object", "properties": {f"p{i}": {"type": ["string", "null"]} for i in range(80)}},
        {"enum": [f"value {i}" for i in range(2000)]},
        {"properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "array", "items": {"type": "null"}}}},
        {"anyOf": [{"type": "object", "properties": {"k": {"const": i}}} for i in range(100)]},
        {"type": "string", "pattern": "^[a-z]{1,20}@([a-z]{1,20}[.]){1,3}[a-z]{2,6}$"},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {},
    ],
)
def test_ordinary_schemas_become_grammars(model: LlamaModel, make: MakeSampler, schema: dict[str, Any]) -> None:
    sampling = SamplingParams(json_schema=schema)
    check_request(GenerationRequest("r", (TextSegment((1,)),), sampling))
    make(one_row(model), sampling).sample(0)


# Ranges


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": 11}, "temperature is 11; it must be within 0..10"),
        ({"temperature": "1"}, "temperature is '1'; it must be a number within 0..10"),
        ({"top_k": 2**31}, "top_k is 2147483648"),
        ({"top_k": 1.0}, "top_k is 1.0; it must be a whole number within 0..2147483647"),
        ({"top_p": -0.1}, "top_p is -0.1"),
        ({"min_p": math.nan}, "min_p is nan"),
        ({"typical_p": 1.5}, "typical_p is 1.5; it must be within 0..1"),
        ({"repeat_penalty": 0.05}, "repeat_penalty is 0.05; it must be within 0.1..10"),
        ({"repeat_last_n": -1}, "repeat_last_n is -1; it must be a whole number within 0..1048576"),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5; it must be within -2..2"),
        ({"frequency_penalty": -3}, "frequency_penalty is -3"),
        ({"dry_multiplier": -1}, "dry_multiplier is -1"),
        ({"dry_base": 0.5}, "dry_base is 0.5; it must be within 1..10"),
        ({"dry_allowed_length": 0}, "dry_allowed_length is 0"),
        ({"dry_penalty_last_n": 2**21}, "dry_penalty_last_n is 2097152"),
        ({"dry_sequence_breakers": ["\n"]}, "dry_sequence_breakers is list; it must be a tuple of strings"),
        ({"dry_sequence_breakers": ("",)}, "dry_sequence_breakers has a string of 0 bytes"),
        ({"dry_sequence_breakers": ("é" * 21,)}, "a string of 42 bytes; it must have 1..40"),
        ({"dry_sequence_breakers": ("a\0",)}, "none of them zero"),
        ({"dry_sequence_breakers": ("a",) * 17}, "17 strings; at most 16"),
        ({"mirostat": 3, "temperature": 1}, "mirostat is 3; it must be a whole number within 0..2"),
        ({"mirostat": 2}, "mirostat is 2 with temperature 0"),
        ({"mirostat_tau": 21}, "mirostat_tau is 21"),
        ({"mirostat_eta": 2}, "mirostat_eta is 2"),
        ({"logit_bias": [1]}, "logit_bias is list; it must map token ids to numbers"),
        ({"logit_bias": {286: 1}}, "a token id of logit_bias is 286; it must be a whole number within 0..285"),
        ({"logit_bias": {-1: 1}}, "a token id of logit_bias is -1"),
        ({"logit_bias": {"5": 1}}, "a token id of logit_bias is '5'"),
        ({"logit_bias": {5: 101}}, "logit_bias of token 5 is 101; it must be within -100..100, or -inf to ban it"),
        ({"logit_bias": {5: math.inf}}, "logit_bias of token 5 is inf"),
        ({"logit_bias": {5: None}}, "logit_bias of token 5 is None"),
        ({"logit_bias": dict.fromkeys(range(10_001), 1)}, "10,001 tokens; at most 10,000"),
        ({"seed": -1}, "seed is -1"),
        ({"n_logprobs": 21}, "n_logprobs is 21; it must be a whole number within 0..20"),
        ({"n_logprobs": -1}, "n_logprobs is -1"),
        ({"grammar": b"root"}, "grammar is bytes; it must be GBNF text"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "json_schema and grammar are both given"),
        ({"json_schema": {"maxItems": 5000}}, "json_schema: maxItems is 5,000; it must be within 0..1,000"),
        ({"json_schema": {"a": [{"minLength": 10**9}]}}, "minLength is 1,000,000,000"),
        ({"json_schema": {"properties": {"enum": {"maxLength": 2000}}}}, "maxLength is 2,000"),
        ({"json_schema": {"anyOf": [{"maxItems": 1000}] * 21}}, "come to 21,000; the limit is 20,000"),
        ({"json_schema": {"pattern": "^((a{999}){999}){999}$"}}, "repeats too often"),
        ({"json_schema": {"x": "y" * 70_000}}, "the limit is 65,536"),
    ],
)
def test_bad_parameters_are_named_with_their_range(model: LlamaModel, fields: dict[str, Any], words: str) -> None:
    request = GenerationRequest("r", (TextSegment((1,)),), SamplingParams(**fields))
    with pytest.raises(RequestError) as caught:
        check_request(request, model.n_vocab)
    assert words in str(caught.value)


def test_the_sampler_itself_checks_token_ids(model: LlamaModel, make: MakeSampler) -> None:
    with pytest.raises(RequestError, match=r"within 0\.\.285"):
        make(one_row(model), SamplingParams(logit_bias={999: 1.0}))


def test_the_limits_of_the_ranges_work(model: LlamaModel, make: MakeSampler) -> None:
    extremes = [
        {"temperature": 10.0, "top_k": 2**31 - 1, "seed": 2**32 - 2, "n_logprobs": 20},
        {"temperature": 1e-6, "top_p": 1e-9, "min_p": 1e-9, "typical_p": 1e-9},
        {"temperature": 1.0, "top_k": 0, "typical_p": 0.0, "top_p": 0.0, "min_p": 0.0},
        {"temperature": 1.0, "repeat_penalty": 0.1, "repeat_last_n": 2**20, "frequency_penalty": 2.0},
        {
            "temperature": 1.0,
            "dry_multiplier": 100.0,
            "dry_base": 10.0,
            "dry_allowed_length": 1,
            "dry_penalty_last_n": 2**20,
        },
        {"temperature": 10.0, "mirostat": 1, "mirostat_tau": 0.0, "mirostat_eta": 1.0},
        {"temperature": 1e-6, "mirostat": 1, "mirostat_tau": 20.0},
        {"temperature": 1e-6, "mirostat": 2, "mirostat_tau": 20.0, "mirostat_eta": 0.0},
    ]
    for fields in extremes:
        sampling = SamplingParams(**fields)
        check_request(GenerationRequest("r", (TextSegment((1,)),), sampling), model.n_vocab)
        source = one_row(model, spread(model.n_vocab, scale=20.0))
        sampler = make(source, sampling, [65, 66, 67] * 30)
        for _ in range(30):
            token = sampler.sample(0)
            assert 0 <= token < model.n_vocab
            sampler.logprobs(0, token)
