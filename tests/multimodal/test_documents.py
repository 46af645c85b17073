"""Documents: text, pages, headings and titles of every format; bad input says what is wrong; nothing is fetched."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import sys
import threading
import zipfile
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.multimodal import documents, documents_archive, documents_pdf
from hearth.multimodal.documents import DocumentText, read_document, render_page
from hearth.multimodal.documents_plain import clean
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError

sys.path.insert(0, str(Path(__file__).parent))
from archives import with_member
from minimal_pdf import SCAN, make_pdf

MANUAL = make_pdf(
    [["The printer is in room 12."], [], SCAN, ["Hold the button for ten seconds."], ["It blinks twice."]],
    title="The Printer Manual",
    bookmarks=[("Places", 0), ("Reset", 3)],
)


def word_file() -> bytes:
    document = docx.Document()
    document.add_heading("Guide", 0)
    document.add_paragraph("Welcome to the guide.")
    document.add_heading("Reset", 1)
    document.add_paragraph("Hold the button.", style="List Bullet")
    table = document.add_table(2, 2)
    for row, column, text in ((0, 0, "Part"), (0, 1, "Price"), (1, 0, "Button"), (1, 1, "3 euro")):
        table.cell(row, column).text = text
    document.add_heading("Lamp", 2)
    document.add_paragraph("It blinks twice.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def places(document: DocumentText) -> list[tuple[int | None, str]]:
    return [(page.number, page.section) for page in document.pages]


def test_pdf_pages_sections_title_and_scans() -> None:
    read = read_document(MANUAL, "m.pdf")
    assert read.title == "The Printer Manual"
    assert read.mime == "application/pdf"
    assert places(read) == [(1, "Places"), (4, "Reset"), (5, "Reset")]
    assert read.pages[1].text == "Hold the button for ten seconds."
    assert read.scanned_pages == (3,)
    assert read.notices == ("m.pdf: page 3 has no text; add it as a picture",)


def test_pdf_lines_of_a_paragraph_are_joined_and_lists_are_not() -> None:
    lines = [
        "The meeting of the committee begins at nine in the",
        "morning, in the room on the second floor, and all of",
    ]
    lines += ["the members bring their badge.", "- one thing to remember is written in this very line", "- two"]
    text = read_document(make_pdf([lines]), "a.pdf").text
    assert text.split("\n")[0] == " ".join(lines[:3])
    assert text.split("\n")[1:] == lines[3:]


def test_a_pdf_of_scans_only_offers_its_pages_as_pictures() -> None:
    read = read_document(make_pdf([SCAN, SCAN, SCAN, [], SCAN]), "scan.pdf")
    assert read.pages == ()
    assert read.text == ""
    assert read.notices == ("scan.pdf: pages 1–3, 5 have no text; add them as pictures",)
    image = render_page(make_pdf([SCAN]), 1, width_px=300)
    assert image.mode == "RGB"
    assert abs(image.width - 300) <= 1
    assert abs(image.height - 300 * 842 / 595) <= 2
    assert image.getpixel((150, 200)) == (128, 128, 128)
    assert image.getpixel((2, 2)) == (255, 255, 255)


def test_render_page_refuses_pages_that_are_not_there() -> None:
    for number in (0, 6, -1):
        with pytest.raises(PerceptionError, match=rf"m\.pdf has no page {number}; its pages are 1 to 5"):
            render_page(MANUAL, number, name="m.pdf")
    with pytest.raises(PerceptionError, match="0 pixels wide"):
        render_page(MANUAL, 1, width_px=0)


def test_pages_of_absurd_shape_are_drawn_small() -> None:
    image = render_page(MANUAL.replace(b"[0 0 595 842]", b"[0 0 1 99999]"), 1)
    assert max(image.size) <= documents_pdf.MAX_RENDERED_EDGE_PX + 1


def test_encrypted_pdf() -> None:
    encrypted = make_pdf([["secret"]], encrypted=True)
    for read in (lambda: read_document(encrypted, "letter.pdf"), lambda: render_page(encrypted, 1, name="letter.pdf")):
        with pytest.raises(PerceptionError, match=r"^letter\.pdf is encrypted .*without a password"):
            read()


def test_pdf_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_pdf, "MAX_PAGES", 4)
    with pytest.raises(MediaTooLargeError, match=r"^m\.pdf has 5 pages, more than the limit of 4"):
        read_document(MANUAL, "m.pdf")
    monkeypatch.setattr(documents_pdf, "MAX_PAGES", 5)
    monkeypatch.setattr(documents_pdf, "MAX_CHARS", 40)
    with pytest.raises(MediaTooLargeError, match="more than 40 characters by page 4"):
        read_document(MANUAL, "m.pdf")


def test_pdf_in_several_threads() -> None:
    results: list[str] = []

    def work() -> None:
        for _ in range(5):
            results.append(read_document(MANUAL, "m.pdf").text)
            render_page(MANUAL, 3, width_px=50)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert len(set(results)) == 1


def test_word_headings_tables_and_lists() -> None:
    read = read_document(word_file(), "g.docx")
    assert read.title == "Guide"
    assert places(read) == [(None, "Guide"), (None, "Guide › Reset"), (None, "Guide › Reset › Lamp")]
    assert read.pages[1].text == "Reset\n\n- Hold the button.\n\nPart | Price\nButton | 3 euro"


def test_zip_bomb_is_refused_before_unpacking() -> None:
    bomb = with_member(word_file(), "word/document.xml", b"<w>" + b" " * (documents_archive.MAX_XML_BYTES + 1))
    assert len(bomb) < 300_000
    with pytest.raises(MediaTooLargeError, match=r"^b\.docx has [\d,]+ bytes of XML in one part, more than the limit"):
        read_document(bomb, "b.docx")


def test_word_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_archive, "MAX_MEMBERS", 3)
    with pytest.raises(MediaTooLargeError, match=r"files inside it, more than the limit of 3"):
        read_document(word_file(), "b.docx")


def test_a_cell_that_claims_a_billion_columns_is_read_once() -> None:
    with zipfile.ZipFile(io.BytesIO(word_file())) as archive:
        xml = archive.read("word/document.xml")
    hostile = xml.replace(b"<w:tcPr>", b'<w:tcPr><w:gridSpan w:val="1000000000"/>')
    assert hostile != xml
    assert "Button | 3 euro" in read_document(with_member(word_file(), "word/document.xml", hostile), "t.docx").text


def test_entities_in_word_xml_are_not_expanded() -> None:
    with zipfile.ZipFile(io.BytesIO(word_file())) as archive:
        xml = archive.read("word/document.xml")
    start = xml.index(b"<w:document")
    doctype = b'<!DOCTYPE x [<!ENTITY a "laugh"><!ENTITY b SYSTEM "file:///etc/hostname">]>'
    hostile = xml[:start] + doctype + xml[start:].replace(b"Welcome", b"&a;&b; Welcome")
    text = read_document(with_member(word_file(), "word/document.xml", hostile), "e.docx").text
    assert "laugh" not in text
    assert "Hold the button." in text


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_truncated_files(share: float) -> None:
    for data, name in ((word_file(), "half.docx"), (MANUAL, "half.pdf")):
        with contextlib.suppress(PerceptionError):  # pdfium repairs some
            read_document(data[: int(len(data) * share)], name)
    with pytest.raises(PerceptionError, match=r"^half\.docx is a Word document that is truncated or damaged"):
        read_document(word_file()[: int(len(word_file()) * share)], "half.docx")
    with pytest.raises(PerceptionError, match=r"^half\.pdf is a PDF that is truncated or damaged"):
        read_document(MANUAL[:200], "half.pdf")


def test_markdown_sections() -> None:
    text = "Intro\n\n# The *first* title #\nOne\n## [Part](http://x)\nTwo\n```\n# no heading\n```\n# Second\nThree"
    read = read_document(text.encode(), "a.md")
    assert read.title == "The first title"
    assert [page.section for page in read.pages] == ["", "The first title", "The first title › Part", "Second"]
    assert "# no heading" in read.pages[2].text


PAGE = b"""<!doctype html><html><head><title>The &amp; page</title><script>var secret = 1;</script></head><body>
<nav>Home About</nav><h1>Printer</h1><p>The printer is in room 12 on the second floor.</p><h2>Reset</h2>
<p>Hold the button for ten seconds.</p><img src="http://127.0.0.1:9/x.png"><!-- hidden --></body></html>"""


def test_html() -> None:
    read = read_document(PAGE, "p.html")
    assert read.title == "The & page"
    assert [page.section for page in read.pages if page.section] == ["Printer", "Printer › Reset"]
    assert "Hold the button for ten seconds." in read.text
    for absent in ("secret", "hidden", "127.0.0.1", "<"):
        assert absent not in read.text


def test_html_article_without_its_navigation() -> None:
    words = "The committee met on Tuesday and spoke about the new library, which opens in spring. " * 8
    menu = "".join(f"<li><a href='/{i}'>Item {i}</a></li>" for i in range(30))
    body = f"<nav><ul>{menu}</ul></nav><article><h1>News</h1><p>{words}</p><h2>More</h2><p>{words}</p></article>"
    read = read_document(f"<html><body>{body}</body></html>".encode(), "n.html")
    assert "opens in spring" in read.text
    assert "Item 17" not in read.text


def test_html_in_a_declared_encoding_and_odd_markup() -> None:
    page = "<html><head><meta charset='windows-1251'></head><body><p>Привет, мир</p></body></html>"
    assert "Привет, мир" in read_document(page.encode("cp1251"), "r.html").text
    assert "hello" in read_document(b"<html>" + b"<div>" * 30_000 + b"hello", "deep.html").text
    assert "end" in read_document(b"<html><p>" + b"<" * 200_000 + b"<p>end", "open.html").text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Größe – 日本語"),
        ("utf-8-sig", "Größe"),
        ("utf-16", "Größe – 日本語"),
        ("cp1252", "Die Größe beträgt 5 €, sagt der Café-Besitzer."),
        ("cp1252", "naïve résumé of the meeting"),
        ("cp1251", "Привет, как дела? Это простой текст на русском языке."),
        ("shift_jis", "こんにちは世界。これはテストです。会議は十二号室で行われます。"),
    ],
)
def test_encodings(encoding: str, text: str) -> None:
    assert read_document(text.encode(encoding), "t.txt").text == text


def test_a_broken_byte_does_not_turn_utf8_into_another_encoding() -> None:
    data = "Größe, Käse, Übel, für, schön, Äpfel".encode()
    assert read_document(data + b" \xff end", "t.txt").text == data.decode() + " � end"


@pytest.mark.parametrize("name", ["app.log", "x.json", "README", "UPPER.TXT", "a.txt"])
def test_other_texts_are_plain(name: str) -> None:
    read = read_document(b"a,b\r\n1,2\r\n", name)
    assert (read.text, read.mime, read.title) == ("a,b\n1,2", "text/plain", name.split(".")[0])


@pytest.mark.parametrize("data", [b" \n\t ", b"<html><body></body></html>", make_pdf([[]]), b"\xef\xbb\xbf"])
def test_documents_without_text(data: bytes) -> None:
    with pytest.raises(PerceptionError, match=r"^e\.x has no text in it"):
        read_document(data, "e.x")


def test_word_file_without_text() -> None:
    out = io.BytesIO()
    docx.Document().save(out)
    with pytest.raises(PerceptionError, match="has no text in it"):
        read_document(out.getvalue(), "e.docx")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"^f is empty \(0 bytes\)"),
        (b"\x89PNG\r\n\x1a\n", "^f is not a document: it is a PNG picture; add it as a picture"),
        (b"fLaC\0\0\0\x22", "^f is not a document: it is a FLAC recording; add it as a sound"),
        (b"{\\rtf1}", "^f is an RTF document, which is not read; save it as one of: plain text, Markdown, PDF"),
        (bytes(range(256)), "^f is binary data of an unknown kind, which is not read"),
    ],
)
def test_not_a_document(data: bytes, message: str) -> None:
    with pytest.raises(PerceptionError, match=message) as caught:
        read_document(data, "f")
    assert not data or isinstance(caught.value, UnsupportedMediaError)


def test_size_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_CHARS", 10)
    with pytest.raises(MediaTooLargeError, match=r"^t\.txt has 16 characters, more than the limit of 10"):
        read_document(b"0123456789abcdef", "t.txt")
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    with pytest.raises(MediaTooLargeError, match=r"^t\.txt has 16 bytes, more than the limit of 10"):
        read_document(b"0123456789abcdef", "t.txt")


def test_progress_and_cancel() -> None:
    seen: list[float] = []
    read_document(MANUAL, "m.pdf", on_progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert len(seen) >= 5
    for data, name in ((MANUAL, "m.pdf"), (word_file(), "g.docx")):
        answers = iter([False, True])
        with pytest.raises(PerceptionCancelled, match=f"reading {name} was cancelled"):
            read_document(data, name, cancelled=lambda answers=answers: next(answers))  # type: ignore[misc]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for data, name in (
        (PAGE, "p.html"),
        (MANUAL, "m.pdf"),
        (word_file(), "g.docx"),
        (b"![x](http://127.0.0.1/)", "a.md"),
    ):
        assert read_document(data, name).text


@pytest.mark.parametrize("name", ["m.pdf", "g.docx", "p.html"])
def test_damaged_bytes_give_a_document_or_a_perception_error(name: str) -> None:
    original = {"m.pdf": MANUAL, "g.docx": word_file(), "p.html": PAGE}[name]
    rng = random.Random(3)
    for _ in range(120):
        data = bytearray(original)
        for _ in range(rng.randint(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(PerceptionError):
            assert read_document(bytes(data), name).sha256


@given(st.text())
def test_clean_text_can_be_stored(text: str) -> None:
    cleaned = clean(text + "\ud800\x00\r\n\r\n\r\n x \t\n")
    cleaned.encode("utf-8")
    assert "\x00" not in cleaned
    assert "\r" not in cleaned
    assert "\n\n\n" not in cleaned
    assert clean(cleaned) == cleaned


def test_text_is_the_pages_joined() -> None:
    read = read_document(MANUAL, "m.pdf")
    for page, start in zip(read.pages, read.page_starts, strict=True):
        assert read.text[start : start + len(page.text)] == page.text
