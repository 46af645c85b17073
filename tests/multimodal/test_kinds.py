"""Attachments are told apart by content; names decide only between sorts of text; messages stay on one line."""

from __future__ import annotations

import io
import struct
import time
import wave
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hearth.multimodal.kinds import SHOWN_NAME_CHARS, describe, identify, shown_name, sniff


def _picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, kind)
    return out.getvalue()


def _wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\0\0" * 100)
    return out.getvalue()


def _zip(*members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member in members:
            archive.writestr(member, "<xml/>")
    return out.getvalue()


def _mp4(brand: bytes, *handlers: bytes) -> bytes:
    ftyp = struct.pack(">I4s4sI4s", 20, b"ftyp", brand, 0, b"isom")
    return ftyp + b"".join(struct.pack(">I4sII4s", 32, b"hdlr", 0, 0, handler) + b"\0" * 12 for handler in handlers)


CASES = [
    *[(_picture(kind), "picture", kind) for kind in ("PNG", "JPEG", "GIF", "WebP", "BMP", "TIFF")],
    (_mp4(b"heic"), "picture", "HEIC"),
    (_mp4(b"avif"), "picture", "AVIF"),
    (b"<?xml version='1.0'?><!-- drawn --><svg xmlns='x'></svg>", "picture", "SVG"),
    (_wav(), "sound", "WAV"),
    (b"fLaC\x00\x00\x00\x22", "sound", "FLAC"),
    (b"ID3\x04\x00", "sound", "MP3"),
    (b"\xff\xfb\x90\x64" + b"\0" * 400, "sound", "MP3"),
    (b"\xff\xf1\x50\x80" + b"\0" * 40, "sound", "AAC"),
    (b"OggS\x00\x02OpusHead", "sound", "Ogg"),
    (b"OggS\x00\x02\x80theora", "video", "Ogg"),
    (_mp4(b"M4A "), "sound", "M4A"),
    (_mp4(b"isom", b"soun"), "sound", "M4A"),
    (_mp4(b"isom", b"soun", b"vide"), "video", "MP4"),
    (b"\x1a\x45\xdf\xa3webm\x86\x86A_OPUS", "sound", "WebM"),
    (b"\x1a\x45\xdf\xa3webm\x86\x86A_OPUS\x86\x85V_VP9", "video", "WebM"),
    (b"RIFF\0\0\0\0AVI ", "video", "AVI"),
    (b"%PDF-1.7\n...", "document", "a PDF"),
    (b"%PDF-1.7\n /Encrypt 5 0 R", "document", "encrypted PDF"),
    (_zip("word/document.xml"), "document", "Word"),
    (_zip("word/document.xml")[:-10], "document", "damaged Word"),
    (_zip("xl/workbook.xml"), "document", "an Excel workbook"),
    (_zip("xl/workbook.xml")[:-10], "document", "damaged Excel"),
    (_zip("xl/workbook.bin"), "unknown", "(.xlsb)"),
    (_zip("ppt/presentation.xml"), "document", "PowerPoint"),
    (_zip("META-INF/container.xml"), "document", "an EPUB book"),
    (_zip("a.txt"), "unknown", "a ZIP archive"),
    (_zip("a.txt")[:-10], "unknown", "damaged ZIP"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1...", "unknown", "old format"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "unknown", "encrypted Office"),
    (b"{\\rtf1 hello}", "unknown", "RTF"),
    (b"\x7fELF\x02\x01", "unknown", "a program"),
    (b"  <!DOCTYPE HTML><p>x", "document", "HTML"),
    (b"From: a@b.c\r\nSubject: hello\r\n\r\nwords", "document", "an e-mail"),
    (b"From a@b.c Mon Mar  2\nFrom: a@b.c\nSubject: hello\n\nwords\n\n", "document", "an e-mail"),
    (b"From a@b.c Mon Mar  2\nFrom: a@b.c\nSubject: hello\n\nwords\n\n" * 2, "unknown", "a mailbox of several"),
    (b"from: here\nto: there\nsubject: of a file of settings\n\n", "document", "plain text"),
    (b"a;b;c\n1;2;3\n4;5;6\n7;8;9\n", "document", "a table (CSV)"),
    (b"#!/bin/sh\necho", "document", "source code"),
    (b"just words", "document", "plain text"),
    ("Größe".encode("cp1252"), "document", "plain text"),
    ("\ufeffGröße".encode("utf-16-le"), "document", "plain text"),
    ("日本語".encode(), "document", "plain text"),
    (b"", "unknown", "an empty file"),
    (bytes(range(256)), "unknown", "unknown kind"),
]


@pytest.mark.parametrize(("data", "kind", "words"), CASES, ids=lambda value: str(value)[:20])
def test_by_content_whatever_the_name(data: bytes, kind: str, words: str) -> None:
    for name in ("", "x.png", "x.exe", "noise"):
        assert sniff(data, name) == kind
    assert words in describe(data)


def test_the_name_decides_only_between_texts() -> None:
    assert identify(b"# Title", "a.md").mime == "text/markdown"
    assert identify(b"# Title", "a.txt").mime == "text/plain"
    assert identify(b"# Title", "a.py").mime == "text/x-python"
    assert identify(b"a,b\n1,2", "a.csv").mime == "text/csv"
    assert identify(b"a,b\n1,2", "a.txt").mime == "text/plain"
    assert identify(b"<p>hello", "a.html").mime == "text/html"
    assert identify(b"<p>hello", "a.txt").mime == "text/plain"
    assert identify(b"<html><p>hello", "a.md").mime == "text/html"
    assert identify(b"%PDF-1.4", "a.md").mime == "application/pdf"


@pytest.mark.parametrize(
    "words", [b"MZ is a place", b"GGUF is a format", b"fLaC, the codec", b"BM stands for", b"ID3 tags"]
)
def test_texts_that_begin_like_other_formats(words: bytes) -> None:
    assert sniff(words, "") == "document"


def test_utf8_cut_at_the_end_of_the_sample_is_still_text() -> None:
    assert sniff(b"x" + "ä".encode() * 100_000, "") == "document"


def test_unclosed_comments_do_not_make_it_slow() -> None:
    before = time.process_time()
    sniff(b"<!---->" * 600 + b"<!--", "a.html")
    sniff(b"<!-- " * 800, "a.html")
    assert time.process_time() - before < 5  # exponential matching would take years


@given(st.binary(max_size=200))
def test_never_raises(data: bytes) -> None:
    for start in (b"", b"PK\x03\x04", b"\0\0\0\x18ftyp", b"\xff\xfe", b"<", b"OggS"):
        assert sniff(start + data, "x") in ("picture", "sound", "document", "video", "unknown")


@given(st.text(max_size=300))
def test_shown_names_fit_in_a_line(name: str) -> None:
    shown = shown_name(name)
    assert shown.isprintable()
    assert 0 < len(shown) <= SHOWN_NAME_CHARS
    assert "/" not in shown


def test_shown_name_keeps_the_bare_name() -> None:
    assert shown_name("/tmp/x/apple.jpg") == "apple.jpg"
    assert shown_name("C:\\photos\\apple.jpg") == "apple.jpg"
    assert shown_name("a\nb\x1b[31m.png") == "a�b�[31m.png"
