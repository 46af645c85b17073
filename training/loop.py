"""The training loop of every stage: a budget of computing time, a schedule that follows it, checkpoints, a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.language import Block

CHECKPOINT_EVERY_S = 180.0
LOG_EVERY_S = 20.0
WARMUP_SHARE = 0.03


@dataclass(frozen=True)
class StagePlan:
    """``budget_s`` of computing time, peak learning rate and where the stage keeps its checkpoint and log.

    Computing time is this process's processor time by the number of its threads, and wall time where a GPU computes:
    a run that others slow down, or that is stopped for a while, sees as much material as one that has the machine for
    itself.
    """

    name: str
    budget_s: float
    learning_rate: float
    folder: Path
    weight_decay: float = 0.02
    max_norm: float = 1.0


def learning_rate_factor(progress: float) -> float:
    """Warm-up, then a cosine down to a fiftieth; ``progress`` is the used share of the budget."""
    if progress < WARMUP_SHARE:
        return progress / WARMUP_SHARE + 0.01
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def optimizers_of(network: nn.Module, plan: StagePlan) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices within the language model's blocks, AdamW for all else.

    Muon's steps are as large as AdamW's by their root mean square (Liu et al. 2025, arXiv 2502.16982), so that one
    learning rate serves both.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    hidden = [p for block in blocks for p in block.parameters() if p.requires_grad and p.ndim == 2]
    kept = {id(p) for p in hidden}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in kept]
    groups: list[dict[str, object]] = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))]
    if hidden:
        found.append(
            torch.optim.Muon(
                hidden, lr=plan.learning_rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    return found


def _clock_s() -> float:
    return time.monotonic() if torch.cuda.is_available() else time.process_time() / torch.get_num_threads()


def run_head(
    plan: StagePlan,
    whole: nn.Module,
    head: nn.Module,
    prepare: Callable[[int, torch.device], Callable[[float], dict[str, Tensor]]],
) -> None:
    """As ``run_stage`` for a part of a network that stands still otherwise; ``prepare`` is told the device, too."""
    device = pick_device()
    whole.to(device)
    whole.to(memory_format=torch.channels_last)
    whole.eval()  # all but the head, which is put in training mode later
    run_stage(plan, head, lambda step: prepare(step, device))


def run_stage(
    plan: StagePlan, network: nn.Module, prepare: Callable[[int], Callable[[float], dict[str, Tensor]]]
) -> None:
    """Trains until the budget is used up; goes on from the stage's checkpoint if there is one.

    ``prepare`` gets the step it starts from, to seed its material with, and returns what is asked for losses in every
    step: it gets the progress (0..1) and returns named terms, the sum of which is minimised. ValueError for a
    checkpoint of other optimizers.
    """
    optimizers = optimizers_of(network, plan)
    checkpoint = plan.folder / f"{plan.name}.pt"
    elapsed, step = 0.0, 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        if state["elapsed"] < plan.budget_s:
            if len(state.get("optimizers", ())) != len(optimizers):
                raise ValueError(
                    f"{checkpoint} holds no state for {len(optimizers)} optimizers, so it is of another version of the "
                    "recipe: move it away to begin the stage anew"
                )
            for optimizer, saved_state in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved_state)
        elapsed, step = state["elapsed"], state["step"]
    if elapsed >= plan.budget_s:
        return
    losses = prepare(step)
    network.train()
    means: dict[str, float] = {}
    last = logged = saved = _clock_s()
    with (plan.folder / f"{plan.name}.log").open("a") as log:
        while elapsed < plan.budget_s:
            progress = elapsed / plan.budget_s
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = plan.learning_rate * learning_rate_factor(progress)
            terms = losses(progress)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(network.parameters(), plan.max_norm)
            if torch.isfinite(norm):
                for optimizer in optimizers:
                    optimizer.step()
            step += 1
            for name, term in terms.items():
                value = float(term.detach())
                means[name] = value if name not in means else 0.95 * means[name] + 0.05 * value
            now = _clock_s()
            elapsed, last = elapsed + now - last, now
            if now - logged > LOG_EVERY_S:
                logged = now
                line = {"step": step, "computing_s": round(elapsed), **{k: round(v, 4) for k, v in means.items()}}
                print(json.dumps(line), file=log, flush=True)
            if now - saved > CHECKPOINT_EVERY_S:
                saved = now
                _save(checkpoint, network, optimizers, elapsed, step)
    _save(checkpoint, network, optimizers, elapsed, step)


def _save(path: Path, network: nn.Module, optimizers: list[torch.optim.Optimizer], elapsed: float, step: int) -> None:
    states = [optimizer.state_dict() for optimizer in optimizers]
    state = {"network": network.state_dict(), "optimizers": states, "elapsed": elapsed, "step": step}
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
