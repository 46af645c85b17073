"""Retrieved passages as numbered sources in a prompt, within a budget of tokens, and as citations under the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hearth.events import Citation
from hearth.multimodal.passages import focus
from hearth.store.records import SearchHit

HEADING = "Sources:\n"
MIN_PASSAGE_CHARS = 80  # a passage is not cut shorter than this to make it fit
_CHARS_PER_TOKEN = 3  # a cautious guess, corrected by counting
_SENTENCE_END = re.compile(  # not of "J. Smith" or "1. Wash", but of "in hall 7. Then"
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bNo)(?:(?<!\b\w)|(?<=[a-z] \d))([.!?])(?=\s+[^a-z\s]|\s*$)"
)
_REFERENCE = re.compile(r"\[(\d{1,3})\]")

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Sources:
    """``text`` goes into the user's message ahead of the question; empty when there are no sources."""

    text: str
    citations: tuple[Citation, ...]


NO_SOURCES = Sources("", ())


def number_sources(hits: Sequence[SearchHit], query: str, budget_tokens: int, count: CountTokens) -> Sources:
    """The best of ``hits`` that fit into ``budget_tokens``, numbered from 1.

    A passage too long for what is left is narrowed to its sentences nearest to ``query``, or left out.
    """
    lines: list[str] = []
    citations: list[Citation] = []
    left = budget_tokens - count(HEADING)
    for hit in hits:
        if hit.passage is None:
            continue
        number = len(citations) + 1
        head = f"[{number}] {_label(hit)}: "
        span = _fit(hit.passage.text, query, left - count(head) - 1, lambda text: count(mark_sentences(text, 1)))
        if span is None:
            continue
        start, end = span
        text = hit.passage.text[start:end]
        line = head + mark_sentences(text, number)
        lines.append(line)
        left -= count(line) + 1
        citations.append(
            Citation(
                number=number,
                document_id=hit.document.id,
                title=hit.document.title,
                page=hit.passage.page,
                start=hit.passage.start + start,
                end=hit.passage.start + end,
                text=text,
                score=hit.score,
                start_s=hit.passage.start_s,
            )
        )
    if not lines:
        return NO_SOURCES
    return Sources(HEADING + "\n".join(lines) + "\n\n", tuple(citations))


def mark_sentences(text: str, number: int) -> str:
    """``text`` on one line, every sentence ending in ``[number]`` as answers do: it is there when it is copied."""
    marked, n_marks = _SENTENCE_END.subn(rf" [{number}]\1", _one_line(text))
    return marked if n_marks and marked[-1:] in ".!?" else f"{marked} [{number}]"


def mark_used(citations: Sequence[Citation], answer: str) -> tuple[Citation, ...]:
    """``citations`` with ``used`` set where ``answer`` refers to them as [n]."""
    named = {int(number) for number in _REFERENCE.findall(answer)}
    return tuple(replace(citation, used=citation.number in named) for citation in citations)


def _label(hit: SearchHit) -> str:
    page = hit.passage.page if hit.passage else None
    title = _one_line(hit.document.title)[:80]
    return f"{title}, p. {page}" if page is not None else title


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fit(text: str, query: str, budget_tokens: int, count: CountTokens) -> tuple[int, int] | None:
    if count(text) <= budget_tokens:
        return 0, len(text)
    max_chars = budget_tokens * _CHARS_PER_TOKEN
    while max_chars >= MIN_PASSAGE_CHARS:
        start, end = focus(text, query, max_chars)
        if start < end and count(text[start:end]) <= budget_tokens:
            return start, end
        max_chars = max_chars * 2 // 3
    return None
