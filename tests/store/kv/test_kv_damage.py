"""KV blocks on a disk that damages or refuses: a miss or an error that says why, never a wrong block."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hearth.store import kv_files, kv_writer
from hearth.store.errors import StoreError
from hearth.store.kv_blocks import KvBlockStore
from tests.store.kv.chains import (
    BUDGET,
    MODEL,
    check_folder,
    check_match,
    file_of,
    files,
    flat,
    matched,
    payload_of,
    put_chain,
)

N_FLIPS = 200
N_TRUNCATIONS = 50


# damage


def test_a_flipped_bit_in_a_file_is_never_read(store: KvBlockStore, folder: Path) -> None:
    rng = random.Random()
    chains = [[[n, 0], [n, 1], [n, 2]] for n in range(4)]
    keys = [put_chain(store, *blocks) for blocks in chains]
    store.flush()
    for _ in range(N_FLIPS):
        chain, place = rng.randrange(4), rng.randrange(3)
        path = file_of(folder, keys[chain][place])
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert store.read(keys[chain][place]) is None
        assert [key for key, _ in matched(store, flat(chains[chain]))] == keys[chain][:place]
        put_chain(store, *chains[chain])
        store.flush()
        assert check_match(store, flat(chains[chain])) == 3
    assert store.stats().n_damaged >= N_FLIPS
    check_folder(folder)


def test_a_truncated_file_is_never_read(store: KvBlockStore, folder: Path) -> None:
    rng = random.Random()
    for n in range(N_TRUNCATIONS):
        (key,) = put_chain(store, [1])
        store.flush()
        size = file_of(folder, key).stat().st_size
        os.truncate(file_of(folder, key), 0 if n == 0 else size + 1 if n == 1 else rng.randrange(size))
        assert store.read(key) is None
        assert not store.contains(key)


@pytest.mark.parametrize(("name", "value"), [("FORMAT_VERSION", 2), ("_MAGIC", b"HrthKVc\n")])
def test_another_format_is_never_read(
    store: KvBlockStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(kv_files, name, value)
        (key,) = put_chain(store, [1])
        store.flush()
    assert store.read(key) is None
    assert "version" in caplog.text


def test_another_block_in_a_files_place_is_never_read(store: KvBlockStore, folder: Path) -> None:
    (a,), (b,) = put_chain(store, [1]), put_chain(store, [1], model="model b")
    store.flush()
    shutil.copy(file_of(folder, a), file_of(folder, b))
    assert store.read(b) is None
    assert store.read(a) == payload_of([1])


def test_a_file_that_is_gone_is_a_miss(store: KvBlockStore, folder: Path) -> None:
    keys = put_chain(store, [1], [2])
    store.flush()
    file_of(folder, keys[0]).unlink()
    assert store.read(keys[0]) is None
    assert matched(store, [1, 2]) == []
    assert files(folder) == set()


def test_a_flipped_bit_in_the_index_is_never_believed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random()
    chains = [[[n, 0, "picture"], [n, 1], [n, 2, 3]] for n in range(4)]
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        for n, blocks in enumerate(chains):
            put_chain(store, *blocks, owner=f"owner {n}")
    pristine = (folder / "index.sqlite3").read_bytes()
    used = [place for place, byte in enumerate(pristine) if byte] * 3 + list(range(len(pristine)))
    n_read = 0
    caplog.set_level(logging.ERROR, "hearth.store")
    for n in range(N_FLIPS):
        damaged = folder.with_name(f"damaged {n}")
        shutil.copytree(folder, damaged)
        data = bytearray(pristine)
        data[rng.choice(used)] ^= 1 << rng.randrange(8)
        (damaged / "index.sqlite3").write_bytes(data)
        with closing(KvBlockStore(damaged, budget_bytes=BUDGET)) as store:
            for blocks in chains:
                n_read += check_match(store, flat(blocks))
            put_chain(store, [5], [6], owner="owner 5")
            store.use([block.key for block in store.match(MODEL, flat(chains[0]))], "owner 5")
            store.flush()
            store.forget_owner("owner 1")
            store.stats()
            check_match(store, [5, 6])
        shutil.rmtree(damaged)
    assert n_read > N_FLIPS


def not_a_database(path: Path) -> None:
    path.write_bytes(b"hello" * 1000)


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as index:
        index.executescript("DROP TABLE owners; DROP TABLE blocks; CREATE TABLE t (x); PRAGMA application_id = 5;")


def of_a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as index:
        index.execute("PRAGMA user_version = 99")


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as index:
        index.execute("DROP TABLE owners")


def with_bytes_for_a_number(path: Path) -> None:
    """As a flipped bit leaves it: no statement could, with the table as it is."""
    for statement in (
        "UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'blocks'",
        "UPDATE blocks SET n_bytes = x'00c800'",
        "UPDATE sqlite_schema SET sql = sql || ' STRICT' WHERE name = 'blocks'",
    ):
        with closing(sqlite3.connect(path)) as index, index:
            index.execute("PRAGMA writable_schema = ON")
            index.execute(statement)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [not_a_database, of_another_program, of_a_newer_version, without_a_table, with_bytes_for_a_number, cut_in_half],
)
def test_an_index_that_is_not_ours_is_begun_anew(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        put_chain(store, *([n] * 50 for n in range(20)))
    damage(folder / "index.sqlite3")
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        assert matched(store, [0] * 50) == []
        assert files(folder) == set()
        put_chain(store, [1])
        store.flush()
        assert check_match(store, [1]) == 1
    assert "dropped and computed again" in caplog.text


def test_an_index_that_breaks_while_it_is_open_is_begun_anew(store: KvBlockStore, folder: Path) -> None:
    put_chain(store, [1], [2], owner="a")
    store.flush()
    with store._index.change() as change:
        change._connection.execute("UPDATE blocks SET entries = x'00000007' WHERE parent = x''")
    assert matched(store, [1, 2]) == []
    assert matched(store, [7]) == []
    assert files(folder) == set()
    put_chain(store, [1], [2], owner="a")
    store.flush()
    assert check_match(store, [1, 2]) == 2
    with store._index.change() as change:
        change._connection.execute("DROP TABLE owners")
    assert store.forget_owner("a") == 2
    assert files(folder) == set()


# a disk that refuses


class Refusing:
    """Makes one step of writing a block fail, as often as it is tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
        self.n_calls = 0
        open_, replace = os.open, Path.replace

        def fails() -> None:
            self.n_calls += 1
            raise OSError(number, os.strerror(number))

        def refuse_open(path: Any, *args: Any, **options: Any) -> int:
            if str(path).endswith(".unfinished"):
                fails()
            return open_(path, *args, **options)

        class FullFile:
            def __init__(self, descriptor: int, _mode: str) -> None:
                self.descriptor = descriptor

            def __enter__(self) -> FullFile:
                return self

            def __exit__(self, *_: object) -> None:
                os.close(self.descriptor)

            def write(self, data: bytes) -> None:
                os.write(self.descriptor, data[:50])
                fails()

        def refuse_replace(path: Path, target: Path) -> Path:
            if path.name.endswith(".unfinished"):
                fails()
            return replace(path, target)

        if step == "open":
            monkeypatch.setattr(kv_files.os, "open", refuse_open)
        elif step == "write":
            monkeypatch.setattr(kv_files.os, "fdopen", FullFile)
        else:
            monkeypatch.setattr(Path, "replace", refuse_replace)


