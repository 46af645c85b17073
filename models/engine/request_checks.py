"""Parameters of a request against their ranges. No native code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hearth.models.errors import RequestError
from hearth.models.gbnf import check_gbnf
from hearth.models.types import GenerationRequest, SamplingParams

MAX_SEED = 2**32 - 2  # llama.cpp takes 2**32 - 1 to mean a random seed
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TOKENS_LIMIT = 1 << 24
MAX_LAST_N = 1 << 20  # tokens
MAX_SCHEMA_CHARS = 64 * 1024
MAX_GRAMMAR_CHARS = 64 * 1024
MAX_SCHEMA_COUNT = 1000  # a schema's minLength, maxItems and such: each is written out in the grammar
MAX_SCHEMA_COUNTS = 20_000  # of all together
MAX_PATTERN_CHARS = 1 << 20  # of a schema's pattern with its repetitions written out
MAX_LOGIT_BIASES = 10_000
MAX_LOGIT_BIAS = 100.0
MAX_BREAKERS = 16
MAX_BREAKER_BYTES = 40  # llama.cpp cuts longer ones off
MAX_LOGPROBS = 20

_REALS = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (0.1, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 10.0),
    "mirostat_tau": (0.0, 20.0),
    "mirostat_eta": (0.0, 1.0),
}
_INTEGERS = {
    "top_k": (0, 2**31 - 1),
    "repeat_last_n": (0, MAX_LAST_N),
    "dry_allowed_length": (1, MAX_LAST_N),
    "dry_penalty_last_n": (0, MAX_LAST_N),
    "mirostat": (0, 2),
}
_OPTIONAL_INTEGERS = {"seed": (0, MAX_SEED), "n_logprobs": (0, MAX_LOGPROBS)}
_SCHEMA_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")


def check_request(request: GenerationRequest, n_vocab: int | None = None) -> None:
    """Raises RequestError naming the parameter, its value and its range. Token ids are checked with ``n_vocab``."""
    check_int("max_tokens", request.max_tokens, 1, MAX_TOKENS_LIMIT)
    check_stops(request.stop)
    check_sampling(request.sampling, n_vocab)


def check_sampling(sampling: SamplingParams, n_vocab: int | None = None) -> None:
    """The part of ``check_request`` that is about sampling."""
    for name, (low, high) in _REALS.items():
        check_real(name, getattr(sampling, name), low, high)
    for name, (least, most) in _INTEGERS.items():
        check_int(name, getattr(sampling, name), least, most)
    for name, (least, most) in _OPTIONAL_INTEGERS.items():
        if getattr(sampling, name) is not None:
            check_int(name, getattr(sampling, name), least, most)
    if sampling.mirostat and sampling.temperature == 0:
        raise RequestError(f"mirostat is {sampling.mirostat} with temperature 0, which leaves it no choice; raise it")
    check_breakers(sampling.dry_sequence_breakers)
    check_biases(sampling.logit_bias, n_vocab)
    if sampling.json_schema is not None and sampling.grammar is not None:
        raise RequestError("json_schema and grammar are both given; an answer can follow only one of them")
    check_schema(sampling.json_schema)
    check_grammar(sampling.grammar)


def check_real(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{name} is {value!r}; it must be a number within {low:g}..{high:g}")
    if not low <= value <= high:
        raise RequestError(f"{name} is {value:g}; it must be within {low:g}..{high:g}")


def check_int(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}; it must be a whole number within {low}..{high}")


def check_stops(stops: Any) -> None:
    if not isinstance(stops, tuple) or not all(isinstance(stop, str) for stop in stops):
        raise RequestError(f"stop is {type(stops).__name__}; it must be a tuple of strings")
    if len(stops) > MAX_STOPS:
        raise RequestError(f"stop has {len(stops)} strings; at most {MAX_STOPS} are allowed")
    for stop in stops:
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise RequestError(f"a stop string has {len(stop)} characters; it must have 1..{MAX_STOP_CHARS}")


def check_breakers(breakers: Any) -> None:
    name = "dry_sequence_breakers"
    if not isinstance(breakers, tuple) or not all(isinstance(breaker, str) for breaker in breakers):
        raise RequestError(f"{name} is {type(breakers).__name__}; it must be a tuple of strings")
    if len(breakers) > MAX_BREAKERS:
        raise RequestError(f"{name} has {len(breakers)} strings; at most {MAX_BREAKERS} are allowed")
    for breaker in breakers:
        n_bytes = len(breaker.encode("utf-8", "replace"))
        if not 1 <= n_bytes <= MAX_BREAKER_BYTES or "\0" in breaker:
            raise RequestError(
                f"{name} has a string of {n_bytes} bytes; it must have 1..{MAX_BREAKER_BYTES}, none of them zero"
            )


def check_biases(biases: Any, n_vocab: int | None) -> None:
    if biases is None:
        return
    if not isinstance(biases, Mapping):
        raise RequestError(f"logit_bias is {type(biases).__name__}; it must map token ids to numbers")
    if len(biases) > MAX_LOGIT_BIASES:
        raise RequestError(f"logit_bias has {len(biases):,} tokens; at most {MAX_LOGIT_BIASES:,} are allowed")
    for token, bias in biases.items():
        check_int("a token id of logit_bias", token, 0, (n_vocab or 2**31) - 1)
        if isinstance(bias, float) and bias == -math.inf:
            continue
        try:
            check_real(f"logit_bias of token {token}", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
        except RequestError as error:
            raise RequestError(f"{error}, or -inf to ban it") from None


def check_grammar(grammar: Any) -> None:
    if grammar is None:
        return
    if not isinstance(grammar, str):
        raise RequestError(f"grammar is {type(grammar).__name__}; it must be GBNF text")
    if len(grammar) > MAX_GRAMMAR_CHARS:
        raise RequestError(f"grammar has {len(grammar):,} characters; the limit is {MAX_GRAMMAR_CHARS:,}")
    check_gbnf(grammar)


def check_schema(schema: Any) -> None:
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
    total = 0
    for part in _objects_in(schema):
        for key in _SCHEMA_COUNTS:
            count = part.get(key)
            if not isinstance(count, int):
                continue
            if not 0 <= count <= MAX_SCHEMA_COUNT:
                raise RequestError(
                    f"json_schema: {key} is {count:,}; it must be within 0..{MAX_SCHEMA_COUNT:,}, or left out"
                )
            total += count
        pattern = part.get("pattern")
        if isinstance(pattern, str) and _written_out(pattern) > MAX_PATTERN_CHARS:
            raise RequestError(f"json_schema: the pattern {pattern[:40]!r} repeats too often; lower its {{m,n}}")
    if total > MAX_SCHEMA_COUNTS:
        raise RequestError(
            f"json_schema: minLength, maxLength, minItems and maxItems come to {total:,}; the limit is "
            f"{MAX_SCHEMA_COUNTS:,}; leave some out"
        )


def _objects_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All objects of a schema, itself first."""
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _written_out(pattern: str) -> int:
    """At most so many characters, if every {m,n} stood in every other."""
    n_chars = max(len(pattern), 1)
    for numbers in re.findall(r"\{([0-9, ]*)\}", pattern):
        counts = [int(number[:9]) for number in re.findall("[0-9]+", numbers)]
        n_chars = min(n_chars * max([1, *counts]), MAX_PATTERN_CHARS + 1)
    return n_chars
