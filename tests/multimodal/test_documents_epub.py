"""EPUB: chapters in reading order below their names; protected, damaged and hostile books are refused."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import sys
import zipfile
from pathlib import Path

import pytest

from hearth.multimodal import documents_archive
from hearth.multimodal.documents import read_document
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError
from hearth.multimodal.passages import split_passages

sys.path.insert(0, str(Path(__file__).parent))
from archives import ENTITIES, make_zip, with_member

CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Lamp &amp; I</dc:title></metadata><manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="two" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/one.xhtml" media-type="application/xhtml+xml"/>
<item id="pic" href="cover.png" media-type="image/png"/>
<item id="far" href="http://127.0.0.1:9/x.xhtml" media-type="application/xhtml+xml"/>
<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/></manifest>
<spine toc="ncx"><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/><itemref idref="one"/>
<itemref idref="pic"/><itemref idref="far"/><itemref idref="absent"/></spine></package>"""
NAV = """<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol><li><a href="text/one.xhtml">First light</a></li>
<li><a href="text/two%20b.xhtml#start">The second part</a></li></ol></nav></body></html>"""
NCX = """<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Old name</text></navLabel>
<content src="text/one.xhtml"/></navPoint></navMap></ncx>"""
ONE = """<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>
<script>var secret = 1;</script></head><body><h1>First light</h1><p>The lamp was <i>off</i>.</p>
<h2>Evening</h2><p>Then it was on – at last.</p><img src="http://127.0.0.1:9/x.png"/></body></html>"""
TWO = "<html xmlns='http://www.w3.org/1999/xhtml'><body><p>It never went out again.</p></body></html>"
MEMBERS: dict[str, str | bytes] = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "OEBPS/book.opf": PACKAGE,
    "OEBPS/nav.xhtml": NAV,
    "OEBPS/toc.ncx": NCX,
    "OEBPS/text/one.xhtml": ONE,
    "OEBPS/text/two b.xhtml": TWO,
}
BOOK = make_zip(MEMBERS)


def test_chapters_in_reading_order_with_their_names() -> None:
    read = read_document(BOOK, "b.epub")
    assert read.title == "The Lamp & I"
    assert read.mime == "application/epub+zip"
    assert [page.section for page in read.pages] == ["First light", "First light › Evening", "The second part"]
    assert read.text.count("The lamp was off.") == 1
    assert "Then it was on – at last." in read.pages[1].text
    for absent in ("secret", "127.0.0.1", "<"):
        assert absent not in read.text
    assert [passage.section for passage in split_passages(read)][-1] == "The second part"


def test_names_from_the_older_table_of_contents() -> None:
    book = with_member(BOOK, "OEBPS/nav.xhtml", None)
    assert read_document(book, "b.epub").pages[0].section == "Old name › First light"
    broken = with_member(BOOK, "OEBPS/nav.xhtml", b"<html><ol>")
    assert read_document(broken, "b.epub").pages[0].section == "Old name › First light"


def test_content_decides_not_the_name() -> None:
    assert read_document(BOOK, "b.zip").mime == "application/epub+zip"


def test_protected_books_are_refused_and_obfuscated_fonts_are_not() -> None:
    entry = "<encryption xmlns:e='e'><e:CipherReference URI='%s'/></encryption>"
    with pytest.raises(
        PerceptionError, match=r"^b\.epub is copy-protected: 1 of its 3 chapters are encrypted; use a copy"
    ):
        read_document(with_member(BOOK, "META-INF/encryption.xml", (entry % "OEBPS/text/one.xhtml").encode()), "b.epub")
    assert read_document(with_member(BOOK, "META-INF/encryption.xml", (entry % "OEBPS/f.otf").encode()), "b.epub").pages


def test_entities_bombs_and_damage() -> None:
    package = ENTITIES.decode() + PACKAGE.partition("?>")[2].replace("The Lamp", "&a;&b; The Lamp")
    assert "laugh" not in read_document(with_member(BOOK, "OEBPS/book.opf", package.encode()), "b.epub").title
    bomb = with_member(BOOK, "OEBPS/text/one.xhtml", b"<p>" + b" " * (documents_archive.MAX_XML_BYTES + 1))
    with pytest.raises(MediaTooLargeError, match="bytes of XML in one part, more than the limit"):
        read_document(bomb, "b.epub")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # not compressed, as the format wants it of the first member
        for name, content in {"mimetype": "application/epub+zip", **MEMBERS}.items():
            archive.writestr(name, content)
    stored = out.getvalue()
    with pytest.raises(PerceptionError, match=r"^h\.epub is an EPUB book that is truncated or damaged"):
        read_document(stored[: len(stored) // 2], "h.epub")
    for name in ("META-INF/container.xml", "OEBPS/book.opf"):
        with pytest.raises(PerceptionError, match="truncated or damaged"):
            read_document(with_member(BOOK, name, b"<x/>"), "d.epub")
    rng = random.Random(3)
    for _ in range(60):
        data = bytearray(BOOK)
        for _ in range(8):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(PerceptionError):
            read_document(bytes(data), "x.epub")


def test_a_chapter_of_another_sort_cannot_be_a_bomb() -> None:
    package = PACKAGE.replace("text/one.xhtml", "cover.png")
    book = with_member(BOOK, "OEBPS/book.opf", package.encode())
    with pytest.raises(MediaTooLargeError, match="bytes in one part"):
        read_document(with_member(book, "OEBPS/cover.png", b" " * (documents_archive.MAX_XML_BYTES + 1)), "b.epub")


def test_members_and_unpacked_bytes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_archive, "MAX_UNPACKED_BYTES", 1_000)
    with pytest.raises(MediaTooLargeError, match=r"bytes when unpacked, more than the limit of 1,000"):
        read_document(BOOK, "b.epub")


def test_progress_and_cancel() -> None:
    chapters = {f"OEBPS/c{n}.xhtml": TWO for n in range(300)}
    items = "".join(f"<item id='c{n}' href='c{n}.xhtml' media-type='text/html'/>" for n in range(300))
    entries = "".join(f"<itemref idref='c{n}'/>" for n in range(300))
    package = (
        f"<package xmlns='http://www.idpf.org/2007/opf'><manifest>{items}</manifest><spine>{entries}</spine></package>"
    )
    book = make_zip({**MEMBERS, **chapters, "OEBPS/book.opf": package})
    seen: list[float] = []
    assert len(read_document(book, "long.epub", on_progress=seen.append).pages) == 300
    assert seen == sorted(seen)
    assert len(seen) > 300
    answers = iter([False] * 20 + [True])
    with pytest.raises(PerceptionCancelled):
        read_document(book, "long.epub", cancelled=lambda: next(answers))


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert read_document(BOOK, "b.epub").text
