"""KV blocks on disk, as the engine sees them: what to restore for a prompt, what to save of a sequence, and when.

A sequence is saved in blocks of about 256 tokens (or a sliding window, if that is less) and a tail, each known by the
entries it holds and the block before it, so that a prefix is found by its content and shared by whoever has it. Reading
and writing happen on the store's threads; copying into and out of the KV cache happens here, on the engine's thread, a
little at a time between steps. Models that cannot be sliced (recurrent, hybrid) are saved whole, with all their
entries, at turn ends and at intervals.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from hearth.models.engine.kv_cells import KvCells
from hearth.models.engine.prefix_cache import CachedSequence, PrefixCache
from hearth.models.engine.prompt import (
    Entry,
    MediaSpan,
    count_positions,
    count_tokens,
    entry_n_pos,
    entry_n_tokens,
    is_end,
    media_spans,
)

logger = logging.getLogger("hearth.kv")

BLOCK_TOKENS = 256
CHECKPOINT_TOKENS = 2048  # between whole checkpoints while a long prompt is read
MAX_PENDING_BYTES = 512 << 20  # copied out and not written yet
MAX_FLUSH_S = 30.0  # for the writers to take what waits, when all is to be saved
NO_LIMIT = 1 << 62
MAX_STEP_S = 0.008  # of copying between two steps while others wait for theirs
MIN_RESTORED_TOKENS = 2  # one token is decoded as quickly as looked for
READ_AHEAD = 2  # blocks on their way while one is loaded; more would need fresh memory, which is slow to be had

StoredEntry = int | str


class StoredBlock(Protocol):
    """A block that a store found for a prompt; see ``KvStore.match``."""

    @property
    def key(self) -> str: ...
    @property
    def entries(self) -> tuple[StoredEntry, ...]: ...
    @property
    def n_matched(self) -> int: ...


class KvStore(Protocol):
    """Where blocks are kept (hearth.store.kv_blocks). All methods are quick; none raises for a damaged block."""

    @property
    def pending_bytes(self) -> int: ...

    def match(self, fingerprint: str, entries: Sequence[StoredEntry]) -> Sequence[StoredBlock]: ...

    def match_whole(self, fingerprint: str, entries: Sequence[StoredEntry]) -> StoredBlock | None: ...

    def latest(self, fingerprint: str, *, whole: bool = False) -> Sequence[StoredEntry]: ...

    def put(
        self,
        fingerprint: str,
        parent: str,
        entries: Sequence[StoredEntry],
        payload: bytes | memoryview,
        *,
        owner: str | None = None,
        whole: bool = False,
    ) -> str: ...

    def contains(self, key: str) -> bool: ...

    def key_of(self, fingerprint: str, parent: str, entries: Sequence[StoredEntry], *, whole: bool = False) -> str: ...

    def read_async(self, keys: Sequence[str]) -> Sequence[Future[bytes | memoryview | None]]: ...

    def announce(self, keys: Sequence[str]) -> None: ...

    def warm_up(self) -> None: ...

    def recycle(self, payload: bytes | memoryview) -> None: ...

    def use(self, keys: Sequence[str], owner: str | None) -> None: ...

    def forget_owner(self, owner: str) -> int: ...

    def flush(self, timeout_s: float | None = None) -> bool: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Restore:
    """Blocks on their way into a sequence: ``pending`` are (entries from, to, key), in order; ``reading`` the first of
    them, which are read by others.

    ``keys`` are the blocks that match entirely, ``partial`` one that goes on otherwise: another chat's, if it has one.
    ``position`` is that of the next entry to be restored. A block goes into the KV cache whole, so that it takes up to
    ``n_passing_cells`` more for a moment than what is kept of it. ``taken`` is what was loaded and is not there yet.
    """

    keys: list[str]
    pending: deque[tuple[int, int, str]]
    reading: deque[Future[bytes | memoryview | None]] = field(default_factory=deque)
    taken: list[Entry] = field(default_factory=list)
    position: int = 0
    n_passing_cells: int = 0
    partial: str | None = None
    whole: bool = False
    started_s: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Save:
    """What is still to be copied out of a sequence: from entry ``start``, at ``position``, up to ``n_entries``;
    ``keys`` are the blocks before, the last one being ``parent``."""

    slot: CachedSequence
    n_entries: int
    owner: str | None
    keys: list[str] = field(default_factory=list)
    start: int = 0
    position: int = 0
    parent: str = ""


class DiskCache:
    """Between one engine and one store. The engine's thread only."""

    def __init__(
        self,
        store: KvStore,
        fingerprint: str,
        cells: KvCells,
        cache: PrefixCache,
        *,
        sliceable: bool,
        n_swa: int = 0,
        min_worth_s: float = 0.0,
    ) -> None:
        """``n_swa`` is the sliding window in tokens: llama.cpp saves what is within one of a block's end."""
        self._store = store
        self._fingerprint = fingerprint
        self._cells = cells
        self._cache = cache
        self._sliceable = sliceable
        self._max_block_tokens = n_swa or NO_LIMIT
        self._saves: deque[_Save] = deque()
        self.min_worth_s = min_worth_s
        self.checkpoint_tokens = CHECKPOINT_TOKENS

    @property
    def has_work(self) -> bool:
        """Whether something is still to be copied out."""
        return bool(self._saves)

    # restore

    def warm_up(self) -> None:
        """Before the first request: what reads is started."""
        self._store.warm_up()

    def latest(self) -> list[Entry]:
        """The longest prefix that ends with what was used last; empty if nothing is saved for this model."""
        return [_entry(one) for one in self._store.latest(self._fingerprint, whole=not self._sliceable)]

    def begin(self, entries: list[Entry], n_have: int, *, announce: bool = True) -> Restore | None:
        """Starts reading what is saved of ``entries`` beyond the first ``n_have``; None if nothing is. ``announce``:
        the system is told of all of it, and not only of what is read next.

        The last entry is never restored: it must be decoded to have logits.
        """
        if count_tokens(entries[n_have:-1]) < MIN_RESTORED_TOKENS:
            return None
        wanted = _stored(entries[:-1])
        if not self._sliceable:
            block = self._store.match_whole(self._fingerprint, wanted)
            if block is None or len(block.entries) <= n_have:
                return None
            return Restore([block.key], deque([(0, len(block.entries), block.key)]), whole=True)
        needed: list[tuple[int, int, str]] = []
        keys: list[str] = []
        partial = None
        start = n_passing_cells = 0
        for block in self._store.match(self._fingerprint, wanted):
            end = start + block.n_matched
            if block.n_matched == len(block.entries):
                keys.append(block.key)
            else:
                partial = block.key
            if end > n_have:
                kept = slice(max(start, n_have) - start, end - start)
                needed.append((start + kept.start, end, block.key))
                passing = block.entries[: kept.start] + block.entries[kept.stop :]
                n_passing_cells = max(n_passing_cells, _n_cells(passing))
            start += len(block.entries)
        if not needed or count_tokens(entries[n_have : needed[-1][1]]) < MIN_RESTORED_TOKENS:
            return None
        if announce:
            self._store.announce([key for _, _, key in needed])
        position = count_positions(entries[: needed[0][0]])
        return Restore(keys, deque(needed), position=position, n_passing_cells=n_passing_cells, partial=partial)

    def advance(
        self, restore: Restore, slot: CachedSequence, entries: list[Entry], owner: str | None, *, alone: bool
    ) -> int | None:
        """Loads blocks, for a few milliseconds. Returns the number of tokens restored in all once it is over (fewer
        than hoped for if a block was damaged or had no room), None while it goes on.

        The store's threads read the next blocks while one is loaded. ``alone``: nobody waits for the next step, and
        blocks are waited for here; else only those that have been read are loaded. Measured, 50 MB: 14 ms with two
        on their way, 18 ms with one or if they are read here.
        """
        deadline = time.monotonic() + MAX_STEP_S
        while restore.pending:
            self._read_ahead(restore)
            if not alone and not restore.reading[0].done():
                break
            payload = restore.reading.popleft().result()
            start, end, _ = restore.pending.popleft()
            if not self._load(restore, slot, entries, start, end, payload):
                restore.pending.clear()
            if time.monotonic() > deadline:
                break
        if restore.pending:
            return None
        if not self._cells.finish_load(slot.seq_id):
            self._cache.clear(slot)
        elif restore.taken:
            self._cache.extend(slot, restore.taken)
        self._store.use(restore.keys, owner)
        if restore.partial is not None:
            self._store.use([restore.partial], None)
        return slot.n_tokens

    def abandon(self, restore: Restore) -> None:
        """Nobody wants it any more. What is being read is given back when it is there."""
        restore.pending.clear()
        while restore.reading:
            restore.reading.popleft().add_done_callback(self._recycle)

    def _recycle(self, read: Future[bytes | memoryview | None]) -> None:
        payload = None if read.cancelled() or read.exception() else read.result()
        if payload is not None:
            self._store.recycle(payload)

    def _read_ahead(self, restore: Restore) -> None:
        more = [key for _, _, key in islice(restore.pending, len(restore.reading), READ_AHEAD)]
        restore.reading += self._store.read_async(more)

    def _load(
        self,
        restore: Restore,
        slot: CachedSequence,
        entries: list[Entry],
        start: int,
        end: int,
        payload: bytes | memoryview | None,
    ) -> bool:
        if payload is None:
            return False
        n_bytes = len(payload)
        position = restore.position + count_positions(entries[start:end])
        if restore.whole:
            self._cache.clear(slot)
            loaded = self._cells.load_whole(slot.seq_id, payload)
            if loaded and not is_end(entries[:end], position, self._cells.num_positions(slot.seq_id)):
                self._cells.forget(slot.seq_id)
                loaded = False
        else:
            last = entries[end - 1]
            last_position = position - (entry_n_pos(last) if isinstance(last, MediaSpan) else 1)
            loaded = self._cells.load(slot.seq_id, payload, restore.position, position, last_position)
        self._store.recycle(payload)
        if not loaded:
            logger.warning(
                "a saved KV block was not taken by the model; its part of the prompt is computed again "
                "(entries %d to %d, position %d to %d, %d bytes, %d cells held)",
                *(start, end, restore.position, position, n_bytes, self._cache.cells_held()),
            )
            return False
        restore.position = position
        if self._cells.loads_at_once:
            self._cache.extend(slot, entries[start:end])
        else:
            restore.taken += entries[start:end]
        return True

    # save

    def save(self, slot: CachedSequence, owner: str | None, *, cost_s: float, final: bool) -> None:
        """Plans to save what ``slot`` holds and what took ``cost_s``: full blocks and, if ``final``, the tail too."""
        n_entries = len(slot.entries)
        if not final and self._sliceable:
            n_entries = _full_blocks_end(slot.entries, self._max_block_tokens)
        if not n_entries or cost_s < self.min_worth_s:
            return
        for save in self._saves:
            if save.slot is slot:
                save.n_entries, save.owner = n_entries, owner
                return
        self._saves.append(_Save(slot, n_entries, owner))
        if not self._sliceable:
            self.settle(slot)  # its state is that of its last token: it cannot wait

    def due(self, slot: CachedSequence, n_new: int, *, at_end: bool) -> bool:
        """Whether a prompt that is being read is worth saving now, ``n_new`` tokens after the last time it was asked:
        at its end, but whole checkpoints at intervals (one of a whole prompt serves nobody who asks the same again,
        because its last token must be decoded)."""
        if self._sliceable:
            return at_end
        return slot.n_tokens // self.checkpoint_tokens > (slot.n_tokens - n_new) // self.checkpoint_tokens

    def work(self, budget_s: float = MAX_STEP_S) -> None:
        """Copies out blocks for ``budget_s``; holds back while much waits to be written."""
        deadline = time.monotonic() + budget_s
        while self._saves and self._store.pending_bytes < MAX_PENDING_BYTES and time.monotonic() < deadline:
            if not self._save_next_block(self._saves[0]):
                self._saves.popleft()

    def finish(self) -> None:
        """Copies out all that was planned, in no more memory than ``work``; gives up if the writers hang."""
        while self._saves:
            self.work(math.inf)
            if self._saves and not self._store.flush(MAX_FLUSH_S):
                logger.warning("the disk takes no KV blocks; %d sequences are not saved", len(self._saves))
                self.drop_saves()

    def settle(self, slot: CachedSequence) -> None:
        """Copies out at once what was planned of ``slot``, because it is about to lose it."""
        for save in [save for save in self._saves if save.slot is slot]:
            while self._save_next_block(save):
                pass
            self._saves.remove(save)

    def drop_saves(self) -> None:
        """Forgets what was planned to be saved."""
        self._saves.clear()
        self._cells.end_dump()

    def forget(self, owner: str) -> int:
        """Deletes the blocks that only ``owner`` uses, planned ones too."""
        self._saves = deque(save for save in self._saves if save.owner != owner)
        return self._store.forget_owner(owner)

    def _save_next_block(self, save: _Save) -> bool:
        """False: it is done."""
        slot = save.slot
        end = _block_end(slot.entries, save.start, self._max_block_tokens) if self._sliceable else save.n_entries
        end = min(end, save.n_entries)
        if save.start >= end:
            if save.keys:
                self._store.use(save.keys, save.owner)
            slot.on_disk = save.n_entries == len(slot.entries)
            self._cells.end_dump()
            return False
        entries = _stored(slot.entries[save.start : end])
        position = save.position + count_positions(slot.entries[save.start : end])
        key = self._store.key_of(self._fingerprint, save.parent, entries, whole=not self._sliceable)
        if not self._store.contains(key):
            payload = (
                self._cells.dump(slot.seq_id, save.position, position)
                if self._sliceable
                else self._cells.dump_whole(slot.seq_id)
            )
            if not payload:
                logger.warning("a part of the KV cache could not be copied out; it is not saved")
                save.n_entries = save.start
                return True
            self._store.put(
                self._fingerprint, save.parent, entries, payload, owner=save.owner, whole=not self._sliceable
            )
        save.keys.append(key)
        save.start, save.position, save.parent = end, position, key
        return True


