"""The prefix cache's choices, against what a simulated KV cache would then hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hearth.models.engine.prefix_cache import MIN_TAIL_TOKENS, PrefixCache, common_prefix
from hearth.models.engine.prompt import Entry, MediaSpan

ENTRIES = st.lists(st.sampled_from([1, 2, MediaSpan("a", 3, 3), MediaSpan("b", 3, 3)]), min_size=1, max_size=12)


@given(ENTRIES, ENTRIES)
def test_common_prefix(a: list[Entry], b: list[Entry]) -> None:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    assert common_prefix(a, b) == n


@given(st.lists(ENTRIES, min_size=1, max_size=12), st.integers(1, 4), st.booleans())
def test_the_longest_prefix_is_found_and_really_there(
    prompts: list[list[Entry]], n_sequences: int, sliceable: bool
) -> None:
    cache = PrefixCache(n_sequences, sliceable=sliceable)
    held: dict[int, list[Entry]] = {sequence.seq_id: [] for sequence in cache.sequences}
    for prompt in prompts:
        candidates = [common_prefix(entries, prompt) for entries in held.values()]
        if not sliceable:
            whole = [n == len(entries) for n, entries in zip(candidates, held.values(), strict=True)]
            candidates = [n for n, is_whole in zip(candidates, whole, strict=True) if is_whole and n < len(prompt)]
        best = min(max(candidates, default=0), len(prompt) - 1)
        placement = cache.place(prompt)
        assert placement is not None
        assert placement.n_matched == best
        assert held[placement.source.seq_id][:best] == prompt[:best]
        if not sliceable and best:
            assert placement.source is placement.target
            assert len(held[placement.source.seq_id]) == best
        held[placement.target.seq_id] = list(prompt)
        placement.target.entries.extend(prompt[best:])
        cache.release(placement.target)
        assert {sequence.seq_id: sequence.entries for sequence in cache.sequences} == held


def place(cache: PrefixCache, prompt: list[Entry]) -> tuple[int, int]:
    placement = cache.place(prompt)
    assert placement is not None
    placement.target.entries = list(prompt)
    cache.release(placement.target)
    return placement.target.seq_id, placement.n_matched


def test_a_long_tail_is_branched_from_and_a_short_one_is_not() -> None:
    cache = PrefixCache(3)
    long_tail: list[Entry] = [1, 2, *range(100, 100 + MIN_TAIL_TOKENS)]
    first, _ = place(cache, long_tail)
    second, n_matched = place(cache, [1, 2, 3])
    assert (second != first, n_matched) == (True, 2)
    third, n_matched = place(cache, [1, 2, 4])
    assert (third, n_matched) == (second, 2)


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(3)
    seq_ids = [place(cache, [i, i, i])[0] for i in (10, 20, 30)]
    place(cache, [10, 10, 10])
    evicted = [cache.evict(), cache.evict(), cache.evict(), cache.evict()]
    assert [sequence and sequence.seq_id for sequence in evicted] == [seq_ids[1], seq_ids[2], seq_ids[0], None]


def test_busy_sequences_are_neither_overwritten_nor_evicted() -> None:
    cache = PrefixCache(2)
    first = cache.place([1, 2, 3])
    assert first is not None
    first.target.entries = [1, 2, 3]
    second = cache.place([1, 2, 3, 4])
    assert second is not None
    assert second.target is not first.target
    assert second.source is first.target
    assert second.n_matched == 3
    assert cache.evict() is None
    assert cache.place([5]) is None
