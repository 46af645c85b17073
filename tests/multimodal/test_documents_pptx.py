"""PowerPoint: slides as pages with titles, tables and notes; hostile files say what is wrong."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from pathlib import Path

import pptx
import pytest
from pptx.util import Inches

from hearth.multimodal import documents_archive, documents_pptx
from hearth.multimodal.documents import read_document
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError
from hearth.multimodal.passages import split_passages

sys.path.insert(0, str(Path(__file__).parent))
from archives import ENTITIES, encrypted, member, with_member


def presentation() -> bytes:
    made = pptx.Presentation()
    made.core_properties.title = "PowerPoint Presentation"
    first = made.slides.add_slide(made.slide_layouts[0])
    first.shapes.title.text = "The new printer"
    first.placeholders[1].text = "For all floors"
    second = made.slides.add_slide(made.slide_layouts[5])
    second.shapes.title.text = "Prices"
    table = second.shapes.add_table(3, 2, Inches(1), Inches(2), Inches(4), Inches(2)).table
    for row, texts in enumerate((("Part", "Price"), ("Button", "3 euro"), ("Lamp", "5 euro"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    second.notes_slide.notes_text_frame.text = "Say that the lamp is included."
    made.slides.add_slide(made.slide_layouts[6])
    fourth = made.slides.add_slide(made.slide_layouts[6])
    group = fourth.shapes.add_group_shape()
    box = group.shapes.add_textbox(0, 0, Inches(3), Inches(1)).text_frame
    box.text = "In a group"
    box.add_paragraph().text = "on two lines"
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


DECK = presentation()


def test_slides_are_pages_with_titles_tables_and_notes() -> None:
    read = read_document(DECK, "deck.pptx")
    assert read.title == "The new printer"
    assert [(page.number, page.section) for page in read.pages] == [(1, "The new printer"), (2, "Prices"), (4, "")]
    assert read.pages[0].text == "The new printer\n\nFor all floors"
    table = "Part | Price\nButton | 3 euro\nLamp | 5 euro"
    assert read.pages[1].text == f"Prices\n\n{table}\n\nNotes: Say that the lamp is included."
    assert read.pages[2].text == "In a group\non two lines"
    assert [(passage.page, passage.section) for passage in split_passages(read)][1] == (2, "Prices")


def test_the_order_is_that_of_the_presentation_not_of_the_files() -> None:
    made = pptx.Presentation(io.BytesIO(DECK))
    order = made.slides._sldIdLst
    order.insert(0, order[1])
    out = io.BytesIO()
    made.save(out)
    # python-pptx renames slides when it saves; the order of its list is what counts either way
    assert [page.section for page in read_document(out.getvalue(), "d.pptx").pages][:2] == ["Prices", "The new printer"]


def test_progress_and_cancel() -> None:
    seen: list[float] = []
    read_document(DECK, "d.pptx", on_progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) >= 5
    answers = iter([False, False, True])
    with pytest.raises(PerceptionCancelled, match=r"reading d\.pptx was cancelled"):
        read_document(DECK, "d.pptx", cancelled=lambda: next(answers))


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_pptx, "MAX_SLIDES", 3)
    with pytest.raises(MediaTooLargeError, match=r"^d\.pptx has 4 slides, more than the limit of 3; split it"):
        read_document(DECK, "d.pptx")
    monkeypatch.setattr(documents_archive, "MAX_XML_IN_ALL_BYTES", 1_000)
    with pytest.raises(MediaTooLargeError, match=r"bytes of XML, more than the limit of 1,000"):
        read_document(DECK, "d.pptx")


def test_zip_bomb() -> None:
    bomb = with_member(DECK, "ppt/slides/slide1.xml", b"<p>" + b" " * (documents_archive.MAX_XML_BYTES + 1))
    with pytest.raises(MediaTooLargeError, match="bytes of XML in one part, more than the limit"):
        read_document(bomb, "b.pptx")


def test_entities_are_not_expanded_and_nothing_outside_is_followed() -> None:
    slide = member(DECK, "ppt/slides/slide1.xml")
    at = slide.index(b"<p:sld")
    hostile = slide[:at] + ENTITIES + slide[at:].replace(b"For all", b"&a;&b; For all")
    text = read_document(with_member(DECK, "ppt/slides/slide1.xml", hostile), "e.pptx").text
    assert "laugh" not in text
    assert "The new printer" in text
    name = "ppt/slides/_rels/slide2.xml.rels"
    outside = member(DECK, name).replace(b"../notesSlides/", b"../../../../etc/")
    assert "Prices" in read_document(with_member(DECK, name, outside), "o.pptx").text


def test_deep_nesting_is_damage() -> None:
    deep = b'<p:sld xmlns:p="p">' + b"<p:grpSp>" * 5_000 + b"</p:grpSp>" * 5_000 + b"</p:sld>"
    with pytest.raises(PerceptionError, match=r"^d\.pptx is a PowerPoint presentation that is truncated or damaged"):
        read_document(with_member(DECK, "ppt/slides/slide1.xml", deep), "d.pptx")


def test_encrypted_truncated_and_damaged() -> None:
    with pytest.raises(PerceptionError, match=r"^e\.pptx is encrypted and needs a password; save a copy without"):
        read_document(encrypted(DECK), "e.pptx")
    with pytest.raises(PerceptionError, match=r"^h\.pptx is a PowerPoint presentation that is truncated or damaged"):
        read_document(DECK[: len(DECK) // 2], "h.pptx")
    with pytest.raises(PerceptionError, match="truncated or damaged"):
        read_document(with_member(DECK, "ppt/slides/slide2.xml", None), "m.pptx")
    rng = random.Random(3)
    for _ in range(30):
        data = bytearray(DECK)
        for _ in range(8):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(PerceptionError):
            read_document(bytes(data), "x.pptx")


def test_a_presentation_without_text() -> None:
    made = pptx.Presentation()
    made.slides.add_slide(made.slide_layouts[6])
    out = io.BytesIO()
    made.save(out)
    with pytest.raises(PerceptionError, match=r"^e\.pptx has no text in it"):
        read_document(out.getvalue(), "e.pptx")