@pytest.mark.parametrize(
    ("step", "number"), [("open", errno.EROFS), ("open", errno.EACCES), ("write", errno.ENOSPC), ("replace", errno.EIO)]
)
def test_a_disk_that_refuses_is_said_once_and_tried_again(
    store: KvBlockStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
    number: int,
) -> None:
    (before,) = put_chain(store, [1])
    store.flush()
    with monkeypatch.context() as patch:
        refusing = Refusing(patch, step, number)
        put_chain(store, [1], [2], [3])
        put_chain(store, [4])
        store.flush()
        put_chain(store, [5])
        assert store.flush()
        assert refusing.n_calls == 1  # then it rests
        store._writer._rest_until_s = 0.0
        put_chain(store, [6])
        store.flush()
        assert refusing.n_calls == 2
    assert files(folder) == {before}
    assert check_match(store, [1, 2, 3]) == 1
    assert store.stats().n_dropped == 5
    assert len([one for one in caplog.messages if "cannot be written" in one]) == 1
    store._writer._rest_until_s = 0.0
    put_chain(store, [1], [2], [3])
    store.flush()
    assert check_match(store, [1, 2, 3]) == 3
    check_folder(folder)


def test_an_index_that_cannot_grow_is_no_error(
    store: KvBlockStore, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kv_writer, "RETRY_AFTER_S", 0.0)
    with store._index.change() as change:
        connection = change._connection
    connection.execute("PRAGMA max_page_count = 12").fetchall()  # SQLITE_FULL
    for n in range(60):
        put_chain(store, [n, *range(400)], owner="a")
    store.flush()
    n_kept = len(files(folder))
    assert 0 < n_kept < 60
    assert "cannot be written" in caplog.text
    check_folder(folder)
    connection.execute("PRAGMA max_page_count = 100000").fetchall()
    put_chain(store, [99], owner="a")
    store.flush()
    assert len(files(folder)) == n_kept + 1


def test_who_deletes_is_told_that_it_was_not_done(
    store: KvBlockStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_chain(store, [1], owner="a")
    store.flush()

    def refuse(path: Path, missing_ok: bool = False) -> None:  # noqa: ARG001
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(StoreError, match="could not be removed"):
            store.forget_owner("a")
        with pytest.raises(StoreError, match="could not be removed"):
            store.wipe()
    store.wipe()
    assert files(folder) == set()


@pytest.mark.parametrize("place", ["kv", "kv/index.sqlite3"])
def test_a_folder_that_cannot_be_opened_is_an_error(tmp_path: Path, place: str) -> None:
    if place == "kv":
        (tmp_path / "kv").write_bytes(b"a file")
    else:
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(StoreError, match="kv"):
        KvBlockStore(tmp_path / "kv", budget_bytes=BUDGET)


def test_files_are_private(store: KvBlockStore, folder: Path) -> None:
    put_chain(store, [1], [2])
    store.flush()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.rglob("*"))) >= 5
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
