"""Counts the parts of a picture's file before a decoder sees it: millions of them, each harmless, would take hours."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

MAX_PARTS = 100_000  # chunks of a PNG, blocks of a GIF, segments of a JPEG, items of a TIFF's field
MAX_SCANS = 500  # passes over a progressive JPEG; its own encoders make about ten
MAX_SCANNED_PIXELS = 2_500_000_000  # passes times pixels, some seconds of work
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # those that are followed by a length, and the end
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_TIFF_ITEM_FIELDS = {273, 279, 324, 325}  # where strips and tiles are, and how long


def n_parts(data: bytes, mime: str) -> int:
    """How many parts the file has, counted up to one more than ``MAX_PARTS``. 0 for formats whose number of parts does
    not matter, and where damage ends the count."""
    walk = {"image/png": _png_chunks, "image/gif": _gif_blocks, "image/jpeg": _jpeg_segments}.get(mime)
    if mime == "image/tiff":
        return _largest_tiff_field(data)
    if walk is None:
        return 0
    n = 0
    for _ in walk(data):
        n += 1
        if n > MAX_PARTS:
            break
    return n


def n_scans(data: bytes) -> int:
    """Passes over the pixels of a JPEG that has no more than ``MAX_PARTS`` segments."""
    return sum(marker == _JPEG_SCAN for marker in _jpeg_segments(data))


def _jpeg_segments(data: bytes) -> Iterator[int]:
    at = 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker = found[1][0]
        if marker == _JPEG_END:
            return
        yield marker
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _png_chunks(data: bytes) -> Iterator[int]:
    at = 8
    while at + 8 <= len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Extensions and their blocks up to the first picture."""
    if len(data) < 13:
        return
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while at < len(data) and data[at] != 0x2C:  # an image descriptor
        yield at
        if data[at] != 0x21:
            at += 1
            continue
        at += 2
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1


def _largest_tiff_field(data: bytes) -> int:
    """Items of the first directory's longest list of strips or tiles."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        n = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        entry, first = struct.Struct(order + ("HHQ8x" if big else "HHI4x")), at + (8 if big else 2)
        fields = [entry.unpack_from(data, first + number * entry.size) for number in range(min(n, 65_535))]
    except struct.error:
        return 0  # damaged; the decoder says so
    return max((count for tag, _, count in fields if tag in _TIFF_ITEM_FIELDS), default=0)
