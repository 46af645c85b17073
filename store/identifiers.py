"""Makes identifiers: short, unique, and in the order they were made."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads like something else
_RANDOM_BITS = 30
_CHARS = 16  # 50 bits of milliseconds, 30 of chance

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new identifier of 16 characters; later ones sort after earlier ones, within one process strictly."""
    global _last
    fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    with _lock:
        _last = max(fresh, _last + 1)
        number = _last
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_CHARS - 1), -1, -5))
