"""KV-cache blocks on disk, found again by the prefix that they hold. Knows nothing of models: payloads are bytes.

A block holds the KV state of some entries behind those of its parent; a *whole* one, a checkpoint, that of all entries
from the first one on. Blocks below the same parent may overlap (one goes on where another ends, or two part in the
middle), with one rule, so that the changing end of a conversation does not pile up:

    A block replaces the shorter siblings that it begins with, if nothing stands on them and nobody owns them who does
    not own the new block too.

Never the other way round: a block is stored although a longer sibling holds all of it, because others may have to stand
on it, and they may only stand on a block that matches entirely. Owners are not handed on to the new block, because what
it has beyond the old one is not theirs: it must go when those who own it are forgotten.

Whoever owns a block owns its ancestors.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hearth.store.errors import StoreError, from_os_error
from hearth.store.kv_buffers import Buffers
from hearth.store.kv_files import HEADER_BYTES, BlockFiles, DamagedBlockError
from hearth.store.kv_index import KvIndex, is_damage
from hearth.store.kv_keys import Entries, block_key, decode, encode, fingerprint_digest, parse_key
from hearth.store.kv_match import Candidate, KvBlock, match_chain, match_whole
from hearth.store.kv_pending import Put, Use
from hearth.store.kv_readers import Readers
from hearth.store.kv_writer import KvWriter, Limits

__all__ = ["Entries", "KvBlock", "KvBlockStore", "KvOwned", "KvStats"]

CLOSE_TIMEOUT_S = 5.0
MAX_PREPARED_BYTES = 32 << 20  # of one buffer

log = logging.getLogger("hearth.store")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KvStats:
    """What is on disk, and what happened since the store was opened (the last four). Bytes are bytes of payload."""

    n_blocks: int
    n_bytes: int
    budget_bytes: int
    pending_bytes: int
    written_today_bytes: int
    daily_write_bytes: int | None
    n_written: int
    n_dropped: int  # given to ``put`` and not stored
    n_evicted: int
    n_damaged: int


@dataclass(frozen=True, slots=True)
class KvOwned:
    """What an owner has on disk, and what of that others own too. Bytes are bytes of payload."""

    n_blocks: int
    n_bytes: int
    n_shared_blocks: int
    n_shared_bytes: int


class KvBlockStore:
    """Blocks of KV state in ``folder``. All methods may be called from any thread.

    What was put is found at once and written behind. Trouble with files is never raised by what the engine calls: it
    is logged, and the block is one that is not there. Only ``forget_owner`` and ``wipe`` raise, because who deletes
    must know that it was not done. Another process may have the same folder open.
    """

    def __init__(
        self,
        folder: Path,
        *,
        budget_bytes: int,
        daily_write_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens ``folder``, creating it with mode 0700. ``budget_bytes`` 0: nothing is written. ``daily_write_bytes``
        None: no limit; a day is one of UTC.

        Blocks beyond the budget go with the next write, not on opening. Raises StoreError.
        """
        self._folder = folder
        self._limits = Limits(budget_bytes, daily_write_bytes)
        self._closed = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(folder, error) from error
        self._files = BlockFiles(folder)
        self._index = KvIndex(folder / "index.sqlite3")
        self._writer = KvWriter(self._index, self._files, self._limits, clock)
        self._state, self._pending = self._writer.state, self._writer.pending
        self._buffers = Buffers()
        self._readers = Readers(self._read)
        try:
            self._sweep()
        except OSError as error:
            self._index.close()
            raise from_os_error(folder, error) from error
        largest_bytes = self._ask(self._index.largest_bytes, 0)
        if budget_bytes and 0 < largest_bytes <= MAX_PREPARED_BYTES:
            self._buffers.prepare(HEADER_BYTES + largest_bytes)

    # finding

    def match(self, fingerprint: str, entries: Entries) -> list[KvBlock]:
        """The blocks that hold the longest beginning of ``entries``, from the first one on; only the last may match in
        part. Marks nothing."""
        model = fingerprint_digest(fingerprint)
        return match_chain(lambda parent, wanted: self._children(model, parent, wanted, whole=False), entries)

    def match_whole(self, fingerprint: str, entries: Entries) -> KvBlock | None:
        """The longest checkpoint whose entries all stand at the beginning of ``entries``. Marks nothing."""
        model = fingerprint_digest(fingerprint)
        return match_whole(lambda parent, wanted: self._children(model, parent, wanted, whole=True), entries)

    def latest(self, fingerprint: str, *, whole: bool = False) -> list[int | str]:
        """All entries, from the first one on, up to the end of the block on disk that was used last and that no other
        stands on; with ``whole`` those of the last checkpoint. Empty if there is none. Marks nothing."""
        model = fingerprint_digest(fingerprint)
        nothing: list[Candidate] = []
        chain = self._ask(lambda: self._index.latest(model, whole=whole), nothing)
        return [entry for block in chain for entry in decode(block.encoded)]

    def contains(self, key: str) -> bool:
        """Whether a block is on disk or about to be."""
        raw = parse_key(key)
        if raw is None:
            return False
        with self._state:
            if self._pending.get(raw) is not None:
                return True
        return self._ask(lambda: self._index.contains(raw), False)

    def key_of(self, fingerprint: str, parent: str, entries: Entries, *, whole: bool = False) -> str:
        """The key that ``put`` returns for the same. Raises ValueError."""
        return block_key(fingerprint_digest(fingerprint), _parent(parent), encode(entries), whole=whole).hex()

    # keeping

    def put(
        self,
        fingerprint: str,
        parent: str,
        entries: Entries,
        payload: bytes | memoryview,
        *,
        owner: str | None = None,
        whole: bool = False,
    ) -> str:
        """Keeps a block below ``parent`` ("" for a first one) and returns its key; it is written behind. A payload that
        is read-only may not be changed by others either.

        One that is there already is marked as used and given the owner. One whose parent is not there is not kept.
        Raises ValueError for entries, parent or ``whole`` that make no block.
        """
        model, above, encoded = fingerprint_digest(fingerprint), _parent(parent), encode(entries)
        if not encoded or (whole and parent):
            raise ValueError("a block needs at least one entry, and a whole one no parent")
        key = block_key(model, above, encoded, whole=whole)
        if self.contains(key.hex()):
            self.use([key.hex()], owner)
        elif self._writer.refuses(memoryview(payload).nbytes) or not self._may_stand_on(above, model):
            self._writer.count("dropped")
        else:
            is_final = isinstance(payload, bytes) or (payload.readonly and payload.format == "B")
            data = payload if is_final else bytes(payload)
            owners = set() if owner is None else {_owner(owner)}
            self._writer.enqueue(Put(key, model, above, encoded, data, whole, owners))
        return key.hex()

    def use(self, keys: Sequence[str], owner: str | None) -> None:
        """Marks blocks, given in the order of their chain, as used now and owned by ``owner``; written behind.

        Who owns a block keeps all of it from being forgotten: a block that matched only in part is used with None.
        """
        raw = [one for one in map(parse_key, keys) if one is not None]
        if raw:
            self._writer.enqueue(Use(raw, None if owner is None else _owner(owner)))

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was put is on disk or given up; False if that took longer than ``timeout_s``."""
        return self._writer.flush(timeout_s)

    @property
    def pending_bytes(self) -> int:
        """Payload that waits to be written. Who puts should hold back while it is large."""
        with self._state:
            return self._pending.n_bytes

    # reading

    def read(self, key: str) -> bytes | None:
        """The payload of a block, every byte of it checked; None if there is the slightest doubt.

        A damaged block is dropped, with all that stand on it.
        """
        payload = self._read(key)
        if payload is None:
            return None
        copy = bytes(payload)
        self.recycle(payload)
        return copy

    def read_async(self, keys: Sequence[str]) -> list[Future[bytes | memoryview | None]]:
        """``read`` without a copy, on threads of the store, several at once. Who has used a result gives it to
        ``recycle``.
        """
        return [self._readers.submit(key) for key in keys]

    def warm_up(self) -> None:
        """Starts the threads that read, so that the first read does not wait for them."""
        self._readers.start()

    def announce(self, keys: Sequence[str]) -> None:
        """Blocks that are about to be read: the system may begin to fetch them from the disk, all at once."""
        raw = [one for one in map(parse_key, keys) if one is not None]
        self._readers.run(lambda: self._files.prefetch(raw))

    def recycle(self, payload: bytes | memoryview) -> None:
        """Takes back what ``read_async`` gave, and what nobody may look at any more, for other blocks."""
        if isinstance(payload, memoryview) and isinstance(payload.obj, bytearray):
            self._buffers.give_back(payload.obj)

    def _read(self, key: str) -> bytes | memoryview | None:
        raw = parse_key(key)
        if raw is None:
            return None
        with self._state:
            put = self._pending.get(raw)
            if put is not None:
                return put.payload
        row = self._ask(lambda: self._index.lookup(raw), None)
        if row is None:
            return None
        try:
            return self._files.read(raw, *row, self._buffers)
        except (DamagedBlockError, OSError):
            return self._read_or_drop(raw)

    # deleting

    def forget_owner(self, owner: str) -> int:
        """Removes the blocks that only ``owner`` owns, those not written yet too; returns how many.

        Blocks that others own, or that blocks of others stand on, stay; so do blocks that nobody owns. On return the
        files are gone and their rows overwritten. What is put for this owner afterwards is kept again. Raises
        StoreError.
        """
        name = _owner(owner)
        with self._index.lock:
            self._refuse_if_closed()
            with self._state:
                n_removed, uses = self._pending.forget(name)
                kept = self._pending.parents()
                self._state.notify_all()
            try:
                with self._index.change() as change:
                    self._writer.mark(change, uses)
                    gone = change.forget(name, kept)
                    n_left = sum(not self._files.remove(key) for key in gone)
                self._index.checkpoint()
            except (OSError, sqlite3.Error) as error:
                return n_removed + self._remove_with_index(error)
            self._refuse_if_left(n_left)
        return n_removed + len(gone)

    def wipe(self) -> None:
        """Removes all blocks, at once. Raises StoreError."""
        with self._index.lock:
            self._refuse_if_closed()
            with self._state:
                self._pending.clear()
                self._state.notify_all()
            try:
                with self._index.change() as change:
                    change.clear()
                    _, n_left = self._files.remove_all()
                self._index.compact()
                self._index.checkpoint()
            except (OSError, sqlite3.Error) as error:
                self._remove_with_index(error)
                return
            self._refuse_if_left(n_left)

    def stats(self) -> KvStats:
        n_blocks, n_bytes, written = self._ask(lambda: self._index.totals(self._writer.today()), (0, 0, 0))
        with self._state:
            counts = self._writer.counts
            return KvStats(
                n_blocks=n_blocks,
                n_bytes=n_bytes,
                budget_bytes=self._limits.budget_bytes,
                pending_bytes=self._pending.n_bytes,
                written_today_bytes=written,
                daily_write_bytes=self._limits.daily_write_bytes,
                n_written=counts["written"],
                n_dropped=counts["dropped"],
                n_evicted=counts["evicted"],
                n_damaged=counts["damaged"],
            )

    def owned(self, owner: str) -> KvOwned:
        """How much is on disk of ``owner``; what is not written yet does not count."""
        return KvOwned(*self._ask(lambda: self._index.owned(_owner(owner)), (0, 0, 0, 0)))

    def close(self) -> None:
        """Writes what is pending, for at most CLOSE_TIMEOUT_S, and closes. Idempotent; afterwards nothing is found."""
        self._writer.close(CLOSE_TIMEOUT_S)
        self._closed = True
        self._readers.close()
        self._index.close()

    def _sweep(self) -> None:
        """Removes what a crash left: unfinished files, files without a row, rows without a file or a parent."""
        try:
            with self._index.change() as change:
                known = change.keys()
                lost = known - self._files.sweep(known)
                gone = change.with_descendants([*lost, *change.orphans()])
                change.delete(gone)
                for key in gone:
                    self._files.remove(key)
        except sqlite3.Error as error:
            self._writer.failed(error)

    def _children(self, model: bytes, parent: bytes, wanted: bytes, *, whole: bool) -> list[Candidate]:
        """What ``match_chain`` asks for, pending and on disk.

        Pending ones first: one that is written meanwhile is found twice rather than not at all.
        """
        with self._state:
            pending = self._pending.below(model, parent, whole=whole)
        found = [Candidate(put.key, put.encoded, len(put.payload)) for put in pending]
        nothing: list[Candidate] = []
        return found + self._ask(lambda: self._index.near(model, parent, wanted, whole=whole), nothing)

    def _may_stand_on(self, parent: bytes, model: bytes) -> bool:
        if not parent:
            return True
        with self._state:
            put = self._pending.get(parent)
        if put is not None:
            return put.fingerprint == model and not put.whole
        return self._ask(lambda: self._index.contains(parent, model), False)

    def _read_or_drop(self, key: bytes) -> memoryview | None:
        """Reads a block that could not be read once more while nobody writes: it may have been removed and written
        again in between. Drops it, with all that stand on it, if it cannot be read now either."""
        gone, reason = [key], ""
        try:
            with self._index.change() as change:
                row = self._index.lookup(key)
                if row is None:
                    return None
                try:
                    return self._files.read(key, *row, self._buffers)
                except DamagedBlockError as error:
                    reason = str(error)
                except FileNotFoundError:
                    reason = "its file is gone"
                except OSError as error:
                    reason = f"its file cannot be read ({error.strerror})"
                gone = change.with_descendants([key])
                change.delete(gone)
                for one in gone:
                    self._files.remove(one)
        except (OSError, sqlite3.Error) as error:
            self._writer.failed(error)
        log.warning("KV block %s: %s; computed again when needed", key.hex()[:12], reason or "it cannot be read")
        self._writer.count("damaged", len(gone))
        return None

    def _ask(self, question: Callable[[], _T], otherwise: _T) -> _T:
        """The index's answer, or ``otherwise`` if it cannot say."""
        try:
            return question()
        except sqlite3.Error as error:
            if is_damage(error):
                self._writer.start_anew(error)
            elif not self._closed:
                log.warning("%s: the index of KV blocks cannot be read (%s)", self._folder, error)
            return otherwise

    def _remove_with_index(self, error: OSError | sqlite3.Error) -> int:
        """Deleting failed. With a damaged index everything goes, and that is deleting too. Raises StoreError."""
        if isinstance(error, sqlite3.Error) and is_damage(error):
            return self._writer.start_anew(error)
        raise StoreError(
            f"{self._folder}: KV blocks could not be removed ({error}); free disk space, fix permissions, or delete "
            "the folder"
        ) from error

    def _refuse_if_left(self, n_left: int) -> None:
        if n_left:
            raise StoreError(
                f"{self._folder}: {n_left} KV blocks could not be removed; fix permissions or delete the folder"
            )

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError(f"{self._folder}: the store is closed; open it again")


def _parent(key: str) -> bytes:
    raw = parse_key(key) if key else b""
    if raw is None:
        raise ValueError(f"parent {key[:64]!r}: not a key of a block")
    return raw


def _owner(owner: str) -> bytes:
    return owner.encode("utf-8", "surrogatepass")
