"""Files of the store by their content, and files that are held only as long as a request is answered."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Files(Protocol):
    """Files by the SHA-256 of their content."""

    def get(self, sha256: str) -> bytes:
        """The bytes of a file. Raises NotFoundError, StoreError."""


class HeldFiles:
    """``get`` looks at what is held, then into the store. Methods may be called from any thread."""

    def __init__(self, stored: Files) -> None:
        self._stored = stored
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}
        self._holders: Counter[str] = Counter()

    def get(self, sha256: str) -> bytes:
        """The bytes of a file. Raises NotFoundError, StoreError."""
        with self._lock:
            held = self._held.get(sha256)
        return held if held is not None else self._stored.get(sha256)

    def is_held(self, sha256: str) -> bool:
        """Whether a file is only held: then nothing that is made of it goes to the disk either."""
        with self._lock:
            return sha256 in self._held

    @contextmanager
    def holding(self, files: Iterable[bytes]) -> Iterator[None]:
        """Keeps ``files`` in memory meanwhile; nothing of them is written to the disk."""
        named = [(hashlib.sha256(data).hexdigest(), data) for data in files]
        with self._lock:
            for sha256, data in named:
                self._held[sha256] = data
                self._holders[sha256] += 1
        try:
            yield
        finally:
            with self._lock:
                for sha256, _ in named:
                    self._holders[sha256] -= 1
                    if not self._holders[sha256]:
                        del self._holders[sha256], self._held[sha256]
