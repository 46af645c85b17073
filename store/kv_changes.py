"""What may happen to the index of KV blocks within one transaction of ``KvIndex.change``. Rows only, no files."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from hearth.store.kv_keys import KEY_BYTES, common_length

_ANCESTORS_TO_OWN = """WITH RECURSIVE up (key) AS (
        SELECT ?1
        UNION
        SELECT blocks.parent FROM up JOIN blocks ON blocks.key = up.key
        WHERE NOT EXISTS (SELECT 1 FROM owners WHERE owner = ?2 AND key = blocks.parent)
    )
    INSERT OR IGNORE INTO owners (owner, key) SELECT ?2, key FROM blocks WHERE key IN (SELECT key FROM up)"""
_DESCENDANTS = """WITH RECURSIVE down (key) AS (
        SELECT key FROM blocks WHERE key = ?
        UNION
        SELECT blocks.key FROM down JOIN blocks ON blocks.parent = down.key
    )
    SELECT key FROM down"""
_ORPHANS = """SELECT key FROM blocks
    WHERE parent <> x'' AND NOT EXISTS (SELECT 1 FROM blocks AS other WHERE other.key = blocks.parent)"""
_SHORTER = """SELECT key, entries FROM blocks
    WHERE parent = ? AND fingerprint = ? AND whole = 0 AND entries <= ? ORDER BY entries DESC LIMIT 1"""
_LEAVES = """SELECT key, n_bytes FROM blocks
    WHERE NOT EXISTS (SELECT 1 FROM blocks AS child WHERE child.parent = blocks.key) ORDER BY used"""
_OWNED_BY_NOBODY_ELSE = """SELECT key, parent FROM blocks WHERE key IN (SELECT key FROM owners WHERE owner = ?1)
    AND NOT EXISTS (SELECT 1 FROM owners WHERE key = blocks.key AND owner <> ?1)"""


class DamagedIndexError(sqlite3.DatabaseError):
    """The index says something that cannot be, or is not ours."""


class KvChange:
    """The statements of one transaction. Valid inside the ``with`` block only; all raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def contains(self, key: bytes, fingerprint: bytes) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM blocks WHERE key = ? AND fingerprint = ?", (key, fingerprint)
        ).fetchone()
        return found is not None

    def insert(
        self, key: bytes, fingerprint: bytes, parent: bytes, encoded: bytes, *, whole: bool, n_bytes: int, used: int
    ) -> None:
        self._connection.execute(
            "INSERT INTO blocks (key, fingerprint, parent, whole, entries, n_bytes, used) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, fingerprint, parent, whole, encoded, n_bytes, used),
        )

    def touch(self, keys: Iterable[tuple[bytes, int]]) -> None:
        """Sets when blocks were last used: pairs of key and moment."""
        self._connection.executemany("UPDATE blocks SET used = ?2 WHERE key = ?1", keys)

    def own(self, key: bytes, owner: bytes) -> None:
        """Gives a block and all its ancestors an owner: whoever owns a block owns what it stands on."""
        self._connection.execute(_ANCESTORS_TO_OWN, (key, owner))

    def owners(self, key: bytes) -> set[bytes]:
        return {row[0] for row in self._connection.execute("SELECT owner FROM owners WHERE key = ?", (key,))}

    def delete(self, keys: Iterable[bytes]) -> None:
        """Deletes rows and whose they were."""
        self._connection.executemany("DELETE FROM blocks WHERE key = ?", [(key,) for key in keys])

    def clear(self) -> None:
        self._connection.execute("DELETE FROM owners")
        self._connection.execute("DELETE FROM blocks")

    def keys(self) -> set[bytes]:
        return set(self._keys("SELECT key FROM blocks"))

    def orphans(self) -> list[bytes]:
        """Blocks whose parent is not there."""
        return list(self._keys(_ORPHANS))

    def with_descendants(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of ``keys`` that are in the index, and all below them."""
        found: dict[bytes, None] = {}
        for key in keys:
            if key not in found:
                found.update((one, None) for one in self._keys(_DESCENDANTS, key))
        return list(found)

    def strict_prefixes(self, fingerprint: bytes, parent: bytes, encoded: bytes) -> list[bytes]:
        """The siblings, not whole ones, that ``encoded`` begins with and goes on behind."""
        found = []
        bound = encoded
        while bound:
            row = self._connection.execute(_SHORTER, (parent, fingerprint, bound)).fetchone()
            if row is None:
                break
            key, other = _key(row[0]), row[1]
            shared = common_length(other, encoded)
            if shared == len(other) < len(encoded):
                found.append(key)
            if shared == len(other):  # itself a prefix: the next one is shorter still
                shared -= 1
            bound = encoded[:shared]
        return found

    def oldest_leaf(self, kept: Collection[bytes]) -> tuple[bytes, int] | None:
        """(key, payload bytes) of the block used longest ago that no other stands on and that is not in ``kept``."""
        cursor = self._connection.execute(_LEAVES)
        try:
            return next(((_key(key), checked_number(n_bytes)) for key, n_bytes in cursor if key not in kept), None)
        finally:
            cursor.close()

    def forget(self, owner: bytes, kept: Collection[bytes]) -> list[bytes]:
        """Takes everything from ``owner``; deletes and returns what nobody else owns, unless another block that stays
        stands on it or it is in ``kept``."""
        rows = self._connection.execute(_OWNED_BY_NOBODY_ELSE, (owner,)).fetchall()
        parents = {_key(key): parent for key, parent in rows}
        n_children = {key: len(self.children(key)) for key in parents}
        self._connection.execute("DELETE FROM owners WHERE owner = ?", (owner,))
        gone = []
        free = [key for key, n in n_children.items() if not n and key not in kept]
        while free:
            key = free.pop()
            gone.append(key)
            parent = parents[key]
            if parent in n_children:
                n_children[parent] -= 1
                if not n_children[parent] and parent not in kept:
                    free.append(parent)
        self.delete(gone)
        return gone

    def children(self, key: bytes) -> set[bytes]:
        return set(self._keys("SELECT key FROM blocks WHERE parent = ?", key))

    def total_bytes(self) -> int:
        return checked_number(self._connection.execute("SELECT coalesce(sum(n_bytes), 0) FROM blocks").fetchone()[0])

    def written_bytes(self, day: int) -> int:
        row = self._connection.execute("SELECT n_bytes FROM written WHERE day = ?", (day,)).fetchone()
        return checked_number(row[0]) if row else 0

    def note_written(self, day: int, n_bytes: int) -> None:
        """Adds to what was written on ``day``; other days are forgotten."""
        self._connection.execute("DELETE FROM written WHERE day <> ?", (day,))
        self._connection.execute(
            "INSERT INTO written (day, n_bytes) VALUES (?1, ?2) ON CONFLICT (day) DO UPDATE SET n_bytes = n_bytes + ?2",
            (day, n_bytes),
        )

    def _keys(self, statement: str, *parameters: bytes) -> Iterator[bytes]:
        for row in self._connection.execute(statement, parameters).fetchall():
            yield _key(row[0])


def _key(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != KEY_BYTES:
        raise DamagedIndexError("a key of another form")
    return value


def checked_number(value: Any) -> int:
    """SQLite gives what it finds in a damaged file, of whatever type. Raises DamagedIndexError."""
    if not isinstance(value, int):
        raise DamagedIndexError("a number of another form")
    return value
