"""Sampling parameters: bad ones are named with their range, and the limits of the ranges work."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hearth.models.engine.request_checks import check_request
from hearth.models.errors import RequestError
from hearth.models.llama import LlamaModel
from hearth.models.types import GenerationRequest, SamplingParams, TextSegment
from tests.models.sampling.drawing import (
    MakeSampler,
    one_row,
    spread,
)


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
