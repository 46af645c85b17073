"""Changes members of zip-based documents for tests."""

from __future__ import annotations

import io
import zipfile

ENTITIES = b'<!DOCTYPE x [<!ENTITY a "laugh"><!ENTITY b SYSTEM "file:///etc/hostname">]>'


def member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def with_member(data: bytes, name: str, change: bytes | None) -> bytes:
    """The archive with one member replaced or added, or left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for old_name in old.namelist():
            if old_name != name:
                new.writestr(old_name, old.read(old_name))
        if change is not None:
            new.writestr(name, change)
    return out.getvalue()


def make_zip(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def encrypted(data: bytes) -> bytes:
    """The archive with every member marked as encrypted, in front of it and in the directory."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + offset] |= 1
            at = changed.find(mark, at + 4)
    return bytes(changed)
