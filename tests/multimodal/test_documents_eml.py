"""E-mails: headers, bodies, messages in messages, attachments; hostile ones are refused or bounded."""

from __future__ import annotations

import random
import time
from email.message import EmailMessage

import pytest

from hearth.multimodal import documents_eml
from hearth.multimodal.documents import read_document
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError
from hearth.multimodal.kinds import identify


def mail(text: str = "The printer is in room 12.\n", subject: str = "Where is the printer?") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ann Müller <ann@example.org>"
    message["To"] = "bob@example.org"
    message["Date"] = "Mon, 02 Mar 2026 10:00:00 +0100"
    message["Subject"] = subject
    message.set_content(text)
    return message


def test_headers_and_text() -> None:
    read = read_document(mail("Käse für 3 €.\n").as_bytes(), "m.eml")
    assert read.title == "Where is the printer?"
    assert read.mime == "message/rfc822"
    assert read.pages[0].section == "Where is the printer?"
    assert read.text == (
        "From: Ann Müller <ann@example.org>\nTo: bob@example.org\nDate: Mon, 02 Mar 2026 10:00:00 +0100\n"
        "Subject: Where is the printer?\n\nKäse für 3 €."
    )


def test_plain_text_before_html_and_html_where_there_is_nothing_else() -> None:
    both = mail("Plain words\n")
    both.add_alternative("<p>HTML <b>words</b></p>", subtype="html")
    assert "Plain words" in read_document(both.as_bytes(), "m.eml").text
    assert "HTML" not in read_document(both.as_bytes(), "m.eml").text
    html = mail()
    page = '<style>x{}</style><p>Only <b>HTML</b></p><img src="http://127.0.0.1:9/pixel.png"><script>evil()</script>'
    html.set_content(page, subtype="html")
    text = read_document(html.as_bytes(), "m.eml").text
    assert text.endswith("Only HTML")
    assert "evil" not in text
    empty = mail("\n")
    empty.add_alternative("<p>Here it stands</p>", subtype="html")
    assert "Here it stands" in read_document(empty.as_bytes(), "m.eml").text


def test_attachments_are_named_and_texts_among_them_read() -> None:
    message = mail()
    message.add_attachment(b"%PDF-1.4 ...", maintype="application", subtype="pdf", filename="Rechnung März.pdf")
    message.add_attachment("a;b\n1;2\n", filename="table.csv")
    message.add_attachment(b"\x00\x01\x02", maintype="application", subtype="octet-stream", filename="x.bin")
    message.add_attachment("<p>A <i>page</i></p>", subtype="html", filename="page.html")
    read = read_document(message.as_bytes(), "m.eml")
    assert "Attachment: Rechnung März.pdf\nAttachment: table.csv\nAttachment: x.bin\nAttachment: page.html" in read.text
    assert [page.section for page in read.pages[1:]] == [
        "Where is the printer? › table.csv",
        "Where is the printer? › page.html",
    ]
    assert [page.text for page in read.pages[1:]] == ["a;b\n1;2", "A page"]


def test_messages_in_messages() -> None:
    outer = mail("See below\n", "Fwd")
    outer.add_attachment(mail("The inner words\n", "Inner"))
    read = read_document(outer.as_bytes(), "m.eml")
    assert [page.section for page in read.pages] == ["Fwd", "Fwd › Inner"]
    assert "Message inside: Inner" in read.pages[0].text
    assert "The inner words" in read.pages[1].text
    deep = mail("bottom\n", "m0")
    for level in range(1, 9):
        above = mail(f"level {level}\n", f"m{level}")
        above.add_attachment(deep)
        deep = above
    read = read_document(deep.as_bytes(), "m.eml")
    assert len(read.pages) == documents_eml.MAX_DEPTH
    assert "Message inside: m3" in read.text


