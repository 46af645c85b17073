"""Splits a document into passages that can be searched, quoted by place, and shown to a small model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hearth.multimodal.documents_types import SECTION_SEPARATOR, DocumentText
from hearth.multimodal.kinds import EPUB_MIME
from hearth.multimodal.kinds_text import code_language

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter

TARGET_TOKENS = 140  # about 105 English words: two or three fit into the budget of a small model
OVERLAP_TOKENS = 20
CHARS_PER_TOKEN = 4.5  # of English prose; a splitter that counts characters needs no tokenizer
_HEADING_CHARS = 300
_STRETCH_CHARS = 10_000  # given to the splitter at once
_WORD_CHARS = 2_500  # a longer word is data
_AS_MARKDOWN = ("text/markdown", "text/html", EPUB_MIME)  # of what their readers make pages
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]|\n\s*")
_ABBREVIATION = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Fig|vs|cf|pp?|bzw|ca|[A-Z]|[a-z]\.[a-z])$")
_WORD = re.compile(r"\w+")
_COMMON = (
    "a an and are as at be been but by can could did do does for from had has have how i if in into is it its me my no "
    "not of on or our she he so that the their them then there these they this to us was we were what when where which "
    "who whom why will with would you your"
)
_COMMON_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one page. ``document.text[start:end] == text``; ``page`` counts from 1, or is None."""

    index: int
    text: str
    page: int | None
    start: int
    end: int
    section: str


def split_passages(
    document: DocumentText, *, target_tokens: int = TARGET_TOKENS, overlap_tokens: int = OVERLAP_TOKENS
) -> tuple[Passage, ...]:
    """Passages of at most about ``target_tokens`` tokens, in order, none across a page or a heading.

    They end at paragraphs where these fit, else at sentences, else at words. Neighbours on a page share up to
    ``overlap_tokens`` tokens. All text but white space is in some passage. Raises ValueError unless
    0 <= overlap_tokens < target_tokens.
    """
    if not 0 <= overlap_tokens < target_tokens:
        raise ValueError(f"an overlap of {overlap_tokens} tokens does not fit into passages of {target_tokens}")
    splitter: TextSplitter | Any = _splitter(document.mime, target_tokens, overlap_tokens)
    passages: list[Passage] = []
    for page, page_start in zip(document.pages, document.page_starts, strict=True):
        for offset, text in _chunks(splitter, page.text):
            if text.strip():
                offset += len(text) - len(text.lstrip("\n"))
                text = text.strip("\n")
                start = page_start + offset
                passages.append(Passage(len(passages), text, page.number, start, start + len(text), page.section))
    return tuple(passages)


def embedding_text(document: DocumentText, passage: Passage) -> str:
    """What is embedded for ``passage``: a header "title › section › page 3" and the text below it."""
    parts = [document.title]
    path = passage.section.split(SECTION_SEPARATOR) if passage.section else []
    parts += path[1:] if path[:1] == [document.title] else path
    if passage.page is not None:
        parts.append(f"page {passage.page}")
    return SECTION_SEPARATOR.join(part for part in parts if part)[:_HEADING_CHARS] + "\n" + passage.text


def focus(text: str, query: str, max_chars: int) -> tuple[int, int]:
    """The span (start, end) of at most ``max_chars`` of ``text`` that shares most words with ``query``.

    It consists of whole sentences, unless the best one alone is longer: then it is cut at a word. Without any word in
    common it is the beginning. ``text[start:end]`` neither begins nor ends with white space. Raises ValueError if
    ``max_chars`` is not positive.
    """
    if max_chars < 1:
        raise ValueError(f"a span of {max_chars} characters holds nothing; ask for at least 1")
    whole = _trimmed(text, 0, len(text))
    if whole[1] - whole[0] <= max_chars:
        return whole
    wanted = stems(query)
    sentences = [_trimmed(text, a, b) for a, b in _sentences(text)]
    sentences = [(a, b) for a, b in sentences if a < b]
    shared = [stems(text[a:b]) & wanted for a, b in sentences]
    best, best_key = _trimmed(text, *_cut(text, *sentences[0], max_chars)), (-1, 0)
    for first, (start, end) in enumerate(sentences):
        found: set[str] = set()
        if end - start > max_chars and len(shared[first]) > best_key[0]:
            best, best_key = _densest(text, start, end, wanted, max_chars), (len(shared[first]), 0)
        for last in range(first, len(sentences)):
            if sentences[last][1] - start > max_chars:
                break
            found |= shared[last]
            # among equals the one that begins with a match, and then the longer one, for its context
            key = (len(found), (2 if shared[first] else 1) * max_chars + sentences[last][1] - start)
            if key > best_key:
                best, best_key = (start, sentences[last][1]), key
    return best


