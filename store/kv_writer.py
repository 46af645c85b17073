"""The thread that writes KV blocks, and what limits it: the budget, the day's writes, a disk that refuses."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from hearth.store.kv_changes import KvChange
from hearth.store.kv_files import BlockFiles
from hearth.store.kv_index import KvIndex, is_damage
from hearth.store.kv_pending import Pending, Put, Use

RETRY_AFTER_S = 30.0  # for so long nothing is written after the disk refused
DAY_S = 86_400

log = logging.getLogger("hearth.store")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of payload: kept at most, and written at most on one day of UTC (None: any number)."""

    budget_bytes: int
    daily_write_bytes: int | None


class NotStoredError(Exception):
    """Undoes the transaction of a block that is not stored after all."""


class KvWriter:
    """Writes what is in ``pending``, one job after another. Lock order: the index's lock, then ``state``.

    A job is taken while the index's lock is held: whoever holds that lock and empties the queue knows that nothing of
    it is written afterwards.
    """

    def __init__(self, index: KvIndex, files: BlockFiles, limits: Limits, clock: Callable[[], float]) -> None:
        self.state = threading.Condition()
        self.pending = Pending()  # under ``state``, like the counts
        self.counts: Counter[str] = Counter()  # "written", "dropped", "evicted", "damaged"
        self._index = index
        self._files = files
        self._limits = limits
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._closed = False
        self._in_trouble = False
        self._rest_until_s = 0.0
        self._capped_day = -1
        self._last_used = 0  # under the index's lock

    def today(self) -> int:
        """The day of UTC, as a number."""
        return int(self._clock() // DAY_S)

    def refuses(self, n_bytes: int) -> bool:
        """Whether a block of that size need not be queued at all."""
        return self._closed or max(n_bytes, 1) > self._limits.budget_bytes or self._resting()

    def enqueue(self, job: Put | Use) -> None:
        with self.state:
            if self._closed:
                return
            if isinstance(job, Use):
                self.pending.add_use(job)
            elif (other := self.pending.get(job.key)) is not None:  # another thread was quicker
                for owner in job.owners:
                    self.pending.own(other.key, owner)
            else:
                self.pending.supersede(job)
                self.pending.add(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kv-write", daemon=True)
                self._thread.start()
            self.state.notify_all()

    def flush(self, timeout_s: float | None) -> bool:
        with self.state:
            return self.state.wait_for(lambda: self._closed or not self.pending, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Gives up what is not written in ``timeout_s``. Idempotent."""
        self.flush(timeout_s)
        with self.state:
            self._closed = True
            self.pending.clear()
            self.state.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def count(self, what: str, n: int = 1) -> None:
        with self.state:
            self.counts[what] += n

    def mark(self, change: KvChange, uses: Collection[Use]) -> None:
        """Notes uses in the index. Of one chain the first block counts as the latest, so that leaves are the oldest."""
        for use in uses:
            last = self._next_used(len(use.keys))
            change.touch((key, last - place) for place, key in enumerate(use.keys))
            if use.owner is not None:
                for key in reversed(use.keys):  # the last one's ancestors are mostly the others
                    change.own(key, use.owner)

    def failed(self, error: OSError | sqlite3.Error) -> None:
        """A change was not possible: a damaged index is begun anew, otherwise writing rests for a while."""
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self.start_anew(error)
            return
        self._rest_until_s = time.monotonic() + RETRY_AFTER_S
        if not self._in_trouble and not self._closed:
            log.warning("KV blocks cannot be written (%s); tried again every %d s", error, RETRY_AFTER_S)
        self._in_trouble = True

    def start_anew(self, error: Exception) -> int:
        """Removes every block together with a damaged index; returns how many files."""
        log.warning("the index of KV blocks is damaged (%s); all are dropped and computed again", error)
        with self._index.lock:
            n_removed = 0
            try:
                n_removed, _ = self._files.remove_all()
                self._index.restart()
            except (OSError, sqlite3.Error) as again:
                self._rest_until_s = time.monotonic() + RETRY_AFTER_S
                log.warning("it could not be begun anew (%s); KV blocks are not stored for now", again)
        self.count("damaged", n_removed)
        return n_removed

    def _run(self) -> None:
        while True:
            with self.state:
                self.state.wait_for(lambda: self.pending or self._closed)
                if self._closed:
                    return
            with self._index.lock:
                self._do_next_job()

    def _do_next_job(self) -> None:
        with self.state:
            job = self.pending.take()
            if job is None:
                self.state.notify_all()
                return
            owners = set(job.owners) if isinstance(job, Put) else set()
            awaited = self.pending.parents()
        try:
            if isinstance(job, Put):
                self._store(job, owners, awaited)
            elif not self._resting():
                with self._index.change() as change:
                    self.mark(change, job)
        except (OSError, sqlite3.Error) as error:
            self.failed(error)
        finally:
            with self.state:
                self.pending.finish()
                if isinstance(job, Put):
                    for owner in job.owners - owners:  # came while it was written
                        self.pending.add_use(Use([job.key], owner))
                self.state.notify_all()

    def _store(self, put: Put, owners: set[bytes], awaited: set[bytes]) -> None:
        written = False
        try:
            if self._resting():
                raise NotStoredError("writing rests")
            with self._index.change() as change:
                if change.contains(put.key, put.fingerprint):
                    for owner in owners:
                        change.own(put.key, owner)
                    change.touch([(put.key, self._next_used())])
                    return
                superseded = self._insert(change, put, owners, awaited)
                evicted = self._evict(change, awaited | {put.key})
                self._files.write(put.key, put.fingerprint, put.payload)
                written = True
                for key in (*superseded, *evicted):
                    self._files.remove(key)
        except NotStoredError as reason:
            log.debug("KV block %s: not stored, %s", put.key.hex()[:12], reason)
            self.count("dropped")
            return
        except (OSError, sqlite3.Error):
            if written:
                self._files.remove(put.key)
            self.count("dropped")
            raise
        with self.state:
            self.counts.update(written=1, evicted=len(evicted))
        if self._in_trouble:
            self._in_trouble = False
            log.info("KV blocks are written again")

    def _insert(self, change: KvChange, put: Put, owners: set[bytes], awaited: set[bytes]) -> list[bytes]:
        """The row of a block; returns the siblings that it replaces. Raises NotStoredError."""
        if put.parent and not change.contains(put.parent, put.fingerprint):
            raise NotStoredError("its parent is not there any more")
        self._count_to_day(change, len(put.payload))
        change.insert(
            put.key,
            put.fingerprint,
            put.parent,
            put.encoded,
            whole=put.whole,
            n_bytes=len(put.payload),
            used=self._next_used(),
        )
        for owner in owners:
            change.own(put.key, owner)
        if put.whole:
            return []
        superseded = [
            key
            for key in change.strict_prefixes(put.fingerprint, put.parent, put.encoded)
            if key not in awaited and change.owners(key) <= owners and not change.children(key)
        ]
        change.delete(superseded)
        return superseded

    def _evict(self, change: KvChange, kept: set[bytes]) -> list[bytes]:
        """Makes room: deletes the rows of the leaves used longest ago. Raises NotStoredError."""
        evicted = []
        excess = change.total_bytes() - self._limits.budget_bytes
        while excess > 0:
            oldest = change.oldest_leaf(kept)
            if oldest is None:
                raise NotStoredError("what it stands on fills the budget")
            change.delete([oldest[0]])
            evicted.append(oldest[0])
            excess -= oldest[1]
        return evicted

    def _count_to_day(self, change: KvChange, n_bytes: int) -> None:
        cap, day = self._limits.daily_write_bytes, self.today()
        if cap is not None and change.written_bytes(day) + n_bytes > cap:
            if self._capped_day != day:
                self._capped_day = day
                log.warning("KV blocks: today's limit of %d bytes is written, the rest is not stored", cap)
            raise NotStoredError("the day's limit is written")
        change.note_written(day, n_bytes)

    def _next_used(self, n: int = 1) -> int:
        """A moment in µs, later than all before by at least ``n``."""
        self._last_used = max(self._last_used + n, int(self._clock() * 1e6))
        return self._last_used

    def _resting(self) -> bool:
        return time.monotonic() < self._rest_until_s
