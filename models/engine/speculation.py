"""Prompt lookup: guesses what follows from what followed the same tokens before, checked in one step. Policy only.

After Saxena 2023 (prompt lookup decoding) and Leviathan et al. 2023 (arXiv 2211.17192). The model samples at every
guessed place from its own distribution and the first difference ends the step, so the answer is the one it would have
given without guesses.
"""

from __future__ import annotations

from collections.abc import Sequence

from hearth.models.engine.prompt import Entry

LONGEST_MATCH = 3  # tokens that must agree, tried first
SHORTEST_MATCH = 2
MAX_GUESSES = 10
MIN_STEPS_MEASURED = 3
PROBE_EVERY = 32  # answers steps without a guess, after which one is tried again
SMOOTHING = 0.15


class NgramIndex:
    """Where each run of ``LONGEST_MATCH`` and ``SHORTEST_MATCH`` tokens stood last; grows token by token."""

    def __init__(self) -> None:
        self._tokens: list[Entry] = []
        self._after: dict[tuple[Entry, ...], int] = {}  # n-gram → index behind its last place but the newest
        self._newest: dict[tuple[Entry, ...], int] = {}

    def extend(self, tokens: Sequence[Entry]) -> None:
        for token in tokens:
            self._tokens.append(token)
            end = len(self._tokens)
            for n in (LONGEST_MATCH, SHORTEST_MATCH):
                if end >= n:
                    ngram = tuple(self._tokens[end - n :])
                    before = self._newest.get(ngram)
                    if before is not None:
                        self._after[ngram] = before
                    self._newest[ngram] = end

    def continuation(self, n_max: int) -> list[int]:
        """What followed the last tokens when they stood before; empty if they did not."""
        end = len(self._tokens)
        for n in (LONGEST_MATCH, SHORTEST_MATCH):
            start = self._after.get(tuple(self._tokens[end - n :])) if end >= n else None
            if start is not None:
                found: list[int] = []
                for entry in self._tokens[start : start + n_max]:
                    if not isinstance(entry, int):
                        break
                    found.append(entry)
                return found
        return []


class StepCosts:
    """What a step of answers costs by its number of rows, measured; shared by all requests of an engine."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def measured(self, n_rows: int, elapsed_s: float) -> None:
        mean = self._seconds.get(n_rows)
        self._seconds[n_rows] = elapsed_s if mean is None else (1 - SMOOTHING) * mean + SMOOTHING * elapsed_s

    def ratio(self, n_rows: int, n_plain: int) -> float | None:
        """Cost of a step of ``n_rows`` in steps of ``n_plain`` rows; None if either was not measured."""
        wide, plain = self._seconds.get(n_rows), self._seconds.get(n_plain)
        return wide / plain if wide is not None and plain else None


class Speculation:
    """The guesses of one request. It guesses as many tokens as lately came true, and stops where that does not pay."""

    def __init__(self, prompt: Sequence[Entry], costs: StepCosts) -> None:
        self._index = NgramIndex()
        self._index.extend(prompt)
        self._costs = costs
        self._n_guesses = 4
        self._gain: float | None = None  # tokens a guessing step gave per unit of cost, smoothed
        self._n_measured = 0
        self._n_silent = 0
        self.n_proposed = 0
        self.n_accepted = 0

    def note(self, tokens: Sequence[int]) -> None:
        """Takes tokens of the answer."""
        self._index.extend(tokens)

    def propose(self, _last: int, n_max: int) -> list[int]:
        """Guesses for the next tokens; empty if there are none or they do not pay."""
        n = min(self._n_guesses, n_max)
        if n < 1:
            return []
        if self._n_measured >= MIN_STEPS_MEASURED and self._gain is not None and self._gain < 1.0:
            self._n_silent += 1
            if self._n_silent < PROBE_EVERY:
                return []
            self._n_silent = 0
        return self._index.continuation(n)

    def checked(self, n_proposed: int, n_accepted: int) -> None:
        """Learns how many of a step's guesses came true."""
        if not n_proposed:
            return
        self.n_proposed += n_proposed
        self.n_accepted += n_accepted
        self._n_measured += 1
        cost = self._costs.ratio(1 + n_proposed, 1)
        gain = (1 + n_accepted) / cost if cost else 1.0 + n_accepted / n_proposed
        self._gain = gain if self._gain is None else (1 - SMOOTHING * 2) * self._gain + SMOOTHING * 2 * gain
        if n_accepted == n_proposed:
            self._n_guesses = min(MAX_GUESSES, self._n_guesses + 2)
        elif n_accepted < n_proposed // 2:
            self._n_guesses = max(2, n_accepted + 1)
