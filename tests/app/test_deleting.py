"""What a deleted conversation leaves of its KV blocks, with a tiny random model: nothing, or the conversation stays."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hearth
from hearth import engine_factory
from hearth.cli import main
from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.errors import EngineError, RequestError
from hearth.settings import Settings
from hearth.store.errors import NotFoundError, StoreError
from hearth.turn import Turn
from hearth.ui.chat import Chat, View
from tests.models.tiny_gguf import write_tiny_gguf

PATIENCE_S = 30.0
LONG = "the cat sat on the mat and the dog " * 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx_train=1024)


@pytest.fixture
def settings(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of an assistant that keeps the KV blocks of however short a prompt."""
    options_of = Settings.engine_options

    def keeping(settings: Settings, *given: Any) -> EngineOptions:
        return replace(options_of(settings, *given), kv_min_worth_s=0.0)

    monkeypatch.setattr(Settings, "engine_options", keeping)
    return {"model": str(model), "data_dir": tmp_path / "data", "temperature": 0.0, "n_threads": 1}


@pytest.fixture
def folder(settings: dict[str, Any]) -> Path:
    path: Path = settings["data_dir"] / "kv"
    return path


@pytest.fixture
def chats(settings: dict[str, Any], folder: Path) -> tuple[str, str]:
    """Two conversations with blocks of their own on disk."""
    with hearth.Assistant(**settings) as assistant:
        one, other = (assistant.ask(f"{n} {LONG}", max_tokens=4, use_memory=False).conversation_id for n in range(2))
    assert owners(folder) == {one, other}
    return one, other


def owners(folder: Path) -> set[str]:
    """Who owns blocks on disk; every block has its file."""
    with closing(sqlite3.connect(folder / "index.sqlite3")) as index:
        (n_blocks,) = index.execute("SELECT count(*) FROM blocks").fetchone()
        found = {owner.decode() for (owner,) in index.execute("SELECT DISTINCT owner FROM owners")}
    assert len(list(folder.glob("*/*"))) == n_blocks
    return found


def listed(assistant: hearth.Assistant) -> set[str]:
    return {conversation.id for conversation in assistant.conversations.list()}


def load(assistant: hearth.Assistant) -> None:
    assistant.ask("hello", max_tokens=1, use_memory=False)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("more", [{}, {"kv_disk_gib": 0}, {"isolate_engine": True}], ids=["kept", "not kept", "apart"])
def test_the_blocks_go_with_the_chat_and_others_stay(
    settings: dict[str, Any], folder: Path, chats: tuple[str, str], more: dict[str, Any], loaded: bool
) -> None:
    gone, kept = chats
    with hearth.Assistant(**settings, **more) as assistant:
        if loaded:
            load(assistant)
        assistant.conversations.delete(gone)
        assert gone not in owners(folder)
        assert kept in owners(folder)
        assert gone not in listed(assistant)


def test_deleting_does_not_wait_for_a_model_that_loads(
    settings: dict[str, Any], folder: Path, chats: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, deleted = threading.Event(), threading.Event(), threading.Event()
    make_engine = engine_factory.make_engine

    def slow(*arguments: Any, **named: Any) -> LlamaEngine:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return make_engine(*arguments, **named)

    monkeypatch.setattr(engine_factory, "make_engine", slow)
    with hearth.Assistant(**settings) as assistant:

        def delete() -> None:
            assistant.conversations.delete(chats[0])
            deleted.set()

        assistant.load()
        assert begun.wait(PATIENCE_S)
        deleting = threading.Thread(target=delete)
        deleting.start()
        try:
            assert deleted.wait(PATIENCE_S / 2)
            assert owners(folder) == {chats[1]}
        finally:
            go_on.set()
            deleting.join()
        load(assistant)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_chat_whose_blocks_cannot_be_removed_stays_until_they_can(
    settings: dict[str, Any], folder: Path, chats: tuple[str, str], loaded: bool
) -> None:
    index, aside = folder / "index.sqlite3", folder.with_name("index.aside")
    index.rename(aside)
    index.mkdir()  # SQLite cannot open it
    with hearth.Assistant(**settings) as assistant:
        if loaded:
            load(assistant)
        with pytest.raises(StoreError, match=r"index\.sqlite3"):
            assistant.conversations.delete(chats[0])
        assert len(assistant.conversations.messages(chats[0])) == 2
        index.rmdir()
        aside.rename(index)
        assistant.conversations.delete(chats[0])
        assert owners(folder) == {chats[1]}
        assert chats[0] not in listed(assistant)


def test_the_command_says_why_a_chat_was_not_deleted(
    settings: dict[str, Any], folder: Path, chats: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    delete = ["conversations", "delete", chats[0], "--data-dir", str(settings["data_dir"])]
    index, aside = folder / "index.sqlite3", folder.with_name("index.aside")
    index.rename(aside)
    index.mkdir()
    assert main(delete) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(index) in said
    index.rmdir()
    aside.rename(index)
    assert main(delete) == 0
    assert owners(folder) == {chats[1]}


@pytest.mark.parametrize("continued", [False, True])
def test_a_running_answer_is_stopped_and_saves_nothing_afterwards(
    settings: dict[str, Any], folder: Path, continued: bool
) -> None:
    with hearth.Assistant(**settings) as assistant:
        earlier = assistant.ask(LONG, max_tokens=1, use_memory=False).conversation_id if continued else None
        events = assistant.stream("more " + LONG, conversation=earlier, max_tokens=300, use_memory=False)
        while not isinstance(next(events), hearth.TextDelta):
            pass
        (conversation,) = listed(assistant)
        assistant.conversations.delete(conversation)
        end = list(events)[-1]
        assert isinstance(end, hearth.Done)
        assert end.reply.finish_reason == "cancelled"
        assert listed(assistant) == set()
        load(assistant)
    assert conversation not in owners(folder)


def test_no_turn_begins_in_a_chat_that_is_being_deleted(settings: dict[str, Any], chats: tuple[str, str]) -> None:
    with hearth.Assistant(**settings) as assistant:
        with assistant.conversations.while_deleting(chats[0]):
            with pytest.raises(RequestError, match="is being deleted"):
                assistant.ask("and", conversation=chats[0])
            assistant.ask("and", conversation=chats[1], max_tokens=1, use_memory=False)
        assistant.ask("and", conversation=chats[0], max_tokens=1, use_memory=False)  # deleting came to nothing
        assistant.conversations.delete(chats[0])
        with pytest.raises(NotFoundError):
            assistant.ask("and", conversation=chats[0])


def test_a_chat_whose_answer_cannot_be_stopped_stays(
    settings: dict[str, Any], folder: Path, chats: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.assistant.STOP_S", 0.1)
    perceiving, go_on = threading.Event(), threading.Event()
    perceive = Turn._perceive

    def hang(turn: Turn) -> None:
        perceive(turn)
        perceiving.set()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(Turn, "_perceive", hang)
    with hearth.Assistant(**settings) as assistant:
        chat = Chat(assistant)
        view = View(chats[0])
        job = chat.send(view, "and", [])
        assert perceiving.wait(PATIENCE_S)
        monkeypatch.setattr(chat.jobs, "forget", lambda conversation_id: chat.jobs.stop(conversation_id))
        with pytest.raises(EngineError, match="could not be stopped; the chat is kept"):
            chat.delete(view, chats[0])
        assert view.conversation_id == chats[0]
        assert owners(folder) == set(chats)
        go_on.set()
        while not job.progress.finished:
            job.wait(job.progress.version, PATIENCE_S)
        chat.delete(view, chats[0])
        assert owners(folder) == {chats[1]}
        chat.jobs.close()
