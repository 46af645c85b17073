"""Reads HTML pages: the main text as Markdown, from the bytes at hand alone; nothing a page names is fetched."""

from __future__ import annotations

import codecs
import html
import re

from hearth.multimodal.documents_plain import clean, read_markdown
from hearth.multimodal.documents_types import ReadPages

MAX_EXTRACTED_CHARS = 3_000_000  # the extraction takes seconds for each million
_MIN_SHARE = 0.2  # of a page's characters: less than this and the extraction has missed the page, not its navigation
_WHOLE_SHARE = 0.7  # more than this and nothing worth mentioning was left out
_TITLE = re.compile(r"<title\b[^>]{0,200}>([^<]{1,500})", re.IGNORECASE)
_DECLARED = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,30})", re.IGNORECASE)
_PAGE_ENCODINGS = ("cp125", "cp932", "iso8859", "koi8", "shift_jis", "euc", "gb", "big5")
_INVISIBLE = re.compile(r"<(script|style|template|head|noscript)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_HEADING = re.compile(r"<h([1-6])\b[^<>]*>", re.IGNORECASE)
_BLOCKS = (
    (re.compile(r"<li\b[^<>]*>", re.IGNORECASE), "\n- "),
    (re.compile(r"</t[dh]\s*>\s*<t[dh]\b[^<>]*>", re.IGNORECASE), " | "),
    (re.compile(r"</?(?:br|tr|dt|dd)\b[^<>]*>", re.IGNORECASE), "\n"),
    (
        re.compile(r"</?(?:p|div|h\d|section|article|main|nav|table|[ou]l|pre|blockquote)\b[^<>]*>", re.IGNORECASE),
        "\n\n",
    ),
)


def declared_encoding(data: bytes) -> str | None:
    """Python's name of the 8-bit or East Asian encoding that the page's own meta element names, if there is one."""
    found = _DECLARED.search(data[:4096])
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
    except LookupError:
        return None
    return name if name.startswith(_PAGE_ENCODINGS) else None


def read_html(text: str) -> ReadPages:
    """Pages by heading: the page's main text, or all of its visible text where the extraction finds little or loses
    the headings without leaving anything out."""
    named = _TITLE.search(text)
    title = " ".join(html.unescape(named[1]).split()) if named else None
    everything = visible_text(text)
    read = read_markdown(_main_text(text, everything) or everything)
    return ReadPages(title or read.title, read.pages)


def _main_text(text: str, everything: str) -> str | None:
    """The text without navigation and advertisements, as Markdown; None if it is no improvement."""
    if len(text) > MAX_EXTRACTED_CHARS:
        return None
    import trafilatura

    extracted: str | None = trafilatura.extract(
        text, output_format="markdown", include_comments=False, include_tables=True, favor_recall=True
    )
    share = len(extracted or "") / max(1, len(everything))
    lost_headings = "\n#" in everything and "#" not in (extracted or "")
    return None if share < _MIN_SHARE or (lost_headings and share > _WHOLE_SHARE) else extracted


def visible_text(text: str) -> str:
    text = _INVISIBLE.sub(" ", re.sub(r"<!--.*?(-->|\Z)", " ", text, flags=re.DOTALL))
    text = _HEADING.sub(lambda tag: "\n\n" + "#" * int(tag[1]) + " ", " ".join(text.split()))
    for pattern, mark in _BLOCKS:
        text = pattern.sub(mark, text)
    lines = re.sub(r"<[^<>]*>", "", text).split("\n")
    return clean("\n".join(" ".join(html.unescape(line).split()) for line in lines))
