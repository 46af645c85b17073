"""Hostile documents for fuzz.py: PDFs, zip-based formats, mails, pages, tables and plain text."""

# ruff: noqa: E501 (hostile texts are long)

from __future__ import annotations

import importlib
import io
import random
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache

from fuzz_bytes import HOSTILE_NUMBERS, mutated
from sdist import ROOT

_BOMB = b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + n, (b"&%c;" % (97 + n)) * 10) for n in range(9)
) + b"]>"  # fmt: skip
_OUTSIDE = b"<!DOCTYPE x [<!ENTITY j SYSTEM 'file:///etc/hostname'>]>"


def pdf(objects: list[bytes], *, root: int = 1, trailer: bytes = b"", version: bytes = b"1.5") -> bytes:
    out, offsets = bytearray(b"%PDF-" + version + b"\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(out) + b"trailer<</Root %d 0 R/Size %d%s>>\nstartxref\n%d\n%%%%EOF\n" % (
        root,
        len(objects) + 1,
        trailer,
        table,
    )


def stream(data: bytes, entries: bytes = b"", *, deflated: bool = False) -> bytes:
    if deflated:
        data, entries = zlib.compress(data, 9), entries + b"/Filter/FlateDecode"
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(data), data)


def page(
    contents: bytes,
    *,
    resources: bytes = b"",
    box: bytes = b"0 0 595 842",
    deflated: bool = False,
    further: tuple[bytes, ...] = (),
) -> bytes:
    """A PDF of one page; its objects: 1 catalogue, 2 pages, 3 page, 4 contents, 5 font, 6.. ``further``."""
    return pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>%s>>>>" % (box, resources),
            stream(contents, deflated=deflated),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            *further,
        ]
    )  # fmt: skip


def _page_tree(kids: bytes, count: int, *more: bytes) -> bytes:
    return pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, count), *more])


def _words(n: int) -> bytes:
    return (
        b"BT /F 8 Tf "
        + b"".join(b"1 0 0 1 %d %d Tm (w%d) Tj " % (n % 97 * 6, n // 97 % 99 * 8, n) for n in range(n))
        + b"ET"
    )


def _deep_kids(depth: int) -> bytes:
    nodes = [b"<</Type/Pages/Kids[%d 0 R]/Count 1/Parent %d 0 R>>" % (n + 1, n - 1) for n in range(2, depth)]
    return pdf(
        [b"<</Type/Catalog/Pages 2 0 R>>", *nodes, b"<</Type/Page/Parent %d 0 R/MediaBox[0 0 9 9]>>" % (depth - 1)]
    )


_PLAIN_PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>"
_FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def _outline_cycle() -> bytes:
    return pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R/Outlines 5 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R>>",
            stream(b"BT ET"),
            b"<</Type/Outlines/First 6 0 R/Last 6 0 R>>",
            b"<</Title(a)/Parent 5 0 R/Next 7 0 R/First 6 0 R/Dest[3 0 R/Fit]>>",
            b"<</Title(b)/Parent 5 0 R/Next 6 0 R/Dest[3 0 R/Fit]>>",
        ]
    )


def _form_recursion(n: int, times: int) -> bytes:
    """Forms that each draw the next one several times."""
    forms = tuple(
        stream((b"/X%d Do " % (k + 1)) * times, b"/Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</X%d %d 0 R>>>>" % (k + 1, 7 + k))
        for k in range(n)
    )  # fmt: skip
    end = stream(b"BT /F 9 Tf (x) Tj ET", b"/Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</Font<</F 5 0 R>>>>")
    return page(b"/X0 Do", resources=b"/XObject<</X0 6 0 R>>", further=(*forms, end))


def _image(width: int, height: int, data: bytes, filter_: bytes = b"/Filter/FlateDecode", bits: int = 8) -> bytes:
    entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent %d%s"
    body = stream(data, entries % (width, height, bits, filter_))
    return page(b"q 500 0 0 500 9 9 cm /I Do Q", resources=b"/XObject<</I 6 0 R>>", further=(body,))


