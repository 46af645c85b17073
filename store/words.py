"""Text as SQLite and its word index (FTS5) take it, and users' queries as FTS5 expressions that cannot be malformed."""

from __future__ import annotations

import re
import unicodedata

MAX_TERMS = 64  # of one query; what follows is ignored, a question that long is decided by then
_PREFIX_FROM = 4  # letters; shorter words taken as beginnings match nearly everything
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Chinese characters
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_UNSPACED_RUN = re.compile(f"([{_UNSPACED}]+)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_STOP_WORDS = frozenset(
    """a about an and are as at be been by can could did do does for from had has have how i if in into is it its me my
    of on or our so than that the their them then there these they this to was we were what when where which who why
    will with would you your""".split()  # noqa: SIM905
)


def storable(text: str) -> str:
    """``text`` with halves of surrogate pairs, which UTF-8 cannot hold, replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def index_text(text: str) -> str:
    """What the word index is given for ``text``: compatibility forms folded, each Chinese or Japanese character a word.

    The index keeps no text of its own and must be told the same words when a text is deleted: a change here needs a
    migration that rebuilds it.
    """
    return _UNSPACED_CHAR.sub(r" \g<0> ", unicodedata.normalize("NFKC", storable(text)))


def word_sequence(text: str) -> tuple[str, ...]:
    """The words of ``text`` without case, punctuation and layout; a run of Chinese or Japanese is one."""
    folded = unicodedata.normalize("NFKC", storable(text)).lower()
    spaced = "".join(char if _stands_in_words(char) else " " for char in folded)
    terms = (term for word in spaced.split() for term in _UNSPACED_RUN.split(word))
    return tuple(term for term in terms if any(map(str.isalnum, term)))


def query_terms(query: str) -> list[str]:
    """The distinct words of ``query`` in their order, at most ``MAX_TERMS``."""
    return list(dict.fromkeys(word_sequence(query)))[:MAX_TERMS]


def match_term(term: str, *, prefix: bool) -> str:
    """The FTS5 expression for one of ``query_terms``; with ``prefix`` also longer words that begin with it."""
    if _UNSPACED_CHAR.search(term):
        return f'"{" ".join(term)}"'
    return f'"{term}"*' if prefix else f'"{term}"'


def match_any(query: str) -> str | None:
    """The FTS5 expression for texts with any word of ``query``; None if it has none.

    Stop words count only where there is nothing else.
    """
    terms = query_terms(query)
    telling = [term for term in terms if term not in _STOP_WORDS] or terms
    return " OR ".join(match_term(term, prefix=len(term) >= _PREFIX_FROM) for term in telling) or None


def _stands_in_words(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LNM" or category == "Co"
