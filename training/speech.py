"""Trains the pocket speech model: ``python -m training.speech --budget-hours 1``. Seeded, resumable, on CPU or CUDA.

Mostly on short windows with CTC beside the decoder's loss (Watanabe et al. 2017), some later
batches on windows of 30 s as Whisper pads them. The learning rate follows the share of the time budget that is used,
so a budget always ends well.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.speech_batches import BatchOptions, seed_of, stream
from training.speech_model import SpeechModel, SpeechShape, export, start_from, trained_tokens, used_tokens

FULL_WINDOWS_FROM = 0.5  # share of the budget after which some batches are windows of 30 s
FULL_WINDOW_SHARE = 0.06
CTC_WEIGHT = 0.4
EASY_UNTIL = 0.55  # share of the budget with clean single sentences only
SAMPLED_TOKENS = 4096  # the softmax over the whole used vocabulary would be half of a step on CPU
CHECKPOINT_EVERY_S = 240.0
CHECKPOINT_VERSION = 2
MUON_LR_SCALE = 4.0  # of AdamW's learning rate


@dataclass(frozen=True)
class SpeechTraining:
    """Options of a training run. ``folder`` holds shards, log and checkpoints; ``output`` is the exported model."""

    folder: Path
    output: Path
    budget_hours: float = 1.0
    seed: int = 0
    threads: int = 1
    batch_s: float = 40.0
    peak_lr: float = 1.5e-3
    warmup_steps: int = 200
    shape: SpeechShape = field(default_factory=SpeechShape)
    start: Path | None = None  # an exported model to go on from: it needs no easy recordings any more


def _optimizers(model: SpeechModel) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices inside the blocks, AdamW for everything else."""
    inside = [p for name, p in model.named_parameters() if ".blocks." in name and p.ndim == 2]
    known = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(inside, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


class SpeechTrainer:
    """One run: model, optimizer, time spent. ``train`` goes on from the last checkpoint in the folder."""

    def __init__(self, options: SpeechTraining) -> None:
        self.options = options
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.token_ids = self._token_ids()
        self.model = SpeechModel(options.shape, len(self.token_ids)).to(self.device)
        self.optimizers = _optimizers(self.model)
        self.step = 0
        self.spent_s = 0.0
        self._stop = False
        if options.start is not None:
            start_from(self.model, options.start)
        self._resume()

    @property
    def _checkpoint(self) -> Path:
        return self.options.folder / "training.pt"

    def _token_ids(self) -> tuple[int, ...]:
        path = self.options.folder / "tokens.json"
        if not path.exists():
            start = self.options.start
            path.write_text(json.dumps(trained_tokens(start) if start else used_tokens(self.options.seed)))
        return tuple(json.loads(path.read_text()))

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        if state["version"] != CHECKPOINT_VERSION or state["shape"] != asdict(self.options.shape):
            raise ValueError(f"{self._checkpoint} belongs to another model shape; remove it to start again")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.spent_s = state["step"], state["spent_s"]

    def save(self) -> None:
        """Writes the checkpoint to resume from and exports the model as it is."""
        state = {
            "version": CHECKPOINT_VERSION,
            "shape": asdict(self.options.shape),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "spent_s": self.spent_s,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)
        export(self.model, self.options.shape, self.token_ids, self.options.output)

    @property
    def progress(self) -> float:
        """Share of the time budget that is used, 0..1."""
        return min(1.0, self.spent_s / (self.options.budget_hours * 3600))

    def _learning_rate(self) -> float:
        warmup = min(1.0, (self.step + 1) / self.options.warmup_steps)
        return self.options.peak_lr * warmup * max(0.01, 1.0 - self.progress)

    def _candidates(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens the softmax is over, those of the batch and a drawn rest, and the targets as indices into them."""
        drawn = torch.randint(len(self.token_ids), (SAMPLED_TOKENS,), device=targets.device)
        candidates, index = torch.cat([targets.clamp(min=0).flatten(), drawn]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        mapped = index[: targets.numel()].view_as(targets)
        return candidates, torch.where(targets >= 0, mapped, targets)

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, float]:
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        candidates, targets = self._candidates(batch["targets"])
        with torch.autocast(self.device, torch.bfloat16):
            logits, letters = self.model(batch["mel"], batch["tokens"], candidates)
        decoder_loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.02)
        log_probs = letters.float().log_softmax(-1).transpose(0, 1)
        lengths = torch.full((len(targets),), log_probs.shape[0], dtype=torch.long)
        ctc = functional.ctc_loss(
            log_probs, batch["letters"], lengths, batch["letter_lengths"].cpu(), reduction="none", zero_infinity=True
        )
        ctc_loss = (ctc / batch["letter_lengths"].clamp(min=4)).mean()
        counted = targets >= 0
        accuracy = (logits.detach().argmax(-1)[counted] == targets[counted]).float().mean().item()
        return decoder_loss, ctc_loss, accuracy

    def update(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One optimizer step; the losses and the share of tokens that were foreseen."""
        decoder_loss, ctc_loss, accuracy = self._losses(batch)
        weight = CTC_WEIGHT
        self.model.zero_grad(set_to_none=True)
        ((1 - weight) * decoder_loss + weight * ctc_loss).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, scale in zip(self.optimizers, (MUON_LR_SCALE, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate() * scale
            optimizer.step()
        self.model.hold_unused_channel()
        return {"loss": decoder_loss.item(), "ctc": ctc_loss.item(), "accuracy": accuracy}

    def stop(self) -> None:
        """Ends ``train`` after the step that runs, with everything saved."""
        self._stop = True

    def train(self) -> None:
        """Trains until the budget is used or ``stop`` is called, then saves and exports."""
        easy = self.progress < EASY_UNTIL and self.options.start is None
        short, full = self._stream(easy=easy), self._stream(full=True)
        choose = random.Random(seed_of(self.options.seed, self.step))
        sums: dict[str, float] = {}
        last_save, counted, last = self.spent_s, 0, time.monotonic()
        while self.progress < 1.0 and not self._stop:
            if easy and self.progress >= EASY_UNTIL:
                easy, short = False, self._stream()
            share = FULL_WINDOW_SHARE if self.progress > FULL_WINDOWS_FROM else 0.0
            figures = self.update(next(full if choose.random() < share else short))
            now = time.monotonic()
            self.spent_s += now - last
            last = now
            self.step += 1
            counted += 1
            sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
            if counted == 50:
                self._log({name: round(value / counted, 4) for name, value in sums.items()})
                sums, counted = {}, 0
            if self.spent_s - last_save > CHECKPOINT_EVERY_S:
                self.save()
                last_save = self.spent_s
        self.save()

    def _stream(self, *, full: bool = False, easy: bool = False) -> Any:
        shards = self.options.folder / "shards"
        seed = seed_of(self.options.seed, self.step)
        return stream(BatchOptions(shards, self.token_ids, seed, self.options.batch_s, full=full, easy=easy))

    def _log(self, figures: dict[str, float]) -> None:
        line = json.dumps({"step": self.step, "spent_s": round(self.spent_s), "lr": self._learning_rate(), **figures})
        print(line, flush=True)
        with (self.options.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")


def synthesise(folder: Path, n_shards: int, seed: int) -> None:
    """Speaks the training set in a process of its own; shards that exist are kept. Returns when all are written."""
    command = [sys.executable, "-m", "training.speech_voices", "0", str(n_shards)]
    subprocess.run([*command, "--folder", str(folder / "shards"), "--seed", str(seed)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shards", type=int, default=36, help="of 2,000 utterances each")
    parser.add_argument("--folder", type=Path, default=Path("training/runs/speech"))
    parser.add_argument("--output", type=Path, default=Path("assets/pocket/speech.pt"))
    parser.add_argument("--start", type=Path, help="a finished speech.pt to go on from")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    synthesise(arguments.folder, arguments.shards, arguments.seed)
    options = SpeechTraining(
        arguments.folder,
        arguments.output,
        arguments.budget_hours,
        arguments.seed,
        arguments.threads,
        start=arguments.start,
    )
    trainer = SpeechTrainer(options)
    signal.signal(signal.SIGTERM, lambda *_: trainer.stop())
    trainer.train()


if __name__ == "__main__":
    main()
