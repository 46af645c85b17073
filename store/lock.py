"""Gives a data folder one owner: a lock that dies with its process, and a note of who holds it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from hearth.store.errors import DataFolderInUseError, from_os_error


class FolderLock:
    """The right to use a data folder, held from construction to ``release``.

    The lock is the operating system's (flock, on Windows a byte range): the files left by a dead owner are no obstacle.
    Raises DataFolderInUseError if another process, or another store in this one, holds it; StoreError if the
    folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._owner = folder / "owner"  # a file of its own: the lock file may be opened by those who wait
        self._lock = FileLock(folder / "lock", timeout=0, mode=0o600, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise DataFolderInUseError(_in_use(folder, self._owner)) from None
        except OSError as error:
            raise from_os_error(folder, error) from error
        try:
            self._note_owner()
        except OSError as error:
            self._lock.release()
            raise from_os_error(folder, error) from error

    def release(self) -> None:
        """Lets others have the folder. Idempotent."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._owner.unlink()
            self._lock.release()

    def _note_owner(self) -> None:
        descriptor = os.open(self._owner, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{os.getpid()}\n")


def _in_use(folder: Path, owner: Path) -> str:
    try:
        pid = owner.read_text().strip()
    except OSError:
        pid = ""
    who = f"process {pid}" if pid else "another process"
    if pid == str(os.getpid()):
        who = f"this process ({pid}) already"
    return f"{folder}: in use by {who}; close that Hearth or set HEARTH_DATA_DIR to another folder"
