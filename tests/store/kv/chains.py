"""Chains of KV blocks to put into a store, and what must hold of what is found."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from hearth.store.kv_blocks import KvBlockStore

MODEL = "model a"
BUDGET = 1 << 30

Prefix = tuple[int | str, ...]  # all entries from the first one to the end of a block


def payload_of(path: Sequence[int | str], n_bytes: int = 200) -> bytes:
    """What only the block that ends at ``path`` holds."""
    return hashlib.shake_128(repr(tuple(path)).encode()).digest(n_bytes)


def put_chain(
    store: KvBlockStore, *blocks: Sequence[int | str], owner: str | None = None, n_bytes: int = 200, model: str = MODEL
) -> list[str]:
    """Puts blocks below each other; returns their keys."""
    keys: list[str] = []
    path: Prefix = ()
    for entries in blocks:
        path += tuple(entries)
        parent = keys[-1] if keys else ""
        keys.append(store.put(model, parent, entries, payload_of(path, n_bytes), owner=owner))
    return keys


def flat(blocks: Sequence[Sequence[int | str]]) -> list[int | str]:
    return [entry for entries in blocks for entry in entries]


def n_shared(a: Prefix, b: Prefix) -> int:
    return next((n for n, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))


def matched(store: KvBlockStore, entries: Sequence[int | str], model: str = MODEL) -> list[tuple[str, int]]:
    return [(block.key, block.n_matched) for block in store.match(model, entries)]


def check_match(store: KvBlockStore, entries: Sequence[int | str]) -> int:
    """Whatever is found must be what was put. Returns how many blocks were read."""
    path: Prefix = ()
    n_read = 0
    for block in store.match(MODEL, entries):
        assert block.entries[: block.n_matched] == tuple(entries[len(path) : len(path) + block.n_matched])
        path += block.entries
        payload = store.read(block.key)
        assert payload in (None, payload_of(path))
        n_read += payload is not None
    return n_read


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("??/*")}


def file_of(folder: Path, key: str) -> Path:
    return folder / key[:2] / key


def check_folder(folder: Path) -> None:
    """Rows and files are of the same blocks, every block has its parent, and who owns a block owns its parent."""
    with closing(sqlite3.connect(folder / "index.sqlite3")) as index:
        rows = index.execute("SELECT key, parent FROM blocks").fetchall()
        owners = set(index.execute("SELECT key, owner FROM owners"))
        assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    keys = {key for key, _ in rows}
    parents = {key: parent for key, parent in rows if parent}
    assert {key.hex() for key in keys} == files(folder)
    assert set(parents.values()) <= keys
    assert {(parents[key], owner) for key, owner in owners if key in parents} <= owners


@contextmanager
def writer_held(store: KvBlockStore) -> Iterator[None]:
    """As long as it lasts, nothing is written: what is put stays pending."""
    with store._index.lock:
        yield
