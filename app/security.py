"""What keeps other web pages and other machines out: Host and Origin checks and response headers for every route."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?")
_ORIGIN = re.compile(r"https?://(?P<host>.+)", re.IGNORECASE)
_INLINE_SCRIPT = re.compile(rb"<script(?P<attributes>[^>]*)>(?P<body>.*?)</script>", re.DOTALL | re.IGNORECASE)
_SAME_SITE = frozenset({"same-origin", "none"})

# Gradio compiles its HTML templates at run time ('unsafe-eval') and sets inline styles; inline scripts go by hash.
_POLICY = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-eval'{hashes}",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "media-src 'self' data: blob:",
    "font-src 'self' data:",
    "worker-src 'self' blob:",
    "connect-src 'self' data: blob:",
    "object-src 'none'",
    "frame-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
}
_CORS_HEADERS = (
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
)


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def content_security_policy(html: bytes = b"") -> str:
    """The policy for a page: only its own origin, and of inline scripts only those that stand in ``html``."""
    hashes = "".join(f" 'sha256-{digest}'" for digest in _script_digests(html))
    return "; ".join(_POLICY).format(hashes=hashes)


class LoopbackOnly:
    """ASGI middleware: answers only requests that name this machine's loopback and come from its own pages.

    A foreign ``Host`` (DNS rebinding) gets 400; a foreign or ``null`` ``Origin``, or a cross-site fetch, gets 403.
    WebSockets are refused before they are accepted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is None:
            # no compression over loopback, and the policy must see the page's scripts
            headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            await self._app({**scope, "headers": headers}, receive, _Guarded(send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            await _refused(scope["path"], *refusal)(scope, receive, _Guarded(send))


class _Guarded:
    """A ``send`` that adds the security headers; HTML is held back until its script hashes are known."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body" and self._held is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._release()
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name in _CORS_HEADERS:
            del headers[name]
        for name, value in _HEADERS.items():
            headers[name] = value
        if headers.get("content-type", "").startswith("text/html"):
            self._held = message
            return
        if "content-security-policy" not in headers:
            headers["Content-Security-Policy"] = content_security_policy()
        await self._send(message)

    async def _release(self) -> None:
        held, self._held = self._held, None
        assert held is not None
        body = bytes(self._body)
        MutableHeaders(scope=held)["Content-Security-Policy"] = content_security_policy(body)
        await self._send(held)
        await self._send({"type": "http.response.body", "body": body})


def _refusal(scope: Scope) -> tuple[int, str] | None:
    """(status, reason) if the request must be refused."""
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        return 400, "This server answers only as 127.0.0.1, localhost or [::1]."
    origins = _values(scope, b"origin")
    if any(not _same_origin(origin, hosts[0]) for origin in origins):
        return 403, "Requests from other web pages are refused."
    if any(site not in _SAME_SITE for site in _values(scope, b"sec-fetch-site")) and not _navigates(scope):
        return 403, "Requests from other web pages are refused."
    return None


def _refused(path: str, status: int, reason: str) -> Response:
    """Programs that use the API read errors as OpenAI's clients do."""
    if not path.startswith("/v1/"):
        return PlainTextResponse(reason, status)
    error = {"message": reason, "type": "permission_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status)


def _values(scope: Scope, name: bytes) -> list[str]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key == name]


def _names_loopback(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and match["name"].lower() in LOOPBACK_HOSTS


def _same_origin(origin: str, host: str) -> bool:
    match = _ORIGIN.fullmatch(origin)
    return match is not None and match["host"].lower() == host.lower()


def _navigates(scope: Scope) -> bool:
    """A link followed or an address typed: it opens the page itself and hands nothing back to another one."""
    modes = _values(scope, b"sec-fetch-mode")
    destinations = _values(scope, b"sec-fetch-dest")
    return scope.get("method") == "GET" and modes == ["navigate"] and destinations == ["document"]


def _script_digests(html: bytes) -> list[str]:
    digests = []
    for match in _INLINE_SCRIPT.finditer(html):
        if b"src=" not in match["attributes"]:
            digests.append(base64.b64encode(hashlib.sha256(match["body"]).digest()).decode())
    return digests
