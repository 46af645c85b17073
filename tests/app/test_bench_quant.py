"""`hearth bench quant` on a tiny model: what is compared, printed and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearth.cli import main
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", n_embd=256, n_ff=512)


def test_the_finer_is_nearer_and_larger(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plot.png"
    arguments = ["bench", "quant", str(model), "--types", "Q8_0,Q2_K", "--tokens", "300", "--plot", str(plot)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    original, fine, coarse = found["rows"]
    assert [row["type"] for row in found["rows"]] == ["F32", "Q8_0", "Q2_K"]
    assert (original["top1_agreement"], original["mean_kl"]) == (1.0, 0.0)
    assert 0 < fine["mean_kl"] < coarse["mean_kl"]
    assert fine["top1_agreement"] > coarse["top1_agreement"]
    assert original["size_bytes"] > fine["size_bytes"] > coarse["size_bytes"]
    assert all(min(row["prefill_tokens_per_s"], row["decode_tokens_per_s"]) > 0 for row in found["rows"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_table(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 30)
    assert main(["bench", "quant", str(model), "--types", "q8_0", "--text", str(text)]) == 0
    out = capsys.readouterr().out
    assert "text.txt" in out
    assert out.splitlines()[-1].startswith("Q8_0")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--types", "Q4_X"], "not known"),
        (["--text", "absent.txt"], "cannot be read"),
        (["--plot", "plot.gif"], "written as .png"),
        (["--plot", "nowhere/plot.png"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    model: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "quant", str(model), "--tokens", "64", *options]) == 1
    captured = capsys.readouterr()
    assert reason in captured.err
    assert captured.err.count("\n") == 1
