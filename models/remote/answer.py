"""What the server's chunks come to: text as it comes, then how many tokens it was and how it ended."""

from __future__ import annotations

import json
import math
from typing import Any

from hearth.models.errors import EngineError, HearthError
from hearth.models.remote.failures import from_error_body
from hearth.models.types import FinishReason, Usage

MAX_ANSWER_CHARS = 16 << 20
MAX_COUNT = 1 << 40  # of tokens: a number beyond is none

_REASONS: dict[str, FinishReason] = {"length": "length", "max_tokens": "length"}
_BROKEN_OFF = {"abort", "error", "insufficient_system_resource"}


class AnswerReader:
    """Takes ``choices`` of one answer, whole or in chunks. Nothing that a server may send makes it fail otherwise than
    with a HearthError."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._n_chars = 0
        self._n_deltas = 0
        self._reason: str | None = None
        self._done = False
        self._usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def ended(self) -> bool:
        """Whether the server has said that the answer is over."""
        return self._done or self._reason is not None

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        return self._done

    @property
    def reason(self) -> FinishReason:
        """Whatever a server calls an end that is none of the length is taken for the model's own."""
        return _REASONS.get(self._reason or "", "stop")

    @property
    def usage(self) -> Usage:
        """As the server counts; one that does not is taken to send a token in each chunk."""
        return self._usage or Usage(completion_tokens=self._n_deltas)

    def take_event(self, data: str) -> str:
        """Reads one chunk and returns its new text, maybe "". Raises EngineError, and the error that the chunk is."""
        if data.strip() == "[DONE]":
            self._done = True
            return ""
        return self.take(parse(data))

    def take(self, chunk: dict[str, Any]) -> str:
        """``take_event`` for a chunk, or a whole answer, that is parsed."""
        if chunk.get("error"):
            raise from_error_body(chunk, None)
        self._take_usage(chunk)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            if reason in _BROKEN_OFF:
                raise EngineError(f"the server broke the answer off ({reason}); ask again")
            self._reason = reason
        part = choice.get("delta") or choice.get("message")
        text = part.get("content") if isinstance(part, dict) else None
        return self._take_text(text) if isinstance(text, str) and text else ""

    def cut_off(self) -> HearthError:
        """The error of a connection that ended before the answer did."""
        so_far = f"after {self._n_chars:,} characters" if self._n_chars else "before it began"
        return EngineError(f"the server's answer was cut off {so_far}; ask again, and look at the server's log")

    def _take_text(self, text: str) -> str:
        self._n_chars += len(text)
        if self._n_chars > MAX_ANSWER_CHARS:
            raise EngineError(f"the server's answer has more than {MAX_ANSWER_CHARS:,} characters; set max_tokens")
        self._texts.append(text)
        self._n_deltas += 1
        return text

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
        timings = chunk.get("timings")  # llama-server's own
        if not cached and isinstance(timings, dict):
            cached = _count(timings.get("cache_n"))
        prompt = _count(usage.get("prompt_tokens"))
        self._usage = Usage(prompt, min(cached, prompt), _count(usage.get("completion_tokens")))


def parse(data: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises EngineError for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        shown = data[:60] if isinstance(data, str) else data[:60].decode("utf-8", "replace")
        raise EngineError(f"the server sent {shown!r}, which is no JSON object; engine_url names no OpenAI server")
    return found


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return int(value) if 0 <= value <= MAX_COUNT else 0
