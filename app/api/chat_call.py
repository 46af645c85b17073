"""Parameters of a chat completion or a text completion, as OpenAI's clients send them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hearth.api.content import GivenMessage, read_messages
from hearth.api.errors import ApiError
from hearth.api.fields import Fields
from hearth.models.engine.request_checks import MAX_LOGPROBS
from hearth.models.types import SamplingParams

_SAMPLING = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias")
_MORE_SAMPLING = ("top_k", "min_p", "typical_p", "repeat_penalty", "grammar")  # as llama-server and vLLM name them
_COMMON = ("model", "max_tokens", "n", "stop", "stream", "stream_options", *_SAMPLING, *_MORE_SAMPLING)

# Accepted and without effect: they are about OpenAI's own accounts, storage and routing.
_NO_EFFECT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")

# Values that ask for nothing are taken, as many clients send them; all others are refused.
_ASK_FOR_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
_ASK_FOR_NOTHING_MORE: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (),
}
_CHAT = (
    *_COMMON,
    *_NO_EFFECT,
    *_ASK_FOR_NOTHING,
    "messages",
    "max_completion_tokens",
    "response_format",
    "logprobs",
    "top_logprobs",
)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked for, whatever it goes on from. ``temperature`` and ``top_p`` None: as the assistant has them."""

    model: str
    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    temperature: float | None
    top_p: float | None
    sampling: SamplingParams = field(default_factory=SamplingParams)  # all the rest


@dataclass(frozen=True, slots=True)
class ChatCall(Call):
    messages: tuple[GivenMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class TextCall(Call):
    prompt: str = ""


def read_chat_call(body: dict[str, Any]) -> ChatCall:
    """Raises ApiError naming what is wrong or not supported."""
    fields = Fields(body, _CHAT)
    for name, allowed in _ASK_FOR_NOTHING.items():
        fields.refuse_unless(name, allowed, "not supported here; leave it out")
    at_most, newer = fields.take("max_tokens", "integer"), fields.take("max_completion_tokens", "integer")
    if at_most is not None and newer is not None and at_most != newer:
        raise fields.wrong("max_tokens", f"is {at_most}, max_completion_tokens {newer}; give one of them")
    extra: dict[str, Any] = {"n_logprobs": _logprobs(fields), "json_schema": _schema(fields)}
    common = _common(fields, extra)
    common["max_tokens"] = at_most if newer is None else newer
    return ChatCall(**common, messages=read_messages(fields.need("messages", "array")))


def read_text_call(body: dict[str, Any]) -> TextCall:
    """Raises ApiError naming what is wrong or not supported."""
    fields = Fields(body, (*_COMMON, *_NO_EFFECT, *_ASK_FOR_NOTHING_MORE, "prompt"))
    for name, allowed in _ASK_FOR_NOTHING_MORE.items():
        fields.refuse_unless(name, allowed, "not supported here; leave it out")
    prompt = fields.raw("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise fields.wrong("prompt", "must be one string that is not empty")
    return TextCall(**_common(fields, {}), prompt=prompt.replace("\0", ""))


def _common(fields: Fields, extra: dict[str, Any]) -> dict[str, Any]:
    fields.refuse_unless("n", (1,), "one answer is made at a time; ask again for another")
    sampling = {
        name: fields.take(name, "number")
        for name in ("presence_penalty", "frequency_penalty", "min_p", "typical_p", "repeat_penalty")
    }
    sampling |= {name: fields.take(name, "integer") for name in ("seed", "top_k")}
    sampling |= {"grammar": fields.take("grammar", "string"), "logit_bias": _biases(fields), **extra}
    stream = bool(fields.take("stream", "boolean"))
    return {
        "model": fields.need("model", "string"),
        "max_tokens": fields.take("max_tokens", "integer"),
        "stop": _stops(fields),
        "stream": stream,
        "include_usage": _include_usage(fields, stream),
        "temperature": fields.take("temperature", "number"),
        "top_p": fields.take("top_p", "number"),
        "sampling": SamplingParams(**{name: value for name, value in sampling.items() if value is not None}),
    }


def _stops(fields: Fields) -> tuple[str, ...]:
    stops = fields.raw("stop")
    if stops is None:
        return ()
    listed = [stops] if isinstance(stops, str) else stops
    if not isinstance(listed, list) or not all(isinstance(stop, str) for stop in listed):
        raise fields.wrong("stop", "must be a string or a list of strings")
    return tuple(listed)


def _include_usage(fields: Fields, stream: bool) -> bool:
    given = fields.take("stream_options", "object")
    if given is None:
        return False
    if not stream:
        raise fields.wrong("stream_options", "is given, but stream is not true")
    options = Fields(given, ("include_usage", "include_obfuscation"), "stream_options.")
    options.take("include_obfuscation", "boolean")  # no effect: nobody listens on the way
    return bool(options.take("include_usage", "boolean"))


def _logprobs(fields: Fields) -> int | None:
    wanted, top = fields.take("logprobs", "boolean"), fields.take("top_logprobs", "integer")
    if top is not None and not wanted:
        raise fields.wrong("top_logprobs", "is given, but logprobs is not true")
    if top is not None and not 0 <= top <= MAX_LOGPROBS:
        raise fields.wrong("top_logprobs", f"is {top}; it must be within 0..{MAX_LOGPROBS}")
    return (top or 0) if wanted else None


def _schema(fields: Fields) -> dict[str, Any] | None:
    given = fields.take("response_format", "object")
    if given is None:
        return None
    form = Fields(given, ("type", "json_schema"), "response_format.")
    kind = form.need("type", "string")
    if kind == "json_schema":
        described = Fields(
            form.need("json_schema", "object"),
            ("name", "description", "schema", "strict"),
            "response_format.json_schema.",
        )
        described.take("strict", "boolean")  # it always is
        found: dict[str, Any] = described.need("schema", "object")
        return found
    if "json_schema" in form:
        raise form.wrong("json_schema", f"is given, but type is {kind[:40]!r}")
    if kind == "json_object":
        return {"type": "object"}
    if kind != "text":
        raise form.wrong("type", f"is {kind[:40]!r}; take text, json_object or json_schema")
    return None


def _biases(fields: Fields) -> dict[int, float] | None:
    given = fields.take("logit_bias", "object")
    if not given:
        return None
    found: dict[int, float] = {}
    for token, bias in given.items():
        if not (token.isascii() and token.isdigit() and len(token) < 12):
            raise ApiError(f"logit_bias: {token[:40]!r} is no token id", param="logit_bias")
        found[int(token)] = bias
    return found
