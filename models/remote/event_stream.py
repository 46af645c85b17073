"""Server-sent events out of bytes that come in pieces (https://html.spec.whatwg.org, 9.2.6), with a limit on a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hearth.models.errors import EngineError

MAX_EVENT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """``name`` is "message" unless the server gives another; ``data`` are its lines, joined."""

    name: str
    data: str


class EventStream:
    """``push`` takes bytes as they come and yields the events that are whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._lines: list[bytes] = []
        self._n_bytes = 0

    def push(self, piece: bytes) -> Iterator[ServerEvent]:
        """Raises EngineError if an event is longer than MAX_EVENT_BYTES."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                yield event
        self._check(len(self._rest))

    def flush(self) -> Iterator[ServerEvent]:
        """What stands at the end without an empty line behind it: some servers leave the last one out."""
        line, self._rest = self._rest.removesuffix(b"\r"), b""
        for last in (line, b""):
            event = self._take(last)
            if event is not None:
                yield event

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._end()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._n_bytes += len(value)
            self._check(0)
            self._lines.append(value)
        elif field == b"event":
            self._name = value[:64].decode("utf-8", "replace")
        elif field == b"error":  # as llama-server has had it
            return ServerEvent("error", value.decode("utf-8", "replace"))
        return None

    def _end(self) -> ServerEvent | None:
        name, lines = self._name or "message", self._lines
        self._name, self._lines, self._n_bytes = "", [], 0
        return ServerEvent(name, b"\n".join(lines).decode("utf-8", "replace")) if lines else None

    def _check(self, n_more_bytes: int) -> None:
        if self._n_bytes + n_more_bytes > MAX_EVENT_BYTES:
            raise EngineError(
                f"the server sends a line of more than {MAX_EVENT_BYTES >> 20} MiB; engine_url names no OpenAI server"
            )
