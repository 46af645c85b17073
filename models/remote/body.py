"""A request as the JSON that OpenAI-compatible servers take. Equal messages give equal bytes, so that a server's own
prefix cache finds what it has read before."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from typing import Any

from hearth.models.engine.request_checks import check_int, check_sampling, check_stops
from hearth.models.errors import RequestError
from hearth.models.remote.chat import ChatMessage, ChatRequest, MediaPart
from hearth.models.types import SamplingParams

_SENT = {"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "json_schema"}
_SOUND_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}
MAX_BODY_BYTES = 256 << 20
MAX_TOKENS_LIMIT = 1 << 24


def check_chat(request: ChatRequest) -> None:
    """Raises RequestError for a parameter out of its range, or one that such servers do not take."""
    sampling = request.sampling
    if request.max_tokens is not None:
        check_int("max_tokens", request.max_tokens, 1, MAX_TOKENS_LIMIT)
    check_stops(request.stop)
    check_sampling(sampling)
    default = SamplingParams()
    for parameter in fields(SamplingParams):
        name = parameter.name
        if name not in _SENT and getattr(sampling, name) != getattr(default, name):
            raise RequestError(f"{name} cannot be had from a server elsewhere (engine_url); leave it out")


def encode_request(request: ChatRequest, model: str) -> bytes:
    """The body of a streaming request. Reads the pictures and sounds. Raises RequestError if it is too large."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(sampling, name):
            body[name] = getattr(sampling, name)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): max(bias, -100.0) for token, bias in sampling.logit_bias.items()}
    if sampling.json_schema == {"type": "object"}:
        body["response_format"] = {"type": "json_object"}
    elif sampling.json_schema is not None:
        schema = {"name": "answer", "schema": sampling.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(data) > MAX_BODY_BYTES:
        raise RequestError(
            f"the chat with its pictures and sounds takes {len(data) >> 20} MiB to send, the limit is "
            f"{MAX_BODY_BYTES >> 20}; start a new conversation"
        )
    return data


def _message(message: ChatMessage) -> dict[str, Any]:
    """A content of text alone is one string: servers for models without eyes take nothing else."""
    if all(isinstance(part, str) for part in message.parts):
        return {"role": message.role, "content": "".join(part for part in message.parts if isinstance(part, str))}
    return {"role": message.role, "content": [_part(part) for part in message.parts if part != ""]}


def _part(part: str | MediaPart) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    content, mime = part.read()
    encoded = base64.b64encode(content).decode()
    if part.kind == "picture":
        return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{encoded}"}}
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": _SOUND_FORMATS[mime]}}
