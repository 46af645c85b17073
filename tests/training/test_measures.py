"""The exam's table: what two folders of models differ in, and folders that are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hearth.models.errors import HearthError
from training.evaluate import ROOT
from training.measures import Row, show_differences, speech_rows


def row(skill: str, score: float, unit: str = "") -> Row:
    return Row(skill, 1, score, (score, score), "", unit)


def test_differences_are_points_of_shares(capsys: pytest.CaptureFixture[str]) -> None:
    show_differences([row("name", 0.9), row("size", 60, "MB")], [row("name", 0.95), row("size", 50, "MB")])
    shown = capsys.readouterr().out
    assert "name" in shown
    assert "-5.0" in shown
    assert "size" not in shown


def test_nothing_to_compare_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_differences([row("size", 60, "MB")], [row("size", 50, "MB")])
    assert "no scores to compare" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--pocket", "--against"])
def test_a_folder_without_models_is_refused_before_anything_is_measured(option: str, tmp_path: Path) -> None:
    script = ROOT / "training" / "evaluate.py"
    run = subprocess.run([sys.executable, script, option, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert f"{tmp_path} is not a folder of pocket models: there is no pocket.toml in it" in run.stderr


def test_speech_is_measured_with_the_models_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "speech.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(HearthError, match=str(tmp_path)):
        speech_rows(tmp_path, 1)
