"""The index of KV blocks: which there are, below which, of which entries, whose, and when last used. SQLite.

Rows are not trusted: what a search finds must hash to its key. An index that is damaged, of another program or of a
newer version is started anew, because all it holds can be computed again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hearth.store.errors import StoreError, from_os_error
from hearth.store.kv_changes import DamagedIndexError, KvChange, checked_number
from hearth.store.kv_keys import block_key, common_length
from hearth.store.kv_match import Candidate

APPLICATION_ID = 0x48524B56  # "HRKV": tells it from the data folder's other database
VERSION = 1
BUSY_TIMEOUT_MS = 5000
PAGE_BYTES = 8192  # the entries of a block of 256 tokens fit beside others
WAL_KEPT_BYTES = 4 << 20

log = logging.getLogger("hearth.store")
_SCHEMA = (
    "CREATE TABLE blocks (key BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, parent BLOB NOT NULL, "
    "whole INTEGER NOT NULL, entries BLOB NOT NULL, n_bytes INTEGER NOT NULL, used INTEGER NOT NULL) STRICT",
    "CREATE INDEX blocks_by_parent ON blocks (parent, fingerprint, whole, entries)",
    "CREATE INDEX blocks_by_use ON blocks (used, n_bytes)",
    "CREATE TABLE owners (owner BLOB NOT NULL, key BLOB NOT NULL REFERENCES blocks (key) ON DELETE CASCADE, "
    "PRIMARY KEY (owner, key)) STRICT, WITHOUT ROWID",
    "CREATE INDEX owners_by_key ON owners (key)",
    "CREATE TABLE written (day INTEGER PRIMARY KEY, n_bytes INTEGER NOT NULL) STRICT",
)
_FOUND = "SELECT key, entries, n_bytes FROM blocks WHERE parent = ? AND fingerprint = ? AND whole = ?"
_UP_TO = f"{_FOUND} AND entries <= ? ORDER BY entries DESC LIMIT 1"
_BEHIND = f"{_FOUND} AND entries > ? ORDER BY entries LIMIT 1"
_BY_KEY = "SELECT key, entries, n_bytes, parent FROM blocks WHERE key = ? AND fingerprint = ? AND whole = ?"
_LATEST = """SELECT key FROM blocks WHERE fingerprint = ? AND whole = ?
    AND NOT EXISTS (SELECT 1 FROM blocks AS child WHERE child.parent = blocks.key) ORDER BY used DESC LIMIT 1"""
_OWNED = """SELECT count(*), coalesce(sum(n_bytes), 0), coalesce(sum(shared), 0), coalesce(sum(shared * n_bytes), 0)
    FROM (SELECT n_bytes, EXISTS (SELECT 1 FROM owners WHERE key = blocks.key AND owner <> ?1) AS shared
        FROM blocks WHERE key IN (SELECT key FROM owners WHERE owner = ?1))"""
_RESULT_MASK = 0xFF  # an extended result code's low byte is the primary one
_TROUBLES = {  # of the surroundings; any other error says that the file is not what we wrote
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_PERM,
}


class KvIndex:
    """The index file. All methods may be called from any thread; they raise sqlite3.Error unless they say otherwise.

    Whoever changes blocks, rows or files, does it within ``change``: SQLite's write lock then keeps other processes
    away from both. Deleted rows are overwritten; after ``checkpoint`` they are in no file of the index any more.
    """

    def __init__(self, path: Path) -> None:
        """Opens ``path``, creating it with mode 0600. Raises StoreError."""
        self.path = path
        self.lock = threading.RLock()  # held while blocks are changed
        self._read_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        try:
            self._open_or_replace()
        except OSError as error:
            raise from_os_error(path, error) from error
        except sqlite3.Error as error:
            raise StoreError(f"{path}: cannot be opened ({error}); check the disk and what else has it open") from error

    @contextmanager
    def change(self) -> Iterator[KvChange]:
        """A transaction, committed when the block ends and undone if it raises. Waits for other writers.

        Raises OSError too, when what ``restart`` could not open cannot be opened now either.
        """
        with self.lock, _translated():
            if self._writer is None and not self._closed:
                self._open()
            connection = _opened(self._writer)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield KvChange(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def restart(self) -> None:
        """Throws the index away and begins an empty one. Raises OSError too."""
        with self.lock:
            if self._closed:
                return
            self._close_connections()
            for suffix in ("-wal", "-shm", ""):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self._open()

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the index and empties it."""
        with self.lock:
            busy, *_ = _opened(self._writer).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            log.warning("%s: in use elsewhere, so deleted rows are overwritten only later", self.path)

    def compact(self) -> None:
        """Gives the space of deleted rows back to the disk."""
        with self.lock:
            _opened(self._writer).execute("VACUUM")

    def close(self) -> None:
        """Idempotent."""
        with self.lock:
            self._closed = True
            self._close_connections()

    # What follows only reads, and does not wait for a change that goes on.

    def contains(self, key: bytes, fingerprint: bytes | None = None) -> bool:
        """Whether a block is in the index; with ``fingerprint``, whether it is and belongs to that model."""
        statement = "SELECT 1 FROM blocks WHERE key = ?1 AND (?2 IS NULL OR fingerprint = ?2)"
        return self._row(statement, key, fingerprint) is not None

    def lookup(self, key: bytes) -> tuple[bytes, int] | None:
        """(fingerprint, payload bytes) of a block."""
        row = self._row("SELECT fingerprint, n_bytes FROM blocks WHERE key = ?", key)
        if row is None:
            return None
        if not isinstance(row[0], bytes) or not isinstance(row[1], int):
            raise DamagedIndexError("a row of another form")
        return row[0], row[1]

    def near(self, fingerprint: bytes, parent: bytes, wanted: bytes, *, whole: bool) -> list[Candidate]:
        """Of the blocks below ``parent``: one that shares most with ``wanted``, the longest that ``wanted`` begins
        with, and maybe others.

        In the order of the bytes those that share most stand next to the place of ``wanted``. The prefixes of
        ``wanted`` stand ahead of it, and all between such a prefix and ``wanted`` share at least as much with it.
        """
        place = (parent, fingerprint, whole)
        found = []
        if (row := self._row(_BEHIND, *place, wanted)) is not None:
            found.append(_checked(row, fingerprint, parent, whole))
        bound = wanted
        while bound and (row := self._row(_UP_TO, *place, bound)) is not None:
            block = _checked(row, fingerprint, parent, whole)
            found.append(block)
            shared = common_length(block.encoded, wanted)
            if shared == len(block.encoded):
                break
            bound = wanted[:shared]
        return found

    def latest(self, fingerprint: bytes, *, whole: bool) -> list[Candidate]:
        """The block used last of those that no other stands on, behind what it stands on; empty if there is none."""
        chain: list[Candidate] = []
        row = self._row(_LATEST, fingerprint, whole)
        key = row[0] if row is not None else b""
        while key:
            row = self._row(_BY_KEY, key, fingerprint, whole)
            if row is None:  # it was deleted meanwhile
                return []
            *found, key = row
            chain.append(_checked(tuple(found), fingerprint, key, whole))
        return chain[::-1]

    def totals(self, day: int) -> tuple[int, int, int]:
        """(blocks, payload bytes, bytes written on ``day``)."""
        blocks = self._row("SELECT count(*), coalesce(sum(n_bytes), 0) FROM blocks")
        written = self._row("SELECT n_bytes FROM written WHERE day = ?", day)
        assert blocks is not None
        return checked_number(blocks[0]), checked_number(blocks[1]), checked_number(written[0]) if written else 0

    def owned(self, owner: bytes) -> tuple[int, int, int, int]:
        """(blocks, payload bytes) of an owner, and how many of both others own too."""
        row = self._row(_OWNED, owner)
        assert row is not None
        n_blocks, n_bytes, n_shared_blocks, n_shared_bytes = map(checked_number, row)
        return n_blocks, n_bytes, n_shared_blocks, n_shared_bytes

    def largest_bytes(self) -> int:
        """Payload of the largest block that is no whole state, 0 if there is none."""
        row = self._row("SELECT coalesce(max(n_bytes), 0) FROM blocks WHERE whole = 0")
        assert row is not None
        return checked_number(row[0])

    def _row(self, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        with self._read_lock, _translated():
            row: tuple[Any, ...] | None = _opened(self._reader).execute(statement, parameters).fetchone()
            return row

    def _open_or_replace(self) -> None:
        try:
            self._open()
        except sqlite3.Error as error:
            readonly = _primary_code(error) == sqlite3.SQLITE_READONLY  # SQLite says so of files of newer formats
            if not is_damage(error) and not readonly:
                raise
            log.warning("%s: %s; the KV blocks on disk are dropped and computed again", self.path, error)
            self.restart()

    def _open(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # the WAL takes its mode from this file
        try:
            with _translated():
                self._writer = self._connect()
                with self.change():
                    self._check_or_create(self._writer)
                with self._read_lock:
                    self._reader = self._connect()
        except BaseException:
            self._close_connections()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in (
                f"page_size = {PAGE_BYTES}",
                "synchronous = NORMAL",  # a row lost in a power cut is a miss
                "journal_mode = WAL",
                "foreign_keys = ON",
                "secure_delete = ON",
                "temp_store = MEMORY",
                "trusted_schema = OFF",
                "cell_size_check = ON",
                f"journal_size_limit = {WAL_KEPT_BYTES}",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_or_create(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if not found and not application and not version:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif application != APPLICATION_ID:
            raise DamagedIndexError("the index of another program")
        elif version != VERSION:
            raise DamagedIndexError(f"an index of version {version}, this Hearth reads {VERSION}")
        elif {row[0] for row in found} != set(_SCHEMA):
            raise DamagedIndexError("an index whose tables are damaged")

    def _close_connections(self) -> None:
        with self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the index itself is unusable, and not the disk or another process in its way."""
    if isinstance(error, DamagedIndexError):
        return True
    return not isinstance(error, sqlite3.ProgrammingError) and _primary_code(error) not in _TROUBLES


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite names what it could not understand; Python may not be able to decode that name."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DamagedIndexError("its tables cannot be read") from error


def _primary_code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _RESULT_MASK


def _opened(connection: sqlite3.Connection | None) -> sqlite3.Connection:
    if connection is None:
        raise sqlite3.ProgrammingError("the index is closed")
    return connection


def _checked(row: tuple[Any, ...], fingerprint: bytes, parent: bytes, whole: bool) -> Candidate:
    key, encoded, n_bytes = row
    if not isinstance(encoded, bytes) or not isinstance(n_bytes, int):
        raise DamagedIndexError("a row of another form")
    if block_key(fingerprint, parent, encoded, whole=whole) != key:
        raise DamagedIndexError("the entries of a block do not match its key")
    return Candidate(key, encoded, n_bytes)
