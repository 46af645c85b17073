"""The chat that was used last comes back from disk while nobody has asked for anything yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import wait as wait_for

from hearth.models.engine.disk_cache import DiskCache, Restore
from hearth.models.engine.kv_room import KvRoom
from hearth.models.engine.prefix_cache import CachedSequence
from hearth.models.engine.prompt import Entry, count_tokens
from hearth.models.engine.radix_tree import common_prefix

logger = logging.getLogger("hearth.kv")

MAX_WAIT_S = 0.02  # how long a request may go unnoticed while a block is read
MIN_WANTED_SHARE = 0.5  # of what has come back, for it to be kept
_NEXT_TOKEN = 0  # of a prompt that goes on: what is restored is all but a prompt's last token


class Resumption:
    """A restore for a prompt that nobody has given yet. The engine's thread only; no error leaves it.

    The first request decides what becomes of it: one of the same chat gets what is there, and goes on with the restore
    from what is being read at that moment. For any other it makes room at once, because cells that nobody wants make
    every step slower.
    """

    def __init__(self, disk: DiskCache | None, room: KvRoom, n_ctx: int) -> None:
        """``disk`` None: it never begins. ``n_ctx``: nothing longer is loaded."""
        self._disk = disk
        self._room = room
        self._n_ctx = n_ctx
        self._slot: CachedSequence | None = None  # up to the first request
        self._restore: Restore | None = None  # while it is loaded
        self._entries: list[Entry] = []
        self._is_wanted = False  # by the first request
        self.n_tokens = 0  # that came back

    @property
    def is_on(self) -> bool:
        """Whether something is still to be loaded."""
        return self._restore is not None

    def begin(self) -> None:
        """Looks which chat was used last, and begins to read it."""
        if self._disk is None:
            return
        try:
            entries = [*self._disk.latest(), _NEXT_TOKEN]
            if count_tokens(entries) > self._n_ctx or not self._room.is_enough(entries, 0):
                return
            restore = self._disk.begin(entries, 0, announce=False)  # who asks meanwhile is not to wait for the disk
            if restore is None:
                return
            restore.keys, restore.partial = [], None  # nobody has used them: it stays the last chat, no more
            self._slot = self._room.place(entries)
            self._entries, self._restore = entries, restore
        except Exception:
            self._give_up()

    def go_on(self) -> None:
        """Loads a little more, or waits a moment for what is read. Only while it is on."""
        disk, slot, restore = self._disk, self._slot, self._restore
        assert disk is not None
        assert slot is not None
        assert restore is not None
        try:
            if restore.reading and not restore.reading[0].done():
                wait_for([restore.reading[0]], MAX_WAIT_S)
            if disk.advance(restore, slot, self._entries, None, alone=False) is None:
                return
        except Exception:
            self._give_up()
            return
        self.n_tokens = slot.n_tokens
        self._room.release(slot, ahead=True)
        self._restore = None
        if self._is_wanted:
            self._hand_over()
        elapsed_ms = 1000 * (time.monotonic() - restore.started_s)
        if self.n_tokens:
            logger.info("the last chat is back: %s tokens, from disk in %.0f ms", f"{self.n_tokens:,}", elapsed_ms)

    def asked(self, entries: Sequence[Entry]) -> None:
        """A request has come. While it is on afterwards, that request waits for a block that it would read itself."""
        slot, restore = self._slot, self._restore
        if slot is None or self._is_wanted:
            return
        if restore is not None:
            while len(restore.pending) > len(restore.reading):
                restore.pending.pop()
        n_back = restore.pending[-1][1] if restore is not None and restore.pending else len(slot.entries)
        n_shared = common_prefix(self._entries, entries)
        if not n_shared or n_shared < MIN_WANTED_SHARE * n_back:
            self.discard()
            return
        self._is_wanted = True
        if restore is None:
            self._hand_over()
        elif not restore.pending:
            self.go_on()

    def discard(self) -> None:
        """Gives back all that it has."""
        disk, slot, restore = self._disk, self._slot, self._restore
        self._restore = None
        self._hand_over()
        try:
            if restore is not None and disk is not None:
                disk.abandon(restore)
        finally:
            if slot is not None:
                self._room.distrust(slot)
                self._room.release(slot)

    def _hand_over(self) -> None:
        """The slot is one as any other."""
        self._slot, self._entries = None, []

    def _give_up(self) -> None:
        logger.warning("the last chat could not be loaded ahead; it is when it is asked for", exc_info=True)
        self.discard()