_PDFS: list[tuple[str, Callable[[], bytes]]] = [
    ("count 2^31", lambda: _page_tree(b"3 0 R", 2**31 - 1, _PLAIN_PAGE, stream(b""), _FONT)),
    ("count 2^64", lambda: _page_tree(b"3 0 R", 2**64, _PLAIN_PAGE, stream(b""), _FONT)),
    ("count -1", lambda: _page_tree(b"3 0 R", -1, _PLAIN_PAGE, stream(b""), _FONT)),
    ("5,000 times a page of words", lambda: _page_tree(b"3 0 R " * 5_000, 5_000, _PLAIN_PAGE, stream(_words(2_000)), _FONT)),
    ("100,000 pages", lambda: _page_tree(b"3 0 R " * 100_000, 100_000, _PLAIN_PAGE, stream(b""), _FONT)),
    ("page tree in itself", lambda: _page_tree(b"2 0 R 2 0 R", 4_000)),
    ("page tree 20,000 deep", lambda: _deep_kids(20_000)),
    ("page that is its contents", lambda: _page_tree(b"3 0 R", 1, b"<</Type/Page/Parent 2 0 R/Contents 3 0 R/MediaBox 3 0 R>>")),
    ("outline without an end", _outline_cycle),
    ("array 100,000 deep", lambda: page(b"[" * 100_000 + b"]" * 100_000 + b" TJ")),
    ("dictionary 100,000 deep", lambda: page(b"", resources=b"/A" + b"<</A" * 100_000 + b" 1" + b">>" * 100_000)),
    ("q 10^6 times", lambda: page(b"q " * 1_000_000)),
    ("forms, 10 drawn 10 times each", lambda: _form_recursion(9, 10)),
    ("forms, 30 drawn twice each", lambda: _form_recursion(30, 2)),
    ("form that draws itself", lambda: page(b"/X Do", resources=b"/XObject<</X 6 0 R>>", further=(stream(b"/X Do /X Do", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>"),))),
    ("contents of 900 MB", lambda: page(bytes(900_000_000), deflated=True)),
    ("text of 300 MB", lambda: page(b"BT /F 9 Tf " + b"(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) Tj " * 8_000_000, deflated=True)),
    ("2 million words", lambda: page(_words(2_000_000), deflated=True)),
    ("100,000 words", lambda: page(_words(100_000))),
    ("20,000 words", lambda: page(_words(20_000))),
    ("deflated 5 times", lambda: page(b"", further=(stream(zlib.compress(zlib.compress(bytes(300_000_000), 9), 9), b"/Filter[/FlateDecode/FlateDecode]"),), resources=b"/XObject<</I 6 0 R>>")),
    ("picture of 30,000 x 30,000", lambda: _image(30_000, 30_000, zlib.compress(bytes(100_000)))),
    ("picture of 8,000 x 8,000", lambda: _image(8_000, 8_000, zlib.compress(bytes(192_000_000), 9))),
    ("picture of 2^31", lambda: _image(2**31 - 1, 2**31 - 1, b"")),
    ("broken JPEG 2000", lambda: _image(2_000, 2_000, b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(range(256)), b"/Filter/JPXDecode")),
    ("broken JBIG2", lambda: _image(60_000, 60_000, bytes(range(256)), b"/Filter/JBIG2Decode", 1)),
    ("broken fax", lambda: _image(30_000, 30_000, bytes(range(256)), b"/Filter/CCITTFaxDecode/DecodeParms<</K -1/Columns 30000/Rows 30000>>", 1)),
    ("page of 10^9 points", lambda: page(b"BT /F 9 Tf (x) Tj ET", box=b"0 0 1000000000 1000000000")),
    ("page of no size", lambda: page(b"0 0 9 9 re f", box=b"0 0 0 0")),
    ("page of not a number", lambda: page(b"0 0 9 9 re f", box=b"1e999 nan -inf 0")),
    ("million paths", lambda: page(b"0 0 m 9 9 l 99 0 l h f " * 1_000_000, deflated=True)),
    ("shading of patterns in patterns", lambda: page(b"/Pattern cs /P scn 0 0 500 500 re f", resources=b"/Pattern<</P 6 0 R>>", further=(stream(b"/Pattern cs /P scn 0 0 9 9 re f", b"/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 1 1]/XStep 0.001/YStep 0.001/Resources<</Pattern<</P 6 0 R>>>>"),))),
    ("type 3 font of itself", lambda: page(b"BT /T 9 Tf (aaaa) Tj ET", resources=b"/Font<</T 6 0 R>>", further=(b"<</Type/Font/Subtype/Type3/FontBBox[0 0 9 9]/FontMatrix[1 0 0 1 0 0]/CharProcs<</a 7 0 R>>/Encoding<</Differences[97/a]>>/FirstChar 97/LastChar 97/Widths[9]/Resources<</Font<</T 6 0 R>>>>>>", stream(b"BT /T 9 Tf (aaaa) Tj ET")))),
    ("length of 10^12", lambda: page(b"x").replace(b"/Length 1>>", b"/Length 1000000000000>>")),
    ("length that is itself", lambda: page(b"x").replace(b"/Length 1>>", b"/Length 4 0 R>>")),
    ("Prev is itself", lambda: page(b"BT ET").replace(b"trailer<<", b"trailer<</Prev 9")),
    ("size 2^31", lambda: page(b"BT ET").replace(b"/Size 6", b"/Size 2147483647")),
    ("object stream in itself", lambda: pdf([b"<</Type/Catalog/Pages 2 0 R>>", stream(b"1 0 2 9 " * 50, b"/Type/ObjStm/N 2147483647/First 4/Extends 2 0 R"), b""])),
    ("100,000 objects", lambda: pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>", *[b"[%d 0 R]" % (n % 1000) for n in range(100_000)]])),
    ("head alone", lambda: b"%PDF-1.7\n"),
]  # fmt: skip


# zip-based documents


def zipped(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def changed(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with one member replaced or added."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {old: archive.read(old) for old in archive.namelist()}
    return zipped(members | {name: content})


@cache
def _originals() -> dict[str, bytes]:
    import docx
    import openpyxl
    import pptx

    word = docx.Document()
    word.add_heading("Heading", 1)
    word.add_paragraph("Some words in a paragraph.")
    table = word.add_table(3, 3)
    table.cell(1, 1).text = "cell"
    book = openpyxl.Workbook()
    for row in range(20):
        book.active.append([row, "words", row / 7])
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Title", "Words on a slide."
    made = {}
    for name, document in (("a.docx", word), ("a.xlsx", book), ("a.pptx", show)):
        out = io.BytesIO()
        document.save(out)
        made[name] = out.getvalue()
    made["a.epub"] = zipped(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": b"<container xmlns='urn:oasis:names:tc:opendocument:xmlns:container'><rootfiles><rootfile full-path='book.opf'/></rootfiles></container>",
            "book.opf": b"<package xmlns='http://www.idpf.org/2007/opf'><manifest><item id='a' href='a.xhtml' media-type='application/xhtml+xml'/></manifest><spine><itemref idref='a'/></spine></package>",
            "a.xhtml": b"<html xmlns='http://www.w3.org/1999/xhtml'><body><h1>One</h1><p>Words of a book.</p></body></html>",
        }
    )  # fmt: skip
    if str(ROOT / "tests" / "multimodal") not in sys.path:
        sys.path.append(str(ROOT / "tests" / "multimodal"))
    minimal = importlib.import_module("minimal_pdf")
    made["a.pdf"] = minimal.make_pdf(
        [["Some words.", "More words."], minimal.SCAN, []], title="T", bookmarks=[("B", 0)]
    )
    made["b.pdf"] = made["a.pdf"].replace(b"/Contents", b"/Annots[3 0 R]/Contents")
    made["a.eml"] = (
        b"From: a@b\nTo: c@d\nSubject: s\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain; charset=utf-8\n\nWords.\n--x\nContent-Type: text/html\n\n<p>More</p>\n--x--\n"
    )
    made["a.html"] = (
        b"<html><head><title>T</title></head><body><h1>H</h1><p>Words</p><table><tr><td>1</td></tr></table></body></html>"
    )
    made["a.csv"] = b"a,b,c\n" + b'1,"two",3\n' * 50
    made["a.md"] = b"# One\n\nWords\n\n## Two\n\n- a\n- b\n\n```\ncode\n```\n"
    made["a.py"] = b"def f(x):\n    return [x, {1: 2}]\n\nclass A:\n    pass\n"
    return made


_MAIN = {
    "a.docx": "word/document.xml",
    "a.xlsx": "xl/worksheets/sheet1.xml",
    "a.pptx": "ppt/slides/slide1.xml",
    "a.epub": "a.xhtml",
}
_W = b"xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'"
_S = b"xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'"
_H = b"xmlns='http://www.w3.org/1999/xhtml'"


def _office(name: str, content: bytes, member: str | None = None) -> bytes:
    return changed(_originals()[name], member or _MAIN[name], content)


def _word(body: bytes, front: bytes = b"") -> bytes:
    return _office(
        "a.docx",
        b"<?xml version='1.0'?>" + front + b"<w:document " + _W + b"><w:body>" + body + b"</w:body></w:document>",
    )


def _sheet(rows: bytes, front: bytes = b"") -> bytes:
    return _office("a.xlsx", front + b"<worksheet " + _S + b"><sheetData>" + rows + b"</sheetData></worksheet>")


def _chapter(body: bytes, front: bytes = b"") -> bytes:
    return _office("a.epub", front + b"<html " + _H + b"><body>" + body + b"</body></html>")


def _lying_zip() -> bytes:
    """A member that is larger than the directory says."""
    made = bytearray(_word(b"<w:p/>" * 1_000_000))
    at = made.find(b"PK\x01\x02")
    while at >= 0:
        made[at + 24 : at + 28] = (100).to_bytes(4, "little")
        at = made.find(b"PK\x01\x02", at + 4)
    return bytes(made)


def _mail_in_mail(depth: int) -> bytes:
    return (
        b"".join(b"From: a@b\nSubject: s\nContent-Type: message/rfc822\n\n" for _ in range(depth)) + b"From: a@b\n\nend"
    )


def _multiparts(depth: int) -> bytes:
    out = b"From: a@b\nSubject: s\nMIME-Version: 1.0\n"
    for n in range(depth):
        out += b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n)
    return out + b"Content-Type: text/plain\n\nwords\n"


_MAIL = b"From: a@b\nTo: c@d\nSubject: s\nMIME-Version: 1.0\n"
_OTHERS: list[tuple[str, str, Callable[[], bytes]]] = [
    ("10 million empty paragraphs", "a.docx", lambda: _word(b"<w:p/>" * 10_000_000)),
    ("1 million paragraphs", "a.docx", lambda: _word(b"<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 1_000_000)),
    ("60 MB of one word", "a.docx", lambda: _word(b"<w:p><w:r><w:t>" + b"a" * 60_000_000 + b"</w:t></w:r></w:p>")),
    ("100,000 tables", "a.docx", lambda: _word(b"<w:tbl><w:tr><w:tc><w:p/></w:tc></w:tr></w:tbl>" * 100_000)),
    ("tables 200 deep", "a.docx", lambda: _word(b"<w:tbl><w:tr><w:tc>" * 80 + b"<w:p/>" + b"</w:tc></w:tr></w:tbl>" * 80)),
    ("tables 20 deep, two in each", "a.docx", lambda: _word(_nested_tables(14))),
    ("100,000 deep", "a.docx", lambda: _word(b"<w:p>" * 100_000)),
    ("entity bomb", "a.docx", lambda: _word(b"<w:p><w:r><w:t>&j;</w:t></w:r></w:p>", _BOMB)),
    ("entity from a file", "a.docx", lambda: _word(b"<w:p><w:r><w:t>&j;</w:t></w:r></w:p>", _OUTSIDE)),
    ("sizes that lie", "a.docx", _lying_zip),
    ("path traversal", "a.docx", lambda: changed(_originals()["a.docx"], "../../../../tmp/hearth-was-here", b"x")),
    ("relation to outside", "a.docx", lambda: changed(_originals()["a.docx"], "word/_rels/document.xml.rels", b"<Relationships xmlns='http://schemas.openxmlformats.org/package/2006/relationships'><Relationship Id='r1' Type='x/image' Target='../../../../etc/passwd'/><Relationship Id='r2' Type='x/styles' Target='http://127.0.0.1:9/x' TargetMode='External'/></Relationships>")),
    ("relation to itself", "a.docx", lambda: changed(_originals()["a.docx"], "_rels/.rels", b"<Relationships xmlns='http://schemas.openxmlformats.org/package/2006/relationships'><Relationship Id='r1' Type='http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument' Target='_rels/.rels'/></Relationships>")),
    ("400 MB of zeros", "a.docx", lambda: changed(_originals()["a.docx"], "word/media/a.png", bytes(400_000_000))),
    ("9,000 members", "a.docx", lambda: zipped({"word/document.xml": b"<x/>", **{f"word/{n}.xml": b"<x/>" for n in range(9_000)}})),
    ("70,000 members", "a.docx", lambda: zipped({"word/document.xml": b"<x/>", **{f"word/{n}.xml": b"" for n in range(70_000)}})),
    ("4 million empty cells", "a.xlsx", lambda: _sheet(b"<row>" + b"<c><v>1</v></c>" * 4_000_000 + b"</row>")),
    ("1 million rows", "a.xlsx", lambda: _sheet(b"<row><c><v>1</v></c></row>" * 2_000_000)),
    ("cell XFD1048576", "a.xlsx", lambda: _sheet(b"<row r='1048576'><c r='XFD1048576'><v>1</v></c></row>")),
    ("cell ZZZZZZZ1", "a.xlsx", lambda: _sheet(b"<row r='99999999999'><c r='ZZZZZZZZZZ99999999999'><v>1e999</v></c><c r='A0'/><c r=''/></row>")),
    ("number of 10 MB", "a.xlsx", lambda: _sheet(b"<row><c><v>" + b"9" * 9_000_000 + b"</v></c></row>")),
    ("dates of any year", "a.xlsx", lambda: _sheet(b"<row><c s='1'><v>1e300</v></c><c t='d'><v>99999-99-99</v></c><c t='s'><v>-1</v></c><c t='s'><v>99999999999</v></c></row>")),
    ("3 million texts", "a.xlsx", lambda: _office("a.xlsx", b"<sst " + _S + b">" + b"<si><t>a</t></si>" * 3_500_000 + b"</sst>", "xl/sharedStrings.xml")),
    ("entity bomb", "a.xlsx", lambda: _sheet(b"<row><c t='inlineStr'><is><t>&j;</t></is></c></row>", _BOMB)),
    ("styles without an end", "a.xlsx", lambda: _office("a.xlsx", b"<styleSheet " + _S + b"><cellXfs>" + b"<xf numFmtId='99999'/>" * 2_000_000, "xl/styles.xml")),
    ("merged cells, 2^34", "a.xlsx", lambda: _sheet(b"<row r='1'><c r='A1'><v>1</v></c></row>").replace(b"", b"") and _office("a.xlsx", b"<worksheet " + _S + b"><dimension ref='A1:XFD1048576'/><sheetData><row r='1'><c r='A1'><v>1</v></c></row></sheetData><mergeCells><mergeCell ref='A1:XFD1048576'/></mergeCells></worksheet>")),
    ("1 million shapes", "a.pptx", lambda: _office("a.pptx", b"<p:sld xmlns:p='http://schemas.openxmlformats.org/presentationml/2006/main'><p:cSld><p:spTree>" + b"<p:sp/>" * 1_000_000 + b"</p:spTree></p:cSld></p:sld>")),
    ("groups 250 deep", "a.pptx", lambda: _office("a.pptx", b"<p:sld xmlns:p='http://schemas.openxmlformats.org/presentationml/2006/main'><p:cSld><p:spTree>" + b"<p:grpSp>" * 240 + b"<p:sp/>" + b"</p:grpSp>" * 240 + b"</p:spTree></p:cSld></p:sld>")),
    ("entity bomb", "a.pptx", lambda: _office("a.pptx", _BOMB + b"<p:sld xmlns:p='http://schemas.openxmlformats.org/presentationml/2006/main'>&j;</p:sld>")),
    ("60 MB chapter", "a.epub", lambda: _chapter(b"<p>a</p>" * 7_000_000)),
    ("60 MB of tags", "a.epub", lambda: _chapter(b"<b/>" * 14_000_000)),
    ("20 MB of one word", "a.epub", lambda: _chapter(b"a" * 19_000_000)),
    ("100,000 deep", "a.epub", lambda: _chapter(b"<div>" * 100_000)),
    ("entity bomb", "a.epub", lambda: _chapter(b"&j;", _BOMB)),
    ("container outside", "a.epub", lambda: changed(_originals()["a.epub"], "META-INF/container.xml", b"<container><rootfiles><rootfile full-path='../../../../etc/passwd'/></rootfiles></container>")),
    ("a chapter 100,000 times", "a.epub", lambda: changed(_originals()["a.epub"], "book.opf", b"<package xmlns='http://www.idpf.org/2007/opf'><manifest><item id='a' href='a.xhtml' media-type='application/xhtml+xml'/></manifest><spine>" + b"<itemref idref='a'/>" * 100_000 + b"</spine></package>")),
    ("mail in mail, 5,000", "a.eml", lambda: _mail_in_mail(5_000)),
    ("mail in mail, 90", "a.eml", lambda: _mail_in_mail(90)),
    ("multipart 5,000 deep", "a.eml", lambda: _multiparts(5_000)),
    ("multipart 90 deep", "a.eml", lambda: _multiparts(90)),
    ("100,000 parts", "a.eml", lambda: _MAIL + b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\nContent-Type: text/plain\n\na\n" * 100_000),
    ("200,000 headers", "a.eml", lambda: _MAIL + b"".join(b"X-%d: a\n" % n for n in range(200_000)) + b"\nwords"),
    ("header of 10 MB", "a.eml", lambda: _MAIL + b"Subject: " + b"=?utf-8?q?a?= " * 700_000 + b"\n\nwords"),
    ("addresses of 5 MB", "a.eml", lambda: b"From: " + b"(" * 50_000 + b"a@b\nTo: " + b"a@b, <" * 500_000 + b"\nSubject: s\n\nwords"),
    ("words encoded in words", "a.eml", lambda: b"From: a@b\nSubject: " + b"=?" * 50_000 + b"?b?" + b"=" * 50_000 + b"\n\nwords"),
    ("base64 of 60 MB", "a.eml", lambda: _MAIL + b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + b"YWFh\n" * 12_000_000),
    ("quoted-printable of 20 MB", "a.eml", lambda: _MAIL + b"Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n" + b"=3Cb=3E=\n" * 2_000_000),
    ("charset that is none", "a.eml", lambda: _MAIL + b"Content-Type: text/plain; charset=\"" + b"x" * 99_999 + b"\"\n\nwords\xff"),
    ("charset zlib", "a.eml", lambda: _MAIL + b"Content-Type: text/plain; charset=zlib_codec\n\nwords\xff"),
    ("parameters without an end", "a.eml", lambda: _MAIL + b"Content-Type: text/plain; " + b"".join(b"a*%d=x; " % n for n in range(20_000)) + b"\n\nwords"),
    ("div 200,000 deep", "a.html", lambda: b"<html><body>" + b"<div>" * 200_000 + b"words"),
    ("b 5 million times", "a.html", lambda: b"<html><body><p>words" + b"<b>" * 5_000_000),
    ("table in table, 5,000", "a.html", lambda: b"<html><body>" + b"<table><tr><td>a" * 5_000),
    ("1 million list items", "a.html", lambda: b"<html><body><ul>" + b"<li>word" * 1_000_000),
    ("attributes, 500,000", "a.html", lambda: b"<html><body " + b"".join(b"a%d=1 " % n for n in range(500_000)) + b">words"),
    ("comment without an end", "a.html", lambda: b"<html><body>words<!--" + b"-" * 20_000_000),
    ("less-than signs, 10 million", "a.html", lambda: b"<html><body>words" + b"<" * 10_000_000),
    ("entities, 3 million", "a.html", lambda: b"<html><body>" + b"&amp;&#x1F600;&nosuch;" * 1_000_000),
    ("script of 30 MB", "a.html", lambda: b"<html><body><p>words</p><script>" + b"a<b;" * 7_000_000),
    ("paragraphs, 1 million", "a.html", lambda: b"<html><body>" + b"<p>word word word" * 1_000_000),
    ("line of 50 MB", "a.csv", lambda: b"a,b\n" + b"x," * 25_000_000),
    ("line of 15 MB of text", "a.csv", lambda: b"a,b\n" + b"x" * 15_000_000 + b",1\n"),
    ("quote without an end", "a.csv", lambda: b"a,b\n1,\"" + b"x\n" * 9_000_000),
    ("quotes, 10 million", "a.csv", lambda: b"a,b\n" + b'"' * 10_000_000),
    ("5 million rows", "a.csv", lambda: b"a,b\n" + b"1,2\n" * 4_500_000),
    ("ragged rows", "a.csv", lambda: b"a,b\n" + b"".join(b"1," * (n % 1_000) + b"\n" for n in range(10_000))),
    ("blanks, 19 million", "a.txt", lambda: b"a" + b" " * 19_000_000 + b"b"),
    ("line ends, 19 million", "a.txt", lambda: b"a" + b"\n" * 19_000_000 + b"b"),
    ("one word of 19 MB", "a.txt", lambda: b"a" * 19_000_000),
    ("tabs and blanks", "a.txt", lambda: b"a" + b" \t" * 9_000_000 + b"b"),
    ("sentences, 19 MB", "a.txt", lambda: b"A b. " * 3_800_000),
    ("combining marks", "a.txt", lambda: ("e" + "\u0301" * 4_000_000).encode()),
    ("direction marks", "a.txt", lambda: ("a\u202e\u2066\ufeff" * 1_000_000).encode()),
    ("UTF-16 of halves", "a.txt", lambda: b"\xff\xfe" + b"\x00\xd8" * 1_000_000),
    ("UTF-7 and friends", "a.txt", lambda: b"+AD" * 1_000_000),
    ("headings, 1 million", "a.md", lambda: b"# a\n" * 1_000_000),
    ("heading signs, 10 million", "a.md", lambda: b"#" * 10_000_000 + b" a"),
    ("fences, 1 million", "a.md", lambda: b"```\n" * 1_000_001),
    ("list 50,000 deep", "a.md", lambda: b"".join(b" " * (n % 3_000) + b"- a\n" for n in range(6_000))),
    ("quotes 10^6 deep", "a.md", lambda: b">" * 5_000_000 + b" a"),
    ("stars, 5 million", "a.md", lambda: b"*_" * 5_000_000 + b"a"),
    ("brackets, 5 million", "a.md", lambda: b"[" * 5_000_000 + b"](" * 1_000_000),
    ("underlines", "a.md", lambda: b"a\n" + b"=" * 10_000_000 + b"\n" + b"- " * 5_000_000),
    ("brackets 100,000 deep", "a.json", lambda: b"[" * 100_000),
    ("classes, 300,000", "a.py", lambda: b"class A:\n    def f(self): pass\n" * 300_000),
    ("brackets, 1 million", "a.py", lambda: b"x = " + b"(" * 1_000_000),
    ("indented 5,000 deep", "a.py", lambda: b"".join(b" " * n + b"if x:\n" for n in range(5_000))),
    ("line of 15 MB", "a.js", lambda: b"function f(){" * 1_200_000),
    ("braces", "a.c", lambda: b"int f(){" * 1_000_000),
]  # fmt: skip


def _nested_tables(depth: int) -> bytes:
    inner = b"<w:p><w:r><w:t>a</w:t></w:r></w:p>"
    for _ in range(depth):
        inner = b"<w:tbl><w:tr><w:tc>" + inner + b"</w:tc><w:tc>" + inner + b"</w:tc></w:tr></w:tbl>"
    return inner


N_CRAFTED = len(_PDFS) + len(_OTHERS)


def hostile(rng: random.Random, number: int) -> tuple[str, str, bytes]:
    """(what is hostile, the file's name, the file)."""
    if number < len(_PDFS):
        what, make = _PDFS[number]
        return what, "a.pdf", make()
    if number < N_CRAFTED:
        what, name, make = _OTHERS[number - len(_PDFS)]
        return what, name, make()
    name = rng.choice([*sorted(_originals()), "a.pdf", "b.pdf", "a.pdf"])
    data = _originals()[name]
    if name in _MAIN and rng.random() < 0.6:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = rng.choice([_MAIN[name], *archive.namelist()])
            content = archive.read(member)
        return f"changed {member}", name, changed(data, member, mutated(rng, content))
    if name.endswith(".pdf") and rng.random() < 0.5:
        words = [
            b"/Count",
            b"/Kids",
            b"/Length",
            b"/Parent",
            b"/Contents",
            b"/Size",
            b"/Root",
            b"/First",
            b"/Next",
            b"obj",
        ]
        word = rng.choice(words)
        number_ = rng.choice((*HOSTILE_NUMBERS, -1))
        return f"changed {word.decode()}", name, data.replace(word, word + b" %d 0 R " % number_, rng.choice((1, -1)))
    return "changed bytes", name, mutated(rng, data)
