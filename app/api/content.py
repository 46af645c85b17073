"""Messages of a request with the pictures and sounds in them. Nothing that a message names is fetched."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Literal

from hearth.api.errors import ApiError
from hearth.api.fields import Fields
from hearth.prompt import clean

MAX_MESSAGES = 10_000
MAX_FILES = 64  # pictures and sounds of a request
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_DATA_URL = re.compile(r"data:(?P<mime>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A picture or sound; ``name`` says for people where it stands."""

    kind: Literal["picture", "sound"]
    data: bytes
    name: str


@dataclass(frozen=True, slots=True)
class GivenMessage:
    role: Literal["system", "user", "assistant"]
    parts: tuple[str | GivenFile, ...]


def read_messages(listed: list[Any]) -> tuple[GivenMessage, ...]:
    """Raises ApiError naming the message and the part."""
    if not listed:
        raise ApiError("messages is empty; give at least one", param="messages")
    if len(listed) > MAX_MESSAGES:
        raise ApiError(f"messages has {len(listed):,} entries; at most {MAX_MESSAGES:,} are taken", param="messages")
    found = tuple(_read_message(entry, f"messages[{index}].") for index, entry in enumerate(listed))
    n_files = sum(isinstance(part, GivenFile) for message in found for part in message.parts)
    if n_files > MAX_FILES:
        raise ApiError(f"messages has {n_files} pictures and sounds; at most {MAX_FILES} are taken", param="messages")
    return found


def _read_message(entry: Any, place: str) -> GivenMessage:
    if not isinstance(entry, dict):
        raise ApiError(f"{place.rstrip('.')} must be a JSON object with role and content", param=place.rstrip("."))
    fields = Fields(entry, ("role", "content", "name", "refusal", "tool_calls", "audio", "annotations"), place)
    for name in ("name", "refusal", "tool_calls", "audio", "annotations"):  # clients send answers back with nulls
        fields.refuse_unless(name, ([],), "not supported here; leave it out")
    role = _ROLES.get(fields.need("role", "string"))
    if role is None:
        raise fields.wrong("role", f"is {entry['role'][:40]!r}; take system, developer, user or assistant")
    content = entry.get("content")
    if isinstance(content, str):
        return GivenMessage(role, (clean(content),))
    if not isinstance(content, list) or not content:
        raise fields.wrong("content", "must be a string or a list of parts")
    parts = tuple(_read_part(part, f"{place}content[{index}].") for index, part in enumerate(content))
    if role != "user" and any(isinstance(part, GivenFile) for part in parts):
        raise fields.wrong("content", f"has a picture or sound; a message of the role {role} has text only")
    return GivenMessage(role, parts)


def _read_part(part: Any, place: str) -> str | GivenFile:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return clean(Fields(part, ("type", "text"), place).need("text", "string"))
    if kind == "image_url":
        return _read_picture(Fields(part, ("type", "image_url"), place))
    if kind == "input_audio":
        return _read_sound(Fields(part, ("type", "input_audio"), place))
    shown = repr(kind)[:40] if kind else "missing"
    raise ApiError(f"{place}type is {shown}; take text, image_url or input_audio", param=f"{place}type")


def _read_picture(fields: Fields) -> GivenFile:
    given = fields.raw("image_url")
    given = {"url": given} if isinstance(given, str) else fields.need("image_url", "object")
    image = Fields(given, ("url", "detail"), f"{fields.place}image_url.")
    image.refuse_unless("detail", ("auto", "low", "high"), "take auto, low or high")
    url: str = image.need("url", "string")
    match = _DATA_URL.match(url[:200])
    if match is None:
        shown = url[:40] + ("…" if len(url) > 40 else "")
        raise image.wrong(
            "url", f"is {shown!r}: nothing is fetched here; send the picture itself as data:image/png;base64,…"
        )
    return GivenFile("picture", _decode(url[match.end() :], image, "url"), f"the picture at {fields.place[:-1]}")


def _read_sound(fields: Fields) -> GivenFile:
    sound = Fields(fields.need("input_audio", "object"), ("data", "format"), f"{fields.place}input_audio.")
    if sound.need("format", "string") not in ("wav", "mp3"):
        raise sound.wrong("format", f"is {sound.raw('format')[:20]!r}; take wav or mp3")
    return GivenFile("sound", _decode(sound.need("data", "string"), sound, "data"), f"the sound at {fields.place[:-1]}")


def _decode(encoded: str, fields: Fields, name: str) -> bytes:
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise fields.wrong(name, "is not base64; encode the file's bytes") from None
    if not data:
        raise fields.wrong(name, "is empty; encode the file's bytes")
    return data
