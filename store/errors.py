"""Errors of the store. Part of the tree in ``hearth.models.errors``, the only thing of ours the store imports.

StoreError                    disk full, not writable, damaged
├── DataFolderInUseError      another process owns the data folder
└── NotFoundError             no conversation, document, message or blob of that id
"""

from __future__ import annotations

import errno
from pathlib import Path

from hearth.models.errors import HearthError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}


class StoreError(HearthError):
    """The data folder cannot do what was asked: disk full, not writable, damaged."""

    http_status = 507


class DataFolderInUseError(StoreError):
    """Another process owns the data folder."""

    http_status = 409


class NotFoundError(StoreError):
    """No conversation, document, message or blob of that id."""

    http_status = 404


def from_os_error(path: Path, error: OSError) -> StoreError:
    """The StoreError for a failed operation on the file or folder ``path``, with its remedy."""
    if error.errno in _FULL:
        return StoreError(f"{path}: no room to write; free disk space, nothing was changed")
    if error.errno in _REFUSED:
        return StoreError(f"{path}: not writable; fix its permissions or set HEARTH_DATA_DIR to another folder")
    if error.errno in _NO_FOLDER:
        return StoreError(f"{path}: a file stands where a folder is needed; set HEARTH_DATA_DIR to another folder")
    return StoreError(f"{path}: {error.strerror or error}; check the disk or set HEARTH_DATA_DIR to another folder")
