"""Incremental text against decoding and searching the whole at once."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from hearth.models.detokenizer import Detokenizer, StopMatcher

T = TypeVar("T", str, bytes)


def cut(whole: T, sizes: list[int]) -> list[T]:
    pieces: list[T] = []
    start = 0
    for size in sizes:
        pieces.append(whole[start : start + size])
        start += size
    return [*pieces, whole[start:]]


@given(st.binary(max_size=40), st.lists(st.integers(0, 5), max_size=12))
def test_pieces_give_the_text_of_the_whole(raw: bytes, sizes: list[int]) -> None:
    detokenizer = Detokenizer()
    text = "".join(detokenizer.push(piece) for piece in cut(raw, sizes)) + detokenizer.flush()
    assert text == raw.decode("utf-8", "replace")


@given(st.text(max_size=20))
def test_valid_text_never_shows_a_part_of_a_character(text: str) -> None:
    detokenizer = Detokenizer()
    raw, shown = text.encode(), ""
    for i in range(len(raw)):
        shown += detokenizer.push(raw[i : i + 1])
        assert text.startswith(shown)
    assert shown == text
    assert detokenizer.flush() == ""


def first_stop(text: str, stops: list[str]) -> str | None:
    """Brute force: the text before the stop that is complete first, the longest of those; None without one."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))]
    return None


@given(
    st.text("ab", max_size=14),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 4), max_size=10),
)
def test_stops_are_found_as_by_brute_force_however_the_text_is_cut(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    matcher, shown, stopped = StopMatcher(stops), "", False
    for piece in cut(text, sizes):
        emitted, stopped = matcher.push(piece)
        shown += emitted
        expected = first_stop(text, stops)
        assert text.startswith(shown)
        assert expected is None or len(shown) <= len(expected), "a part of the stop string was shown"
        if stopped:
            break
    if not stopped:
        shown += matcher.flush()
    assert stopped == (first_stop(text, stops) is not None)
    assert shown == (text if first_stop(text, stops) is None else first_stop(text, stops))


def test_what_cannot_become_a_stop_is_shown_at_once() -> None:
    matcher = StopMatcher(["<end>"])
    assert matcher.push("a <e") == ("a ", False)
    assert matcher.push("x") == ("<ex", False)
    assert matcher.push("b<end> c") == ("b", True)