HEAD = b"From: a@b.c\r\nTo: d@e.f\r\nMIME-Version: 1.0\r\n"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            HEAD + b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + "会議は九時".encode("iso-2022-jp"),
            "会議は九時",
        ),
        (HEAD + b"Content-Type: text/plain; charset=no-such\r\n\r\nKaf\xe9", "Kafé"),
        (HEAD + b"Content-Type: text/plain; charset=punycode\r\n\r\nplain words", "plain words"),
        (HEAD + b"Content-Type: text/plain; charset=us-ascii\r\n\r\nGr\xc3\xb6\xc3\x9fe", "Größe"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nd29yZHM=", "words"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n!!not base64!!", "From: a@b.c"),
        (HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nnever closed", "never closed"),
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\nno boundary", "no boundary"),
        (HEAD + b"Subject: =?utf-8?q?K=C3=A4se?= =?no-such?q?x?=\r\n\r\nb", "Subject: =?utf-8?q?"),
        (HEAD + b"Subject: =?utf-8?q?K=C3=A4se?=\r\n und mehr\r\n\r\nb", "Subject: Käse und mehr"),
        (HEAD + "Subject: Käse\r\n\r\nb".encode(), "Subject: Käse"),
        (HEAD + "Subject: Käse\r\n\r\nb".encode("cp1252"), "Subject: Käse"),
    ],
)
def test_encodings_and_broken_mails(message: bytes, words: str) -> None:
    assert words in read_document(message, "m.eml").text


def test_told_by_its_headers() -> None:
    for name in ("m.eml", "m.txt", "noise"):
        assert identify(mail().as_bytes(), name).mime == "message/rfc822"
    for text in (b"Note: buy milk\nTo: do\n\nmore", b"From here on\nTo there", b"Subject: one header only\n\nx"):
        assert identify(text, "n.txt").mime == "text/plain"


def test_a_mailbox_is_refused_by_name() -> None:
    box = b"From ann@example.org Mon Mar  2 10:00:00 2026\n" + mail().as_bytes() + b"\n"
    with pytest.raises(
        UnsupportedMediaError, match=r"^b\.mbox is a mailbox of several e-mails \(mbox\), which is not read; save"
    ):
        read_document(box * 3, "b.mbox")


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, what in (("MAX_LINES", "lines"), ("MAX_BOUNDARIES", "parts"), ("MAX_MULTIPARTS", "parts made of parts")):
        message = mail()
        message.add_attachment("x")
        with monkeypatch.context() as patched:
            patched.setattr(documents_eml, name, 0)
            with pytest.raises(MediaTooLargeError, match=rf"^m\.eml has \d+ {what}, more than the limit of 0; save"):
                read_document(message.as_bytes(), "m.eml")


def test_nesting_ends() -> None:
    before = time.process_time()
    nested = HEAD + b"Content-Type: message/rfc822\n\n" * 20_000 + b"words"
    with pytest.raises(PerceptionError, match=r"^m\.eml has messages nested too deeply; save the inner one by itself"):
        read_document(nested, "m.eml")
    parts = HEAD + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(documents_eml.MAX_MULTIPARTS)
    )
    assert "words" in read_document(parts + b"\nwords\n" + b"line\n" * 20_000, "m.eml").text
    assert time.process_time() - before < 10


def test_cancel() -> None:
    message = mail("words and words\n" * 60_000).as_bytes()
    answers = iter([False] * 4 + [True])
    with pytest.raises(PerceptionCancelled):
        read_document(message, "m.eml", cancelled=lambda: next(answers))


def test_damaged_mails_give_text() -> None:
    message = mail()
    message.add_attachment(b"12345", maintype="image", subtype="png", filename="a.png")
    message.add_attachment(mail("inner\n"))
    original = message.as_bytes()
    rng = random.Random(3)
    for _ in range(150):
        data = bytearray(original)
        for _ in range(rng.randint(1, 15)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert read_document(bytes(data), "m.eml").text
        except PerceptionError as error:
            assert "m.eml" in str(error)  # noqa: PT017
