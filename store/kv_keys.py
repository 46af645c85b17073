"""Entries of a prefix as bytes, and the keys of blocks. Knows neither files nor SQLite."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence

Entries = Sequence[int | str]  # token ids, and the identities of pictures and sounds

KEY_BYTES = 20
FINGERPRINT_BYTES = 16

_MEDIA = 1 << 31  # set in the word ahead of a media identity; the rest of that word is its length in bytes
_WORD = struct.Struct(">I")
_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\Z")


def encode(entries: Entries) -> bytes:
    """Big-endian words. One list of entries begins with another exactly when its bytes begin with the other's bytes.

    Raises ValueError for a token id that is out of range.
    """
    try:
        packed = struct.pack(f">{len(entries)}I", *entries)
    except struct.error:
        return b"".join(map(_encode_one, entries))
    too_large = max(packed[:: _WORD.size], default=0) >= _MEDIA >> 24  # looks at the first byte of each word
    return b"".join(map(_encode_one, entries)) if too_large else packed


def decode(data: bytes) -> tuple[int | str, ...]:
    """The entries that ``encode`` was given. Raises ValueError for other bytes."""
    if len(data) % _WORD.size:
        raise ValueError(f"{len(data)} bytes are not whole words")
    words: tuple[int, ...] = struct.unpack(f">{len(data) // _WORD.size}I", data)
    if max(words, default=0) < _MEDIA:
        return words
    entries: list[int | str] = []
    at = 0
    while at < len(words):
        if words[at] < _MEDIA:
            entries.append(words[at])
            at += 1
            continue
        start, n_bytes = (at + 1) * _WORD.size, words[at] - _MEDIA
        if start + n_bytes > len(data):
            raise ValueError(f"a media identity of {n_bytes} bytes ends behind the data")
        entries.append(data[start : start + n_bytes].decode("utf-8", "surrogatepass"))
        at += 1 + -(-n_bytes // _WORD.size)
    return tuple(entries)


def fingerprint_digest(fingerprint: str) -> bytes:
    """FINGERPRINT_BYTES bytes that stand for a model's fingerprint in files and index."""
    return hashlib.blake2b(fingerprint.encode("utf-8", "surrogatepass"), digest_size=FINGERPRINT_BYTES).digest()


def block_key(fingerprint: bytes, parent: bytes, encoded: bytes, *, whole: bool) -> bytes:
    """The key of a block: by its parent's key it stands for all entries from the first one on."""
    digest = hashlib.blake2b(fingerprint, digest_size=KEY_BYTES, person=b"hearth kv block")
    digest.update(bytes([whole, len(parent)]) + parent)
    digest.update(encoded)
    return digest.digest()


def parse_key(key: str) -> bytes | None:
    """The bytes of a key in lower-case hex; None if it is none. Thus a key never becomes another path."""
    return bytes.fromhex(key) if _KEY.match(key) else None


def common_length(a: bytes, b: bytes) -> int:
    """How many leading bytes two strings share."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # they share the first ``low``, not the first ``high``
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _encode_one(entry: int | str) -> bytes:
    if isinstance(entry, str):
        identity = entry.encode("utf-8", "surrogatepass")
        padding = -len(identity) % _WORD.size
        return _WORD.pack(_MEDIA | len(identity)) + identity + bytes(padding)
    if not 0 <= entry < _MEDIA:
        raise ValueError(f"token id {entry}: out of range, it must be from 0 to {_MEDIA - 1}")
    return _WORD.pack(entry)
