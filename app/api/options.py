"""What the API may take and who may use it."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """``key`` None lets every program of this machine in. A request over a limit is refused before it is read whole."""

    key: str | None = field(default=None, repr=False)
    max_body_bytes: int = 64 * MIB  # of JSON, pictures in it included
    max_upload_bytes: int = 512 * MIB  # of a recording
    max_bodies_bytes: int = 1024 * MIB  # of all requests together
    max_requests: int = 64  # at a time; more are told to come back
    body_pause_s: float = 30.0  # a client may pause while it sends …
    reader_pause_s: float = 60.0  # … and while it reads
    alive_s: float = 10.0  # a stream that has nothing to say yet says that it lives
