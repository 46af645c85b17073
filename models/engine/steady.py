"""Steps of answers alone, one after another: each does what it must, and what can wait is done for some at once.

A decode drives all else out of the processor's caches, so that every object which a step touches afterwards is fetched
from memory: a step through the scheduler, counters and events takes three times as long as it would with warm caches.
While nothing is to be decided, a step is therefore no more than a decode and a choice of tokens. It ends with the first
thing that somebody else has to see to: a new request, an answer that is complete, a guess at what follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hearth.models.engine.runner import Runner
from hearth.models.engine.sampler import TokenSampler
from hearth.models.engine.scheduler import Chunk, TokenChunk
from hearth.models.engine.sequence import Sequence
from hearth.models.engine.speculation import Speculation
from hearth.models.llama_context import DecodeStatus

MAX_STEPS = 256  # then somebody looks around


@dataclass(slots=True)
class Lane:
    """An answer and what has come to it since it was last noted."""

    sequence: Sequence
    sampler: TokenSampler
    speculation: Speculation | None
    fed: list[int] = field(default_factory=list)  # tokens that are in the KV cache now
    sampled: list[int] = field(default_factory=list)  # the ones behind each of them
    error: Exception | None = None


@dataclass(slots=True)
class Stretch:
    """Some steps that are to be noted. ``lanes`` are emptied by whoever does that."""

    lanes: list[Lane]
    elapsed_s: list[float] = field(default_factory=list)  # in llama.cpp, by step
    started_s: float = 0.0  # of time.perf_counter()


def is_steady(chunks: list[Chunk], running: list[Sequence]) -> bool:
    """Whether all that run go on with the answers of this step, by one token each that nobody looks at at once."""
    if len(chunks) != len(running):
        return False
    for chunk in chunks:
        request = chunk.sequence.request
        if not (isinstance(chunk, TokenChunk) and chunk.is_answer and len(chunk.tokens) == 1):
            return False
        if chunk.sequence.slot is None or request.stop or request.sampling.n_logprobs is not None:
            return False
    return True


class SteadyRun:
    """Goes on with the answers of the step before, in the order of its rows."""

    def __init__(self, runner: Runner, sequences: list[Sequence], ends: Callable[[int], bool]) -> None:
        """``sequences`` by batch row, running. ``ends(token)``: whether it ends an answer."""
        self._runner = runner
        self._ends = ends
        lanes = []
        for sequence in sequences:
            assert sequence.sampler is not None
            lanes.append(Lane(sequence, sequence.sampler, sequence.speculation))
        self.stretch = Stretch(lanes)
        self.status = DecodeStatus.DONE  # of the last decode

    def go_on(self, n_steps: int, is_wanted: Callable[[], bool], note: Callable[[Stretch], bool]) -> None:
        """Takes at most ``n_steps`` steps, until ``is_wanted()``, an end, a guess, an error or a decode that was broken
        off. ``note`` gets what came of them, when readers are due for words and at the end, and returns whether to go
        on.

        Raises what the decode raises, after the steps before were noted.
        """
        stretch, lanes, ends, decode = self.stretch, self.stretch.lanes, self._ends, self._runner.run_again
        if any(lane.speculation and lane.speculation.expects(lane.sequence.num_guessable) for lane in lanes):
            return
        tokens = [lane.sequence.output[-1] for lane in lanes]
        stretch.started_s = now_s = time.perf_counter()
        due_s = self._due_s(now_s)
        is_over = False
        try:
            for _ in range(n_steps):
                began_s = time.perf_counter()
                self.status = decode(tokens)
                if self.status is not DecodeStatus.DONE:
                    break
                now_s = time.perf_counter()
                stretch.elapsed_s.append(now_s - began_s)
                for row, lane in enumerate(lanes):
                    lane.fed.append(tokens[row])
                    try:
                        token = lane.sampler.sample(row)
                    except Exception as error:  # it belongs to this answer; the others go on
                        lane.error, is_over = error, True
                        continue
                    lane.sampled.append(token)
                    tokens[row] = token
                    if ends(token):
                        is_over = True
                    elif lane.speculation is not None:
                        lane.speculation.note((token,))
                        is_over |= lane.speculation.expects(lane.sequence.num_guessable - len(lane.sampled))
                if is_over or is_wanted():
                    break
                if now_s >= due_s:
                    if not note(stretch):
                        break
                    now_s = time.perf_counter()
                    due_s = self._due_s(now_s)
        finally:
            note(stretch)

    def _due_s(self, now_s: float) -> float:
        """When a reader waits for words."""
        clock_s = time.monotonic()
        return now_s + min(lane.sequence.may_wait_s(clock_s) for lane in self.stretch.lanes)
