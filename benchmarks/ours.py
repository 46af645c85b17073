"""Our engine as the benchmarks run it: sizes, prompts, an engine in a process of its own, folders for KV blocks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sdist import BUILD

from hearth.bench import Answer
from hearth.engine_factory import KvFolder, make_engine
from hearth.models.engine.options import EngineOptions
from hearth.models.types import SamplingParams

KV_BUDGET_BYTES = 64 << 30
N_BATCH = 512
FULL_CHAIN = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repeat_penalty=1.1, seed=1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """In tokens, but for counts."""

    prefix: int = 4096
    answer: int = 256  # compared after a restart
    picture: int = 256
    compared_prefix: int = 1024
    sized_prefix: int = 2048  # whose bytes on disk are counted, for each KV type
    shared_prefix: int = 2048
    shared_own: int = 512
    n_shared: int = 10
    depths: tuple[int, ...] = (512, 4096)
    decoded: int = 128
    n_chats: int = 8
    chat_prompt: int = 1024
    chat_answer: int = 64
    n_gaps: int = 60  # of a chat that runs alone
    copied: int = 600
    n_looked_up: int = 256


QUICK = Sizes(768, 32, 32, 512, 512, 512, 64, 3, (128,), 32, 3, 128, 16, 20, 200, 100)


@dataclass(frozen=True, slots=True)
class Run:
    """What all rows of a run share."""

    model: Path
    chain_model: Path
    n_vocab: int = 150_000
    n_threads: int = 2
    repeats: int = 3
    seed: int = 0
    quick: bool = False
    in_thread: bool = False  # our engine in the benchmark's process instead of its own
    n_gpu_layers: int = 0
    peer_openmp: str = "own"  # "same": peers wait for each other as our threads do, not spinning
    sizes: Sizes = field(default_factory=Sizes)

    def prompt(self, number: int, n_tokens: int) -> list[int]:
        """Random ids of ordinary tokens: the end of a vocabulary is left out, because control tokens are there."""
        rng = np.random.default_rng([self.seed, number, n_tokens])
        return [int(token) for token in rng.integers(0, self.n_vocab - self.n_vocab // 50 - 8, n_tokens)]

    def cycle(self) -> list[int]:
        """The order in which the chain model says its tokens."""
        path = self.chain_model.with_suffix(".cycle.npy")
        if not (self.chain_model.is_file() and path.is_file()):
            raise SystemExit(f"{self.chain_model.name} is missing: run benchmarks/random_models.py")
        return [int(token) for token in np.load(path)]


def make_saving_all(path: Path, options: EngineOptions, **arguments: Any) -> Any:
    """As ``make_engine``; every prefix is saved, however quickly it is computed."""
    return make_engine(path, replace(options, kv_min_worth_s=0.0), **arguments)


@contextmanager
def opened(run: Run, *, n_ctx: int, kv: Path | None = None, model: Path | None = None, **options: Any) -> Iterator[Any]:
    """An engine (types.Engine), closed at the end. Guessing of tokens is off unless asked for."""
    arguments: dict[str, Any] = {"kv": KvFolder(kv, KV_BUDGET_BYTES) if kv is not None else None}
    chosen = EngineOptions(
        **{
            "n_ctx": n_ctx,
            "n_batch": N_BATCH,
            "n_ubatch": N_BATCH,
            "n_threads": run.n_threads,
            "prompt_lookup": False,
            "n_gpu_layers": run.n_gpu_layers,
            **({"kv_min_worth_s": 0.0} if run.quick else {}),
            **options,
        }
    )
    path = model or run.model
    if run.in_thread:
        engine = make_engine(path, chosen, **arguments)
    else:
        from hearth.models.engine.process import ProcessEngine

        engine = ProcessEngine.load(path, chosen, make_engine=make_engine, **arguments)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder on the disk that holds the project, not in a RAM disk."""
    place = BUILD / "tmp"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def drop_from_page_cache(folder: Path) -> bool:
    """Makes the next read of the files below a folder come from the disk; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def whole(answer: Answer, n_tokens: int) -> Answer:
    """The answer, if it has all its tokens: rates of shorter ones would not compare."""
    found = len(answer.finished.tokens)
    if found != n_tokens:
        raise SystemExit(f"an answer ended after {found} of {n_tokens} tokens; use another --seed")
    return answer


def decode_rate(answer: Answer) -> float:
    """Tokens a second after the first, as the reader of the stream sees them."""
    return (len(answer.finished.tokens) - 1) / (answer.ended_s - answer.first_s)


def middle(values: list[float]) -> float:
    return float(median(values))


def rounded(values: list[float], digits: int = 4) -> list[float]:
    return [round(value, digits) for value in values]
