"""Decides which requests run and what part of them comes next. Policy only: it sees counts and entries, no tensors.

Continuous batching with chunked prefill (Orca, Yu et al. 2022; Sarathi-Serve, Agrawal et al. 2024, arXiv 2403.02310):
the next token of every answering request comes first in a step, and what room a latency budget leaves beside them goes
to prompts, in turn. A step of media is its own; it alternates with steps of tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from hearth.models.engine.prompt import MediaSpan
from hearth.models.engine.sequence import SEND_EVERY_S, Sequence

MAX_WAIT_S = 0.1  # half of what a cancel may take
MIN_CHUNK_TOKENS = 64  # shorter chunks use the processor badly
MIN_LEARNT_TOKENS = 8  # a shorter chunk says little about what a token of a prompt takes
FIRST_CHUNK_TOKENS = 32  # where a step cannot be interrupted, until steps were measured
MAX_GAP = 2.2  # a step with answers in it may take so many times what their readers wait without prompts
# if none of the answers had begun when the prompts came: as fast as people read, for each other chat, because nobody
# reads several at once
MAX_YOUNG_GAP_S = 0.25
SHARED_TOKEN_COST = 1.5  # of a prompt's token beside answers, in tokens of a chunk by itself, until it was measured
# Kernels for repacked weights take four rows at once. Measured, 0.5 B Q4_0, two cores, ms a step of 1 to 9 rows:
# 12.5 18.8 25.7 28.0 35.0 41.4 48.4 48.6 55.3
ROWS_AT_ONCE = 4
SMOOTHING = 0.1
SHARED_SMOOTHING = 0.3  # what a token takes grows while a long prompt is read
MIN_TOKEN_S = 1e-6  # no model reads a token in less


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Consecutive tokens of a sequence to be decoded, the first at ``position``."""

    sequence: Sequence
    tokens: list[int]
    position: int
    n_wanted: int  # logits of so many tokens at its end are wanted
    is_answer: bool = False  # goes on with an answer: its last token, and guesses at what follows


@dataclass(frozen=True, slots=True)
class MediaChunk:
    """A picture or sound of a sequence to be decoded whole. It shares its step with nothing else."""

    sequence: Sequence
    span: MediaSpan
    index: int  # in the prompt's entries
    position: int
    n_wanted: int


Chunk = TokenChunk | MediaChunk


