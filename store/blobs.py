"""Files that users give, each kept once under the hash of its content; their names never become paths."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from hearth.store.database import Database
from hearth.store.derived import DerivedFiles
from hearth.store.errors import NotFoundError, StoreError, from_os_error
from hearth.store.words import storable

log = logging.getLogger("hearth.store")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_UNUSED = """SELECT sha256 FROM blobs WHERE (?1 IS NULL OR sha256 IN (SELECT value FROM json_each(?1)))
    AND NOT EXISTS (SELECT 1 FROM attachments WHERE sha256 = blobs.sha256)
    AND NOT EXISTS (SELECT 1 FROM documents WHERE sha256 = blobs.sha256)"""


class BlobStore:
    """Blobs by their SHA-256 in lower-case hex. All methods may be called from any thread.

    A blob stays as long as a message or a document names it. One that was put and not named yet stays until the store
    is closed; the next opening sweeps it away.
    """

    def __init__(self, folder: Path, database: Database, derived: DerivedFiles | None = None) -> None:
        """Takes over ``folder``, creating it with mode 0700. What is ``derived`` from a blob goes with it. Raises
        StoreError."""
        self._folder = folder
        self._derived = derived
        self._database = database
        self._expected: Counter[str] = Counter()  # put, not yet named by a message or document; under writer_lock
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise from_os_error(folder, error) from error

    def put(self, data: bytes, *, name: str, mime: str) -> str:
        """Keeps ``data`` and returns its SHA-256; the same content is stored once, under the first name given.

        On return it is on the disk. Raises StoreError, and then nothing was stored.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        with self._database.writer_lock:
            self._expected[sha256] += 1
        try:
            self._write_file(sha256, data)
            with self._database.write() as transaction:
                transaction.execute(
                    "INSERT OR IGNORE INTO blobs (sha256, name, mime, size_bytes, created_at) VALUES (?, ?, ?, ?, ?)",
                    (sha256, storable(name), mime, len(data), time.time()),
                )
        except BaseException:
            self.named(sha256)
            raise
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes of a blob, checked against its hash. Raises NotFoundError, StoreError if damaged."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise from_os_error(path, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"{path}: damaged, its {len(data)} bytes do not match their checksum; add the file again")
        return data

    def path(self, sha256: str) -> Path:
        """Where a blob is, to be read only. Raises NotFoundError."""
        path = self._place(sha256)
        if not path.is_file():
            raise NotFoundError(f"blob {sha256[:12]}: its file is not in {self._folder}; add the file again")
        return path

    def size(self, sha256: str) -> int:
        """Bytes of a blob. Raises NotFoundError."""
        return self.path(sha256).stat().st_size

    def delete(self, sha256: str) -> None:
        """Removes a blob. Raises NotFoundError, StoreError if a message or document names it."""
        self._place(sha256)
        with self._database.writer_lock:
            try:
                with self._database.write() as transaction:
                    if _is_document(transaction, sha256):
                        raise StoreError(f"blob {sha256[:12]}: a document in memory uses it; forget that first")
                    cursor = transaction.execute("DELETE FROM blobs WHERE sha256 = ?", (sha256,))
            except sqlite3.IntegrityError as error:
                raise StoreError(f"blob {sha256[:12]}: a message uses it; delete its conversation first") from error
            if not cursor.rowcount:
                raise NotFoundError(f"blob {sha256[:12]}: not in the store")
            self._expected.pop(sha256, None)
            self._remove(sha256)

    def named(self, *sha256s: str) -> None:
        """Notes that a message or document names what was put for it, so that deleting that removes the blob too."""
        with self._database.writer_lock:
            for sha256 in sha256s:
                if self._expected[sha256] <= 1:
                    self._expected.pop(sha256, None)
                else:
                    self._expected[sha256] -= 1

    def remove_unused(self, candidates: Iterable[str] | None = None) -> int:
        """Removes those of ``candidates`` (None: of all) that nothing names or is about to; returns how many.

        Raises StoreError.
        """
        wanted = None if candidates is None else json.dumps(list(candidates))
        with self._database.writer_lock:
            with self._database.write() as transaction:
                rows = transaction.execute(_UNUSED, (wanted,)).fetchall()
                unused = [row["sha256"] for row in rows if row["sha256"] not in self._expected]
                transaction.executemany("DELETE FROM blobs WHERE sha256 = ?", [(sha256,) for sha256 in unused])
            for sha256 in unused:
                self._remove(sha256)
        return len(unused)

    def sweep(self) -> None:
        """Removes what a crash left: unfinished files and blobs that nothing names. To be called before any ``put``."""
        self.remove_unused()
        with self._database.read() as connection:
            known = {row["sha256"] for row in connection.execute("SELECT sha256 FROM blobs")}
        for path in self._folder.rglob("*"):
            if path.is_file() and path.name not in known:
                self._unlink(path)
        if self._derived is not None:
            self._derived.sweep(known)

    def _remove(self, sha256: str) -> None:
        if self._derived is not None:
            self._derived.remove(sha256)
        self._unlink(self._place(sha256))

    def _place(self, sha256: str) -> Path:
        if not _SHA256.match(sha256):
            raise NotFoundError(f"blob {sha256[:64]!r}: not a SHA-256 in lower-case hex")
        return self._folder / sha256[:2] / sha256

    def _write_file(self, sha256: str, data: bytes) -> None:
        path = self._place(sha256)
        try:
            if path.is_file() and path.read_bytes() == data:
                return
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(self._folder)
            _replace(path, data)
        except OSError as error:
            raise from_os_error(path, error) from error

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: could not be removed (%s); tried again when the store opens", path, error.strerror)


def _is_document(connection: sqlite3.Connection, sha256: str) -> bool:
    return connection.execute("SELECT 1 FROM documents WHERE sha256 = ?", (sha256,)).fetchone() is not None


def _replace(path: Path, data: bytes) -> None:
    """Writes ``path`` whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    descriptor, temporary = tempfile.mkstemp(prefix="unfinished-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
