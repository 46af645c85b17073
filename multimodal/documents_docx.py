"""Reads Word documents (docx): paragraphs, headings, lists and tables, in the order in which they stand.

Footnotes, headers and footers are not read. The archive's sizes are checked before anything is unpacked.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from hearth.multimodal.documents_archive import opened
from hearth.multimodal.documents_plain import clean, plain_heading
from hearth.multimodal.documents_types import SECTION_SEPARATOR, Page, ReadPages, Watch

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_BREAKS = {_WORD + "tab": "\t", _WORD + "br": "\n", _WORD + "cr": "\n"}
_PROGRESS_EVERY = 200  # blocks


def read_docx(data: bytes, watch: Watch) -> ReadPages:
    """Pages by heading. Raises MediaTooLargeError (unpacked size), PerceptionError (damaged), PerceptionCancelled."""
    from docx import Document
    from docx.opc.exceptions import OpcError

    with opened(data, watch, "a Word document", also=(OpcError,)):
        document = Document(io.BytesIO(data))
        title = (document.core_properties.title or "").strip() or None
        blocks = list(_blocks(document, watch))
    pages = tuple(_pages(blocks))
    headings = (text for level, text in blocks if level is not None)
    return ReadPages(title or next(headings, None), pages)


def _blocks(document: Any, watch: Watch) -> Iterator[tuple[int | None, str]]:
    """(level of a heading or None, text) for each paragraph and table that is not empty."""
    from docx.text.paragraph import Paragraph

    names = {style.style_id: style.name for style in document.styles}  # python-docx searches for each paragraph's
    total = max(1, len(document.element.body))
    for index, block in enumerate(document.iter_inner_content()):
        if index % _PROGRESS_EVERY == 0:
            watch.step(index / total)
        if isinstance(block, Paragraph):
            style = names.get(block._p.style) or ""
            level, text = _heading_level(style), clean(_text(block._p))
            if level is not None:
                text = plain_heading(text)
            elif style.startswith("List"):
                text = "- " + text if text else ""
        else:
            level, text = None, _table(block)
        if text.strip():
            yield level, text


def _heading_level(name: str) -> int | None:
    """0 for the style of a title, 1 to 9 for those of headings, None for others."""
    if name == "Title":
        return 0
    digit = name.removeprefix("Heading ")
    return int(digit) if name.startswith("Heading ") and digit in set("123456789") else None


def _text(element: Any) -> str:
    """The text below an XML element, tracked insertions included, deletions and the older copy of a text box not."""
    parts = []
    for node in element.iter(_WORD + "t", *_BREAKS):
        if next(node.iterancestors(_FALLBACK), None) is None:
            parts.append(_BREAKS.get(node.tag) or node.text or "")
    return "".join(parts)


def _table(table: Any) -> str:
    """A line for each row, its cells separated by " | ".

    Goes by the XML: python-docx's ``row.cells`` repeats a cell as often as the file claims it spans columns.
    """
    rows = []
    for row in table._tbl.tr_lst:
        cells = [" ".join(" ".join(_text(p) for p in cell.iter(_WORD + "p")).split()) for cell in row.tc_lst]
        if any(cells):
            rows.append(" | ".join(cells))
    return clean("\n".join(rows))


def _pages(blocks: list[tuple[int | None, str]]) -> Iterator[Page]:
    path: dict[int, str] = {}
    kept: list[str] = []
    for level, text in blocks:
        if level is not None:
            if kept:
                yield Page(None, "\n\n".join(kept), SECTION_SEPARATOR.join(path.values()))
            kept = []
            path = {above: title for above, title in path.items() if above < level}
            path[level] = text
        kept.append(text)
    if kept:
        yield Page(None, "\n\n".join(kept), SECTION_SEPARATOR.join(path.values()))
