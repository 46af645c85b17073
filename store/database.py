"""One SQLite file for many threads: one writer at a time, readers beside it, numbered migrations, plain errors."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hearth.store.errors import StoreError, from_os_error
from hearth.store.migrations import LATEST, MIGRATIONS

APPLICATION_ID = 0x48525448  # "HRTH", in the file's header: tells our files from other programs' SQLite databases
BUSY_TIMEOUT_MS = 5000
IDLE_READERS = 4  # connections kept open for the next reader
WAL_KEPT_BYTES = 16 << 20

_RESULT_MASK = 0xFF  # an extended result code's low byte is the primary one
_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, nothing was changed",
    sqlite3.SQLITE_READONLY: "not writable; fix its permissions or set HEARTH_DATA_DIR to another folder",
    sqlite3.SQLITE_PERM: "not readable; fix its permissions or set HEARTH_DATA_DIR to another folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; fix its permissions or set HEARTH_DATA_DIR to another folder",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk's health and free space, nothing was changed",
    sqlite3.SQLITE_CORRUPT: "damaged; move it away and restore a copy, or start anew without it",
    sqlite3.SQLITE_NOTADB: "not a database; move it away and restore a copy, or start anew without it",
    sqlite3.SQLITE_BUSY: "locked by another program; close what has it open",
    sqlite3.SQLITE_LOCKED: "locked by another program; close what has it open",
    sqlite3.SQLITE_TOOBIG: "one text is longer than a database row may be (1 GB); split it",
}


class Database:
    """The database file, migrated to the newest version when opened. All methods may be called from any thread.

    A change is on the disk when ``write`` returns. Deleted content is overwritten (``secure_delete``); after
    ``checkpoint`` it is in no file of the database any more.
    """

    def __init__(self, path: Path) -> None:
        """Opens ``path``, creating it with mode 0600. Raises StoreError, also for a file of a newer version."""
        self.path = path
        self.writer_lock = threading.RLock()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        self._closed = False
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # the WAL takes its mode from this file
        except OSError as error:
            raise from_os_error(path, error) from error
        with self._translated():
            self._writer = self._connect()
            try:
                self._migrate()
            except BaseException:
                self._writer.close()
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one consistent state, undisturbed by writers. Raises StoreError."""
        with self._translated():
            connection = self._take_reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                _end(connection, "ROLLBACK")
                self._give_reader(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """The writing connection in a transaction: committed when the block ends, undone if it raises.

        Waits for other writers; not to be nested. Raises StoreError.
        """
        with self.writer_lock, self._translated():
            self._refuse_if_closed()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                _end(self._writer, "ROLLBACK")
                raise

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the database file and empties it. Raises StoreError."""
        with self.writer_lock, self._translated():
            self._refuse_if_closed()
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Closes all connections; readers in use are closed when they are done. Idempotent."""
        with self.writer_lock, self._readers_lock:
            if self._closed:
                return
            self._closed = True
            for connection in self._readers:
                connection.close()
            self._readers.clear()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # with NORMAL a power cut may take the last messages
            "foreign_keys = ON",
            "secure_delete = ON",
            "temp_store = MEMORY",  # no text in temporary files
            "trusted_schema = OFF",
            f"journal_size_limit = {WAL_KEPT_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    def _migrate(self) -> None:
        version = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        if version > LATEST:
            raise StoreError(
                f"{self.path}: made by a newer Hearth (version {version}, this one reads up to {LATEST}); "
                "update Hearth or set HEARTH_DATA_DIR to another folder"
            )
        application = int(self._writer.execute("PRAGMA application_id").fetchone()[0])
        tables = int(self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
        if application != APPLICATION_ID and tables:
            raise StoreError(f"{self.path}: a database of another program; set HEARTH_DATA_DIR to another folder")
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            with self.write() as transaction:
                for statement in statements:
                    transaction.execute(statement)
                transaction.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                transaction.execute(f"PRAGMA user_version = {number}")

    def _take_reader(self) -> sqlite3.Connection:
        with self._readers_lock:
            self._refuse_if_closed()
            if self._readers:
                return self._readers.pop()
        return self._connect()

    def _give_reader(self, connection: sqlite3.Connection) -> None:
        with self._readers_lock:
            if not self._closed and len(self._readers) < IDLE_READERS:
                self._readers.append(connection)
                return
        connection.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed; open it again")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None or isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            remedy = _REMEDIES.get(code & _RESULT_MASK)
            if remedy is None:
                raise
            raise StoreError(f"{self.path}: {remedy} ({error})") from error


def _end(connection: sqlite3.Connection, statement: str) -> None:
    """Ends a transaction that SQLite may have ended itself, as it does when the disk is full."""
    if connection.in_transaction:
        connection.execute(statement)
