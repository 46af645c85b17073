"""Tells texts apart: pages, e-mails, tables, source code. By their beginning; the name decides where that can't."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import PurePosixPath

SAMPLE_BYTES = 16_384
CSV_MIME = "text/csv"
EMAIL_MIME = "message/rfc822"
MBOX_MIME = "application/mbox"
_CODE_PREFIX = "text/x-"

_MARKDOWN_SUFFIXES = {".md", ".markdown", ".mdown", ".mkd"}
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
_TABLE_SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
# Atomic groups: a page of unclosed comments must not make matching slow.
_PROLOGUE = r"(?>\s*(?:<\?.*?\?>|<!--.*?-->))*+\s*"
_HTML_START = re.compile(_PROLOGUE + r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_SVG_START = re.compile(_PROLOGUE + r"(?:<!doctype\s+svg[^>]*+>\s*)?<svg\b", re.IGNORECASE | re.DOTALL)

_HEADER_LINE = re.compile(r"([!-9;-~]{1,70}):[ \t]?\S?")
_MAIL_HEADERS = {"from", "to", "subject", "date", "message-id", "received", "return-path", "mime-version"}
_TRACES = {"message-id", "received", "return-path", "mime-version"}
_ENOUGH_HEADERS = 2  # of these make an e-mail

_LANGUAGES = {
    "python": "py pyw pyi",
    "javascript": "js mjs cjs jsx vue svelte",
    "typescript": "ts mts cts tsx",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala",
    "groovy": "groovy gradle",
    "c": "c h",
    "cpp": "cc cpp cxx hh hpp hxx cu",
    "csharp": "cs",
    "objectivec": "m mm",
    "swift": "swift",
    "go": "go",
    "rust": "rs",
    "dart": "dart",
    "php": "php",
    "ruby": "rb rake",
    "perl": "pl pm",
    "lua": "lua",
    "shell": "sh bash zsh fish ksh",
    "powershell": "ps1 psm1",
    "sql": "sql",
    "r": "r",
    "julia": "jl",
    "elixir": "ex exs",
    "haskell": "hs",
}
_BY_SUFFIX = {"." + suffix: name for name, suffixes in _LANGUAGES.items() for suffix in suffixes.split()}
_BY_INTERPRETER = {"sh": "shell", "bash": "shell", "zsh": "shell", "node": "javascript", "rscript": "r"} | {
    name: name for name in ("python", "perl", "ruby", "php", "lua", "julia", "elixir", "groovy")
}


def text_kind(head: str, name: str) -> tuple[str, str]:
    """(MIME type, a few words) of a text that begins with ``head``. Never raises."""
    suffix = PurePosixPath(name).suffix.lower()
    if _SVG_START.match(head):
        return "image/svg+xml", "an SVG drawing"
    if _HTML_START.match(head) or (suffix in _HTML_SUFFIXES and "<" in head):
        return "text/html", "an HTML page"
    if suffix in _MARKDOWN_SUFFIXES:
        return "text/markdown", "a Markdown text"
    language = language_of(head, name)
    if language:
        return _CODE_PREFIX + language, "source code"
    if head.startswith("From ") and is_mail(head.partition("\n")[2]):
        return MBOX_MIME, "a mailbox of several e-mails (mbox)"
    if is_mail(head):
        return EMAIL_MIME, "an e-mail"
    if table_delimiter(head, name) is not None:
        return CSV_MIME, "a table (CSV)"
    return "text/plain", "plain text"


def code_language(mime: str) -> str:
    """The programming language that a MIME type of ``text_kind`` names, "" if it is not one of source code."""
    return mime.removeprefix(_CODE_PREFIX) if mime.startswith(_CODE_PREFIX) else ""


def language_of(head: str, name: str) -> str | None:
    """The programming language, by the first line or the name."""
    if head.startswith("#!"):
        words = [PurePosixPath(word).name for word in head[2:300].split("\n")[0].split() if not word.startswith("-")]
        program = next((word for word in words if word != "env"), "").rstrip("0123456789.").lower()
        if program in _BY_INTERPRETER:
            return _BY_INTERPRETER[program]
    if head.startswith("<?php"):
        return "php"
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())


def is_mail(head: str) -> bool:
    """Whether ``head`` begins with a block of headers as e-mails have them: an empty line ends it, two are an e-mail's,
    and one of these programs write or names an address."""
    known: dict[str, str] = {}
    for line in head.splitlines():
        if not line.strip():
            names = known.keys() & _MAIL_HEADERS
            return len(names) >= _ENOUGH_HEADERS and (bool(names & _TRACES) or "@" in known.get("from", ""))
        header = _HEADER_LINE.match(line)
        if header:
            known.setdefault(header[1].lower(), line)
        elif not known or line[0] not in " \t":
            return False
    return False


def table_delimiter(sample: str, name: str) -> str | None:
    """The delimiter at which the lines of ``sample`` fall into columns; None if it is no table.

    A name that ends in .csv or .tsv asks for less than other names do: there, nearly all lines must have three columns
    or more.
    """
    usual = _TABLE_SUFFIXES.get(PurePosixPath(name).suffix.lower())
    lines = sample.splitlines(keepends=True)
    if len(sample) >= SAMPLE_BYTES // 2:
        lines = lines[:-1]  # cut
    if lines and (said := re.fullmatch(r"\ufeff?sep=([,;|:\t])\s*", lines[0])):
        return said[1]
    best, best_key = usual, (0.0, 0)
    for rank, delimiter in enumerate(",|;\t"):
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows)
        width, n_rows = max(widths.items(), key=lambda entry: (entry[1], entry[0]), default=(0, 0))
        share = n_rows / max(1, len(rows))
        certain = share >= 0.95 and width >= 3 and n_rows >= 4 and delimiter != "|" and not _looks_else(rows)
        if width > 1 and (certain or usual) and (round(share, 1), rank) > best_key:
            best, best_key = delimiter, (round(share, 1), rank)
    return best


def _looks_else(rows: list[list[str]]) -> bool:
    """Whether rows are lines of prose or of data in another notation."""
    n_long = sum(len(cell) > 60 for row in rows for cell in row)
    notation = sum(row[0].lstrip().startswith(("{", "[", "<", "(")) for row in rows)
    return n_long * 5 > len(rows) or notation * 5 > len(rows)
