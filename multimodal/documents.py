"""Reads documents: bytes of a file in, its text with pages and headings out. What is read stands in ``READABLE``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from hearth.multimodal.documents_code import read_code
from hearth.multimodal.documents_csv import read_csv
from hearth.multimodal.documents_docx import read_docx
from hearth.multimodal.documents_eml import read_eml
from hearth.multimodal.documents_epub import read_epub
from hearth.multimodal.documents_html import declared_encoding, read_html
from hearth.multimodal.documents_pdf import read_pdf, render_page
from hearth.multimodal.documents_plain import decode, read_markdown, read_plain
from hearth.multimodal.documents_pptx import read_pptx
from hearth.multimodal.documents_types import MAX_CHARS, Cancelled, DocumentText, Page, Progress, ReadPages, Watch
from hearth.multimodal.documents_xlsx import read_xlsx
from hearth.multimodal.errors import MediaTooLargeError, PerceptionError, UnsupportedMediaError
from hearth.multimodal.kinds import DOCX_MIME, EPUB_MIME, PPTX_MIME, XLSX_MIME, identify, shown_name
from hearth.multimodal.kinds_text import CSV_MIME, EMAIL_MIME, code_language

__all__ = ["MAX_BYTES", "MAX_CHARS", "DocumentText", "Page", "read_document", "render_page"]

MAX_BYTES = 200 * 1024 * 1024
MAX_TITLE_CHARS = 200
READABLE = (
    "plain text, Markdown, PDF, Word (docx), PowerPoint (pptx), Excel (xlsx), CSV, HTML, EPUB, e-mail (eml) "
    "and source code"
)
_READERS: dict[str, Callable[[bytes, Watch], ReadPages]] = {
    "application/pdf": read_pdf,
    DOCX_MIME: read_docx,
    PPTX_MIME: read_pptx,
    XLSX_MIME: read_xlsx,
    EPUB_MIME: read_epub,
    CSV_MIME: read_csv,
    EMAIL_MIME: read_eml,
}


def read_document(
    data: bytes, name: str, *, on_progress: Progress | None = None, cancelled: Cancelled | None = None
) -> DocumentText:
    """The text of ``data``. ``name`` names it in messages, gives the title if nothing else does, and tells sorts of
    text apart where their beginning does not. ``on_progress`` is given a fraction of 1; ``cancelled`` is asked between
    pages.

    A PDF of scans only comes back without pages, but with ``scanned_pages`` and a notice. Nothing that a document
    refers to is ever fetched.

    Raises MediaTooLargeError (bytes, pages, characters, unpacked size), UnsupportedMediaError (not a document that is
    read), PerceptionError (empty, encrypted, damaged), PerceptionCancelled.
    """
    title_of_file = PurePosixPath(shown_name(name)).stem
    name = shown_name(name)
    watch = Watch(name, on_progress, cancelled)
    watch.step(0.0)
    mime = _readable_mime(data, name)
    read = _read(data, mime, watch)
    n_chars = sum(len(page.text) for page in read.pages)
    if n_chars > MAX_CHARS:
        raise MediaTooLargeError(f"{name} has {n_chars:,} characters, more than the limit of {MAX_CHARS:,}; split it")
    if not any(page.text.strip() for page in read.pages) and not read.scanned_pages:
        raise PerceptionError(f"{name} has no text in it; add a document with text")
    watch.step(1.0)
    return DocumentText(
        title=" ".join((read.title or title_of_file).split())[:MAX_TITLE_CHARS],
        mime=mime,
        sha256=hashlib.sha256(data).hexdigest(),
        pages=read.pages,
        scanned_pages=read.scanned_pages,
        notices=_notices(name, read.scanned_pages),
    )


def _readable_mime(data: bytes, name: str) -> str:
    if not data:
        raise PerceptionError(f"{name} is empty (0 bytes); choose a document with content")
    if len(data) > MAX_BYTES:
        raise MediaTooLargeError(
            f"{name} has {len(data):,} bytes, more than the limit of {MAX_BYTES:,} for a document; split it"
        )
    content = identify(data, name)
    if content.kind == "document":
        return content.mime
    if content.kind in ("picture", "sound", "video"):
        raise UnsupportedMediaError(f"{name} is not a document: it is {content.words}; add it as a {content.kind}")
    raise UnsupportedMediaError(f"{name} is {content.words}, which is not read; save it as one of: {READABLE}")


def _read(data: bytes, mime: str, watch: Watch) -> ReadPages:
    reader = _READERS.get(mime)
    if reader is not None:
        return reader(data, watch)
    text = decode(data, declared_encoding(data) if mime == "text/html" else None)
    language = code_language(mime)
    if language and len(text) <= MAX_CHARS:
        return ReadPages(watch.name, read_code(text, language))
    if mime == "text/html":
        return read_html(text)
    return read_markdown(text) if mime == "text/markdown" else read_plain(text)


def _notices(name: str, scanned: Sequence[int]) -> tuple[str, ...]:
    if not scanned:
        return ()
    if len(scanned) == 1:
        return (f"{name}: page {scanned[0]} has no text; add it as a picture",)
    return (f"{name}: pages {_ranges(scanned)} have no text; add them as pictures",)


def _ranges(numbers: Sequence[int]) -> str:
    """ "1–3, 7" for 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)
