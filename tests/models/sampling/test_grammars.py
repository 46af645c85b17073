"""Answers under a grammar or a JSON schema, and grammars that are refused."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hearth.models.engine.request_checks import check_request
from hearth.models.errors import EngineError, RequestError
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import LlamaContext
from hearth.models.llama_sampler import Grammar
from hearth.models.types import GenerationRequest, SamplingParams, TextSegment
from tests.models.sampling.drawing import (
    ALL,
    SCHEMA,
    TRUNCATIONS,
    MakeSampler,
    generate,
    one_row,
    softmax,
    spread,
)
from tests.models.tiny_gguf import special_id


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
    assert time.thread_time() - started < 20  # the worst of them would take years
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
