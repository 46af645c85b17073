"""Reads e-mails (eml): who wrote to whom and when, the text, messages inside it, and what is attached.

Of attachments only texts are read; the others are named. Nothing that a message refers to is fetched.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesFeedParser

from hearth.multimodal.documents_html import visible_text
from hearth.multimodal.documents_plain import clean, decode, plain_heading
from hearth.multimodal.documents_types import SECTION_SEPARATOR, Page, ReadPages, Watch
from hearth.multimodal.errors import MediaTooLargeError, PerceptionError
from hearth.multimodal.kinds import identify, shown_name

MAX_LINES = 1_000_000
MAX_BOUNDARIES = 20_000  # lines that begin like the border between two parts
MAX_MULTIPARTS = 100  # parts that are made of parts
MAX_DEPTH = 5  # of messages in messages that are read
MAX_ATTACHED_TEXT_CHARS = 1_000_000  # encoded, of an attachment that is read
_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_MAX_HEADER_CHARS = 2_000
_CHUNK_BYTES = 1 << 16
_NOT_FOR_TEXT = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}


def read_eml(data: bytes, watch: Watch) -> ReadPages:
    """A page for each message and each attached text. The title is the subject.

    Raises MediaTooLargeError (lines, parts), PerceptionError (nested too deeply), PerceptionCancelled.
    """
    _check(data, watch.name)
    parser = BytesFeedParser()
    try:
        for start in range(0, len(data), _CHUNK_BYTES):
            watch.step(0.9 * start / len(data))
            parser.feed(data[start : start + _CHUNK_BYTES])
        message = parser.close()
        pages = tuple(_pages(message, "", 1))
    except RecursionError as error:
        raise PerceptionError(f"{watch.name} has messages nested too deeply; save the inner one by itself") from error
    return ReadPages(_subject(message) or None, pages)


def _check(data: bytes, name: str) -> None:
    """Refuses what would take the parser very long: it looks at each line once for every part that is open."""
    lowered = data.lower()
    for n, limit, what in (
        (data.count(b"\n"), MAX_LINES, "lines"),
        (data.count(b"\n--"), MAX_BOUNDARIES, "parts"),
        (lowered.count(b"boundary="), MAX_MULTIPARTS, "parts made of parts"),
    ):
        if n > limit:
            raise MediaTooLargeError(
                f"{name} has {n:,} {what}, more than the limit of {limit:,}; save its parts as files of their own"
            )


@dataclass(slots=True)
class _Contents:
    """What a message holds, sorted."""

    texts: list[str] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)  # a line for each attachment
    files: list[tuple[str, str]] = field(default_factory=list)  # (name, text) of those that are read
    messages: list[Message] = field(default_factory=list)


def _pages(message: Message, above: str, depth: int) -> Iterator[Page]:
    """``above`` is the section of the message that this one is in."""
    section = SECTION_SEPARATOR.join(part for part in (above, _subject(message)) if part)
    contents = _Contents()
    _sort(message, contents)
    headers = _headers(message)
    lines = [f"{name}: {headers[name.lower()]}" for name in _HEADERS if headers.get(name.lower())]
    parts = ("\n".join(lines), *contents.texts, "\n".join(contents.attached))
    yield Page(None, "\n\n".join(part for part in parts if part), section)
    for name, text in contents.files:
        yield Page(None, text, SECTION_SEPARATOR.join(part for part in (section, name) if part))
    if depth < MAX_DEPTH:
        for inner in contents.messages:
            yield from _pages(inner, section, depth + 1)


def _sort(part: Message, into: _Contents) -> None:
    kind = part.get_content_type()
    inner = part.get_payload()
    if kind == "message/rfc822" and isinstance(inner, list):
        messages = [message for message in inner if isinstance(message, Message)]
        into.messages += messages
        into.attached += [f"Message inside: {_subject(message) or 'without subject'}" for message in messages]
    elif kind == "multipart/alternative" and isinstance(inner, list):
        _sort_best(inner, into)
    elif isinstance(inner, list):
        for entry in inner:
            if isinstance(entry, Message):
                _sort(entry, into)
    elif part.get_content_maintype() == "multipart" or (  # of one piece: the border between parts is missing
        kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment"
    ):
        text = _text(part)
        if text:
            into.texts.append(text)
    else:
        _attach(part, into)


def _sort_best(alternatives: list[Message | str], into: _Contents) -> None:
    """The same said several ways: plain text if there is some, else what has most."""
    tried = []
    for entry in alternatives:
        if isinstance(entry, Message):
            contents = _Contents()
            _sort(entry, contents)
            tried.append((entry.get_content_type() == "text/plain", sum(map(len, contents.texts)), contents))
    if not tried:
        return
    told = [entry for entry in tried if entry[0] and entry[1]] or sorted(tried, key=lambda entry: entry[1])
    into.texts += told[-1][2].texts
    for _, _, contents in tried:
        into.attached += contents.attached
        into.files += contents.files
        into.messages += contents.messages


def _attach(part: Message, into: _Contents) -> None:
    name = shown_name(_header_text(str(part.get_filename() or "")) or part.get_content_type())
    encoded = part.get_payload()
    into.attached.append(f"Attachment: {name}")
    if part.get_content_maintype() != "text" and part.get_content_type() != "application/octet-stream":
        return
    if not isinstance(encoded, str) or len(encoded) > MAX_ATTACHED_TEXT_CHARS:
        return
    payload = _payload(part)
    if identify(payload, name).kind == "document" and identify(payload, name).mime.startswith("text/"):
        text = visible_text(_decoded(part)) if identify(payload, name).mime == "text/html" else clean(_decoded(part))
        if text.strip():
            into.files.append((name, text))


def _text(part: Message) -> str:
    text = _decoded(part)
    return (visible_text(text) if part.get_content_type() == "text/html" else clean(text)).strip("\n")


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decoded(part: Message) -> str:
    """In the encoding that the part names, if that fits; else in the likeliest."""
    payload = _payload(part)
    try:
        encoding = codecs.lookup(str(part.get_content_charset() or "utf-8")).name
        return decode(payload) if encoding in _NOT_FOR_TEXT else payload.decode(encoding)
    except (LookupError, ValueError):
        return decode(payload)


def _headers(message: Message) -> dict[str, str]:
    """The first of each header, by its name in small letters."""
    headers: dict[str, str] = {}
    for name, value in message.raw_items():
        headers.setdefault(name.lower(), _header_text(str(value)))
    return headers


def _subject(message: Message) -> str:
    return plain_heading(_headers(message).get("subject", ""))


def _header_text(value: str) -> str:
    """A header on one line, its encoded words decoded."""
    value = decode(value[:_MAX_HEADER_CHARS].encode("ascii", "surrogateescape")) if _escaped(value) else value
    value = value[:_MAX_HEADER_CHARS]
    with suppress(HeaderParseError, LookupError, ValueError):  # else it is shown as it stands
        value = str(make_header(decode_header(value)))
    return " ".join(clean(value).split())


def _escaped(value: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in value)
