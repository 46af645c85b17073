"""Values made in the background: made once, awaited, given up on, tried again."""

from __future__ import annotations

import threading

import pytest

from hearth.background import Background, Cancelled


def test_made_once_for_all_callers() -> None:
    made: list[int] = []
    part = Background("x", lambda: made.append(1) or "value")
    assert [part.get() for _ in range(3)] == ["value"] * 3
    assert made == [1]
    assert part.ready


def test_a_cancelled_caller_leaves_the_making_alone() -> None:
    release = threading.Event()
    part = Background("x", lambda: release.wait(10) and "value")
    with pytest.raises(Cancelled):
        part.get(lambda: True)
    release.set()
    assert part.get() == "value"


def test_a_failure_is_raised_and_tried_again() -> None:
    results = iter([OSError("no"), "value"])

    def make() -> str:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    part = Background("x", make)
    with pytest.raises(OSError, match="no"):
        part.get()
    assert part.get() == "value"
    assert part.error is None
