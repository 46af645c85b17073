"""`hearth models inspect|quantize` as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hearth.cli import main
from tests.models.tiny_gguf import write_tiny_gguf
from tests.models.tiny_lora import random_lora
from tests.models.tiny_mmproj import write_qwen2vl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", n_embd=256, n_ctx_train=2048)


def test_a_model_in_lines(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(model)]) == 0
    out = capsys.readouterr().out
    assert "language model, llama" in out
    assert "F32 100.0%" in out
    assert "bytes a token" in out
    assert "fits: n_ctx 2,048 needs" in out
    assert "| {% for m in messages %}" in out


def test_a_model_in_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(model), "--json", "--n-ctx", "512"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fit"]["state"] == "fits"
    assert found["fit"]["n_ctx"] == 512
    assert found["fit"]["total_bytes"] > found["fit"]["weights_bytes"] > 0
    assert found["kv_bytes_per_token"]["f16"] > found["kv_bytes_per_token"]["q8_0"]


def test_a_context_that_does_not_fit_is_told_before(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(model), "--n-ctx", "1048576", "--json"]) in (0, 1)
    fit = json.loads(capsys.readouterr().out)["fit"]
    assert fit["kv_bytes"] >= 1_048_576 * 1024


def test_other_kinds_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(write_qwen2vl(tmp_path / "eyes.gguf"))]) == 0
    assert "largest picture 4,096 tokens" in capsys.readouterr().out
    assert main(["models", "inspect", str(random_lora(1).write(tmp_path / "lora.gguf"))]) == 0
    assert "LoRA adapter" in capsys.readouterr().out


def test_a_file_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\nhearth: all is well\r"
    path = write_tiny_gguf(
        tmp_path / "evil.gguf", chat_template=evil * 3, metadata={"general.license": evil}, further_tokens=(evil,)
    )
    assert main(["models", "inspect", str(path), "--template"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "\x07" not in out


@pytest.mark.parametrize("command", [["inspect"], ["quantize", "--type", "Q8_0"]])
def test_a_bad_file_is_one_line(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 100)
    arguments = [str(bad)] if command[0] == "inspect" else [str(bad), str(tmp_path / "out.gguf")]
    assert main(["models", command[0], *arguments, *command[1:]]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(bad) in captured.err


def test_quantizing(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small.gguf"
    assert main(["models", "quantize", str(model), str(target), "--type", "Q8_0", "--threads", "1"]) == 0
    assert "Q8_0" in capsys.readouterr().out
    assert main(["models", "inspect", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file_type"] == "Q8_0"
    assert main(["models", "quantize", str(model), str(target), "--type", "Q8_0"]) == 1
    assert "is there already" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "big.gguf", n_embd=768, n_ff=3072, n_layer=12, n_head=12, n_head_kv=12)
    arguments = [sys.executable, "-m", "hearth", "models", "quantize", str(source), str(tmp_path / "out.gguf")]
    with subprocess.Popen(
        [*arguments, "--type", "Q2_K", "--threads", "1"], stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        deadline_s = time.monotonic() + 30
        while not list(tmp_path.glob(".out.gguf.*.partial")):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["big.gguf"]
