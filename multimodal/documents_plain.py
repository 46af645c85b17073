"""Reads plain text and Markdown: finds the encoding, cleans the characters, splits at headings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from hearth.multimodal.documents_types import SECTION_SEPARATOR, Page, ReadPages

MAX_HEADING_CHARS = 200
_DETECTED_BYTES = 65_536
_MIN_WHOLE = 4  # non-ASCII characters for each broken one that make a text UTF-8 with a defect, not another encoding
_NON_WESTERN_SHARE = 0.12  # Western text in an 8-bit encoding rarely has more bytes above 127 than this
_MIN_TELLING = 4  # bytes above 127; fewer tell nothing about their encoding
_NON_WESTERN = ["cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(?=\S)")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def decode(data: bytes, declared: str | None = None) -> str:
    """Text of ``data``: by its byte order mark, else UTF-8, else in the ``declared`` encoding, else in the likeliest
    8-bit or East Asian one, which for mostly ASCII text is Windows-1252. Never raises; bytes without a meaning become
    U+FFFD. ``declared`` must be one that Python knows."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    text = data.decode("utf-8", errors="replace")
    n_broken = text.count("\N{REPLACEMENT CHARACTER}")
    if n_broken and _MIN_WHOLE * n_broken >= sum(character > "\x7f" for character in text):
        return data.decode(declared or _eight_bit_encoding(data[:_DETECTED_BYTES]), errors="replace")
    return text


def clean(text: str) -> str:
    """``text`` in NFC with ``\\n`` line ends, without control characters, lone surrogates, trailing spaces, or more
    than one empty line in a row."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = re.sub("[\x00-\x08\x0b\x0e-\x1f\x7f\u200b\ufeff\ufffe\uffff]", "", text).replace("\f", "\n\n")
    text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    text = unicodedata.normalize("NFC", text)
    text = "\n".join(line.rstrip(" \t\xa0") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def read_plain(text: str) -> ReadPages:
    """One page with everything."""
    return ReadPages(None, _pages([("", clean(text))]))


def read_markdown(text: str) -> ReadPages:
    """One page for each heading, the heading included; the title is the first heading."""
    sections = list(_sections(clean(text).split("\n")))
    titles = (section.split(SECTION_SEPARATOR)[-1] for section, _ in sections if section)
    return ReadPages(next(titles, None), _pages(sections))


def _pages(sections: list[tuple[str, str]]) -> tuple[Page, ...]:
    return tuple(Page(None, text, section) for section, text in sections if text.strip())


def _sections(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(path of headings, text) for each stretch between headings; a heading inside a code fence is none."""
    path: dict[int, str] = {}
    kept: list[str] = []
    fence = ""
    for line in lines:
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else _HEADING.match(line)
        if heading:
            yield SECTION_SEPARATOR.join(path.values()), "\n".join(kept).strip("\n")
            kept = []
            level = len(heading[1])
            path = {above: title for above, title in path.items() if above < level}
            path[level] = plain_heading(line[heading.end() :].rstrip().rstrip("#"))
        kept.append(line)
    yield SECTION_SEPARATOR.join(path.values()), "\n".join(kept).strip("\n")


def plain_heading(text: str) -> str:
    """A heading on one line, without Markdown's marks, of bounded length."""
    text = text[: 4 * MAX_HEADING_CHARS]
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}", "", text).split())[:MAX_HEADING_CHARS]


def _eight_bit_encoding(sample: bytes) -> str:
    n_high = sum(byte > 127 for byte in sample)
    if n_high < _MIN_TELLING or n_high <= _NON_WESTERN_SHARE * len(sample):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=["cp1252", *_NON_WESTERN]).best()
    return best.encoding if best is not None else "cp1252"
