"""How the next token of a request is chosen, from the logits of one row of a batch.

Only the logits, the parameters and the tokens before decide: what else is in the batch does not matter. Logits are
changed in place while a token is chosen and are as the model gave them afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hearth.models.engine import truncation
from hearth.models.engine.logit_edits import LogitEdits
from hearth.models.engine.request_checks import check_biases
from hearth.models.engine.truncation import Indices, Logits
from hearth.models.errors import EngineError, RequestError
from hearth.models.llama import LlamaModel
from hearth.models.llama_sampler import (
    Candidates,
    Grammar,
    NativeSampler,
    Stage,
    dry_sampler,
    grammar_of_json_schema,
    suppressed_tokens,
)
from hearth.models.types import SamplingParams, TokenLogprobs

MIROSTAT_MASS = 0.9999  # probability of the tokens that mirostat gets to see
MIROSTAT_V1_M = 100  # tokens from which mirostat 1 estimates the distribution, as in llama.cpp
NEGLIGIBLE_P = 1e-9  # of the best token's probability: dropped before typical_p, which 0 * log(0) would upset
GRAMMAR_DEPTHS = (4.0, 8.0, 12.0, 16.0, math.inf)  # nats below the best in which allowed tokens are looked for
GRAMMAR_TOLERANCE = 1e-3  # of the allowed tokens' probability, that may stay unseen


class LogitsSource(Protocol):
    """What a sampler needs of a LlamaContext."""

    @property
    def model(self) -> LlamaModel: ...

    def logits(self, row: int) -> NDArray[np.float32]: ...


class TokenSampler:
    """Chooses tokens for one request. ``close()`` when the request ends.

    Several rows of a batch may be sampled one after another: each call continues from the token chosen before it. So
    guessed tokens are checked by sampling row after row up to the first difference, and nothing is taken back.
    """

    def __init__(self, context: LogitsSource, sampling: SamplingParams, seed: int, before: Sequence[object]) -> None:
        """``before`` are the entries of the prompt, or its end; of those that are tokens the penalties see the last.

        Raises RequestError for a schema or grammar that cannot be followed and for token ids out of range.
        """
        self._context = context
        self._sampling = sampling
        self._top_k = sampling.top_k if sampling.top_k < context.model.n_vocab else 0
        self._depth = truncation.FIRST_DEPTH  # nats below the best within which the last ``top_k`` tokens were
        self._edits: LogitEdits | None = None
        self._grammar: Grammar | None = None
        self._chain: NativeSampler | None = None  # None: greedy
        self._candidates: Candidates | None = None  # of the token before, to be filled anew
        try:
            self._edits = _edits(context.model, sampling, before)
            self._grammar = _grammar(context.model, sampling)
            if sampling.temperature > 0:
                self._chain = NativeSampler.chain(_stages(sampling, self._top_k, seed, context.model.n_vocab))
        except BaseException:
            self.close()
            raise

    def sample(self, row: int) -> int:
        """Chooses the token after batch row ``row`` and accepts it.

        Raises EngineError if the model gives no numbers or the grammar allows no token, and RequestError if all are
        banned.
        """
        logits = self._context.logits(row)
        if self._edits is None:
            token = self._choose(logits)
        else:
            before = self._edits.apply(logits)
            try:
                token = self._choose(logits)
            finally:
                self._edits.restore(logits, before)
        self._note(token)
        return token

    def accept(self, token: int) -> None:
        """Takes a token that was decided elsewhere. Raises EngineError if the grammar does not allow it."""
        if not 0 <= token < self._context.model.n_vocab:
            raise EngineError(f"token {token} is not within 0..{self._context.model.n_vocab - 1}")
        if self._grammar is not None and not self._grammar.allows(token):
            raise EngineError(f"token {token} does not fit the grammar of this request")
        self._note(token)

    def logprobs(self, row: int, token: int) -> TokenLogprobs | None:
        """Of ``token``, which ``sample(row)`` gave; None if the request asks for none. Before the next decode."""
        n_top = self._sampling.n_logprobs
        return None if n_top is None else truncation.log_probabilities(self._context.logits(row), token, n_top)

    def close(self) -> None:
        for part in (self._edits, self._grammar, self._chain):
            if part is not None:
                part.close()

    def _note(self, token: int) -> None:
        if self._edits is not None:
            self._edits.accept(token)
        if self._grammar is not None:
            self._grammar.accept(token)

    def _choose(self, logits: Logits) -> int:
        index = int(logits.argmax())  # where the first NaN is, if there is one
        best = float(logits[index])
        if not math.isfinite(best):
            if best == -math.inf and self._sampling.logit_bias:
                raise RequestError("logit_bias bans every token that the model could choose; ban fewer")
            raise EngineError("the model's output is not a number; the file may be damaged, or its KV type too coarse")
        token = index if self._chain is None else self._draw(self._chain, logits, best)
        # asking about one token is much cheaper than filtering the vocabulary, and mostly enough
        if self._grammar is None or self._grammar.allows(token):
            return token
        return self._choose_allowed(self._grammar, logits, best)

    def _draw(self, chain: NativeSampler, logits: Logits, best: float, tokens: Indices | None = None) -> int:
        """Draws from ``logits``, which belong to ``tokens`` if these are given, else to all."""
        kept = self._narrow(logits, best)
        chosen = kept if tokens is None else tokens[kept]
        if self._candidates is None:
            self._candidates = Candidates(chosen, logits[kept])
        else:
            self._candidates.fill(chosen, logits[kept])
        chain.apply(self._candidates)
        return self._candidates.selected

    def _narrow(self, logits: Logits, best: float) -> Indices:
        """The tokens that the native chain needs. The first truncation is done here if it looks at all
        probabilities."""
        sampling = self._sampling
        if sampling.mirostat:
            return truncation.nucleus(logits, best, MIROSTAT_MASS, sampling.temperature)
        if self._top_k:
            kept, self._depth = truncation.likeliest(logits, best, self._top_k, self._depth)
            return kept
        if sampling.typical_p < 1.0:
            return truncation.typical(logits, best, sampling.typical_p)
        if sampling.top_p < 1.0:
            return truncation.nucleus(logits, best, sampling.top_p)
        # a little more than min_p asks for, which the chain cuts off exactly
        return truncation.within(logits, best, 0.001 - math.log(sampling.min_p) if sampling.min_p else math.inf)

    def _choose_allowed(self, grammar: Grammar, logits: Logits, best: float) -> int:
        """Chooses among the tokens that the grammar allows. Exact if greedy, else up to GRAMMAR_TOLERANCE."""
        flatness = max(1.0, self._sampling.temperature)
        if self._chain is None:
            for _, allowed in _search_allowed(grammar, logits, best, flatness):
                if len(allowed):
                    return int(allowed[logits[allowed].argmax()])
            raise self._dead_end()
        weights = np.exp((logits - best) * (1.0 / flatness))
        unseen = float(weights.sum())
        found: list[Indices] = []
        weight = 0.0
        for seen, allowed in _search_allowed(grammar, logits, best, flatness):
            found.append(allowed)
            weight += float(weights[allowed].sum())
            unseen -= float(weights[seen].sum())
            if weight and unseen <= GRAMMAR_TOLERANCE * weight:
                break
        tokens = np.concatenate(found)
        if not len(tokens):
            raise self._dead_end()
        among = logits[tokens]
        return self._draw(self._chain, among, float(among.max()), tokens)

    def _dead_end(self) -> EngineError:
        name = "grammar" if self._sampling.json_schema is None else "json_schema"
        return EngineError(f"{name}: no token of this model continues the answer; simplify it")


def _search_allowed(
    grammar: Grammar, logits: Logits, best: float, flatness: float
) -> Iterator[tuple[Indices, Indices]]:
    """Tokens, and those of them that are allowed, the likely ones first: asking about all takes 20..200 ms."""
    ceiling = math.inf
    for depth in GRAMMAR_DEPTHS:
        floor = best - depth * flatness
        seen = np.flatnonzero((logits > floor) & (logits <= ceiling))
        ceiling = floor
        yield seen, seen[grammar.allowed(seen)]


def _edits(model: LlamaModel, sampling: SamplingParams, before: Sequence[object]) -> LogitEdits | None:
    check_biases(sampling.logit_bias, model.n_vocab)
    biases = dict(sampling.logit_bias or {}) | dict.fromkeys(suppressed_tokens(model), -math.inf)
    windows: list[int] = []
    samplers: list[NativeSampler] = []
    repeat = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if sampling.repeat_last_n and repeat != (1.0, 0.0, 0.0):
        samplers.append(NativeSampler.chain([("penalties", (model.n_vocab, sampling.repeat_last_n, *repeat))]))
        windows.append(sampling.repeat_last_n)
    if sampling.dry_multiplier and sampling.dry_penalty_last_n:
        shape = (sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length, sampling.dry_penalty_last_n)
        samplers.append(dry_sampler(model, *shape, sampling.dry_sequence_breakers))
        windows.append(sampling.dry_penalty_last_n)
    if not biases and not samplers:
        return None
    edits = LogitEdits(biases, samplers)
    tokens = (entry for entry in reversed(before) if isinstance(entry, int))
    for token in reversed(list(islice(tokens, max(windows, default=0)))):
        edits.accept(token)
    return edits


def _grammar(model: LlamaModel, sampling: SamplingParams) -> Grammar | None:
    if sampling.json_schema is not None:
        return Grammar(model, grammar_of_json_schema(sampling.json_schema), "json_schema")
    return Grammar(model, sampling.grammar, "grammar") if sampling.grammar is not None else None


def _stages(sampling: SamplingParams, top_k: int, seed: int, n_vocab: int) -> list[Stage]:
    """llama.cpp's order; stages that would do nothing, and the one that ``TokenSampler._narrow`` does, are left out."""
    draw: list[Stage] = [("temp", (sampling.temperature,)), ("dist", (seed,))]
    surprise = (seed, sampling.mirostat_tau, sampling.mirostat_eta)
    if sampling.mirostat == 1:
        return [draw[0], ("mirostat", (n_vocab, *surprise, MIROSTAT_V1_M))]
    if sampling.mirostat == 2:
        return [draw[0], ("mirostat_v2", surprise)]
    stages: list[Stage] = []
    is_typical = sampling.typical_p < 1.0
    if top_k:
        stages.append(("top_k", (top_k,)))
        if is_typical:
            stages += [("min_p", (NEGLIGIBLE_P, 1)), ("typical", (sampling.typical_p, 1))]
    if sampling.top_p < 1.0 and (top_k or is_typical):
        stages.append(("top_p", (sampling.top_p, 1)))
    if sampling.min_p > 0.0:
        stages.append(("min_p", (sampling.min_p, 1)))
    return [*stages, *draw]
