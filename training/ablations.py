"""Ablations in MM1's manner at the smallest size that tells the arms apart: ``python -m training.ablations``.

Every arm is trained on the small world from several seeds, with the same number of steps, and measured on
compositions that training never draws. Each run leaves a file, so that the table can be gone on with;
``--budget-hours`` bounds one call.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from training.batches import next_token_loss
from training.loop import autocast, learning_rate_factor
from training.small_world import SHOTS, Arm, SmallModel, SmallWorld
from training.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
STEPS = 400
MEASURED = 120
SEEDS = (1, 2, 3)
LEARNING_RATE = 2e-3
TEXT_STEPS = 4
BASE = Arm("base")
ARMS: dict[str, tuple[Arm, ...]] = {
    "resolution": (Arm("48 px", side_px=48), Arm("64 px", side_px=64), BASE),
    "visual tokens": (Arm("4 tokens", n_tokens=4), BASE, Arm("36 tokens", n_tokens=36)),
    "connector": (
        Arm("average pool", connector="average pool"),
        Arm("attention pool", connector="attention pool"),
        BASE,
    ),
    "mixture": (
        Arm("captions only", shares=(1.0, 0.0, 0.0)),
        Arm("interleaved only", shares=(0.0, 1.0, 0.0)),
        Arm("no text", shares=(0.5, 0.5, 0.0)),
        BASE,
    ),
    "tiles": (BASE, Arm("whole and tiles", tiles=True)),
}
# group -> what MM1 found, the measure it is about, and pairs of arms of which the second is better by that finding;
# no pairs: the arms are about equal
FINDINGS: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "resolution": ("matters most: higher is better", "0-shot", (("48 px", "base"),)),
    "visual tokens": ("more are better", "0-shot", (("4 tokens", "36 tokens"),)),
    "connector": ("the kind matters little", "0-shot", ()),
    "mixture": (
        "interleaved documents carry few-shot, captions zero-shot, text keeps the language",
        "8-shot",
        (("captions only", "base"),),
    ),
    "tiles": ("higher resolution by tiles helps", "0-shot", (("base", "whole and tiles"),)),
}


def train(arm: Arm, tokenizer: Tokenizer, seed: int, steps: int) -> SmallModel:
    """An arm's model after ``steps`` steps: words at the visual tokens and the next token, together from the start."""
    model = SmallModel(arm, tokenizer, seed)
    world = SmallWorld(tokenizer, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(step / steps)
        terms = [model.loss(world.documents(arm), tokenizer, world.rng)]
        if arm.shares[2] and step % TEXT_STEPS == 0:
            with autocast(torch.device("cpu")):
                terms.append(next_token_loss(model.language, world.text()))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def measure(model: SmallModel, tokenizer: Tokenizer, number: int) -> dict[str, float]:
    """Shares right: captions without an example, labels after 0, 4 and 8 examples; and the loss in copying text."""
    world = SmallWorld(tokenizer, 99, held_out=True)
    found = {"0-shot": sum(model.says(world.captioned(), tokenizer) for _ in range(number)) / number}
    for shots in SHOTS:
        right = sum(model.says(world.few_shot(shots), tokenizer) for _ in range(number))
        found[f"{shots}-shot label" if shots == 0 else f"{shots}-shot"] = right / number
    with torch.inference_mode(), autocast(torch.device("cpu")):
        found["text loss"] = float(next_token_loss(model.language, world.drills.rows(64)))
    return found


def run_all(folder: Path, tokenizer: Tokenizer, steps: int, budget_s: float) -> None:
    """Trains and measures what has no file yet, seed by seed, until the budget of processor time is used up."""
    started = time.process_time()
    for seed in SEEDS:
        for arm in dict.fromkeys(arm for arms in ARMS.values() for arm in arms):
            path = folder / f"{arm.name.replace(' ', '-')}-{seed}.json"
            if path.is_file() or time.process_time() - started > budget_s:
                continue
            begun = time.process_time()
            found = measure(train(arm, tokenizer, seed, steps), tokenizer, MEASURED)
            found["processor_s"] = round(time.process_time() - begun, 1)
            path.write_text(json.dumps(found))
            print(arm.name, seed, found, flush=True)


def scores(folder: Path, arm: Arm) -> list[dict[str, float]]:
    """Of every seed that has run."""
    paths = [folder / f"{arm.name.replace(' ', '-')}-{seed}.json" for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def verdict(group: str, by_arm: dict[str, list[float]]) -> str:
    """Whether the runs agree with MM1's finding, by twice the seeds' standard error."""
    if any(len(values) < 2 for values in by_arm.values()):
        return "not enough runs"

    def apart(worse: list[float], better: list[float]) -> float:
        noise = (statistics.variance(worse) / len(worse) + statistics.variance(better) / len(better)) ** 0.5
        return float((statistics.mean(better) - statistics.mean(worse)) / max(noise, 1e-3))

    pairs = FINDINGS[group][2]
    if not pairs:
        values = sorted(by_arm.values(), key=statistics.mean)
        return "agrees" if apart(values[0], values[-1]) < 2 else "does not agree"
    differences = [apart(by_arm[worse], by_arm[better]) for worse, better in pairs]
    if all(difference > 2 for difference in differences):
        return "agrees"
    return "does not agree" if any(difference < -2 for difference in differences) else "within the seeds' noise"


def table(folder: Path) -> list[dict[str, Any]]:
    """Prints the table; one row an arm, the mean of its seeds and their standard deviation."""
    rows: list[dict[str, Any]] = []
    print(f"{'':16} {'arm':20} {'0-shot':>14} {'4-shot':>14} {'8-shot':>14} {'text loss':>10}")
    for group, arms in ARMS.items():
        finding, about, _ = FINDINGS[group]
        for arm in arms:
            found = scores(folder, arm)
            row: dict[str, Any] = {"group": group, "arm": arm.name, "runs": len(found)}
            for name in ("0-shot", "4-shot", "8-shot", "text loss"):
                values = [score[name] for score in found]
                row[name] = [statistics.mean(values), statistics.pstdev(values)] if values else None
            said = [
                f"{row[n][0]:.2f} ± {row[n][1]:.2f}" if row[n] else "-"
                for n in ("0-shot", "4-shot", "8-shot", "text loss")
            ]
            print(f"{group:16} {arm.name:20} {said[0]:>14} {said[1]:>14} {said[2]:>14} {said[3]:>14}")
            rows.append(row)
        by_arm = {arm.name: [score[about] for score in scores(folder, arm)] for arm in arms}
        print(f"    MM1: {finding}. Here ({about}): {verdict(group, by_arm)}.")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs" / "ablations", help="one file a run")
    parser.add_argument("--budget-hours", type=float, default=3.0, help="processor time of this call")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what has been measured")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.runs.mkdir(parents=True, exist_ok=True)
    if not args.table:
        path = args.runs / "tokenizer.json"
        if not path.is_file():
            train_tokenizer(None, 7).save(str(path))
        run_all(args.runs, Tokenizer.from_file(str(path)), args.steps, args.budget_hours * 3600)
    table(args.runs)


if __name__ == "__main__":
    main()
