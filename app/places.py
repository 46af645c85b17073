"""Where in a document or recording something stands, in words."""

from __future__ import annotations


def clock(time_s: float) -> str:
    """“0:42”, “1:02:03”."""
    whole = max(0, int(time_s))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def place_in(page: int | None, start_s: float | None) -> str:
    """What follows a title: “, p. 3” of a document, “, 0:42” of a recording, or nothing."""
    if page is not None:
        return f", p. {page}"
    return "" if start_s is None else f", {clock(start_s)}"
