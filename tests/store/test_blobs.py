"""Blobs: stored once under their hash, whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from hearth.store.errors import NotFoundError, StoreError
from hearth.store.records import Attachment
from hearth.store.store import Store


def put(store: Store, data: bytes, name: str = "a.png") -> str:
    return store.blobs.put(data, name=name, mime="image/png")


def files(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "blobs").rglob("*") if path.is_file()]


def test_the_same_content_is_stored_once(store: Store, data_dir: Path) -> None:
    sha256 = put(store, b"content", "first.png")
    assert put(store, b"content", "second.png") == sha256 == hashlib.sha256(b"content").hexdigest()
    assert files(data_dir) == [store.blobs.path(sha256)]
    assert (store.blobs.get(sha256), store.blobs.size(sha256)) == (b"content", 7)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a\x00b", "CON", "x" * 5000, "\ud800", ""])
def test_names_never_become_paths(store: Store, data_dir: Path, name: str) -> None:
    sha256 = put(store, b"x", name)
    assert [path.relative_to(data_dir) for path in files(data_dir)] == [Path("blobs") / sha256[:2] / sha256]


@pytest.mark.parametrize("sha256", ["../../hearth.sqlite3", "", "A" * 64, "0" * 63, "0" * 64 + "\n", "0" * 64])
def test_ids_never_become_other_paths(store: Store, sha256: str) -> None:
    for call in (store.blobs.get, store.blobs.path, store.blobs.size, store.blobs.delete):
        with pytest.raises(NotFoundError):
            call(sha256)


def test_files_are_private(store: Store, data_dir: Path) -> None:
    put(store, b"x")
    store.conversations.create("x")
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    for path in data_dir.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_damage_is_detected_and_mended_by_adding_again(store: Store) -> None:
    sha256 = put(store, b"content")
    store.blobs.path(sha256).write_bytes(b"contenT")
    with pytest.raises(StoreError, match="damaged"):
        store.blobs.get(sha256)
    assert put(store, b"content") == sha256
    assert store.blobs.get(sha256) == b"content"


def test_a_lost_file_is_named(store: Store) -> None:
    sha256 = put(store, b"content")
    store.blobs.path(sha256).unlink()
    with pytest.raises(NotFoundError, match="add the file again"):
        store.blobs.get(sha256)


def test_delete_refuses_what_is_used(store: Store) -> None:
    sha256 = put(store, b"message")
    conversation = store.conversations.create()
    attachment = Attachment(sha256, "a.png", "picture", "image/png", 7)
    store.conversations.append(conversation.id, "user", "x", attachments=[attachment])
    with pytest.raises(StoreError, match="message uses it"):
        store.blobs.delete(sha256)
    remembered = put(store, b"document")
    store.documents.begin("d", "d.txt", "text", "text/plain", remembered, 1)
    with pytest.raises(StoreError, match="document in memory uses it"):
        store.blobs.delete(remembered)
    free = put(store, b"free")
    store.blobs.delete(free)
    with pytest.raises(NotFoundError):
        store.blobs.get(free)


def test_opening_sweeps_what_nothing_names(data_dir: Path) -> None:
    with Store.open(data_dir) as store:
        conversation = store.conversations.create()
        kept = put(store, b"kept")
        attachment = Attachment(kept, "a.png", "picture", "image/png", 4)
        store.conversations.append(conversation.id, "user", "x", attachments=[attachment])
        put(store, b"turn that never came")
        (data_dir / "blobs" / kept[:2] / "unfinished-abc").write_bytes(b"half")
        (data_dir / "blobs" / ("0" * 64)).write_bytes(b"no row")
    with Store.open(data_dir) as store:
        assert files(data_dir) == [store.blobs.path(kept)]


def test_a_full_disk_leaves_nothing_half_written(store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="free disk space"):
            put(store, b"content")
    assert files(data_dir) == []
    assert store.blobs.get(put(store, b"content")) == b"content"