class Scheduler:
    """First come, first served into ``max_running`` places; ``max_chunk_tokens`` tokens in a step."""

    def __init__(self, *, max_running: int, max_chunk_tokens: int, interruptible: bool = True) -> None:
        """``interruptible`` False: a step runs to its end whatever is cancelled, so that it must be short."""
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.prefill_token_s: float | None = None  # measured: what one token of a prompt takes
        self._answer_step_s: float | None = None  # measured: what a step of answers alone takes
        self._shared_token_s: float | None = None  # measured: by what a token of a prompt makes such a step longer
        self._max_running = max_running
        self._interruptible = interruptible
        self._max_chunk_tokens = self._max_step_tokens = max_chunk_tokens
        if not interruptible:
            self._max_chunk_tokens = min(FIRST_CHUNK_TOKENS, max_chunk_tokens)
        self._media_was_last = False

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def admit(self, has_room: Callable[[Sequence], bool]) -> list[Sequence]:
        """Moves requests from waiting to running while there are places and ``has_room`` says so (it is not asked when
        nothing runs); those cancelled meanwhile are dropped."""
        admitted: list[Sequence] = []
        while self.waiting and len(self.running) < self._max_running:
            if self.running and not self.waiting[0].cancelled and not has_room(self.waiting[0]):
                break
            sequence = self.waiting.popleft()
            if sequence.admit():
                self.running.append(sequence)
                admitted.append(sequence)
                break  # its cells count before the next one is looked at
        return admitted

    def preempt(self) -> Sequence | None:
        """Takes the youngest running request back to the head of the queue; None if at most one runs."""
        if len(self.running) < 2:
            return None
        sequence = max(self.running, key=lambda running: running.admitted_s)
        self.running.remove(sequence)
        sequence.preempt()
        self.waiting.appendleft(sequence)
        return sequence

    def remove(self, sequence: Sequence) -> None:
        self.running.remove(sequence)

    def schedule(self) -> list[Chunk]:
        """What to decode in this step; empty if every running request waits for its cache or its encoder."""
        ready = [sequence for sequence in self.running if sequence.is_ready]
        answers = [sequence for sequence in ready if sequence.is_answering]
        prompts = [sequence for sequence in ready if not sequence.is_answering]
        media = next((s for s in prompts if isinstance(s.entry(s.num_computed_entries), MediaSpan)), None)
        if media is not None and not (self._media_was_last and answers):
            self._media_was_last = True
            self._served(media)
            return [self._media_chunk(media)]
        self._media_was_last = False
        chunks: list[TokenChunk] = []
        n_left = self._max_step_tokens
        for sequence in answers:
            chunk = self._answer_chunk(sequence, n_left - len(answers) + len(chunks) + 1)
            n_left -= len(chunk.tokens)
            chunks.append(chunk)
        if prompts:
            room = self._shared_room(answers, prompts, self._max_step_tokens - n_left)
            n_left = min(n_left, room if answers else self._max_chunk_tokens)
        for sequence in prompts:
            if n_left <= 0:
                break
            if not isinstance(sequence.entry(sequence.num_computed_entries), MediaSpan):
                chunk = self._prompt_chunk(sequence, n_left)
                n_left -= len(chunk.tokens)
                chunks.append(chunk)
                self._served(sequence)
        return list(chunks)

    def answers_took(self, elapsed_s: float) -> None:
        """Learns from a step of answers alone."""
        self._answer_step_s = _smoothed(self._answer_step_s, elapsed_s)

    def measured(self, chunks: list[Chunk], elapsed_s: float) -> None:
        """Learns from a step with prompts or media in it that took ``elapsed_s``."""
        if any(isinstance(chunk, MediaChunk) for chunk in chunks):
            return
        n_prompt = _count_tokens([c for c in chunks if isinstance(c, TokenChunk) and not c.is_answer])
        if n_prompt < _count_tokens(chunks):
            token_s = max(elapsed_s - (self._answer_step_s or 0.0), 0.0) / n_prompt
            self._shared_token_s = _smoothed(self._shared_token_s, token_s, SHARED_SMOOTHING)
        elif n_prompt >= MIN_LEARNT_TOKENS:
            token_s = elapsed_s / n_prompt
        else:
            return
        if n_prompt >= MIN_LEARNT_TOKENS:
            self.prefill_token_s = _smoothed(self.prefill_token_s, token_s)
            if not self._interruptible:
                fitting = int(MAX_WAIT_S / max(self.prefill_token_s, MIN_TOKEN_S))
                fitting = max(1 << fitting.bit_length() >> 1, MIN_LEARNT_TOKENS)  # few shapes: less to round
                self._max_chunk_tokens = min(fitting, self._max_step_tokens)

    def limit_latency(self, n_tokens: int, longest_wait_s: float) -> None:
        """Halves later chunks if one of ``n_tokens`` could not have been interrupted for ``longest_wait_s``."""
        if not self._interruptible:
            return  # ``measured`` has seen to it
        if longest_wait_s > MAX_WAIT_S and n_tokens == self._max_chunk_tokens > MIN_CHUNK_TOKENS:
            self._max_chunk_tokens = max(MIN_CHUNK_TOKENS, n_tokens // 2)

    def _shared_room(self, answers: list[Sequence], prompts: list[Sequence], n_answer_rows: int) -> int:
        """Tokens of prompts that fit beside answers without making them stutter."""
        usual_s = max(self._answer_step_s or 0.0, SEND_EVERY_S)
        newest_s = max((sequence.submitted_s for sequence in prompts), default=0.0)
        n_others = len(answers) + len(prompts) - 1
        is_young = all(answer.has_begun_after(newest_s) for answer in answers)
        gap_s = max(MAX_GAP * usual_s, n_others * MAX_YOUNG_GAP_S if is_young else 0.0)
        token_s = self._shared_token_s or SHARED_TOKEN_COST * (self.prefill_token_s or 0.0)
        room = 0
        if self._answer_step_s is not None and token_s:
            room = min(int((gap_s - self._answer_step_s) / max(token_s, MIN_TOKEN_S)), self._max_chunk_tokens)
        n_rows = max(n_answer_rows + room, n_answer_rows + ROWS_AT_ONCE)
        return n_rows // ROWS_AT_ONCE * ROWS_AT_ONCE - n_answer_rows

    def _served(self, sequence: Sequence) -> None:
        """Puts a request behind the others, so that prompts take turns."""
        if len(self.running) > 1:
            self.running.remove(sequence)
            self.running.append(sequence)

    @staticmethod
    def _media_chunk(sequence: Sequence) -> MediaChunk:
        start = sequence.num_computed_entries
        span = sequence.entry(start)
        assert isinstance(span, MediaSpan)
        return MediaChunk(sequence, span, start, sequence.position(start), int(start + 1 == sequence.num_entries))

    @staticmethod
    def _answer_chunk(sequence: Sequence, n_max: int) -> TokenChunk:
        tokens = [sequence.output[-1], *sequence.guesses(n_max - 1)]
        position = sequence.position(sequence.num_computed_entries)
        return TokenChunk(sequence, tokens, position, len(tokens), is_answer=True)

    @staticmethod
    def _prompt_chunk(sequence: Sequence, n_max: int) -> TokenChunk:
        start, total = sequence.num_computed_entries, sequence.num_entries
        tokens = []
        for index in range(start, min(total, start + n_max)):
            entry = sequence.entry(index)
            if isinstance(entry, MediaSpan):
                break
            tokens.append(entry)
        return TokenChunk(sequence, tokens, sequence.position(start), int(start + len(tokens) == total))


def _count_tokens(chunks: list[Chunk]) -> int:
    return sum(len(chunk.tokens) for chunk in chunks if isinstance(chunk, TokenChunk))


def _smoothed(mean: float | None, value: float, smoothing: float = SMOOTHING) -> float:
    return value if mean is None else (1 - smoothing) * mean + smoothing * value
