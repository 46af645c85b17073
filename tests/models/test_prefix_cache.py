"""The prefix cache's choices, against what a simulated KV cache would then hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hearth.models.engine.prefix_cache import MIN_TAIL_TOKENS, CachedSequence, PrefixCache
from hearth.models.engine.prompt import Entry, MediaSpan
from hearth.models.engine.radix_tree import common_prefix

ENTRIES = st.lists(st.sampled_from([1, 2, MediaSpan("a", 3, 3), MediaSpan("b", 3, 3)]), min_size=1, max_size=12)


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
            assert len(held[placement.source.seq_id]) == best  # copied or gone on with, but never cut
        held[placement.target.seq_id] = list(prompt)
        cache.extend(placement.target, prompt[best:])
        cache.release(placement.target)
        cache.check()
        assert {sequence.seq_id: sequence.entries for sequence in cache.sequences} == held


def place(cache: PrefixCache, prompt: list[Entry]) -> tuple[int, int]:
    placement = cache.place(prompt)
    assert placement is not None
    cache.extend(placement.target, prompt[placement.n_matched :])
    cache.release(placement.target)
    return placement.target.seq_id, placement.n_matched


def evict(cache: PrefixCache) -> CachedSequence | None:
    victim = cache.next_victim()
    if victim is not None:
        cache.evicted(victim)
    return victim


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
    evicted = [evict(cache) for _ in range(4)]
    assert [sequence and sequence.seq_id for sequence in evicted] == [seq_ids[1], seq_ids[2], seq_ids[0], None]


def test_busy_sequences_are_neither_overwritten_nor_evicted() -> None:
    cache = PrefixCache(2)
    first = cache.place([1, 2, 3])
    assert first is not None
    cache.extend(first.target, [1, 2, 3])
    second = cache.place([1, 2, 3, 4])
    assert second is not None
    assert second.target is not first.target
    assert second.source is first.target
    assert second.n_matched == 3
    assert cache.next_victim() is None
    assert cache.place([5]) is None


def test_what_is_dear_to_compute_again_stays_longer() -> None:
    cache = PrefixCache(3)
    long, _ = place(cache, list(range(1000, 9000)))
    short, _ = place(cache, [7, 7, 7])
    saved, _ = place(cache, list(range(20_000, 28_000)))
    cache.sequences[saved].on_disk = True
    cache.release(cache.sequences[saved])
    assert [getattr(evict(cache), "seq_id", None) for _ in range(3)] == [saved, short, long]


def test_an_old_prefix_goes_in_the_end_however_dear() -> None:
    cache = PrefixCache(2)
    old, _ = place(cache, list(range(1000, 9000)))
    for i in range(20):
        if cache.sequences[old].entries[0] != 1000:
            return
        place(cache, [i, i, i])
    raise AssertionError("a long prefix stayed for ever")


def test_cells_are_counted_once_and_only_those_in_use_are_taken() -> None:
    cache = PrefixCache(3)
    prompt: list[Entry] = list(range(100))
    first = cache.place(prompt)
    assert first is not None
    cache.extend(first.target, prompt)
    assert (cache.cells_in_use(), cache.cells_needed([*prompt, 5, 6])) == (100, 2)
    second = cache.place([*prompt, 5, 6])
    assert second is not None
    cache.extend(second.target, [5, 6])
    assert cache.cells_in_use() == 102
    cache.release(first.target)
    cache.release(second.target)
    assert (cache.cells_in_use(), cache.cells_held(), cache.cells_needed(prompt)) == (0, 102, 100)


def test_the_same_answer_twice_takes_cells_twice() -> None:
    cache = PrefixCache(3)
    prompt: list[Entry] = list(range(100))
    answer: list[Entry] = list(range(200, 240))
    for n_held in (140, 180):
        placed = cache.place(prompt)
        assert placed is not None
        cache.extend(placed.target, [*prompt[placed.n_matched :], *answer])
        cache.release(placed.target)
        assert cache.cells_held() == n_held + (n_held > 140)  # the last token of a prompt is decoded again


def test_cells_of_an_evicted_source_stay_with_its_branch() -> None:
    cache = PrefixCache(2)
    prompt: list[Entry] = list(range(100))
    first, _ = place(cache, [*prompt, *range(200, 240)])
    second, _ = place(cache, [*prompt, *range(300, 310)])
    assert first != second
    assert cache.cells_held() == 150
    cache.evicted(cache.sequences[first])
    assert cache.cells_held() == 110
    assert cache.next_victim() is cache.sequences[second]
