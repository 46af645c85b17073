"""Passages: exact places, no page crossed, nothing lost; the focus on a question is whole sentences in its budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.multimodal.documents import DocumentText, Page, read_document
from hearth.multimodal.passages import CHARS_PER_TOKEN, embedding_text, focus, split_passages

STORY = (
    "The meeting is in room 12. It starts at nine in the morning, and everybody brings a badge. "
    "The printer on the second floor is out of order until Monday. Use the one beside the kitchen. "
    "Dr. Weber answers questions about the invoices! Is the door closed? Ring the bell twice.\n"
)


def document(*texts: str, mime: str = "text/plain", numbered: bool = True) -> DocumentText:
    pages = tuple(Page(i if numbered else None, text, f"Part {i}") for i, text in enumerate(texts, 1))
    return DocumentText("Title", mime, "0" * 64, pages)


page_texts = st.lists(
    st.text(alphabet=st.sampled_from("ab äß日.!?\n \t#-|`*é̀👍🏽"), max_size=400).filter(lambda text: text.strip()),
    max_size=4,
)


@given(page_texts, st.integers(2, 60), st.integers(0, 20), st.sampled_from(["text/plain", "text/markdown"]))
def test_spans_are_exact_and_nothing_is_lost(texts: list[str], target: int, overlap: int, mime: str) -> None:
    read = document(*texts, mime=mime)
    passages = split_passages(read, target_tokens=target, overlap_tokens=min(overlap, target - 1))
    covered = set()
    for index, passage in enumerate(passages):
        assert passage.index == index
        assert read.text[passage.start : passage.end] == passage.text
        assert passage.text.strip()
        assert passage.page is not None
        page_start = read.page_starts[passage.page - 1]
        assert page_start <= passage.start
        assert passage.end <= page_start + len(texts[passage.page - 1])
        covered |= set(range(passage.start, passage.end))
    assert all(i in covered for i, character in enumerate(read.text) if not character.isspace())


def test_passages_are_small_and_do_not_cut_sentences() -> None:
    passages = split_passages(document(STORY * 30))
    assert len(passages) > 5
    for passage in passages:
        assert 40 <= len(passage.text.split()) <= 130 or passage is passages[-1]
        assert passage.text[-1] in ".!?"
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(passages))


def test_neighbours_overlap_by_sentences() -> None:
    passages = split_passages(document(STORY.replace("\n", " ") * 30))
    assert any(a.end > b.start for a, b in pairwise(passages))
    assert all(a.end - b.start <= 20 * CHARS_PER_TOKEN for a, b in pairwise(passages))


def test_sections_and_pages_travel_along() -> None:
    read = read_document(b"# One\nHello there.\n# Two\nGood bye.", "greetings.md")
    assert [(p.section, p.page, p.text) for p in split_passages(read)] == [
        ("One", None, "# One\nHello there."),
        ("Two", None, "# Two\nGood bye."),
    ]


def test_no_text_no_passages() -> None:
    assert split_passages(document()) == ()


@pytest.mark.parametrize(("target", "overlap"), [(0, 0), (10, 10), (10, -1)])
def test_sizes_that_do_not_fit(target: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap of {overlap} tokens"):
        split_passages(document("x"), target_tokens=target, overlap_tokens=overlap)


def test_embedding_text_has_a_header() -> None:
    read = document("Some words.", "More words.")
    first, second = split_passages(read)
    assert embedding_text(read, second) == "Title › Part 2 › page 2\nMore words."
    plain = document("Some words.", numbered=False)
    assert embedding_text(plain, split_passages(plain)[0]) == "Title › Part 1\nSome words."
    assert embedding_text(read, first).startswith("Title › Part 1 › page 1\n")


def test_embedding_text_does_not_say_the_title_twice() -> None:
    read = DocumentText("Guide", "text/plain", "", (Page(None, "Hold it.", "Guide › Reset"),))
    assert embedding_text(read, split_passages(read)[0]) == "Guide › Reset\nHold it."


@pytest.mark.parametrize(
    ("query", "max_chars", "expected"),
    [
        ("Where is the meeting?", 40, "The meeting is in room 12."),
        ("Which printers are broken?", 70, "The printer on the second floor is out of order until Monday."),
        ("who knows about INVOICES", 55, "Dr. Weber answers questions about the invoices!"),
        ("bell", 45, "Ring the bell twice."),
        ("", 30, "The meeting is in room 12."),
    ],
)
def test_focus(query: str, max_chars: int, expected: str) -> None:
    start, end = focus(STORY, query, max_chars)
    assert STORY[start:end] == expected


def test_focus_takes_what_follows_the_match_for_context() -> None:
    start, end = focus(STORY, "printer", 110)
    assert STORY[start:end] == (
        "The printer on the second floor is out of order until Monday. Use the one beside the kitchen."
    )


def test_focus_in_one_long_sentence() -> None:
    text = "word " * 200 + "the treasure is under the old oak " + "word " * 200
    start, end = focus(text, "treasure oak", 60)
    assert "treasure" in text[start:end]
    assert "oak" in text[start:end]
    assert end - start <= 60


def test_focus_keeps_a_text_that_fits() -> None:
    assert focus("  short text \n", "x", 20) == (2, 12)
    with pytest.raises(ValueError, match="0 characters"):
        focus("text", "x", 0)


@given(st.text(alphabet=st.sampled_from("abc .!?\n日。é"), max_size=300), st.text(max_size=20), st.integers(1, 80))
def test_focus_is_always_a_span_within_the_budget(text: str, query: str, max_chars: int) -> None:
    start, end = focus(text, query, max_chars)
    assert 0 <= start <= end <= len(text)
    assert end - start <= max_chars
    assert text[start:end] == text[start:end].strip()
    assert (end > start) == bool(text.strip())
