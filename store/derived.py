"""What was computed from blobs and takes long to compute again: within a budget, checked, and gone with its blob."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Container
from pathlib import Path

import xxhash

from hearth.store.errors import from_os_error

BUDGET_BYTES = 1 << 30
_CHECKSUM_BYTES = 16
_NAME = re.compile(r"[0-9a-f]{64}\.[0-9a-z]{1,64}\Z")

log = logging.getLogger("hearth.store")


class DerivedFiles:
    """Files named by the blob they come from and by what made them. Methods may be called from any thread.

    Trouble with a file is a miss, logged: all of it can be computed again.
    """

    def __init__(self, folder: Path, *, budget_bytes: int = BUDGET_BYTES) -> None:
        """Takes over ``folder``, creating it with mode 0700. Raises StoreError."""
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by name, the least recently used first
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = [(entry.stat(), entry.name) for entry in os.scandir(folder) if entry.is_file()]
        except OSError as error:
            raise from_os_error(folder, error) from error
        for status, name in sorted(found, key=lambda one: one[0].st_mtime):
            if _NAME.match(name):
                self._sizes[name] = status.st_size
            else:
                self._unlink(name)  # unfinished

    def get(self, sha256: str, made_by: str) -> bytes | None:
        """What ``made_by`` made of a blob, every byte checked; None if it is not kept."""
        name = f"{sha256}.{made_by}"
        with self._lock:
            if name not in self._sizes:
                return None
            self._sizes.move_to_end(name)
        path = self._folder / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError as error:
            log.warning("%s: cannot be read (%s); computed again", path, error.strerror)
            data = b""
        payload = data[_CHECKSUM_BYTES:]
        if data and xxhash.xxh3_128_digest(payload) == data[:_CHECKSUM_BYTES]:
            return payload
        if data:
            log.warning("%s: damaged; computed again", path)
        self._drop(name)
        return None

    def put(self, sha256: str, made_by: str, data: bytes) -> None:
        """Keeps ``data``; what was used longest ago goes for it. Raises ValueError for names that are none."""
        name = f"{sha256}.{made_by}"
        if not _NAME.match(name):
            raise ValueError(f"{name[:80]!r} is no SHA-256 and name in lower case")
        size = len(data) + _CHECKSUM_BYTES
        if size > self._budget_bytes:
            return
        try:
            self._write(name, xxhash.xxh3_128_digest(data) + data)
        except OSError as error:
            log.warning("%s: cannot be kept (%s)", self._folder / name, error.strerror)
            return
        with self._lock:
            self._sizes[name] = size
            self._sizes.move_to_end(name)
            excess = sum(self._sizes.values()) - self._budget_bytes
            while excess > 0:
                oldest, n_bytes = self._sizes.popitem(last=False)
                self._unlink(oldest)
                excess -= n_bytes

    def remove(self, sha256: str) -> None:
        """Removes all that was made of a blob."""
        with self._lock:
            gone = [name for name in self._sizes if name.startswith(sha256)]
        for name in gone:
            self._drop(name)

    def sweep(self, known: Container[str]) -> None:
        """Removes what was made of blobs that are not ``known``."""
        with self._lock:
            gone = [name for name in self._sizes if name.partition(".")[0] not in known]
        for name in gone:
            self._drop(name)

    def _write(self, name: str, data: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix="unfinished-", dir=self._folder)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).replace(self._folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _drop(self, name: str) -> None:
        with self._lock:
            self._sizes.pop(name, None)
            self._unlink(name)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                (self._folder / name).unlink()
            except PermissionError as error:
                log.warning("%s: could not be removed (%s)", self._folder / name, error.strerror)
