"""Reads PowerPoint presentations (pptx): a page for each slide, in the order in which they are shown.

A slide's title is its section; tables are lines of cells, speaker's notes stand at the end. Slides are parsed one at a
time, so memory stays small and a cancel is noticed. Charts and SmartArt are not read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from hearth.multimodal.documents_archive import opened, parse_xml, read_part, relations
from hearth.multimodal.documents_plain import clean, plain_heading
from hearth.multimodal.documents_types import Page, ReadPages, Watch
from hearth.multimodal.errors import MediaTooLargeError

MAX_SLIDES = 5_000
_MAIN = "ppt/presentation.xml"
_TITLES = ("title", "ctrTitle")
_FURNITURE = ("sldNum", "dt", "ftr", "hdr", "sldImg")  # placeholders that say the same on every slide


def read_pptx(data: bytes, watch: Watch) -> ReadPages:
    """A page for each slide with text. The title is the first slide's, else the one in the properties.

    Raises MediaTooLargeError (slides, unpacked size), PerceptionError (encrypted, damaged), PerceptionCancelled.
    """
    with opened(data, watch, "a PowerPoint presentation") as archive:
        slides = _slides(archive, watch.name)
        if len(slides) > MAX_SLIDES:
            raise MediaTooLargeError(
                f"{watch.name} has {len(slides):,} slides, more than the limit of {MAX_SLIDES:,}; split it"
            )
        pages = []
        for index, slide in enumerate(slides):
            watch.step(index / len(slides))
            section, text = _slide(archive, slide, watch.name)
            if text:
                pages.append(Page(index + 1, text, section))
        title = pages[0].section if pages else ""
        return ReadPages(title or _property_title(archive, watch.name), tuple(pages))


def _slides(archive: zipfile.ZipFile, name: str) -> list[str]:
    """The slides' places in the archive, in order."""
    targets = {key: path for key, (_, path) in relations(archive, _MAIN, name).items()}
    presentation = parse_xml(read_part(archive, _MAIN, name))
    keys = [
        value
        for entry in presentation.iter("{*}sldId")
        for attribute, value in entry.attrib.items()
        if attribute.endswith("}id")
    ]
    return list(dict.fromkeys(targets[key] for key in keys))


def _slide(archive: zipfile.ZipFile, part: str, name: str) -> tuple[str, str]:
    """(title, all text) of a slide."""
    title, texts = "", []
    for kind, text in _texts(parse_xml(read_part(archive, part, name))):
        if kind in _TITLES and not title:
            title = plain_heading(text)
        else:
            texts.append(text)
    for kind, notes in relations(archive, part, name).values():
        if kind == "notesSlide" and notes in archive.NameToInfo:
            tree = parse_xml(read_part(archive, notes, name))
            texts += [f"Notes: {text}" for placeholder, text in _texts(tree) if placeholder == "body"]
    return title, "\n\n".join(text for text in (title, *texts) if text)


def _texts(tree: Any) -> Iterator[tuple[str, str]]:
    """(sort of placeholder or "", text) for each shape and table that has some, in the order of the file."""
    for shape in tree.iter("{*}sp", "{*}tbl"):
        if next(shape.iterancestors("{*}Fallback"), None) is not None:
            continue
        if shape.tag.endswith("}tbl"):
            kind, text = "", "\n".join(_rows(shape))
        else:
            placeholder = shape.find("{*}nvSpPr/{*}nvPr/{*}ph")
            kind = placeholder.get("type", "") if placeholder is not None else ""
            text = "\n".join(_paragraphs(shape))
        text = clean(text).strip()
        if text and kind not in _FURNITURE:
            yield kind, text


def _paragraphs(element: Any) -> Iterator[str]:
    for paragraph in element.iter("{*}p"):
        yield "".join("\n" if node.tag.endswith("}br") else node.text or "" for node in paragraph.iter("{*}t", "{*}br"))


def _rows(table: Any) -> Iterator[str]:
    """A line for each row; the parts of a merged cell behind its first are empty."""
    for row in table.iter("{*}tr"):
        cells = [" ".join(" ".join(_paragraphs(cell)).split()) for cell in row.iterchildren("{*}tc")]
        if any(cells):
            yield " | ".join(cells)


def _property_title(archive: zipfile.ZipFile, name: str) -> str | None:
    if "docProps/core.xml" not in archive.NameToInfo:
        return None
    title = parse_xml(read_part(archive, "docProps/core.xml", name)).findtext("{*}title")
    return (title or "").strip() or None
