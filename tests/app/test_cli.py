"""The command line against a scripted assistant: what is printed where, exit codes, one-line errors."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hearth.cli import main
from hearth.events import Citation, CitationsFound, Done, Notice, Phase, Reply, TurnEvent, TurnFailed
from hearth.models.errors import ContextOverflowError, HearthError
from hearth.models.types import TextDelta, Usage
from hearth.multimodal.errors import PerceptionError
from hearth.store.errors import NotFoundError
from hearth.store.records import Conversation, Document, Message, PassageRecord, SearchHit
from hearth.surroundings import Surroundings

CITED = Citation(1, "d1", "Lease contract", 3, 0, 20, "The deposit is\n 900.", 0.9, used=True)
UNUSED = replace(CITED, number=2, title="Other", used=False)
REPLY = Reply("It is 900 [1].", "c1", "m2", "stop", citations=(CITED, UNUSED), usage=Usage(20, 10, 5), model="pocket")
ANSWER: tuple[TurnEvent, ...] = (
    Phase("searching"),
    CitationsFound((CITED, UNUSED)),
    Phase("prefilling", 0.4),
    TextDelta("It is "),
    TextDelta("900 [1]."),
    Done(REPLY),
)
DOCUMENT = Document(
    "d1", "Lease\x1b[2J contract", "lease.pdf", "text", "application/pdf", "ab", 4, 12, "ready", "", 0.0
)
HIT = SearchHit(DOCUMENT, PassageRecord("p1", "d1", 0, "The deposit is 900.", 3, 0, 19, ""), 0.5, 0.2, 1, 1)


class ScriptedMemory:
    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def add(self, path: Path, on_progress: Callable[[float], None] | None = None) -> Document:
        if not path.exists():
            raise PerceptionError(f"{path}: no such file; check the path")
        if on_progress is not None:
            on_progress(0.5)
        return DOCUMENT

    def search(self, query: str, k: int = 5) -> list[SearchHit]:
        return [HIT, replace(HIT, passage=None)][:k] if query != "nothing" else []

    def list(self) -> list[Document]:
        return [DOCUMENT, replace(DOCUMENT, id="d2", state="failed", detail="no text")]

    def forget(self, document_id: str) -> None:
        if document_id != "d1":
            raise NotFoundError(f"no document {document_id!r}; `hearth memory list` shows their ids")
        self.forgotten.append(document_id)


class ScriptedConversations:
    def list(self, *, query: str = "", limit: int = 50) -> list[Conversation]:
        return [Conversation("c1", f"Lease {query}".strip(), 0.0, 0.0, 2)][:limit]

    def get(self, conversation_id: str) -> Conversation:
        if conversation_id != "c1":
            raise NotFoundError(f"no conversation {conversation_id!r}; `hearth conversations list` shows their ids")
        return Conversation("c1", "Lease", 0.0, 0.0, 2)

    def messages(self, conversation_id: str) -> Sequence[Message]:
        return [Message("m1", conversation_id, 0, "user", "How much?", (), (), "{}", "f", None, 0.0)]

    def delete(self, conversation_id: str) -> int:
        self.get(conversation_id)
        return 0


class ScriptedAssistant:
    """Plays events; notes what it was asked."""

    def __init__(self, events: Sequence[TurnEvent] | Callable[[threading.Event], Iterator[TurnEvent]] = ANSWER) -> None:
        self._events = events
        self.asked: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.served: dict[str, Any] = {}
        self.closed = False
        self.memory = ScriptedMemory()
        self.conversations = ScriptedConversations()

    def stream(self, text: str, *, cancelled: threading.Event, **parameters: Any) -> Iterator[TurnEvent]:
        self.asked = {"text": text, **parameters}
        yield from self._events(cancelled) if callable(self._events) else self._events

    def close(self) -> None:
        self.closed = True


def run(assistant: ScriptedAssistant, *arguments: str) -> int:
    def opening(**settings: Any) -> Any:
        assistant.settings = settings
        return assistant

    def serving(_: Any, **parameters: Any) -> None:
        assistant.served = parameters

    return main(list(arguments), Surroundings(opening, serving))


def test_the_answer_goes_to_stdout_with_its_used_sources_and_nothing_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assistant = ScriptedAssistant()
    assert run(assistant, "ask", "How much?") == 0
    printed = capsys.readouterr()
    assert printed.out == "It is 900 [1].\n[1] Lease contract, p. 3: The deposit is 900.\n"
    assert printed.err == ""
    assert assistant.closed


def test_every_option_of_ask_reaches_the_turn() -> None:
    assistant = ScriptedAssistant()
    options = "--image a.png --image b.png --audio q.wav --document n.txt --conversation c1 --model m.gguf"
    more = "--mmproj p.gguf --system S --max-tokens 9 --temperature 0.5 --seed 3 --no-memory --data-dir d"
    assert run(assistant, "ask", "x", *options.split(), *more.split()) == 0
    assert assistant.settings == {"model": "m.gguf", "mmproj": Path("p.gguf"), "data_dir": Path("d")}
    assert assistant.asked == {
        "text": "x",
        "images": ["a.png", "b.png"],
        "audio": ["q.wav"],
        "documents": ["n.txt"],
        "conversation": "c1",
        "system": "S",
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
        "use_memory": False,
    }


def test_json_is_one_object_with_the_fields_of_the_reply(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ScriptedAssistant(), "ask", "How much?", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(REPLY.to_dict()))
    assert printed.out.count("\n") == 1


def test_text_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant = ScriptedAssistant()
    monkeypatch.setattr(sys, "stdin", io.StringIO("How much?\n"))
    assert run(assistant, "ask", "-") == 0
    assert assistant.asked["text"] == "How much?"


def test_a_picture_needs_no_text_but_nothing_at_all_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ScriptedAssistant(), "ask", "--image", "a.png") == 0
    assert run(ScriptedAssistant(), "ask") == 2
    assert "nothing to ask" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["nosuch"], ["ask", "x", "--nosuch"], ["--port", "99999"], ["ask", "--seed", "x", "y"]]
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ScriptedAssistant(), *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Error" in printed.err


def test_a_failed_turn_is_one_line_after_what_was_already_said(capsys: pytest.CaptureFixture[str]) -> None:
    error = ContextOverflowError("the prompt has 9,000 tokens,\nthe limit is 2,048; leave a document out")
    assistant = ScriptedAssistant((TextDelta("It"), TurnFailed(error, "c1")))
    assert run(assistant, "ask", "x") == 1
    printed = capsys.readouterr()
    assert printed.out == "It\n"
    assert printed.err == "hearth: the prompt has 9,000 tokens, the limit is 2,048; leave a document out\n"
    assert assistant.closed


def test_an_error_of_our_own_making_is_one_line_and_debug_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: threading.Event) -> Iterator[TurnEvent]:
        raise KeyError("slot")
        yield

    assert run(ScriptedAssistant(broken), "ask", "x") == 1
    assert capsys.readouterr().err == "hearth: unexpected KeyError: 'slot'; HEARTH_DEBUG=1 shows where\n"
    monkeypatch.setenv("HEARTH_DEBUG", "1")
    assert run(ScriptedAssistant(broken), "ask", "x") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_failure_to_open_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def opening(**_: Any) -> Any:
        raise HearthError("the folder is in use by process 7; close that Hearth")

    assert main(["memory", "list"], Surroundings(opening, lambda *_, **__: None)) == 1
    assert capsys.readouterr().err == "hearth: the folder is in use by process 7; close that Hearth\n"


def test_ctrl_c_cancels_the_turn_and_keeps_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(cancelled: threading.Event) -> Iterator[TurnEvent]:
        yield TextDelta("It is")
        os.kill(os.getpid(), signal.SIGINT)
        assert cancelled.wait(10)
        yield Done(replace(REPLY, text="It is", finish_reason="cancelled", citations=()))

    before = signal.getsignal(signal.SIGINT)
    assert run(ScriptedAssistant(interrupted), "ask", "x") == 130
    printed = capsys.readouterr()
    assert printed.out == "It is\n"
    assert printed.err == ""
    assert signal.getsignal(signal.SIGINT) is before


def test_control_characters_of_an_answer_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reply = replace(REPLY, citations=(replace(CITED, title="a\x1b]0;x\x07b"),))
    assert run(ScriptedAssistant((TextDelta("red\x1b[31m\tend"), Done(reply))), "ask", "x") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "red[31m\tend" in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_phases_and_asides_are_for_terminals_and_gone_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run(ScriptedAssistant((*ANSWER[:-1], Notice("page 3 has no text"), ANSWER[-1])), "ask", "x") == 0
    shown = terminal.getvalue()
    assert "searching memory" in shown
    assert "40%" in shown
    assert "hearth: page 3 has no text\n" in shown
    assert "--conversation c1" in shown
    assert shown.index("40%") < shown.rindex("\r\x1b[K")


def test_the_page_is_served_with_its_options() -> None:
    assistant = ScriptedAssistant()
    assert run(assistant, "--port", "8000", "--no-browser", "--model", "m.gguf") == 0
    assert assistant.served == {"host": "127.0.0.1", "port": 8000, "open_browser": False}
    assert assistant.settings["model"] == "m.gguf"
    assert assistant.closed


def test_an_option_of_the_page_before_a_command_is_not_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ScriptedAssistant(), "--model", "m.gguf", "ask", "x") == 2
    assert "--model before 'ask'" in capsys.readouterr().err


def test_memory_add_goes_on_after_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "lease.pdf"
    good.write_bytes(b"%PDF")
    assert run(ScriptedAssistant(), "memory", "add", "nosuch.pdf", str(good)) == 1
    printed = capsys.readouterr()
    assert printed.out == "d1  Lease[2J contract  12 passages\n"
    assert printed.err == "hearth: nosuch.pdf: no such file; check the path\n"


def test_memory_search_list_and_forget(capsys: pytest.CaptureFixture[str]) -> None:
    assistant = ScriptedAssistant()
    assert run(assistant, "memory", "search", "deposit") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0.500  d1  Lease[2J contract, p. 3: The deposit is 900."
    assert lines[1].endswith(": (picture)")
    assert run(assistant, "memory", "search", "deposit", "--k", "1", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 1
    assert run(assistant, "memory", "list") == 0
    assert "failed: no text" in capsys.readouterr().out
    assert run(assistant, "memory", "forget", "d1") == 0
    assert assistant.memory.forgotten == ["d1"]
    assert run(assistant, "memory", "forget", "d9") == 1
    assert capsys.readouterr().err.startswith("hearth: no document 'd9'")


def test_conversations_list_show_and_delete(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ScriptedAssistant(), "conversations", "list", "--json", "--query", "deposit") == 0
    assert json.loads(capsys.readouterr().out)["conversations"][0]["title"] == "Lease deposit"
    assert run(ScriptedAssistant(), "conversations", "show", "c1") == 0
    assert capsys.readouterr().out == "user: How much?\n"
    assert run(ScriptedAssistant(), "conversations", "show", "c1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["messages"][0]["text"] == "How much?"
    assert run(ScriptedAssistant(), "conversations", "delete", "c9") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ScriptedAssistant(), "--version") == 0
    assert capsys.readouterr().out.startswith("hearth 0.")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    code = "import sys, time; from hearth.cli import main; time.sleep(0.2); sys.exit(main(['--help']))"
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    complaint = writer.stderr.read()
    writer.stderr.close()
    assert writer.wait() == 1
    assert complaint == b""
