"""Files made of blobs: found again after a restart, checked, bounded, and gone with their blob."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from hearth.store.blobs import BlobStore
from hearth.store.database import Database
from hearth.store.derived import DerivedFiles

ONE, TWO = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    DerivedFiles(tmp_path / "derived").put(ONE, "eyes1", b"embeddings")
    derived = DerivedFiles(tmp_path / "derived")
    assert derived.get(ONE, "eyes1") == b"embeddings"
    assert derived.get(ONE, "eyes2") is None
    assert derived.get(TWO, "eyes1") is None
    [path] = (tmp_path / "derived").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_or_missing_file_is_a_miss(tmp_path: Path) -> None:
    derived = DerivedFiles(tmp_path / "derived")
    for n, damage in enumerate((lambda raw: raw[:-1], lambda raw: raw[:20] + b"?" + raw[21:], lambda _: b"", None)):
        derived.put(ONE, "eyes", b"embeddings of a picture")
        path = tmp_path / "derived" / f"{ONE}.eyes"
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage(path.read_bytes()))
        assert derived.get(ONE, "eyes") is None, n
        assert not path.exists()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    derived = DerivedFiles(tmp_path / "derived", budget_bytes=3 * 116)
    for n in range(3):
        derived.put(ONE, f"eyes{n}", bytes(100))
    assert derived.get(ONE, "eyes0") is not None
    derived.put(TWO, "eyes", bytes(100))
    assert derived.get(ONE, "eyes1") is None
    assert derived.get(ONE, "eyes0") is not None
    derived.put(TWO, "large", bytes(400))  # fits nowhere: nothing goes for it
    assert derived.get(TWO, "large") is None
    assert len(list((tmp_path / "derived").iterdir())) == 3


def test_names_never_leave_the_folder(tmp_path: Path) -> None:
    derived = DerivedFiles(tmp_path / "derived")
    for sha256, name in (("../" * 21 + "x", "eyes"), (ONE, "../eyes"), (ONE, ""), (ONE.upper(), "eyes")):
        with pytest.raises(ValueError, match="lower case"):
            derived.put(sha256, name, b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    derived = DerivedFiles(tmp_path / "derived")
    (tmp_path / "derived").chmod(0o500)
    derived.put(ONE, "eyes", b"embeddings")
    assert derived.get(ONE, "eyes") is None


def test_it_goes_with_its_blob(tmp_path: Path) -> None:
    database = Database(tmp_path / "hearth.sqlite3")
    derived = DerivedFiles(tmp_path / "derived")
    blobs = BlobStore(tmp_path / "blobs", database, derived)
    kept, gone, unused = (blobs.put(text, name="n", mime="image/png") for text in (b"kept", b"gone", b"unused"))
    for sha256 in (kept, gone, unused):
        derived.put(sha256, "eyes", b"embeddings")
    blobs.delete(gone)
    blobs.named(unused)
    assert blobs.remove_unused([unused]) == 1
    assert [derived.get(sha256, "eyes") is not None for sha256 in (kept, gone, unused)] == [True, False, False]
    derived.put(TWO, "eyes", b"of a blob that a crash lost")
    BlobStore(tmp_path / "blobs", database, derived).sweep()
    assert derived.get(TWO, "eyes") is None
    database.close()
