"""Errors in the shape that OpenAI's clients read, with our words and the error tree's HTTP status."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from hearth.models.errors import ContextOverflowError, HearthError, RequestError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(RequestError):
    """A request that is refused. ``param`` names what in it, ``code`` the reason for programs."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.http_status = status


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def error_fields(error: HearthError) -> dict[str, Any]:
    """The JSON of an error."""
    param = error.param if isinstance(error, ApiError) else None
    code = error.code if isinstance(error, ApiError) else None
    if isinstance(error, ContextOverflowError):
        code = "context_length_exceeded"
    status = error.http_status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def error_response(error: HearthError) -> JSONResponse:
    headers = {"Cache-Control": "no-store"}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.http_status in (429, 503):
        headers["Retry-After"] = "1"
    return JSONResponse(error_fields(error), error.http_status, headers)
