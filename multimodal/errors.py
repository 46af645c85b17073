"""Errors of perception: an attachment that cannot be read. Part of the tree in ``hearth.models.errors``."""

from __future__ import annotations

from hearth.models.errors import HearthError


class PerceptionError(HearthError):
    """An attachment cannot be read; the message names the file, what was found, and the limit or remedy."""

    http_status = 422


class UnsupportedMediaError(PerceptionError):
    """The content is of a kind that Hearth does not read."""

    http_status = 415


class MediaTooLargeError(PerceptionError):
    """The content is over a limit (bytes, pixels, seconds, pages)."""

    http_status = 413


class PerceptionCancelled(PerceptionError):
    """The work was cancelled by its owner; nothing was kept."""

    http_status = 499
