"""Tells by its bytes what an attachment is; the name decides only between kinds of plain text."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import Literal

from hearth.multimodal.kinds_text import EMAIL_MIME, MBOX_MIME, SAMPLE_BYTES, text_kind

Kind = Literal["picture", "sound", "document", "video", "unknown"]

DOCX_MIME = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX_MIME = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX_MIME = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
EPUB_MIME = "application/epub+zip"
UNKNOWN_MIME = "application/octet-stream"
SHOWN_NAME_CHARS = 80
_TEXT_SAMPLE_BYTES = 65_536
_CONTAINER_SAMPLE_BYTES = 65_536  # where Matroska and Ogg name their tracks


@dataclass(frozen=True, slots=True)
class Content:
    """What some bytes are: their kind, MIME type, and a few words with an article ("a PNG picture")."""

    kind: Kind
    mime: str
    words: str


def sniff(data: bytes, name: str) -> Kind:
    """The kind of ``data``. Text of any sort is a document; an SVG is a picture, though not one that can be read."""
    return identify(data, name).kind


def describe(data: bytes) -> str:
    """What ``data`` is, in a few words for people: "an HTML page", "a ZIP archive", "an empty file"."""
    return identify(data, "").words


def identify(data: bytes, name: str = "") -> Content:
    """Kind, MIME type and description of ``data``. Never raises; what is not recognised is "unknown"."""
    if not data:
        return Content("unknown", UNKNOWN_MIME, "an empty file")
    for pattern, content in _SIGNATURES:
        if pattern.match(data):
            return content
    for recognise in (_iso_media, _matroska, _ogg, _asf, _zip, _pdf, _ole, _mpeg_audio):
        found = recognise(data)
        if found is not None:
            return found
    if is_text(data):
        return _text(data, name)
    return Content("unknown", UNKNOWN_MIME, "binary data of an unknown kind")


def is_text(data: bytes) -> bool:
    """Whether ``data`` reads as text: UTF-16 with its mark, UTF-8, or 8-bit text without control codes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return len(data) % 2 == 0
    sample = data[:_TEXT_SAMPLE_BYTES]
    n_control = len(re.findall(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", sample))
    if b"\x00" in sample or n_control * 100 > len(sample):
        return False
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        cut_at_end = len(data) > len(sample) and error.start > len(sample) - 4
        return cut_at_end or n_control == 0
    return True


def shown_name(name: str) -> str:
    """A file name fit for a one-line message: no folder, no control characters, not longer than a line."""
    bare = re.split(r"[/\\]", name)[-1]
    printable = "".join(c if c.isprintable() else "�" for c in bare).strip()
    if len(printable) > SHOWN_NAME_CHARS:
        printable = printable[: SHOWN_NAME_CHARS - 20] + "…" + printable[-19:]
    return printable or "the attachment"


def _signature(pattern: bytes, kind: Kind, mime: str, words: str) -> tuple[re.Pattern[bytes], Content]:
    return re.compile(pattern, re.DOTALL), Content(kind, mime, words)


_SIGNATURES = [
    _signature(rb"\x89PNG\r\n\x1a\n", "picture", "image/png", "a PNG picture"),
    _signature(rb"\xff\xd8\xff", "picture", "image/jpeg", "a JPEG picture"),
    _signature(rb"GIF8[79]a", "picture", "image/gif", "a GIF picture"),
    _signature(rb"RIFF....WEBP", "picture", "image/webp", "a WebP picture"),
    _signature(rb"BM.{4}\x00{4}.{4}[\x0c\x28\x40\x6c\x7c]\x00{3}", "picture", "image/bmp", "a BMP picture"),
    _signature(rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]", "picture", "image/tiff", "a TIFF picture"),
    _signature(rb"8BPS\x00[\x01\x02]", "picture", "image/vnd.adobe.photoshop", "a Photoshop picture"),
    _signature(rb"\x00{3}\x0cjP  \r\n|\xff\x4f\xff\x51", "picture", "image/jp2", "a JPEG 2000 picture"),
    _signature(rb"\xff\x0a|\x00{3}\x0cJXL \r\n", "picture", "image/jxl", "a JPEG XL picture"),
    _signature(rb"\x00\x00\x01\x00[\x01-\x40]\x00", "picture", "image/x-icon", "an icon file"),
    _signature(rb"%!PS|\xc5\xd0\xd3\xc6", "unknown", "application/postscript", "a PostScript file"),
    _signature(rb"RIFF....WAVE|RF64....WAVE", "sound", "audio/wav", "a WAV recording"),
    _signature(rb"fLaC[\x00\x80]", "sound", "audio/flac", "a FLAC recording"),
    _signature(rb"FORM....AIF[FC]", "sound", "audio/aiff", "an AIFF recording"),
    _signature(rb"\.snd\x00\x00\x00", "sound", "audio/basic", "an AU recording"),
    _signature(rb"#!AMR", "sound", "audio/amr", "an AMR recording"),
    _signature(rb"caff\x00\x01", "sound", "audio/x-caf", "a CAF recording"),
    _signature(rb"ID3[\x02-\x04]", "sound", "audio/mpeg", "an MP3 recording"),
    _signature(rb"RIFF....AVI ", "video", "video/x-msvideo", "an AVI video"),
    _signature(rb"FLV\x01", "video", "video/x-flv", "a Flash video"),
    _signature(rb"\x00\x00\x01[\xba\xb3]|\x47.{187}\x47.{187}\x47", "video", "video/mpeg", "an MPEG video"),
    _signature(rb"MThd\x00{3}\x06", "unknown", "audio/midi", "a MIDI file (notes, not sound)"),
    _signature(rb"\{\\rtf", "unknown", "application/rtf", "an RTF document"),
    _signature(rb"\x1f\x8b\x08", "unknown", "application/gzip", "a gzip archive"),
    _signature(rb"7z\xbc\xaf\x27\x1c", "unknown", "application/x-7z-compressed", "a 7z archive"),
    _signature(rb"Rar!\x1a\x07", "unknown", "application/vnd.rar", "a RAR archive"),
    _signature(rb"BZh[1-9]1AY&SY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd", "unknown", UNKNOWN_MIME, "a compressed archive"),
    _signature(rb"GGUF[\x01-\x09]\x00", "unknown", UNKNOWN_MIME, "a GGUF model file"),
    _signature(rb"SQLite format 3\x00", "unknown", UNKNOWN_MIME, "an SQLite database"),
    _signature(rb"\x7fELF|MZ[^\n]{0,30}\x00|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "unknown", UNKNOWN_MIME, "a program"),
]

_ZIP_MEMBERS: dict[str, Content] = {
    "word/document.xml": Content("document", DOCX_MIME, "a Word document"),
    "xl/workbook.xml": Content("document", XLSX_MIME, "an Excel workbook"),
    "xl/workbook.bin": Content("unknown", "application/zip", "an Excel workbook of the binary sort (.xlsb)"),
    "ppt/presentation.xml": Content("document", PPTX_MIME, "a PowerPoint presentation"),
    "META-INF/container.xml": Content("document", EPUB_MIME, "an EPUB book"),
}
# Names in front of each member, there even if the directory at the end is lost.
_TRACES = {
    b"word/": Content("document", DOCX_MIME, "a damaged Word document"),
    b"ppt/": Content("document", PPTX_MIME, "a damaged PowerPoint presentation"),
    b"xl/": Content("document", XLSX_MIME, "a damaged Excel workbook"),
    b"application/epub+zip": Content("document", EPUB_MIME, "a damaged EPUB book"),
}


def _iso_media(data: bytes) -> Content | None:
    """MP4 and its relatives: HEIC, AVIF, M4A, QuickTime."""
    if data[4:8] != b"ftyp":
        return None
    size = max(16, min(int.from_bytes(data[:4], "big"), 256))
    brands = {data[i : i + 4] for i in (8, *range(16, size, 4))}
    if brands & {b"avif", b"avis"}:
        return Content("picture", "image/avif", "an AVIF picture")
    if brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1"}:
        return Content("picture", "image/heic", "a HEIC picture")
    handlers = set(re.findall(rb"hdlr.{8}(vide|soun)", data, re.DOTALL))
    if data[8:11] in (b"M4A", b"M4B") or handlers == {b"soun"}:
        return Content("sound", "audio/mp4", "an MP4 (M4A) recording")
    return Content("video", "video/mp4", "an MP4 video")


def _matroska(data: bytes) -> Content | None:
    if not data.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    head = data[:_CONTAINER_SAMPLE_BYTES]
    if re.search(rb"\x86.A_[A-Z]", head, re.DOTALL) and not re.search(rb"\x86.V_[A-Z]", head, re.DOTALL):
        return Content("sound", "audio/webm", "a WebM recording")
    return Content("video", "video/webm", "a WebM or Matroska video")


def _ogg(data: bytes) -> Content | None:
    if not data.startswith(b"OggS"):
        return None
    if b"\x80theora" in data[:_CONTAINER_SAMPLE_BYTES]:
        return Content("video", "video/ogg", "an Ogg video")
    return Content("sound", "audio/ogg", "an Ogg recording")


def _asf(data: bytes) -> Content | None:
    if not data.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return None
    if b"\xc0\xef\x19\xbc\x4d\x5b\xcf\x11" in data[:_CONTAINER_SAMPLE_BYTES]:  # the stream type "video"
        return Content("video", "video/x-ms-wmv", "a WMV video")
    return Content("sound", "audio/x-ms-wma", "a WMA recording")


def _zip(data: bytes) -> Content | None:
    if not data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    archive = Content("unknown", "application/zip", "a ZIP archive")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            names = set(opened.namelist())
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OSError, IndexError):
        for trace, content in _TRACES.items():
            if trace in data:
                return content
        return Content("unknown", "application/zip", "a damaged ZIP archive")
    for member, content in _ZIP_MEMBERS.items():
        if member in names:
            return content
    return archive if "content.xml" not in names else Content("unknown", "application/zip", "an OpenDocument file")


def _pdf(data: bytes) -> Content | None:
    head = data[:1024]
    if not head.lstrip().startswith(b"%PDF-") and not (b"%PDF-" in head and b"startxref" in data):
        return None
    return Content("document", "application/pdf", "an encrypted PDF" if b"/Encrypt" in data else "a PDF")


def _ole(data: bytes) -> Content | None:
    if not data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return None
    if "EncryptedPackage".encode("utf-16-le") in data:
        return Content("unknown", "application/x-ole-storage", "an encrypted Office document")
    return Content("unknown", "application/x-ole-storage", "an Office document of the old format (.doc, .xls, .ppt)")


def _mpeg_audio(data: bytes) -> Content | None:
    """MP3 or ADTS AAC without a tag: two frame headers at the right distance would be surer, but a cut clip has one."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    if data[1] & 0xF6 == 0xF0:
        return Content("sound", "audio/aac", "an AAC recording")
    version, layer, bitrate, rate = data[1] >> 3 & 3, data[1] >> 1 & 3, data[2] >> 4, data[2] >> 2 & 3
    if version == 1 or layer not in (1, 2) or bitrate in (0, 15) or rate == 3:
        return None
    return Content("sound", "audio/mpeg", "an MP3 recording")


_NEXT_MAIL = re.compile(rb"\n\r?\nFrom \S")


def _text(data: bytes, name: str) -> Content:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    head = data[:SAMPLE_BYTES].decode(encoding, errors="replace")
    if not head.strip():
        return Content("document", "text/plain", "a text without a word")
    mime, words = text_kind(head, name)
    if mime == MBOX_MIME and not _NEXT_MAIL.search(data):
        mime, words = EMAIL_MIME, "an e-mail"
    kind: Kind = "picture" if mime == "image/svg+xml" else "unknown" if mime == MBOX_MIME else "document"
    return Content(kind, mime, words)
