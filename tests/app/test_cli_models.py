"""`hearth models …`: what is printed, in words and as JSON, and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearth.cli import main
from tests.models import tiny_architectures, tiny_mmproj
from tests.models.fake_hub import COMMIT, FakeHub, reach, serving

NAME, REPOSITORY = "smolvlm-256m", "ggml-org/SmolVLM-256M-Instruct-GGUF"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    model = tiny_architectures.write_llama(tmp_path / "tiny.gguf").read_bytes()
    encoder = tiny_mmproj.write_llava(tmp_path / "mmproj.gguf").read_bytes()
    files = {"SmolVLM-256M-Instruct-Q8_0.gguf": model, "mmproj-SmolVLM-256M-Instruct-Q8_0.gguf": encoder}
    with serving(FakeHub({REPOSITORY: {COMMIT: files}})) as hub:
        reach(hub, monkeypatch)
        yield hub


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("hub")
def test_pull_use_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", NAME]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{NAME} Q8_0: fetched 1 MiB, ")
    assert "fetching SmolVLM-256M-Instruct-Q8_0.gguf" in err
    assert main(["models", "pull", NAME, "--json"]) == 0
    result = told(capsys)
    assert (result["commit"], result["fetched_bytes"]) == (COMMIT, 0)
    assert Path(result["paths"][0]).is_file()
    assert main(["models", "use", NAME]) == 0
    assert capsys.readouterr().out == f"{NAME} answers from the next start on\n"
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith(f"In use: {NAME}\n")
    assert f"  {NAME}" in listed
    assert "with mmproj-SmolVLM-256M-Instruct-Q8_0.gguf" in listed
    assert main(["models", "list", "--json"]) == 0
    fields = told(capsys)
    assert [model["name"] for model in fields["found"]] == [NAME]
    assert fields["found"][0]["use"] == "chat"
    assert len(fields["catalogue"]) > 30
    assert fields["in_use"] == NAME


@pytest.mark.usefixtures("hub")
def test_a_pulled_model_answers_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", NAME]) == 0
    capsys.readouterr()
    assert main(["ask", "hello", "--model", NAME, "--max-tokens", "4", "--no-memory", "--json"]) == 0
    assert told(capsys)["model"] == NAME


def test_add_takes_files_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_architectures.write_llama(tmp_path / "mine.gguf")
    assert main(["models", "add", str(model), "--json"]) == 0
    assert [found["path"] for found in told(capsys)["found"]] == [str(model)]
    assert main(["models", "add", str(tmp_path / "none")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["models", "list", "--json"]) == 0
    assert told(capsys)["found"][0]["name"] == "mine"


def test_recommend_gives_a_reason_for_each_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "recommend", "--json"]) == 0
    fields = told(capsys)
    assert len(fields["recommendations"]) == 4
    assert all(pick["reason"] for pick in fields["recommendations"])
    assert fields["machine"]["n_cores"] >= 1
    assert main(["models", "recommend"]) == 0
    assert "to see pictures:" in capsys.readouterr().out


def test_a_setting_that_names_the_model_goes_before_a_choice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_MODEL", "other.gguf")
    assert main(["models", "use", "pocket", "--json"]) == 0
    assert told(capsys) == {"chosen": "pocket", "in_use": "other.gguf"}


def test_unknown_names_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "smolvlm"]) == 1
    err = capsys.readouterr().err
    assert "did you mean" in err
    assert "smolvlm-256m" in err
    assert main(["models", "pull", NAME, "--quant", "Q1"]) == 1
    assert "there are Q8_0" in capsys.readouterr().err
    assert main(["models", "pull"]) == 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_a_pull_with_130_and_keeps_the_part(hub: FakeHub, tmp_path: Path) -> None:
    hub.stall = threading.Event()
    environ = {**os.environ, "HEARTH_DATA_DIR": str(tmp_path / "d")}
    child = subprocess.Popen(
        [sys.executable, "-m", "hearth", "models", "pull", NAME], stderr=subprocess.PIPE, text=True, env=environ
    )
    assert child.stderr is not None
    assert any(line.startswith("fetching") for line in child.stderr)
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 130
    child.stderr.close()
    assert list((tmp_path / "d" / "models" / NAME).glob("*.part"))
