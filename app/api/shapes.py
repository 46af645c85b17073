"""Answers as JSON: whole, or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from hearth.models.types import FinishReason, Usage


def usage_fields(usage: Usage) -> dict[str, Any]:
    """``cached_tokens`` are those of the prompt that did not have to be read again."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of an answer; ``logprobs`` has an entry for each token, None if they were not asked for."""

    text: str
    logprobs: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer."""

    reason: FinishReason
    usage: Usage


class Shape(Protocol):
    """How answers of one endpoint look. One is made for each answer."""

    def first(self) -> dict[str, Any] | None:
        """The chunk before the first text, if there is one."""

    def piece(self, said: Said) -> dict[str, Any]: ...

    def last(self, ended: Ended) -> dict[str, Any]: ...

    def usage(self, ended: Ended) -> dict[str, Any]:
        """The chunk behind the last one that counts the tokens."""

    def whole(self, pieces: list[Said], ended: Ended) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class ChatShape:
    """``/v1/chat/completions``. ``counts``: the chunks have a usage of null until the last one."""

    model: str
    counts: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def first(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, said: Said) -> dict[str, Any]:
        return self._chunk({"content": said.text}, None, said.logprobs)

    def last(self, ended: Ended) -> dict[str, Any]:
        return self._chunk({}, ended.reason)

    def usage(self, ended: Ended) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_fields(ended.usage)}

    def whole(self, pieces: list[Said], ended: Ended) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(said.text for said in pieces), "refusal": None}
        logprobs = _joined_logprobs(pieces)
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": ended.reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage_fields(ended.usage)}

    def _chunk(
        self, delta: dict[str, Any], reason: str | None, logprobs: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        found = None if logprobs is None else {"content": logprobs, "refusal": None}
        choice = {"index": 0, "delta": delta, "logprobs": found, "finish_reason": reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self.counts else chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


@dataclass(frozen=True, slots=True)
class TextShape:
    """``/v1/completions``."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def first(self) -> None:
        return None

    def piece(self, said: Said) -> dict[str, Any]:
        return self._object(said.text, None)

    def last(self, ended: Ended) -> dict[str, Any]:
        return self._object("", ended.reason)

    def usage(self, ended: Ended) -> dict[str, Any]:
        return {**self._object("", None), "choices": [], "usage": usage_fields(ended.usage)}

    def whole(self, pieces: list[Said], ended: Ended) -> dict[str, Any]:
        text = "".join(said.text for said in pieces)
        return {**self._object(text, ended.reason), "usage": usage_fields(ended.usage)}

    def _object(self, text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**head, "choices": [choice]}


def _joined_logprobs(pieces: list[Said]) -> dict[str, Any] | None:
    listed = [said.logprobs for said in pieces if said.logprobs is not None]
    return {"content": [entry for entries in listed for entry in entries], "refusal": None} if listed else None
