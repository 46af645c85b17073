"""Writes small PDF files for tests: lines of text, blank pages, pages that are pictures, bookmarks, a password."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SCAN = None  # in ``pages``: a page that is only a picture


def make_pdf(
    pages: Sequence[Sequence[str] | None],
    *,
    title: str = "",
    bookmarks: Sequence[tuple[str, int]] = (),
    encrypted: bool = False,
) -> bytes:
    """A PDF with a page for each of ``pages``: its lines, [] for a blank page, ``SCAN`` for a grey picture.

    ``bookmarks`` are (title, page from 0). ``encrypted`` asks for a password (the file's strings are no longer real).
    """
    objects: list[bytes] = [b"", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>", b""]
    objects[3] = _stream(
        bytes([128] * 64), b"/Type/XObject/Subtype/Image/Width 8/Height 8/ColorSpace/DeviceGray/BitsPerComponent 8"
    )
    kids = []
    for lines in pages:
        contents = b"q 400 0 0 600 50 50 cm /I Do Q" if lines is SCAN else _show(lines)
        objects.append(_stream(contents))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R"
            b"/Resources<</Font<</F 3 0 R>>/XObject<</I 4 0 R>>>>>>" % len(objects)
        )
        kids.append(len(objects))
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(b"%d 0 R" % kid for kid in kids), len(kids))
    outline = b""
    if bookmarks:
        first = len(objects) + 2
        for index, (name, page) in enumerate(bookmarks):
            following = b"/Next %d 0 R" % (first + index + 1) if index + 1 < len(bookmarks) else b""
            objects_entry = b"<</Title(%s)/Parent %d 0 R/Dest[%d 0 R/Fit]%s>>"
            objects.append(objects_entry % (_escaped(name), first - 1, kids[page], following))
        objects.insert(first - 2, b"<</Type/Outlines/First %d 0 R/Last %d 0 R>>" % (first, first + len(bookmarks) - 1))
        outline = b"/Outlines %d 0 R" % (first - 1)
    objects[0] = b"<</Type/Catalog/Pages 2 0 R%s>>" % outline
    objects.append(b"<</Title(%s)>>" % _escaped(title))
    return _file(objects, encrypted)


def make_placed_pdf(words: Sequence[tuple[int, int, str]]) -> bytes:
    """A PDF of one page with each of ``words``, (x, y, text), where it is placed, in points from the lower left."""
    placed = (b"BT /F 11 Tf 1 0 0 1 %d %d Tm (%s) Tj ET " % (x, y, _escaped(text)) for x, y, text in words)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F 3 0 R>>>>>>"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
    pages = b"<</Type/Pages/Kids[5 0 R]/Count 1>>"
    return _file([b"<</Type/Catalog/Pages 2 0 R>>", pages, font, _stream(b"".join(placed)), page, b"<<>>"], False)


def _show(lines: Sequence[str]) -> bytes:
    shown = b"".join(b"(%s) Tj T* " % _escaped(line) for line in lines)
    return b"BT /F 12 Tf 14 TL 50 780 Td " + shown + b"ET" if lines else b""


def _escaped(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(data), data)


def _file(objects: Sequence[bytes], encrypted: bool) -> bytes:
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"/Root 1 0 R/Info %d 0 R/Size %d" % (len(objects), len(objects) + 1)
    if encrypted:
        key = hashlib.sha256(b"a password nobody knows").hexdigest().encode()
        trailer += b"/ID[<%s><%s>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (
            key[:32],
            key[:32],
            key,
            key,
        )
    return bytes(out + b"trailer<<%s>>\nstartxref\n%d\n%%%%EOF\n" % (trailer, table))
