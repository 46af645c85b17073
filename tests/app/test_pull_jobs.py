"""Pulls from the page: in a process of their own, watched, stopped, taken up again; and what never opens a socket."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hearth
from hearth import pull_jobs
from hearth.cli import main
from hearth.model_library import ModelLibrary
from hearth.pull_jobs import PullJobs, PullState
from tests.models import tiny_architectures
from tests.models.fake_hub import COMMIT, FakeHub, reach, serving

NAME, REPOSITORY, FILE = "qwen3-0.6b", "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"
PATIENCE_S = 60.0


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    content = tiny_architectures.write_llama(tmp_path / "tiny.gguf").read_bytes()
    with serving(FakeHub({REPOSITORY: {COMMIT: {FILE: content * 2}}})) as hub:
        reach(hub, monkeypatch)
        yield hub


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[PullJobs]:
    jobs = PullJobs(tmp_path / "data")
    yield jobs
    jobs.close()


def wait_for(jobs: PullJobs, holds: Callable[[PullState], bool], name: str = NAME) -> PullState:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        version, states = jobs.states()
        if name in states and holds(states[name]):
            return states[name]
        jobs.wait(version, 0.5)
    raise AssertionError(f"not within {PATIENCE_S} s: {jobs.states()}")


def test_a_pull_is_watched_stopped_and_taken_up(
    hub: FakeHub, jobs: PullJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_jobs, "STOP_S", 0.3)  # the server sends nothing more: the pull is ended
    hub.stall = threading.Event()
    jobs.start(NAME)
    assert jobs.busy
    state = wait_for(jobs, lambda state: state.step == "fetching" and state.done_bytes > 0)
    assert 0 < state.fraction < 1
    jobs.start(NAME)  # runs already
    jobs.stop(NAME)
    assert jobs.states()[1][NAME].is_stopping
    state = wait_for(jobs, lambda state: not state.is_running)
    assert state.error == "stopped; what was fetched is kept"
    assert next((tmp_path / "data" / "models" / NAME).glob("*.part")).stat().st_size > 0
    hub.stall.set()
    hub.stall = None
    jobs.start(NAME)
    state = wait_for(jobs, lambda state: not state.is_running)
    assert state.error == ""
    assert not jobs.busy
    assert any("Range" in headers for _, _, headers in hub.requests)
    assert [model.name for model in ModelLibrary(tmp_path / "data").discover().models] == [NAME]


def test_a_failure_is_told_in_its_words(hub: FakeHub, jobs: PullJobs) -> None:
    hub.gated.add(REPOSITORY)
    jobs.start(NAME)
    assert "accept its licence" in wait_for(jobs, lambda state: not state.is_running).error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("print('{\"progress\": {}}'); print('[]'); print('x' * 100000)", "the process of the pull ended"),
        ("import os; os.abort()", "the process of the pull ended"),
        ('print(\'{"error": "no space"}\')', "no space"),
    ],
    ids=["nonsense", "crash", "words"],
)
def test_whatever_the_process_does_the_page_goes_on(tmp_path: Path, code: str, error: str) -> None:
    jobs = PullJobs(tmp_path, command=(sys.executable, "-c", code))
    jobs.start(NAME)
    assert error in wait_for(jobs, lambda state: not state.is_running).error
    jobs.close()
    jobs.start(NAME)  # after the end nothing begins
    assert not jobs.busy


def test_a_server_that_ends_ends_its_pulls(hub: FakeHub, jobs: PullJobs) -> None:
    hub.stall = threading.Event()
    jobs.start(NAME)
    wait_for(jobs, lambda state: state.step == "fetching")
    hub.stall.set()
    jobs.close()
    wait_for(jobs, lambda state: not state.is_running)


def test_the_process_of_a_pull_may_reach_the_hub_though_the_assistant_may_not(
    hub: FakeHub, jobs: PullJobs, tmp_path: Path
) -> None:
    with hearth.Assistant(data_dir=tmp_path / "data"):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        jobs.start(NAME)
        assert wait_for(jobs, lambda state: not state.is_running).error == ""
    assert hub.fetched()


class _Refused(AssertionError):
    """A socket was opened."""


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to connect or to look a name up fails, and is noted."""
    attempts: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        attempts.append(repr(arguments))
        raise _Refused(repr(arguments))

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return attempts


def test_nothing_but_a_pull_opens_a_socket(
    no_sockets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEARTH_DATA_DIR", str(tmp_path / "data"))
    with hearth.Assistant() as assistant:
        assistant.memory.add(_note(tmp_path))
        assert assistant.ask("When is checkout?").text
    assert main(["models", "list"]) == 0
    assert main(["models", "recommend", "--json"]) == 0
    assert main(["doctor", "--json"]) in (0, 1)
    monkeypatch.setenv("HEARTH_OFFLINE", "true")
    reach(FakeHub(url="http://127.0.0.1:9"), monkeypatch)
    assert main(["models", "pull", NAME]) == 1
    assert "offline = true: nothing may be fetched" in capsys.readouterr().err
    assert no_sockets == []
    monkeypatch.setenv("HEARTH_OFFLINE", "false")
    assert main(["models", "pull", NAME]) == 1  # an attempt would have been noted
    assert no_sockets != []


def _note(folder: Path) -> Path:
    path = folder / "note.txt"
    path.write_text("Checkout is at eleven o'clock.")
    return path
