"""Where the server is and how long it is waited for; mistakes are found here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from hearth.models.errors import RequestError

CONNECT_S = 10.0
FIRST_BYTE_S = 300.0
BETWEEN_BYTES_S = 60.0
MAX_ATTEMPTS = 4
BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """``url`` ends where ``/chat/completions`` begins; ``model`` None is the server's only one.

    ``first_byte_s`` is how long it may take until the answer begins, which includes reading the prompt and waiting for
    other users; ``between_s`` how long it may pause after that. ``attempts`` counts the first one too, the pause
    between two doubles from ``backoff_s``. ``sees`` and ``hears`` None: as the server says; one that says nothing is
    sent pictures, and of recordings their words. Raises RequestError naming what is wrong.
    """

    url: str
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    sees: bool | None = None
    hears: bool | None = None
    n_ctx: int | None = None
    connect_s: float = CONNECT_S
    first_byte_s: float = FIRST_BYTE_S
    between_s: float = BETWEEN_BYTES_S
    attempts: int = MAX_ATTEMPTS
    backoff_s: float = BACKOFF_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise RequestError("the engine's key has characters that no key has; set HEARTH_ENGINE_KEY anew")

    @property
    def host(self) -> str:
        """The server as people call it: name and port."""
        return urlsplit(self.url).netloc

    @property
    def is_loopback(self) -> bool:
        return is_loopback_url(self.url)


def check_url(url: str) -> str:
    """``url`` without a slash at its end. Raises RequestError if it is no address of an HTTP server."""
    shown = url if "@" not in url else "…"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise RequestError(f"engine_url {shown}: {error}; write http://HOST:PORT/v1") from None
    if parts.username is not None or parts.password is not None:
        raise RequestError("engine_url has a name or password in it; put the key into HEARTH_ENGINE_KEY instead")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise RequestError(f"engine_url {shown!r} is not an address of an HTTP server; write http://HOST:PORT/v1")
    if parts.query or parts.fragment:
        raise RequestError(f"engine_url {shown!r}: nothing may follow the path; write http://HOST:PORT/v1")
    if any(character.isspace() or not character.isprintable() for character in parts.geturl()):
        raise RequestError(f"engine_url {shown!r} has a space or control character; write http://HOST:PORT/v1")
    return SplitResult(parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "").geturl()


def is_loopback_url(url: str) -> bool:
    """Whether what is sent to ``url`` stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
