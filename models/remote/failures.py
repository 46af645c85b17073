"""What goes wrong at a server elsewhere, as errors of Hearth's that say what to do. Never shows a key."""

from __future__ import annotations

import ssl
from typing import Any

from hearth.models.errors import ContextOverflowError, EngineError, HearthError, RequestError

MAX_REASON_CHARS = 300
_TOO_LONG = ("context length", "context_length", "context size", "maximum context", "too long", "exceed_context")
RETRIED_STATUS = frozenset({429, 503})


class ServerBusyError(EngineError):
    """The server has too much to do, or is still loading its model."""

    http_status = 429


class NotServedError(EngineError):
    """The server has no such model, or no such API."""

    http_status = 404


def from_status(status: int, body: bytes, host: str) -> HearthError:
    """The error of an answer that is none. ``body`` may be cut."""
    from hearth.models.remote.answer import parse

    try:
        found: dict[str, Any] = parse(body)
    except EngineError:
        found = {}
    reason = _reason(found) or f"HTTP status {status}"
    if status in (401, 403):
        return EngineError(f"{host} refuses access: {reason}; set HEARTH_ENGINE_KEY to a key that it takes")
    if status == 404:
        return NotServedError(f"{host}: {reason}; check engine_model, and that engine_url ends with /v1")
    if 300 <= status < 400:
        return EngineError(f"{host} redirects elsewhere, which is not followed; set engine_url to the final address")
    if status in RETRIED_STATUS:
        return ServerBusyError(f"{host} is busy: {reason}; ask again later")
    return from_error_body(found, status, host)


def from_error_body(found: dict[str, Any], status: int | None, host: str = "the server") -> HearthError:
    """The error that a server describes in JSON."""
    reason = _reason(found) or (f"HTTP status {status}" if status is not None else "an error without a message")
    described = f"{reason} {_code(found)}".lower()
    if status in (None, 400, 413, 422) and any(words in described for words in _TOO_LONG):
        return ContextOverflowError(f"{host}: {reason}; start a new conversation, or send less")
    if status is not None and 400 <= status < 500:
        return RequestError(f"{host} refuses the request: {reason}")
    return EngineError(f"{host} failed: {reason}; look at its log")


def from_exception(error: Exception, host: str, doing: str) -> HearthError:
    """The error of a connection. ``doing`` says what was under way, as in "connecting to"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return EngineError(f"{host}: the TLS connection failed ({cause.reason or cause}); check engine_url")
        cause = cause.__cause__ or cause.__context__
    said = " ".join(str(error).split())[:MAX_REASON_CHARS] or type(error).__name__
    return EngineError(f"{doing} {host} failed: {said}; check that the server runs and engine_url is right")


def without_key(error: HearthError, key: str | None) -> HearthError:
    """``error`` with ``key`` taken out of its message, where a server has repeated it."""
    if key and key in str(error):
        clean = type(error)(str(error).replace(key, "…"))
        clean.__cause__ = None
        return clean
    return error


def _reason(found: dict[str, Any]) -> str:
    """What a server says, on one line. FastAPI has it in ``detail``, others at the top."""
    error = found.get("error")
    candidates = [error.get("message") if isinstance(error, dict) else error, found.get("message"), found.get("detail")]
    for candidate in candidates:
        if candidate:
            text = candidate if isinstance(candidate, str) else repr(candidate)
            shown = "".join(c if c.isprintable() else " " for c in text)
            return " ".join(shown.split())[:MAX_REASON_CHARS].rstrip(".")
    return ""


def _code(found: dict[str, Any]) -> str:
    error = found.get("error")
    return f"{error.get('code')} {error.get('type')}" if isinstance(error, dict) else ""
