"""Errors of the store. Part of the tree in ``hearth.models.errors``, the only thing of ours the store imports."""

from __future__ import annotations

from hearth.models.errors import HearthError


class StoreError(HearthError):
    """The data folder cannot do what was asked: disk full, not writable, damaged."""

    http_status = 507


class DataFolderInUseError(StoreError):
    """Another process owns the data folder."""

    http_status = 409


class NotFoundError(StoreError):
    """No conversation, document, message or blob of that id."""

    http_status = 404
