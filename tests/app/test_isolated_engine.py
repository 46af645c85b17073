"""The engine in a process of its own, on a tiny random model: who has it so, and what a crash costs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import hearth
from hearth.cli import main
from hearth.models.errors import EngineError
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx_train=2048)


def engine_pid(assistant: hearth.Assistant) -> int:
    """Of the process that the loaded model is in."""
    return getattr(assistant._runtime.engine.get(), "pid", os.getpid())


def kill(assistant: hearth.Assistant) -> None:
    """Ends the engine as the system does when memory runs out."""
    assert engine_pid(assistant) != os.getpid()
    os.kill(engine_pid(assistant), signal.SIGKILL)


@pytest.mark.parametrize(("setting", "isolated"), [(None, True), ("true", True), ("false", False)])
def test_the_page_isolates_the_engine_unless_told_otherwise(
    model: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, isolated: bool
) -> None:
    if setting is not None:
        monkeypatch.setenv("HEARTH_ISOLATE_ENGINE", setting)
    pids: list[int] = []

    def serve_page(assistant: hearth.Assistant, *, on_ready: Callable[[str], None], **_: object) -> None:
        on_ready("http://127.0.0.1:1")
        assistant.ask("the cat", max_tokens=2, use_memory=False)
        pids.append(engine_pid(assistant))

    monkeypatch.setattr("hearth.server.serve", serve_page)
    assert main(["--no-browser", "--model", str(model)]) == 0
    assert (pids[0] != os.getpid()) == isolated


def test_scripts_have_the_engine_in_their_own_process_and_answers_are_the_same(model: Path, tmp_path: Path) -> None:
    texts = []
    for isolate in (None, True):
        with hearth.Assistant(
            model=str(model), data_dir=tmp_path / str(isolate), temperature=0.0, isolate_engine=isolate
        ) as assistant:
            first = assistant.ask("the cat sat", max_tokens=6, use_memory=False)
            second = assistant.ask("and", conversation=first.conversation_id, max_tokens=6, use_memory=False)
            assert second.usage.cached_tokens >= first.usage.prompt_tokens
            assert (engine_pid(assistant) != os.getpid()) == bool(isolate)
            texts.append((first.text, second.text))
    assert texts[0] == texts[1]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_engine_costs_one_answer_and_the_conversation_goes_on(model: Path, tmp_path: Path) -> None:
    with hearth.Assistant(
        model=str(model), data_dir=tmp_path / "data", temperature=0.0, isolate_engine=True
    ) as assistant:
        first = assistant.ask("the cat sat", max_tokens=6, use_memory=False)
        conversation = first.conversation_id
        killed = engine_pid(assistant)
        events = []
        for event in assistant.stream("and the dog", conversation=conversation, max_tokens=1500, use_memory=False):
            if isinstance(event, hearth.TextDelta) and not any(isinstance(one, hearth.TextDelta) for one in events):
                kill(assistant)
            events.append(event)
        failed = events[-1]
        assert isinstance(failed, hearth.TurnFailed)
        assert isinstance(failed.error, EngineError)
        assert "signal 9" in str(failed.error)
        assert "ask again: the conversation is kept" in str(failed.error)

        again = assistant.ask("and the dog", conversation=conversation, max_tokens=6, use_memory=False)
        assert engine_pid(assistant) != killed
        kill(assistant)  # idle: the next question notices nothing
        last = assistant.ask("on the mat", conversation=conversation, max_tokens=6, use_memory=False)
        assert last.usage.prompt_tokens > again.usage.prompt_tokens > first.usage.prompt_tokens

        messages = assistant.conversations.messages(conversation)
        said = [message.text for message in messages if message.role == "user"]
        assert said == ["the cat sat", "and the dog", "and the dog", "on the mat"]
        assert [message.text for message in messages if message.role == "assistant"] == [
            first.text,
            "",
            again.text,
            last.text,
        ]
