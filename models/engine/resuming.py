"""The chat that was used last comes back from disk while nobody has asked for anything yet."""

from __future__ import annotations

import logging
import time
from concurrent.futures import wait as wait_for

from hearth.models.engine.disk_cache import DiskCache, Restore
from hearth.models.engine.kv_room import KvRoom
from hearth.models.engine.prefix_cache import CachedSequence
from hearth.models.engine.prompt import Entry, count_tokens

logger = logging.getLogger("hearth.kv")

MAX_WAIT_S = 0.02  # how long a request may go unnoticed while a block is read
_NEXT_TOKEN = 0  # of a prompt that goes on: what is restored is all but a prompt's last token


class Resumption:
    """A restore for a prompt that nobody has given yet. The engine's thread only; no error leaves it.

    It is on from ``begin`` to the first request, at most. What has come back by then serves that request if it is of
    the same chat, and is the first to go otherwise.
    """

    def __init__(self, disk: DiskCache | None, room: KvRoom, n_ctx: int) -> None:
        """``disk`` None: it never begins. ``n_ctx``: nothing longer is loaded."""
        self._disk = disk
        self._room = room
        self._n_ctx = n_ctx
        self._slot: CachedSequence | None = None
        self._restore: Restore | None = None
        self._entries: list[Entry] = []
        self.n_tokens = 0  # that came back

    @property
    def is_on(self) -> bool:
        return self._slot is not None

    def begin(self) -> None:
        """Looks which chat was used last, and begins to read it."""
        if self._disk is None:
            return
        try:
            entries = [*self._disk.latest(), _NEXT_TOKEN]
            if count_tokens(entries) > self._n_ctx or not self._room.is_enough(entries, 0):
                return
            restore = self._disk.begin(entries, 0)
            if restore is None:
                return
            restore.keys, restore.partial = [], None  # nobody has used them: it stays the last chat, no more
            self._entries, self._restore = entries, restore
            self._slot = self._room.place(entries)
        except Exception:
            self._give_up()

    def go_on(self) -> None:
        """Loads a little more, or waits a moment for what is read. Only while it is on."""
        assert self._restore is not None
        reading = self._restore.reading
        if reading and not reading[0].done():
            wait_for([reading[0]], MAX_WAIT_S)
        self._advance()

    def end(self) -> None:
        """A request has come: keeps what is back, and loads no more."""
        if self._restore is not None:
            self._restore.pending.clear()
            self._advance()

    def drop(self) -> None:
        """Nothing in the KV cache is trusted any more."""
        self._slot = self._restore = None

    def _advance(self) -> None:
        disk, slot, restore = self._disk, self._slot, self._restore
        assert disk is not None
        assert slot is not None
        assert restore is not None
        try:
            n_tokens = disk.advance(restore, slot, self._entries, None, alone=False)
        except Exception:
            self._give_up()
            return
        if n_tokens is None:
            return
        self.n_tokens = n_tokens
        slot.on_disk = True
        self._room.release(slot)
        slot.is_ahead = True
        self.drop()
        elapsed_ms = 1000 * (time.monotonic() - restore.started_s)
        logger.info("the last chat is back: %s tokens, read from disk in %.0f ms", f"{n_tokens:,}", elapsed_ms)

    def _give_up(self) -> None:
        logger.warning("the last chat could not be loaded ahead; it is when it is asked for", exc_info=True)
        slot = self._slot
        self.drop()
        if slot is not None:
            self._room.distrust(slot)
            self._room.release(slot)
