"""Opening the data folder: one owner, migrations, what a crash or a full disk leaves, what deletion leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.store import database as database_module
from hearth.store.database import APPLICATION_ID, Database
from hearth.store.errors import DataFolderInUseError, StoreError
from hearth.store.migrations import LATEST, MIGRATIONS
from hearth.store.store import DATABASE_NAME, Store

N_KILLS = 6
OWNER = """
import sys
from pathlib import Path
from hearth.store.store import Store
store = Store.open(Path(sys.argv[1]))
print("open", flush=True)
"""
WAITING = OWNER + "sys.stdin.read()\n"
WRITING = (
    OWNER
    + """
from hearth.store.records import Attachment
conversation = store.conversations.list()[0].id
step = 0
while True:
    data = f"blob {step} of {sys.argv[2]}".encode() * 1000
    sha256 = store.blobs.put(data, name="a", mime="image/png")
    attachment = Attachment(sha256, "a", "picture", "image/png", len(data))
    message = store.conversations.append(conversation, "user", f"step {step}", attachments=[attachment])
    store.documents.begin("A", "a.txt", "text", "text/plain", "a" * 64, 1)
    print(message.id, flush=True)
    step += 1
"""
)
LIMITED = (
    """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
"""
    + OWNER
    + """
from hearth.store.errors import StoreError
conversation = store.conversations.create("x")
store.conversations.append(conversation.id, "user", "before")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
for call in (
    lambda: store.conversations.append(conversation.id, "user", "large " * 200_000),
    lambda: store.blobs.put(b"x" * 1_000_000, name="a", mime="b"),
):
    try:
        call()
    except StoreError as error:
        print("StoreError", error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
store.conversations.append(conversation.id, "user", "after")
store.close()
"""
)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()


def test_a_second_process_is_refused_until_the_first_dies(data_dir: Path) -> None:
    child = start(WAITING, str(data_dir))
    try:
        with pytest.raises(DataFolderInUseError) as refusal:
            Store.open(data_dir)
        assert str(data_dir) in str(refusal.value)
        assert f"process {child.pid};" in str(refusal.value)
        assert "HEARTH_DATA_DIR" in str(refusal.value)
    finally:
        end(child)
    with Store.open(data_dir) as store:  # the files of the dead owner are no obstacle
        store.conversations.create()


def test_a_second_store_in_the_same_process_is_refused(store: Store) -> None:
    with pytest.raises(DataFolderInUseError, match="this process"):
        Store.open(store.data_dir)
    store.conversations.create()


def test_a_killed_writer_leaves_a_whole_store(data_dir: Path) -> None:
    with Store.open(data_dir) as store:
        conversation = store.conversations.create("x")
    told: list[str] = []
    for number in range(N_KILLS):
        child = start(WRITING, str(data_dir), str(number))
        assert child.stdout is not None
        told += [child.stdout.readline().strip() for _ in range(number + 1)]
        end(child)
        with Store.open(data_dir) as store:
            messages = store.conversations.messages(conversation.id)
            assert [message.position for message in messages] == list(range(len(messages)))
            assert set(told) <= {message.id for message in messages}  # what was reported as kept is kept
            assert store.conversations.get(conversation.id).n_messages == len(messages)
            for message in messages:
                assert store.blobs.size(message.attachments[0].sha256) == message.attachments[0].size_bytes
            assert store.blobs.get(messages[-1].attachments[0].sha256)
            assert {one.state for one in store.documents.list()} == {"failed"}
            n_files = sum(path.is_file() for path in (data_dir / "blobs").rglob("*"))
            assert n_files == len({message.attachments[0].sha256 for message in messages})
    with sqlite3.connect(data_dir / DATABASE_NAME) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_file_in_place_of_the_folder(data_dir: Path) -> None:
    data_dir.write_text("x")
    with pytest.raises(StoreError, match="HEARTH_DATA_DIR"):
        Store.open(data_dir)
    with pytest.raises(StoreError, match="HEARTH_DATA_DIR"):
        Store.open(data_dir / "below")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(StoreError, match="/proc/self/hearth"):
        Store.open(Path("/proc/self/hearth"))
    with pytest.raises(StoreError, match="/proc/self"):
        Store.open(Path("/proc/self"))


def test_a_folder_without_permission(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, os.strerror(13))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StoreError, match="not writable; fix its permissions"):
            Store.open(data_dir)
    Store.open(data_dir).close()  # nothing was left locked


def test_a_full_database_undoes_the_whole_change(store: Store) -> None:
    conversation = store.conversations.create("x")
    store.conversations.append(conversation.id, "user", "before")
    writer = store._database._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
    with pytest.raises(StoreError, match="the disk is full"):
        store.conversations.append(conversation.id, "user", "large " * 50_000)
    writer.execute("PRAGMA max_page_count = 1000000").fetchall()
    store.conversations.append(conversation.id, "user", "after")
    assert [message.text for message in store.conversations.messages(conversation.id)] == ["before", "after"]
    assert store.conversations.list(query="large") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_files_that_cannot_grow(data_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(data_dir)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("StoreError") == 2
    with Store.open(data_dir) as store:
        texts = [message.text for message in store.conversations.messages(store.conversations.list()[0].id)]
        assert texts == ["before", "after"]
        assert not [path for path in (data_dir / "blobs").rglob("*") if path.is_file()]


def test_an_older_database_is_migrated(data_dir: Path) -> None:
    data_dir.mkdir()
    connection = sqlite3.connect(data_dir / DATABASE_NAME)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("INSERT INTO conversations VALUES (7, 'old', 'Old chat', 1.5, 2.5, 0)")
    connection.execute("INSERT INTO titles_words (rowid, title) VALUES (7, 'Old chat')")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    with Store.open(data_dir) as store:
        assert [one.id for one in store.conversations.list(query="old")] == ["old"]
        store.documents.begin("A", "a.txt", "text", "text/plain", "a" * 64, 1)
        with store._database.read() as reader:
            assert reader.execute("PRAGMA user_version").fetchone()[0] == LATEST


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sqlite3"
    Database(path).close()
    broken = (*MIGRATIONS, ("CREATE TABLE half (x)", "NO SUCH STATEMENT"))
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", broken)
        patch.setattr(database_module, "LATEST", len(broken))
        with pytest.raises(sqlite3.OperationalError):
            Database(path)
    again = Database(path)
    with again.read() as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone()[0] == 0
    again.close()


def test_a_newer_database_is_refused(data_dir: Path) -> None:
    Store.open(data_dir).close()
    connection = sqlite3.connect(data_dir / DATABASE_NAME)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreError, match=r"version 999.*update Hearth"):
        Store.open(data_dir)


@pytest.mark.parametrize("content", ["garbage", "other program"])
def test_a_foreign_file_is_refused_and_left_alone(data_dir: Path, content: str) -> None:
    data_dir.mkdir()
    path = data_dir / DATABASE_NAME
    if content == "garbage":
        path.write_bytes(b"garbage" * 1000)
    else:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
    for _ in range(2):  # a refusal releases the folder
        with pytest.raises(StoreError, match=r"not a database|another program"):
            Store.open(data_dir)
    if content == "garbage":
        assert path.read_bytes() == b"garbage" * 1000


def test_deleted_words_are_in_no_file(store: Store, data_dir: Path) -> None:
    kept = store.conversations.create("keptword")
    gone = [store.conversations.create(f"secrettitle{number}") for number in range(6)]
    for step in range(40):
        store.conversations.append(kept.id, "user", f"keptword {step} " * 20)
        for number, conversation in enumerate(gone):
            store.conversations.append(
                conversation.id,
                "user",
                f"secretword{number}x{step} " * (step + 1),
                frozen=f"secretfrozen{step}" * 100,
                citations=[{"text": f"secretcitation{step}"}],
            )
    document = store.documents.begin("secretdocument", "secretname.txt", "text", "text/plain", "a" * 64, 1)
    store.documents.fail(document.id, "secretdetail")
    assert b"secret" in raw(data_dir)
    for conversation in gone:
        store.conversations.delete(conversation.id)
    store.documents.forget(document.id)
    found = raw(data_dir)
    assert b"keptword" in found
    assert b"secret" not in found


def raw(data_dir: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
