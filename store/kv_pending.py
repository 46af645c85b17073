"""What the KV block store was given and has not written yet. The store calls all of it under its own lock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Put:
    """A block on its way to the disk."""

    key: bytes
    fingerprint: bytes
    parent: bytes
    encoded: bytes
    payload: bytes | memoryview  # that nobody changes any more
    whole: bool
    owners: set[bytes] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Use:
    """Blocks that were used, in the order of their chain, and by whom."""

    keys: list[bytes]
    owner: bytes | None


class Pending:
    """A queue of jobs, and the blocks in it as a tree that can be searched like the one on disk.

    A block stays in the tree until ``finish``; one that ``forget``, ``clear`` or ``supersede`` took out of the tree
    before its turn is not to be written.
    """

    def __init__(self) -> None:
        self.n_bytes = 0  # of payload
        self.in_work = False  # the writer has taken a job and not finished it
        self._jobs: deque[Put | Use] = deque()
        self._puts: dict[bytes, Put] = {}  # parents ahead of their children
        self._below: dict[tuple[bytes, bytes, bool], dict[bytes, Put]] = {}
        self._writing: Put | None = None

    def __bool__(self) -> bool:
        return bool(self._jobs) or self.in_work

    def get(self, key: bytes) -> Put | None:
        return self._puts.get(key)

    def below(self, fingerprint: bytes, parent: bytes, *, whole: bool) -> list[Put]:
        return list(self._below.get((fingerprint, parent, whole), {}).values())

    def parents(self) -> set[bytes]:
        """The blocks that others will stand on as soon as these are written."""
        return {put.parent for put in self._puts.values() if put.parent}

    def add(self, put: Put) -> None:
        self._jobs.append(put)
        self._puts[put.key] = put
        self._below.setdefault((put.fingerprint, put.parent, put.whole), {})[put.key] = put
        self.n_bytes += len(put.payload)
        for owner in put.owners:
            self.own(put.parent, owner)

    def add_use(self, use: Use) -> None:
        self._jobs.append(use)
        if use.owner is not None:
            for key in use.keys:
                self.own(key, use.owner)

    def own(self, key: bytes, owner: bytes) -> None:
        """Gives a block, if it is here, and its ancestors that are here an owner."""
        put = self._puts.get(key)
        while put is not None and owner not in put.owners:
            put.owners.add(owner)
            put = self._puts.get(put.parent)

    def supersede(self, put: Put) -> None:
        """Takes out what ``put`` makes needless, by the rule for siblings."""
        if put.whole:
            return
        for other in self.below(put.fingerprint, put.parent, whole=False):
            longer = len(put.encoded) > len(other.encoded) and put.encoded.startswith(other.encoded)
            if longer and other.owners <= put.owners and other is not self._writing and not self._has_children(other):
                self._remove(other)

    def forget(self, owner: bytes) -> tuple[int, list[Use]]:
        """Takes out what only ``owner`` owns; returns how many blocks, and what was used by others and is still to be
        noted. What ``owner`` used is not noted any more."""
        mine = [put for put in self._puts.values() if owner in put.owners]
        for put in mine:
            put.owners.remove(owner)
        n_before = len(self._puts)
        while free := [put for put in mine if put.key in self._puts and not put.owners and not self._has_children(put)]:
            for put in free:
                self._remove(put)
        uses = [job for job in self._jobs if isinstance(job, Use)]
        self._jobs = deque(job for job in self._jobs if isinstance(job, Put))
        return n_before - len(self._puts), [use for use in uses if use.owner != owner]

    def take(self) -> Put | list[Use] | None:
        """The next job, or all uses that stand first; None if there is none. To be followed by ``finish``."""
        while self._jobs:
            job = self._jobs.popleft()
            if isinstance(job, Put):
                if self._puts.get(job.key) is not job:
                    continue
                self._writing = job
                self.in_work = True
                return job
            uses = [job]
            while self._jobs and isinstance(following := self._jobs[0], Use):
                uses.append(following)
                self._jobs.popleft()
            self.in_work = True
            return uses
        return None

    def finish(self) -> None:
        """The job that was taken is done, or given up."""
        if self._writing is not None and self._puts.get(self._writing.key) is self._writing:
            self._remove(self._writing)
        self._writing = None
        self.in_work = False

    def clear(self) -> None:
        for put in list(self._puts.values()):
            self._remove(put)
        self._jobs.clear()

    def _has_children(self, put: Put) -> bool:
        return (put.fingerprint, put.key, False) in self._below

    def _remove(self, put: Put) -> None:
        del self._puts[put.key]
        place = (put.fingerprint, put.parent, put.whole)
        del self._below[place][put.key]
        if not self._below[place]:
            del self._below[place]
        self.n_bytes -= len(put.payload)
