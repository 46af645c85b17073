"""What readers of zip-based documents share: sizes known before anything is unpacked, XML that can name no files."""

from __future__ import annotations

import io
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hearth.multimodal.documents_types import Watch
from hearth.multimodal.errors import MediaTooLargeError, PerceptionError

MAX_MEMBERS = 10_000
MAX_UNPACKED_BYTES = 500_000_000
MAX_XML_BYTES = 64_000_000  # of one XML part; a tree in memory takes some ten times as much
MAX_XML_IN_ALL_BYTES = 128_000_000
_XML_SUFFIXES = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx")

# What lxml, zipfile, python-docx and openpyxl raise on damaged files.
_DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,  # lxml's XMLSyntaxError is one
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    AssertionError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


@contextmanager
def opened(data: bytes, watch: Watch, words: str, also: tuple[type[Exception], ...] = ()) -> Iterator[zipfile.ZipFile]:
    """The archive of ``data``. ``words`` ("a Word document") name it where the body raises what damaged content makes
    libraries raise, or one of ``also``.

    Raises MediaTooLargeError (members, unpacked bytes), PerceptionError (encrypted, damaged).
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check(archive, watch.name)
            yield archive
    except _DAMAGE + also as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise PerceptionError(
            f"{watch.name} is {words} that is truncated or damaged ({reason}); save it again"
        ) from error


def _check(archive: zipfile.ZipFile, name: str) -> None:
    """The sizes in the archive's directory; zipfile never unpacks more than they say."""
    members = archive.infolist()
    if any(member.flag_bits & 1 for member in members):
        raise PerceptionError(f"{name} is encrypted and needs a password; save a copy without a password and add that")
    xml = [member.file_size for member in members if member.filename.lower().endswith(_XML_SUFFIXES)]
    for n, limit, what in (
        (len(members), MAX_MEMBERS, "files inside it"),
        (sum(member.file_size for member in members), MAX_UNPACKED_BYTES, "bytes when unpacked"),
        (max(xml, default=0), MAX_XML_BYTES, "bytes of XML in one part"),
        (sum(xml), MAX_XML_IN_ALL_BYTES, "bytes of XML"),
    ):
        if n > limit:
            raise MediaTooLargeError(f"{name} has {n:,} {what}, more than the limit of {limit:,}; split the document")


def read_part(archive: zipfile.ZipFile, path: str, name: str) -> bytes:
    """One member of the document called ``name``. Raises KeyError (there is none), MediaTooLargeError."""
    member = archive.getinfo(path)
    if member.file_size > MAX_XML_BYTES:
        raise MediaTooLargeError(
            f"{name} has {member.file_size:,} bytes in one part, more than the limit of {MAX_XML_BYTES:,}; "
            "split the document"
        )
    return archive.read(member)


def parse_xml(data: bytes) -> Any:
    """The root element. Entities are not expanded, nothing is loaded, depth is limited. Raises SyntaxError."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(data, parser)


def parts_of_xml(data: bytes, name: str) -> Iterator[Any]:
    """Each element called ``name``, as soon as it is parsed; it is emptied when the next is asked for, so memory stays
    small. Entities and depth as in ``parse_xml``. Raises SyntaxError."""
    from lxml import etree

    found = etree.iterparse(
        io.BytesIO(data), tag="{*}" + name, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    for _, element in found:
        yield element
        element.clear()
        parent = element.getparent()
        while parent is not None and element.getprevious() is not None:
            del parent[0]


def relations(archive: zipfile.ZipFile, part: str, name: str) -> dict[str, tuple[str, str]]:
    """(last word of the type, place in the archive) for each relation of an Office ``part`` that stays within the
    archive; ``name`` is the document's."""
    folder, _, file = part.rpartition("/")
    path = f"{folder}/_rels/{file}.rels"
    if path not in archive.NameToInfo:
        return {}
    return {
        relation.get("Id", ""): (relation.get("Type", "").rpartition("/")[2], joined_path(part, relation.get("Target")))
        for relation in parse_xml(read_part(archive, path, name)).iter("{*}Relationship")
        if relation.get("TargetMode") != "External" and relation.get("Target")
    }


def joined_path(part: str, target: str) -> str:
    """The archive's name for ``target`` as ``part`` refers to it."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(part), target)).lstrip("/")