def blocks(entries: Sequence[Entry], max_tokens: int = NO_LIMIT) -> Iterator[tuple[int, int]]:
    """(start, end) of the blocks of a sequence, the last one being the tail. None but a single picture is longer than
    ``max_tokens``."""
    start = 0
    while start < len(entries):
        end = _block_end(entries, start, max_tokens)
        yield start, end
        start = end


def _block_end(entries: Sequence[Entry], start: int, max_tokens: int) -> int:
    """Where the block that begins at ``start`` ends: at its last token or behind the picture that holds it; before that
    picture if the block would be too long with it."""
    limit = min(BLOCK_TOKENS, max_tokens)
    if not media_spans(entries[start : start + limit]):
        return min(start + limit, len(entries))
    end, n_tokens = start, 0
    while end < len(entries) and n_tokens < limit:
        n_tokens += entry_n_tokens(entries[end])
        if n_tokens > max_tokens and end > start:
            break
        end += 1
    return end


def _full_blocks_end(entries: Sequence[Entry], max_tokens: int) -> int:
    full = 0
    for start, end in blocks(entries, max_tokens):
        if end < len(entries) or count_tokens(entries[start:end]) >= min(BLOCK_TOKENS, max_tokens):
            full = end
    return full


def _n_cells(entries: Sequence[StoredEntry]) -> int:
    media = [entry for entry in entries if entry.__class__ is str]
    return len(entries) + sum(int(entry.rsplit(":", 2)[1]) - 1 for entry in media)


def _stored(entries: Sequence[Entry]) -> list[StoredEntry]:
    """Entries as a store keeps them: a picture by its identity and size."""
    return [
        entry if isinstance(entry, int) else f"{entry.identity}:{entry.n_tokens}:{entry.n_pos}" for entry in entries
    ]


def _entry(stored: StoredEntry) -> Entry:
    if isinstance(stored, int):
        return stored
    identity, *sizes = stored.rsplit(":", 2)
    n_tokens, n_pos = map(int, sizes)
    if not 1 <= n_pos <= n_tokens:
        raise ValueError(f"media {identity[:16]} of {n_tokens} tokens at {n_pos} positions")
    return MediaSpan(identity, n_tokens, n_pos)
