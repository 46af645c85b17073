"""One file for each KV block: a header of fixed size, of which every byte is checked, and the payload behind it."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import xxhash

from hearth.store.kv_buffers import Buffers
from hearth.store.kv_keys import FINGERPRINT_BYTES, KEY_BYTES

FORMAT_VERSION = 1

log = logging.getLogger("hearth.store")
_MAGIC = b"HrthKVb\n"
_CHECKSUM_BYTES = 16
# magic, version, key, fingerprint, payload length, checksum of the payload; then the checksum of these
_HEADER = struct.Struct(f">8sI{KEY_BYTES}s{FINGERPRINT_BYTES}sQ{_CHECKSUM_BYTES}s")
HEADER_BYTES = _HEADER.size + _CHECKSUM_BYTES
_SHARD = re.compile(r"[0-9a-f]{2}\Z")
_UNFINISHED = ".unfinished"
_OURS = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}({re.escape(_UNFINISHED)})?\Z")


class DamagedBlockError(Exception):
    """A file is not the block that it should be; the message says in what."""


class BlockFiles:
    """The files of blocks in ``folder``, as ``ab/abcdef…``. Only one thread at a time may write or remove."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: bytes) -> Path:
        name = key.hex()
        return self._folder / name[:2] / name

    def write(self, key: bytes, fingerprint: bytes, payload: bytes | memoryview) -> None:
        """Writes a block whole or not at all: temporary file, rename. Raises OSError.

        Not forced to the disk: what a power cut leaves incomplete is found by its checksum and is a miss.
        """
        path = self.path(key)
        header = _HEADER.pack(_MAGIC, FORMAT_VERSION, key, fingerprint, len(payload), checksum(payload))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_name(path.name + _UNFINISHED)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(header + checksum(header))
                file.write(payload)
            temporary.replace(path)
        except BaseException:
            _unlink(temporary)
            raise

    def read(self, key: bytes, fingerprint: bytes, n_bytes: int, buffers: Buffers) -> memoryview:
        """The payload of a block, every byte checked, in one of ``buffers``. Raises OSError, DamagedBlockError."""
        with self.path(key).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != HEADER_BYTES + n_bytes:
                raise DamagedBlockError(f"it has {size} bytes instead of {HEADER_BYTES + n_bytes}")
            buffer = buffers.take(size)
            try:
                return self._read_into(memoryview(buffer)[:size], file, key, fingerprint)
            except BaseException:
                buffers.give_back(buffer)
                raise

    def prefetch(self, keys: Sequence[bytes]) -> None:
        """Has the system fetch blocks from the disk, where it can; those that are not there are left out."""
        if not hasattr(os, "posix_fadvise"):
            return
        for key in keys:
            try:
                with self.path(key).open("rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            except OSError as error:
                log.debug("%s: not fetched ahead (%s)", self.path(key), error.strerror)

    @staticmethod
    def _read_into(view: memoryview, file: io.FileIO, key: bytes, fingerprint: bytes) -> memoryview:
        n_read = 0
        while n := file.readinto(view[n_read:]):
            n_read += n
        header, payload = bytes(view[:HEADER_BYTES]), view[HEADER_BYTES:]
        n_bytes = len(payload)
        if n_read != len(view):
            raise DamagedBlockError(f"it ends after {n_read} bytes")
        if checksum(header[: _HEADER.size]) != header[_HEADER.size :]:
            raise DamagedBlockError("the checksum of its header is wrong")
        magic, version, found_key, found_fingerprint, length, payload_checksum = _HEADER.unpack_from(header)
        if magic != _MAGIC or version != FORMAT_VERSION:
            raise DamagedBlockError(f"its format is not version {FORMAT_VERSION}")
        if found_key != key or found_fingerprint != fingerprint:
            raise DamagedBlockError("it is another block, or of another model")
        if length != n_bytes or checksum(payload) != payload_checksum:
            raise DamagedBlockError("the checksum of its payload is wrong")
        return payload

    def remove(self, key: bytes) -> bool:
        """Removes a block's file if there is one; False, logged, if it could not be."""
        return _unlink(self.path(key))

    def sweep(self, known: Container[bytes]) -> set[bytes]:
        """Removes unfinished files and blocks that are not ``known``; returns which are there. Raises OSError."""
        found = set()
        for path in self._ours():
            key = None if path.name.endswith(_UNFINISHED) else bytes.fromhex(path.name)
            if key is not None and key in known:
                found.add(key)
            else:
                _unlink(path)
        return found

    def remove_all(self) -> tuple[int, int]:
        """Removes every block; returns how many, and how many could not be. Raises OSError."""
        done = [_unlink(path) for path in self._ours()]
        return sum(done), len(done) - sum(done)

    def _ours(self) -> Iterator[Path]:
        shards = [path for path in self._folder.iterdir() if _SHARD.match(path.name) and path.is_dir()]
        for shard in shards:
            yield from [path for path in shard.iterdir() if _OURS.match(path.name)]


def checksum(data: bytes | memoryview) -> bytes:
    """_CHECKSUM_BYTES bytes. Another function than this one needs another FORMAT_VERSION."""
    return xxhash.xxh3_128_digest(data)


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: could not be removed (%s); tried again when the store opens", path, error.strerror)
        return False
    return True
