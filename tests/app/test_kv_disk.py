"""What programs leave on disk of their chats: `hearth kv show|delete|wipe` count it and delete it, and nothing else."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

import hearth
from hearth.cli import main
from hearth.kv_disk import PROGRAMS, delete_of_programs, kv_use, wipe
from hearth.models.engine import EngineOptions
from hearth.settings import Settings
from hearth.store.errors import DataFolderInUseError, StoreError
from hearth.store.kv_blocks import KvBlockStore, KvOwned
from tests.app.served import Served
from tests.app.test_deleting import owners
from tests.models.tiny_gguf import write_tiny_gguf

SAID = "the cat sat on the mat and the dog " * 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx_train=1024)


@pytest.fixture
def settings(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of an assistant that keeps the KV blocks of however short a prompt."""
    options_of = Settings.engine_options

    def keeping(settings: Settings, *given: Any) -> EngineOptions:
        return replace(options_of(settings, *given), kv_min_worth_s=0.0)

    monkeypatch.setattr(Settings, "engine_options", keeping)
    return Settings(model=str(model), data_dir=tmp_path / "data", temperature=0.0, n_threads=1, kv_disk_gib=1)


@pytest.fixture
def conversation(settings: Settings) -> str:
    """A conversation, beside a program's chat that begins otherwise; both have left blocks."""
    assistant = hearth.Assistant(settings)
    served = Served(assistant)
    try:
        ask(served, f"otherwise {SAID}")
        return str(assistant.ask(SAID, max_tokens=4, use_memory=False).conversation_id)
    finally:
        served.stop()


def ask(served: Served, text: str) -> None:
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=60)
    client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": text}], max_tokens=4)


def test_what_programs_left_is_counted_and_deleted_alone(settings: Settings, conversation: str) -> None:
    before = kv_use(settings)
    assert 0 < before.programs.n_blocks < before.n_blocks
    assert 0 < before.programs.n_bytes < before.n_bytes <= before.limit_bytes == 1 << 30
    assert before.programs.n_shared_blocks == 0
    deleted = delete_of_programs(settings)
    assert deleted == (before.programs.n_blocks, before.programs.n_bytes)
    after = kv_use(settings)
    assert after.programs == KvOwned(0, 0, 0, 0)
    assert (after.n_blocks, after.n_bytes) == (before.n_blocks - deleted[0], before.n_bytes - deleted[1])
    assert owners(settings.data_dir / "kv") == {conversation}


def test_what_a_conversation_uses_too_stays_and_goes_with_it(settings: Settings, conversation: str) -> None:
    with closing(KvBlockStore(settings.data_dir / "kv", budget_bytes=1 << 30)) as blocks:
        key = blocks.put("m", "", (1, 2, 3), b"both", owner=conversation)
        blocks.put("m", "", (1, 2, 3), b"both", owner=PROGRAMS)
        assert blocks.flush(10)
    assert kv_use(settings).programs.n_shared_bytes == len(b"both")
    delete_of_programs(settings)
    with closing(KvBlockStore(settings.data_dir / "kv", budget_bytes=0)) as blocks:
        assert blocks.contains(key)
    with hearth.Assistant(settings) as assistant:
        assistant.conversations.delete(conversation)
    assert owners(settings.data_dir / "kv") == set()
    assert kv_use(settings).n_blocks == 0


def test_wiping_deletes_all_at_once_and_conversations_go_on(settings: Settings, conversation: str) -> None:
    before = kv_use(settings)
    assert wipe(settings) == (before.n_blocks, before.n_bytes)
    assert owners(settings.data_dir / "kv") == set()
    with hearth.Assistant(settings) as assistant:
        assert len(assistant.conversations.messages(conversation)) == 2
        assert assistant.ask("and", conversation=conversation, max_tokens=1, use_memory=False).text is not None


def test_nothing_is_deleted_while_a_hearth_runs_but_it_can_be_looked_at(settings: Settings, conversation: str) -> None:
    with hearth.Assistant(settings):
        before = kv_use(settings)
        for delete in (delete_of_programs, wipe):
            with pytest.raises(DataFolderInUseError, match="close that Hearth"):
                delete(settings)
        assert kv_use(settings) == before
    assert owners(settings.data_dir / "kv") == {conversation, PROGRAMS}


def test_where_nothing_was_kept_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "none", kv_disk_gib=0)
    use = kv_use(settings)
    assert (use.n_blocks, use.n_bytes, use.limit_bytes) == (0, 0, 0)
    assert delete_of_programs(settings) == wipe(settings) == (0, 0)
    assert not settings.data_dir.exists()


def test_what_cannot_be_deleted_is_told(settings: Settings, conversation: str) -> None:
    index, aside = (settings.data_dir / "kv" / name for name in ("index.sqlite3", "index.aside"))
    index.rename(aside)
    index.mkdir()
    for delete in (delete_of_programs, wipe, kv_use):
        with pytest.raises(StoreError, match=r"index\.sqlite3"):
            delete(settings)
    index.rmdir()
    aside.rename(index)
    delete_of_programs(settings)
    assert owners(settings.data_dir / "kv") == {conversation}


def test_the_commands_say_how_much_it_is(
    settings: Settings, conversation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data-dir", str(settings.data_dir)]
    use = kv_use(settings)
    assert main(["kv", "show", "--json", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n_bytes"], told["programs"]["n_bytes"]) == (use.n_bytes, use.programs.n_bytes)
    assert main(["kv", "show", *place]) == 0
    total, programs = capsys.readouterr().out.splitlines()
    assert total.startswith(f"{use.n_blocks} blocks, ")
    assert programs.startswith(f"of programs (/v1): {use.programs.n_blocks} block")
    assert main(["kv", "delete", *place]) == 0
    assert capsys.readouterr().out.startswith(f"deleted {use.programs.n_blocks} block")
    assert owners(settings.data_dir / "kv") == {conversation}
    assert main(["kv", "wipe", *place]) == 0
    assert capsys.readouterr().out.startswith(f"deleted {use.n_blocks - use.programs.n_blocks} block")
    assert owners(settings.data_dir / "kv") == set()
