"""Which tokens can be chosen at all, found with numpy in the logits of a whole vocabulary. No native code.

llama.cpp's samplers copy the vocabulary into structures and mostly sort it: up to 45 ms a token for 128k. What is
found here in 0.03 to 0.7 ms goes to them as a few candidates. Logits are float32 of shape (n_vocab,), numbers or -inf;
``best`` is the highest. Results are indices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearth.models.types import TokenLogprobs

FIRST_DEPTH = 4.0  # nats below the best logit that are looked at first
DEEPEST = 100.0  # nats; what is further below has a probability of zero in float32
N_BINS = 4096
SMALL = 4096  # sorting as many is faster than sparing it

Logits = NDArray[np.float32]
Indices = NDArray[np.intp]


def within(logits: Logits, best: float, depth: float) -> Indices:
    """Tokens less than ``depth`` below the best; never those at -inf."""
    return np.flatnonzero(logits > best - depth)


def likeliest(logits: Logits, best: float, k: int, depth: float = FIRST_DEPTH) -> tuple[Indices, float]:
    """The ``k`` likeliest tokens (fewer if the rest is at -inf) and some more, not sorted; and how many nats below the
    best they were found. ``depth`` is where to look first: where those of the token before were found."""
    found = logits > best - depth  # counting them is ten times as fast as listing them
    n_found = np.count_nonzero(found)
    while n_found < k and not math.isinf(depth):
        depth = depth * 2 if depth < DEEPEST else math.inf
        found = logits > best - depth
        n_found = np.count_nonzero(found)
    while n_found > max(SMALL, 4 * k):  # logits that are nearly equal
        fewer = logits > best - depth / 2
        n_fewer = np.count_nonzero(fewer)
        if not k <= n_fewer < n_found:
            break
        found, n_found, depth = fewer, n_fewer, depth / 2
    return np.flatnonzero(found), depth


def nucleus(logits: Logits, best: float, mass: float, temperature: float = 1.0) -> Indices:
    """The fewest tokens that together have the probability ``mass``, at least one: top-p of the whole vocabulary."""
    weights = np.exp((logits - best) * (1.0 / temperature))
    wanted = mass * float(weights.sum())
    depth = FIRST_DEPTH * temperature
    while True:
        found = within(logits, best, depth)
        found_weights = weights[found]
        if float(found_weights.sum()) >= wanted or math.isinf(depth):
            return found[_fewest(best - logits[found], found_weights, wanted)]
        depth = depth * 2 if depth < DEEPEST * temperature else math.inf


def typical(logits: Logits, best: float, mass: float) -> Indices:
    """The fewest tokens with the probability ``mass`` whose surprise is nearest the entropy (arXiv 2202.00666)."""
    found = within(logits, best, DEEPEST)
    surprise = best - logits[found]
    weights = np.exp(-surprise)
    total = float(weights.sum())
    surprise += math.log(total)
    weights /= total
    entropy = float(np.dot(weights, surprise))
    return found[_fewest(np.abs(surprise - entropy), weights, mass)]


def _fewest(keys: NDArray[np.float32], weights: NDArray[np.float32], wanted: float) -> Indices:
    """Indices of the smallest keys whose weights come to ``wanted``, or all; sorted only as far as needed."""
    if len(keys) <= SMALL:
        return _fewest_sorted(keys, weights, wanted)
    bins = (keys * ((N_BINS - 1) / max(float(keys.max()), 1e-9))).astype(np.int32)
    masses = np.cumsum(np.bincount(bins, weights, N_BINS))
    last = min(int(np.searchsorted(masses, wanted)), N_BINS - 1)
    border = np.flatnonzero(bins == last)
    rest = wanted - (float(masses[last - 1]) if last else 0.0)
    border = border[_fewest_sorted(keys[border], weights[border], rest)]
    return np.concatenate([np.flatnonzero(bins < last), border])


def _fewest_sorted(keys: NDArray[Any], weights: NDArray[Any], wanted: float) -> Indices:
    order = np.argsort(keys, kind="stable")
    masses = np.cumsum(weights[order], dtype=np.float64)
    return order[: int(np.searchsorted(masses, wanted)) + 1]


def log_probabilities(logits: Logits, token: int, n_top: int) -> TokenLogprobs:
    """Of ``token`` and of the ``n_top`` likeliest; equal ones in the order of their ids."""
    best = float(logits.max())
    log_total = math.log(float(np.exp(logits - best).sum()))
    top = likeliest(logits, best, n_top)[0] if n_top else np.zeros(0, np.intp)
    top = top[np.argsort(-logits[top], kind="stable")][:n_top]
    reported = tuple((int(index), float(logits[index]) - best - log_total) for index in top)
    return TokenLogprobs(token, float(logits[token]) - best - log_total, reported)
