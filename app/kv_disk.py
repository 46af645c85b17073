"""The KV blocks on disk, apart from any engine: where they may lie, how much there is, and deleting it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hearth.engine_factory import KvFolder
from hearth.machine import disk_free_bytes

if TYPE_CHECKING:
    from hearth.settings import Settings
    from hearth.store.kv_blocks import KvBlockStore, KvOwned

PROGRAMS = "v1"  # owns what is saved of chats that programs send; those of the page are owned by their conversation
GIB = 1 << 30
DISK_SHARE = 0.1  # of the free disk, unless a setting says otherwise
DISK_MAX_GIB = 8.0


@dataclass(frozen=True, slots=True)
class KvUse:
    """What is on disk; bytes are bytes of payload. ``limit_bytes`` 0: nothing more is kept."""

    folder: Path
    n_blocks: int
    n_bytes: int
    limit_bytes: int
    programs: KvOwned


def kv_path(settings: Settings) -> Path:
    """Where KV blocks lie, if there are any."""
    return settings.data_dir / "kv"


def kv_folder(settings: Settings) -> KvFolder | None:
    """Where an engine keeps KV blocks, or None if it is not to."""
    if settings.kv_disk_gib == 0:
        return None
    budget_gib = settings.kv_disk_gib
    if budget_gib is None:
        budget_gib = min(DISK_MAX_GIB, DISK_SHARE * disk_free_bytes(settings.data_dir) / GIB)
    return KvFolder(kv_path(settings), int(budget_gib * GIB), int(settings.kv_daily_write_gib * GIB))


def kv_use(settings: Settings) -> KvUse:
    """How much is on disk. May be asked while a Hearth uses the folder. Raises StoreError."""
    from hearth.store.kv_blocks import KvBlockStore, KvOwned

    folder, path = kv_folder(settings), kv_path(settings)
    limit_bytes = folder.budget_bytes if folder is not None else 0
    if not path.exists():
        return KvUse(path, 0, 0, limit_bytes, KvOwned(0, 0, 0, 0))
    with closing(KvBlockStore(path, budget_bytes=0)) as blocks:  # nothing is evicted without a write
        stats = blocks.stats()
        return KvUse(path, stats.n_blocks, stats.n_bytes, limit_bytes, blocks.owned(PROGRAMS))


def delete_of_programs(settings: Settings) -> tuple[int, int]:
    """Deletes the blocks that only programs' chats used; returns how many, and their payload bytes.

    Raises StoreError, DataFolderInUseError: an engine that runs would save what it holds once more.
    """
    return _deleted(settings, lambda blocks: blocks.forget_owner(PROGRAMS))


def wipe(settings: Settings) -> tuple[int, int]:
    """Deletes all blocks, those of conversations too; returns and raises as ``delete_of_programs``."""
    return _deleted(settings, lambda blocks: blocks.wipe())


def _deleted(settings: Settings, delete: Callable[[KvBlockStore], object]) -> tuple[int, int]:
    from hearth.store.kv_blocks import KvBlockStore
    from hearth.store.lock import FolderLock

    if not kv_path(settings).exists():
        return 0, 0
    lock = FolderLock(settings.data_dir)
    try:
        with closing(KvBlockStore(kv_path(settings), budget_bytes=0)) as blocks:
            before = blocks.stats()
            delete(blocks)
            after = blocks.stats()
    finally:
        lock.release()
    return before.n_blocks - after.n_blocks, before.n_bytes - after.n_bytes
