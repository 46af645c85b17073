"""Reads PDF: the text of each page, which pages are scans, and pictures of pages. With
documents_pdf_tables.py the only user of pdfium."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from hearth.multimodal.documents_pdf_tables import text_with_tables
from hearth.multimodal.documents_plain import clean, plain_heading
from hearth.multimodal.documents_types import MAX_CHARS, SECTION_SEPARATOR, Page, ReadPages, Watch
from hearth.multimodal.errors import MediaTooLargeError, PerceptionError
from hearth.multimodal.kinds import shown_name

if TYPE_CHECKING:
    from PIL import Image

MAX_PAGES = 5_000
MAX_RENDERED_PIXELS = 40_000_000
MAX_RENDERED_EDGE_PX = 20_000
_MAX_BOOKMARKS = 5_000
_LIST_ITEM = re.compile(r"\s*([-–•*▪◦]|\d{1,3}[.)])\s")
_SCAN_CHARS = 12  # a page with fewer characters and a picture is a scan with a stamp or a page number

# pdfium is not thread-safe, and pypdfium2's objects must be closed under the lock too.
_pdfium_lock = threading.Lock()


def read_pdf(data: bytes, watch: Watch) -> ReadPages:
    """A page for each page with text.

    Raises PerceptionError (encrypted, damaged), MediaTooLargeError (pages, characters), PerceptionCancelled.
    """
    with _opened(data, watch.name) as pdf:
        with _pdfium_lock:
            n_pages = len(pdf)
            title = plain_heading(clean(pdf.get_metadata_value("Title"))) or None
            sections = _sections(pdf, n_pages) if n_pages <= MAX_PAGES else {}
        if n_pages > MAX_PAGES:
            raise MediaTooLargeError(
                f"{watch.name} has {n_pages:,} pages, more than the limit of {MAX_PAGES:,}; split it"
            )
        pages, scanned, n_chars, section = [], [], 0, ""
        for index in range(n_pages):
            watch.step(index / n_pages)
            with _pdfium_lock:
                text, is_scan = _page(pdf, index)
            section = sections.get(index, section)
            n_chars += len(text)
            if n_chars > MAX_CHARS:
                raise MediaTooLargeError(
                    f"{watch.name} has more than {MAX_CHARS:,} characters by page {index + 1}; split it"
                )
            if text:
                pages.append(Page(index + 1, text, section))
            if is_scan:
                scanned.append(index + 1)
    return ReadPages(title, tuple(pages), tuple(scanned))


def render_page(data: bytes, number: int, *, width_px: int = 1240, name: str = "the PDF") -> Image.Image:
    """An RGB picture of page ``number`` (from 1), ``width_px`` wide or less where the page is very long.

    Raises PerceptionError (encrypted, damaged, no such page).
    """
    import pypdfium2

    name = shown_name(name)
    if width_px < 1:
        raise PerceptionError(f"a page cannot be {width_px} pixels wide; ask for at least 1")
    with _opened(data, name) as pdf, _pdfium_lock:
        if not 1 <= number <= len(pdf):
            raise PerceptionError(f"{name} has no page {number}; its pages are 1 to {len(pdf)}")
        try:
            page = pdf[number - 1]
            try:
                width, height = page.get_size()
                if width <= 0 or height <= 0:
                    raise PerceptionError(f"page {number} of {name} has no size; use an intact copy")
                fitting = (MAX_RENDERED_PIXELS / (width * height)) ** 0.5
                scale = min(width_px / width, fitting, MAX_RENDERED_EDGE_PX / max(width, height))
                bitmap = page.render(scale=scale)
                image: Image.Image = bitmap.to_pil().convert("RGB")
                bitmap.close()
            finally:
                page.close()
        except (pypdfium2.PdfiumError, ValueError, OSError) as error:
            raise PerceptionError(f"page {number} of {name} cannot be drawn ({error}); use an intact copy") from error
    return image


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Any]:
    """The document, opened and closed under the lock, which the body takes itself for each step."""
    import pypdfium2

    with _pdfium_lock:
        try:
            pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower() or "security" in str(error).lower():
                raise PerceptionError(
                    f"{name} is encrypted and needs a password; save a copy without a password and add that"
                ) from error
            raise PerceptionError(f"{name} is a PDF that is truncated or damaged; use an intact copy") from error
    try:
        yield pdf
    finally:
        with _pdfium_lock:
            pdf.close()


def _page(pdf: Any, index: int) -> tuple[str, bool]:
    """Text of a page, and whether it is a scan: it shows something, but has no text to speak of."""
    import pypdfium2

    try:
        page = pdf[index]
    except pypdfium2.PdfiumError:
        return "", False  # a page that pdfium cannot load is as good as absent; the others still count
    try:
        textpage = page.get_textpage()
        try:
            plain = textpage.get_text_range()
            text = text_with_tables(textpage, plain, _prose) or _prose(plain)
        finally:
            textpage.close()
        if len("".join(text.split())) >= _SCAN_CHARS:
            return text, False
        kinds = {shown.type for shown in islice(page.get_objects(max_depth=3), 1000)}
        has_picture = pypdfium2.raw.FPDF_PAGEOBJ_IMAGE in kinds
        return text, has_picture or (not text and bool(kinds))
    except (pypdfium2.PdfiumError, UnicodeDecodeError, ctypes.ArgumentError):
        return "", True
    finally:
        page.close()


def _prose(text: str) -> str:
    return _unwrapped(clean(_dehyphenated(text)))


def _dehyphenated(text: str) -> str:
    """pdfium marks a hyphen at which a word was broken at the end of a line; the halves are put together again."""
    return re.sub("[\x02\ufffe\u00ad](\r?\n)?", "", text)


def _unwrapped(text: str) -> str:
    """Lines that were broken only because the column ended, joined; short lines and lists are left as they are."""
    lines = text.split("\n")
    lengths = sorted(len(line) for line in lines if line.strip())
    if not lengths:
        return ""
    full = lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)]
    joined = [lines[0]]
    for before, line in pairwise(lines):
        wrapped = len(before) >= max(30, 0.7 * full) or bool(re.match(r"[a-zß-öø-ÿ]", line) and len(before) > 20)
        ends = before.rstrip()[-1:] in ".!?:" and len(before) < 0.85 * full
        if wrapped and not ends and line.strip() and before.strip() and not _LIST_ITEM.match(line):
            joined[-1] += " " + line.lstrip()
        else:
            joined.append(line)
    return "\n".join(joined).strip()


def _sections(pdf: Any, n_pages: int) -> dict[int, str]:
    """Path of bookmarks for each page index at which one begins."""
    import pypdfium2

    sections: dict[int, str] = {}
    path: dict[int, str] = {}
    try:
        for bookmark in islice(pdf.get_toc(max_depth=6), _MAX_BOOKMARKS):
            target = bookmark.get_dest()
            index = target.get_index() if target is not None else None
            title = plain_heading(clean(bookmark.get_title()))
            path = {level: above for level, above in path.items() if level < bookmark.level}
            path[bookmark.level] = title
            if index is not None and 0 <= index < n_pages:
                sections.setdefault(index, SECTION_SEPARATOR.join(path.values()))
    except (pypdfium2.PdfiumError, UnicodeDecodeError):
        return sections  # a broken outline costs the section names only
    return sections
