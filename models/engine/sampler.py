"""How the next token is chosen: parameters checked against their ranges and turned into a native chain."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hearth.models.errors import EngineError, RequestError
from hearth.models.types import GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from hearth.models.llama import LlamaContext

PENALTY_LAST_N = 64  # tokens that repeat_penalty looks back
MAX_SEED = 2**32 - 2  # llama.cpp takes 2**32 - 1 to mean a random seed
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TOKENS_LIMIT = 1 << 24
MAX_SCHEMA_CHARS = 64 * 1024


def check_request(request: GenerationRequest) -> None:
    """Raises RequestError naming the parameter, its value and its range."""
    sampling = request.sampling
    _check_real("temperature", sampling.temperature, 0.0, 10.0)
    _check_real("top_p", sampling.top_p, 0.0, 1.0)
    _check_real("min_p", sampling.min_p, 0.0, 1.0)
    _check_real("repeat_penalty", sampling.repeat_penalty, 0.1, 10.0)
    _check_int("top_k", sampling.top_k, 0, 2**31 - 1)
    _check_int("max_tokens", request.max_tokens, 1, MAX_TOKENS_LIMIT)
    if sampling.seed is not None:
        _check_int("seed", sampling.seed, 0, MAX_SEED)
    _check_stops(request.stop)
    _check_schema(sampling.json_schema)


def _check_real(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{name} is {value!r}; it must be a number within {low:g}..{high:g}")
    if not low <= value <= high:
        raise RequestError(f"{name} is {value:g}; it must be within {low:g}..{high:g}")


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}; it must be a whole number within {low}..{high}")


def _check_stops(stops: Any) -> None:
    if not isinstance(stops, tuple) or not all(isinstance(stop, str) for stop in stops):
        raise RequestError(f"stop is {type(stops).__name__}; it must be a tuple of strings")
    if len(stops) > MAX_STOPS:
        raise RequestError(f"stop has {len(stops)} strings; at most {MAX_STOPS} are allowed")
    for stop in stops:
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise RequestError(f"a stop string has {len(stop)} characters; it must have 1..{MAX_STOP_CHARS}")


def _check_schema(schema: Any) -> None:
    if schema is None:
        return
    if not isinstance(schema, dict):
        raise RequestError(f"json_schema is {type(schema).__name__}; it must be a JSON object")
    try:
        n_chars = len(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"json_schema is no JSON: {error}") from error
    if n_chars > MAX_SCHEMA_CHARS:
        raise RequestError(f"json_schema has {n_chars:,} characters; the limit is {MAX_SCHEMA_CHARS:,}")


class TokenSampler:
    """Chooses tokens for one request. ``close()`` when the request ends."""

    def __init__(self, context: LlamaContext, sampling: SamplingParams, seed: int, recent_tokens: list[int]) -> None:
        """``recent_tokens`` is the end of the prompt, for the penalty. Raises RequestError for a bad schema."""
        self._context = context
        greedy = sampling.temperature == 0
        penalized = sampling.repeat_penalty != 1.0
        self._chain = None
        # plain greedy needs no chain: numpy's argmax takes microseconds, llama.cpp's sampler sorts candidates first
        if greedy and not penalized and sampling.json_schema is None:
            return
        from hearth.models.llama import SamplerChain, grammar_of_json_schema

        schema = sampling.json_schema
        grammar = grammar_of_json_schema(schema) if schema is not None else None
        self._chain = SamplerChain(context, _stages(sampling, seed, context.model.n_vocab), grammar)
        if penalized:
            for token in recent_tokens[-PENALTY_LAST_N:]:
                self._chain.accept(token)

    def sample(self, row: int) -> int:
        """The token after batch row ``row``. Raises EngineError if the model gives no numbers."""
        logits = self._context.logits(row)
        best = int(np.argmax(logits))
        if not math.isfinite(logits[best]):
            raise EngineError("the model's output is not a number; the file may be damaged, or its KV type too coarse")
        return best if self._chain is None else self._chain.sample(row)

    def close(self) -> None:
        if self._chain is not None:
            self._chain.close()


def _stages(sampling: SamplingParams, seed: int, n_vocab: int) -> list[tuple[str, tuple[Any, ...]]]:
    """llama.cpp's order; stages that would do nothing are left out. top_k comes early: without it top_p sorts all."""
    stages: list[tuple[str, tuple[Any, ...]]] = []
    if sampling.repeat_penalty != 1.0:
        stages.append(("penalties", (n_vocab, PENALTY_LAST_N, sampling.repeat_penalty, 0.0, 0.0)))
    if sampling.temperature == 0:
        return [*stages, ("greedy", ())]
    if sampling.top_k > 0:
        stages.append(("top_k", (sampling.top_k,)))
    if sampling.top_p < 1.0:
        stages.append(("top_p", (sampling.top_p, 1)))
    if sampling.min_p > 0.0:
        stages.append(("min_p", (sampling.min_p, 1)))
    return [*stages, ("temp", (sampling.temperature,)), ("dist", (seed,))]
