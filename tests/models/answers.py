"""Prompts and answers of engines: the whole of one, and whether two are the same but for rounding."""

from __future__ import annotations

import numpy as np

from hearth.models.types import Failed, Finished, RequestHandle

# Batches of another shape round differently. Measured with the tiny models: log-probabilities differ by up to 0.12
# (with experts, of which another one is asked now and then), tokens only where the best two are within 0.025.
ROUNDING, TIE = 0.3, 0.1


def tokens(n: int, seed: int = 0) -> tuple[int, ...]:
    """Random ids of ordinary tokens, the same for the same seed."""
    return tuple(int(t) for t in np.random.default_rng(seed).integers(0, 250, n))


def result(handle: RequestHandle) -> Finished:
    """Waits for the end. Raises the error of a request that failed."""
    last = list(handle.events())[-1]
    if isinstance(last, Failed):
        raise last.error
    assert isinstance(last, Finished)
    return last


def assert_alike(one: Finished, other: Finished) -> None:
    """Equal up to the first place where two tokens were as good as equally likely. Both need ``n_logprobs``."""
    for mine, theirs in zip(one.logprobs, other.logprobs, strict=True):
        if mine.token != theirs.token:
            assert mine.logprob - dict(mine.top).get(theirs.token, -np.inf) < TIE
            return
        assert abs(mine.logprob - theirs.logprob) < ROUNDING
