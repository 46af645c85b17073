"""Puts two rankings of passages into one and leaves out passages that say the same. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hearth.store.records import SearchHit
from hearth.store.words import word_sequence

RRF_K = 60  # of reciprocal rank fusion, as in Cormack, Clarke and Büttcher, SIGIR 2009


def reciprocal_rank_fusion(rankings: Iterable[Sequence[str]]) -> dict[str, float]:
    """Score of each id: the sum of 1 / (RRF_K + rank) over ``rankings`` (best first, ranks from 1); best first."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, identity in enumerate(ranking, 1):
            scores[identity] = scores.get(identity, 0.0) + 1 / (RRF_K + rank)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def without_repetitions(hits: Iterable[SearchHit]) -> Iterator[SearchHit]:
    """``hits`` in their order, less passages with the words of an earlier one, be they set or spelt otherwise.

    Nearness of vectors would not do: two entries that differ in one number are near, and both are needed.
    """
    seen: set[tuple[str, ...]] = set()
    for hit in hits:
        words = word_sequence(hit.passage.text) if hit.passage else ()
        if words and words in seen:
            continue
        seen.add(words)
        yield hit
