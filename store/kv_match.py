"""The longest beginning of a prompt that a tree of KV blocks holds. Knows the tree only by asking for children."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hearth.store.kv_keys import Entries, decode, encode


@dataclass(frozen=True, slots=True)
class KvBlock:
    """A block that was found. ``n_matched`` of its entries, from its first, are those asked for."""

    key: str
    parent: str
    entries: tuple[int | str, ...]
    n_matched: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block of the tree; ``encoded`` are its own entries."""

    key: bytes
    encoded: bytes
    n_bytes: int


# (key of a parent, encoded entries wanted below it) → children, among them one that shares most with what is wanted,
# and the longest that what is wanted begins with
Children = Callable[[bytes, bytes], Iterable[Candidate]]


def match_chain(children: Children, entries: Entries) -> list[KvBlock]:
    """At each step the child that shares most leading entries; of two that share as many, one that matches entirely.

    Goes on only below a block that matches entirely, so only the last may match in part.
    """
    wanted, left = tuple(entries), encode(entries)
    found: list[KvBlock] = []
    start, parent = 0, b""
    while start < len(wanted):
        best: KvBlock | None = None
        n_encoded = 0
        for candidate in children(parent, left):
            block = _compare(candidate, parent, wanted, start)
            if block.n_matched and (best is None or _rank(block) > _rank(best)):
                best, n_encoded = block, len(candidate.encoded)
        if best is None:
            break
        found.append(best)
        if best.n_matched < len(best.entries):
            break
        start += len(best.entries)
        left = left[n_encoded:]
        parent = bytes.fromhex(best.key)
    return found


def match_whole(children: Children, entries: Entries) -> KvBlock | None:
    """The longest block below nothing whose entries all stand at the beginning of ``entries``."""
    left = encode(entries)
    prefixes = [one for one in children(b"", left) if left.startswith(one.encoded)]
    longest = max(prefixes, key=lambda one: len(one.encoded), default=None)
    return None if longest is None else _compare(longest, b"", tuple(entries), 0)


def _rank(block: KvBlock) -> tuple[int, bool]:
    return block.n_matched, block.n_matched == len(block.entries)


def _compare(candidate: Candidate, parent: bytes, wanted: tuple[int | str, ...], start: int) -> KvBlock:
    """A block with the number of entries that it shares with ``wanted`` from ``start`` on."""
    entries = decode(candidate.encoded)
    part = wanted[start : start + len(entries)]
    n_matched = len(entries)
    if part != entries:
        pairs = zip(entries, part, strict=False)
        n_matched = next((place for place, (a, b) in enumerate(pairs) if a != b), len(part))
    return KvBlock(candidate.key.hex(), parent.hex(), entries, n_matched, candidate.n_bytes)