def _splitter(mime: str, target_tokens: int, overlap_tokens: int) -> Any:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    kind = MarkdownSplitter if mime in _AS_MARKDOWN else TextSplitter
    keeps_indentation = bool(code_language(mime))
    return kind(
        round(target_tokens * CHARS_PER_TOKEN),
        overlap=round(overlap_tokens * CHARS_PER_TOKEN),
        trim=not keeps_indentation,
    )


def _chunks(splitter: Any, text: str) -> Iterator[tuple[int, str]]:
    """Offset and text of each chunk. Long texts go to the splitter in stretches: its time grows with their square."""
    start = 0
    while start < len(text):
        end = _stretch_end(text, start)
        for offset, chunk in splitter.chunk_indices(text[start:end]):
            yield start + offset, chunk
        start = end


def _stretch_end(text: str, start: int) -> int:
    """Where a stretch ends: at a blank line if it can be, at a line, or at a word; a word without an end is cut."""
    end = start + _STRETCH_CHARS
    is_word = all(text.find(mark, start, end) < 0 for mark in " \n。")
    if end >= len(text) and not (is_word and len(text) - start > _WORD_CHARS):
        return len(text)
    for mark in ("\n\n", "\n", "。", " "):
        found = text.rfind(mark, start, end)
        if found > (start if mark == " " else (start + end) // 2):
            return found + len(mark)
    return start + (_WORD_CHARS if is_word else _STRETCH_CHARS)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Spans that cover ``text``: they end after a full stop (or its like) with white space behind it, or at a line."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if end[0][0] == "." and _ABBREVIATION.search(text, max(start, end.start() - 8), end.start()):
            continue
        yield start, end.end()
        start = end.end()
    if start < len(text):
        yield start, len(text)


def stems(text: str) -> frozenset[str]:
    """The words that carry meaning, without case and plural."""
    words = (word.casefold() for word in _WORD.findall(text))
    return frozenset(
        word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word
        for word in words
        if word not in _COMMON_WORDS
    )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    stretch = text[start:end]
    if not stretch.strip():
        return start, start
    return start + len(stretch) - len(stretch.lstrip()), start + len(stretch.rstrip())


def _cut(text: str, start: int, end: int, max_chars: int) -> tuple[int, int]:
    """The beginning of a span, ending at a word if there is an end of one in it."""
    if end - start <= max_chars:
        return start, end
    cut = start + max_chars
    space = max(text.rfind(" ", start, cut + 1), text.rfind("\n", start, cut + 1))
    return start, space if space > start else cut


def _densest(text: str, start: int, end: int, wanted: frozenset[str], max_chars: int) -> tuple[int, int]:
    """The stretch of one long sentence, from a word on, with most of the ``wanted`` words."""
    words = [(start + m.start(), start + m.end(), bool(stems(m[0]) & wanted)) for m in _WORD.finditer(text[start:end])]
    best, best_count = _cut(text, start, end, max_chars), -1
    last = count = 0
    for word_start, _, hit in words:
        while last < len(words) and words[last][1] - word_start <= max_chars:
            count += words[last][2]
            last += 1
        if count > best_count:
            best, best_count = _cut(text, word_start, end, max_chars), count
        count -= hit
    return _trimmed(text, *best)
