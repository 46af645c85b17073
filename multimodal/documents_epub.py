"""Reads books (epub): the chapters in reading order, headings as sections. Nothing outside the file is looked at."""

from __future__ import annotations

import zipfile
from typing import Any
from urllib.parse import unquote

from hearth.multimodal.documents_archive import joined_path, opened, parse_xml, read_part
from hearth.multimodal.documents_html import visible_text
from hearth.multimodal.documents_plain import clean, decode, plain_heading, read_markdown
from hearth.multimodal.documents_types import SECTION_SEPARATOR, Page, ReadPages, Watch
from hearth.multimodal.errors import PerceptionError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_READ = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def read_epub(data: bytes, watch: Watch) -> ReadPages:
    """Pages by heading, each below its chapter's name in the table of contents.

    Raises MediaTooLargeError (unpacked size), PerceptionError (protected, damaged), PerceptionCancelled.
    """
    with opened(data, watch, "an EPUB book") as archive:
        root = parse_xml(read_part(archive, _CONTAINER, watch.name)).find(".//{*}rootfile")
        package = joined_path("", unquote(root.get("full-path")))
        book = parse_xml(read_part(archive, package, watch.name))
        items = {item.get("id"): item for item in book.iterfind("{*}manifest/{*}item")}
        names = _contents(archive, book, package, items, watch.name)
        chapters = _chapters(book, package, items)
        _refuse_protected(archive, chapters, watch.name)
        pages: list[Page] = []
        for index, chapter in enumerate(chapters):
            watch.step(index / len(chapters))
            if chapter in archive.NameToInfo:
                pages += _pages(read_part(archive, chapter, watch.name), names.get(chapter, ""))
        title = book.findtext("{*}metadata/{*}title") or ""
    return ReadPages(plain_heading(clean(title)) or None, tuple(pages))


def _chapters(book: Any, package: str, items: dict[str, Any]) -> list[str]:
    """Places of the chapters in the archive, in reading order; each once, without the table of contents.

    Raises ValueError (there is no list of them).
    """
    if book.find("{*}spine") is None:
        raise ValueError("it has no list of chapters")
    places = []
    for entry in book.iterfind("{*}spine/{*}itemref"):
        item = items.get(entry.get("idref"))
        if item is not None and item.get("media-type") in _READ and "nav" not in item.get("properties", "").split():
            places.append(_place(package, item.get("href", "")))
    return list(dict.fromkeys(places))


def _place(part: str, reference: str) -> str:
    return joined_path(part, unquote(reference.partition("#")[0]))


def _contents(archive: zipfile.ZipFile, book: Any, package: str, items: dict[str, Any], name: str) -> dict[str, str]:
    """Name of each chapter by its place, from the book's navigation page (EPUB 3) or its NCX (EPUB 2)."""
    spine = book.find("{*}spine")
    navigation = next((item for item in items.values() if "nav" in item.get("properties", "").split()), None)
    ncx = items.get(spine.get("toc")) if spine is not None else None
    names: dict[str, str] = {}
    for item in (navigation, ncx):
        place = "" if item is None else _place(package, item.get("href", ""))
        if place not in archive.NameToInfo:
            continue
        try:
            tree = parse_xml(read_part(archive, place, name))
        except SyntaxError:
            continue  # costs the names only
        links = [(link.get("href", ""), "".join(link.itertext())) for link in tree.iter("{*}a")]
        for point in tree.iter("{*}navPoint"):
            content = point.find("{*}content")
            label = point.findtext("{*}navLabel/{*}text")
            links.append(("" if content is None else content.get("src", ""), label or ""))
        for reference, label in links:
            if label.strip():
                names.setdefault(_place(place, reference), plain_heading(clean(label)))
    return names


def _refuse_protected(archive: zipfile.ZipFile, chapters: list[str], name: str) -> None:
    if _ENCRYPTION not in archive.NameToInfo:
        return
    references = parse_xml(read_part(archive, _ENCRYPTION, name)).iter("{*}CipherReference")
    protected = {unquote(reference.get("URI", "")).lstrip("/") for reference in references}
    n_protected = sum(chapter in protected for chapter in chapters)
    if n_protected:
        raise PerceptionError(
            f"{name} is copy-protected: {n_protected} of its {len(chapters)} chapters are encrypted; "
            "use a copy without protection"
        )


def _pages(chapter: bytes, name: str) -> list[Page]:
    pages = []
    for page in read_markdown(visible_text(decode(chapter))).pages:
        above = name if page.section.split(SECTION_SEPARATOR)[0].casefold() != name.casefold() else ""
        section = SECTION_SEPARATOR.join(part for part in (above, page.section) if part)
        pages.append(Page(None, page.text, section))
    return pages
