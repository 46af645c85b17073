"""Whether two answers are the same but for rounding: batches of another shape round differently."""

from __future__ import annotations

import numpy as np

from hearth.models.types import Finished

# Measured with the tiny models: log-probabilities differ by up to 0.12 (with experts, of which another one is asked now
# and then), tokens only where the best two are within 0.025.
ROUNDING, TIE = 0.3, 0.1


def assert_alike(one: Finished, other: Finished) -> None:
    """Equal up to the first place where two tokens were as good as equally likely. Both need ``n_logprobs``."""
    for mine, theirs in zip(one.logprobs, other.logprobs, strict=True):
        if mine.token != theirs.token:
            assert mine.logprob - dict(mine.top).get(theirs.token, -np.inf) < TIE
            return
        assert abs(mine.logprob - theirs.logprob) < ROUNDING
