"""Decides which requests run and what part of them comes next. Policy only: it sees counts and entries, no tensors."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hearth.models.engine.prompt import MediaSpan
from hearth.models.engine.sequence import Sequence

MAX_WAIT_S = 0.1  # half of what a cancel may take
MIN_CHUNK_TOKENS = 64  # shorter chunks use the processor badly


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Consecutive tokens of a sequence to be decoded, the first at ``position``."""

    sequence: Sequence
    tokens: list[int]
    position: int
    wants_logits: bool  # of the last token


@dataclass(frozen=True, slots=True)
class MediaChunk:
    """A picture or sound of a sequence to be decoded whole. It shares its step with nothing else."""

    sequence: Sequence
    span: MediaSpan
    index: int  # in the prompt's entries
    position: int
    wants_logits: bool


Chunk = TokenChunk | MediaChunk


class Scheduler:
    """First come, first served; ``max_running`` requests side by side, ``max_chunk_tokens`` tokens of one in a step."""

    def __init__(self, *, max_running: int, max_chunk_tokens: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._max_running = max_running
        self._max_chunk_tokens = max_chunk_tokens

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Moves requests from waiting to running while there is room; those cancelled meanwhile are dropped."""
        admitted = []
        while self.waiting and len(self.running) < self._max_running:
            sequence = self.waiting.popleft()
            if sequence.admit():
                self.running.append(sequence)
                admitted.append(sequence)
        return admitted

    def limit_latency(self, n_tokens: int, longest_wait_s: float) -> None:
        """Halves later chunks if one of ``n_tokens`` could not have been interrupted for ``longest_wait_s``."""
        if longest_wait_s > MAX_WAIT_S and n_tokens == self._max_chunk_tokens > MIN_CHUNK_TOKENS:
            self._max_chunk_tokens = max(MIN_CHUNK_TOKENS, n_tokens // 2)

    def remove(self, sequence: Sequence) -> None:
        self.running.remove(sequence)

    def schedule(self) -> list[Chunk]:
        """What to decode in this step: one chunk of the oldest running request."""
        return [self._next_chunk(self.running[0])] if self.running else []

    def _next_chunk(self, sequence: Sequence) -> Chunk:
        start, total = sequence.num_computed_entries, sequence.num_entries
        first = sequence.entry(start)
        if isinstance(first, MediaSpan):
            return MediaChunk(sequence, first, start, sequence.position(start), start + 1 == total)
        tokens = []
        end = min(total, start + self._max_chunk_tokens)
        for index in range(start, end):
            entry = sequence.entry(index)
            if isinstance(entry, MediaSpan):
                break
            tokens.append(entry)
        return TokenChunk(sequence, tokens, sequence.position(start), start + len(tokens) == total)
