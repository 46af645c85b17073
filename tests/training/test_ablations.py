"""The ablations: every arm trains and is measured, runs are gone on with, and verdicts follow the seeds' noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from hearth.assets import pocket_dir
from training import ablations
from training.ablations import ARMS, BASE, FINDINGS, run_all, table, train, verdict
from training.small_world import Arm, SmallModel, SmallWorld


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(pocket_dir() / "tokenizer.json"))


def test_every_finding_is_about_arms_that_run() -> None:
    assert set(FINDINGS) == set(ARMS)
    for group, (_, _, pairs) in FINDINGS.items():
        names = {arm.name for arm in ARMS[group]}
        assert BASE in ARMS[group]
        assert all(name in names for pair in pairs for name in pair)


@pytest.mark.parametrize(
    "arm", list(dict.fromkeys(arm for arms in ARMS.values() for arm in arms)), ids=lambda a: a.name
)
def test_every_arm_sees_and_speaks(arm: Arm, tokenizer: Tokenizer) -> None:
    model = SmallModel(arm, tokenizer, seed=1).eval()
    world = SmallWorld(tokenizer, 2)
    with torch.inference_mode():
        (tokens,) = model.see([world.scene()])
    assert tokens.shape[1] == 192
    assert len(tokens) == arm.n_tokens if not arm.tiles else len(tokens) > 16
    documents = world.documents(arm)
    assert torch.isfinite(model.loss(documents, tokenizer, world.rng))
    assert model.says(world.few_shot(1), tokenizer) in (True, False)


def test_a_run_leaves_a_file_and_is_not_run_again(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablations, "ARMS", {"resolution": (Arm("48 px", side_px=48),)})
    monkeypatch.setattr(ablations, "SEEDS", (1,))
    monkeypatch.setattr(ablations, "MEASURED", 2)
    run_all(tmp_path, tokenizer, steps=1, budget_s=100)
    (path,) = tmp_path.iterdir()
    assert {"0-shot", "4-shot", "8-shot", "text loss"} <= set(json.loads(path.read_text()))
    before = path.stat().st_mtime_ns
    run_all(tmp_path, tokenizer, steps=1, budget_s=100)
    assert path.stat().st_mtime_ns == before
    assert table(tmp_path)[0]["runs"] == 1
    assert "48 px" in capsys.readouterr().out


def test_a_difference_counts_when_it_is_larger_than_the_seeds_noise() -> None:
    clear = {"48 px": [0.1, 0.12, 0.11], "64 px": [0.3, 0.3, 0.3], "base": [0.5, 0.52, 0.51]}
    assert verdict("resolution", clear) == "agrees"
    assert verdict("resolution", {**clear, "base": [0.0, 0.01, 0.0]}) == "does not agree"
    assert verdict("resolution", {**clear, "base": [0.1, 0.13, 0.1]}) == "within the seeds' noise"
    assert verdict("resolution", {**clear, "base": [0.1]}) == "not enough runs"
    alike = {"average pool": [0.5, 0.4, 0.45], "attention pool": [0.46, 0.5, 0.42], "base": [0.45, 0.47, 0.44]}
    assert verdict("connector", alike) == "agrees"


def test_training_lowers_the_loss_on_what_is_drawn(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    arm = Arm("tiny", side_px=48, n_tokens=4)
    fresh, trained = SmallModel(arm, tokenizer, 1).eval(), train(arm, tokenizer, seed=1, steps=12)
    world = SmallWorld(tokenizer, 5)
    documents = world.documents(arm)
    with torch.inference_mode():
        before, after = (float(model.loss(documents, tokenizer, world.rng)) for model in (fresh, trained))
    assert after < before
