"""What an engine has done, counted for the page, the benchmarks and `hearth bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hearth.models.engine.scheduler import Chunk, TokenChunk
from hearth.models.types import CacheReport


@dataclass(slots=True)
class EngineCounters:
    """Totals since the engine was loaded; seconds for ``*_s``."""

    n_requests: int = 0
    prompt_tokens: int = 0
    memory_tokens: int = 0  # of them found in the KV cache
    disk_tokens: int = 0  # of them restored from disk
    n_steps: int = 0
    n_step_sequences: int = 0  # requests that took part in a step, summed over the steps
    step_s: float = 0.0
    native_s: float = 0.0  # of step_s, spent in llama.cpp
    draft_s: float = 0.0  # of native_s, spent on the draft model
    n_preempted: int = 0
    n_guessed: int = 0
    n_accepted: int = 0  # guessed tokens that came true

    def request(self, n_tokens: int, found: CacheReport) -> None:
        """A request begins to be read."""
        self.n_requests += 1
        self.prompt_tokens += n_tokens
        self.memory_tokens += found.memory_tokens
        self.disk_tokens += found.disk_tokens

    def step(self, elapsed_s: float, native_s: float, draft_s: float, chunks: Sequence[Chunk]) -> None:
        """A step of answers is over; those with prompts in them count for nobody's overhead."""
        if all(isinstance(chunk, TokenChunk) and chunk.is_answer for chunk in chunks):
            self.steps(1, elapsed_s, native_s, len(chunks))
            self.draft_s += draft_s

    def steps(self, n: int, elapsed_s: float, native_s: float, n_sequences: int) -> None:
        """``n`` steps of the answers of ``n_sequences`` requests are over."""
        self.n_steps += n
        self.n_step_sequences += n * n_sequences
        self.step_s += elapsed_s
        self.native_s += native_s

    def guessed(self, n_guessed: int, n_accepted: int) -> None:
        self.n_guessed += n_guessed
        self.n_accepted += n_accepted

    def as_dict(self) -> dict[str, float]:
        return asdict(self)
