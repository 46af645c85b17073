"""KV blocks on disk: found by their prefix, never read wrong, bounded, and gone when they are to be."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hearth.store import kv_files
from hearth.store.errors import StoreError
from hearth.store.kv_blocks import KvBlock, KvBlockStore, KvOwned
from hearth.store.kv_keys import decode, encode
from hearth.store.kv_readers import N_THREADS
from tests.store.kv.chains import (
    BUDGET,
    MODEL,
    Prefix,
    check_folder,
    check_match,
    file_of,
    files,
    flat,
    matched,
    n_shared,
    payload_of,
    put_chain,
    writer_held,
)

N_KILLS = 10


# finding


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 5000], ids=len)
def test_a_payload_comes_back_as_it_was(store: KvBlockStore, payload: bytes) -> None:
    key = store.put(MODEL, "", [1, 2, "picture"], memoryview(payload))
    assert store.read(key) == payload  # pending
    assert store.flush()
    assert store.read(key) == payload
    assert [future.result(5) for future in store.read_async([key, key, "0" * 40])] == [payload, payload, None]
    assert store.match(MODEL, [1, 2, "picture", 3]) == [KvBlock(key, "", (1, 2, "picture"), 3, len(payload))]
    assert (store.pending_bytes, store.stats().n_bytes) == (0, len(payload))


def test_the_prefix_used_last_is_told(folder: Path) -> None:
    now = [1000.0]
    with closing(KvBlockStore(folder, budget_bytes=BUDGET, clock=lambda: now[0])) as store:
        assert store.latest(MODEL) == []
        chats: list[list[Prefix]] = [[(1, 2), (3,), (4, "p")], [(1, 2), (5, 6)], [(7, 8)]]
        keys = []
        for chat in chats:
            keys.append(put_chain(store, *chat))
            now[0] += 1
            store.flush()
        put_chain(store, (9,), model="model b")
        store.put(MODEL, "", [1, 2, 3], b"state", whole=True)
        store.flush()
        assert store.latest(MODEL) == [7, 8]
        assert store.latest(MODEL, whole=True) == [1, 2, 3]
        for chat, used in zip(chats, keys, strict=True):
            now[0] += 1
            store.use(used, None)
            store.flush()
            assert store.latest(MODEL) == flat(chat)
        assert store.latest("model c") == []


@pytest.mark.parametrize("pending", [True, False])
def test_a_prompt_matches_inside_a_block_and_below_it(store: KvBlockStore, pending: bool) -> None:
    a, b, c = put_chain(store, [1, 2, 3], ["p", 4], [5, 6])
    if not pending:
        store.flush()
    assert matched(store, [1, 2, 3, "p", 4, 5, 6, 7]) == [(a, 3), (b, 2), (c, 2)]
    assert matched(store, [1, 2, 3, "p", 4, 5, 9]) == [(a, 3), (b, 2), (c, 1)]
    assert matched(store, [1, 2, 3, "q", 4]) == [(a, 3)]
    assert matched(store, [1, 2]) == [(a, 2)]
    assert matched(store, [1, 9, 3, "p"]) == [(a, 1)]
    assert matched(store, [2, 3]) == matched(store, []) == []
    assert matched(store, [1, 2, 3], model="model b") == []


def test_a_shared_prefix_exists_once(store: KvBlockStore, folder: Path) -> None:
    first = put_chain(store, [1, 2], [3, 4], [5], owner="a")
    second = put_chain(store, [1, 2], [3, 4], [6], owner="b")
    store.flush()
    assert first[:2] == second[:2]
    assert files(folder) == {*first, *second}
    assert store.stats().n_blocks == 4


def test_of_the_same_entries_each_model_has_its_own(store: KvBlockStore) -> None:
    a = store.put("model a", "", [1], b"a")
    b = store.put("model b", "", [1], b"b")
    assert a != b
    assert store.put("model b", a, [2], b"below another model's") == store.key_of("model b", a, [2])
    store.flush()
    assert (store.read(a), store.read(b)) == (b"a", b"b")
    assert not store.contains(store.key_of("model b", a, [2]))


def test_keys_are_told_ahead_and_known_while_pending(store: KvBlockStore) -> None:
    key = store.key_of(MODEL, "", [1, 2])
    assert not store.contains(key)
    with writer_held(store):
        assert store.put(MODEL, "", [1, 2], b"xyz") == key
        assert store.contains(key)
        assert store.pending_bytes == 3
        assert not store.flush(0.01)
    assert store.flush()
    assert store.contains(key)
    assert store.key_of(MODEL, "", [1, 2], whole=True) != key


def test_a_block_without_its_parent_is_not_kept(store: KvBlockStore) -> None:
    parent = store.key_of(MODEL, "", [1])
    key = store.put(MODEL, parent, [2], b"x")
    store.flush()
    assert not store.contains(key)
    assert store.stats().n_dropped == 1


@pytest.mark.parametrize(
    ("parent", "entries", "whole"),
    [("", [], False), ("../../x", [1], False), ("0" * 40, [1], True), ("", [-1], False), ("", [2**31], False)],
)
def test_what_makes_no_block_is_refused(store: KvBlockStore, parent: str, entries: list[int], whole: bool) -> None:
    with pytest.raises(ValueError):
        store.put(MODEL, parent, entries, b"x", whole=whole)


@pytest.mark.parametrize("key", ["", "x", "../../etc/passwd", "0" * 39, "A" * 40, "0" * 40 + "\n"])
def test_keys_never_become_other_paths(store: KvBlockStore, key: str) -> None:
    assert store.read(key) is None
    assert not store.contains(key)
    store.use([key], "a")


def test_whole_checkpoints_match_entirely_or_not(store: KvBlockStore) -> None:
    short = store.put(MODEL, "", [1, 2], b"short", whole=True)
    long = store.put(MODEL, "", [1, 2, "p", 4], b"long", whole=True)
    put_chain(store, [1, 2, "p"])
    for _ in range(2):  # pending, then on disk
        found = store.match_whole(MODEL, [1, 2, "p", 4, 5])
        assert found == KvBlock(long, "", (1, 2, "p", 4), 4, 4)
        assert (store.match_whole(MODEL, [1, 2, "p", 3]) or found).key == short
        assert store.match_whole(MODEL, [1, 3]) is None
        assert store.match_whole("model b", [1, 2]) is None
        assert [block.n_matched for block in store.match(MODEL, [1, 2, "p", 4])] == [3]
        store.flush()
    assert (store.read(short), store.read(long)) == (b"short", b"long")


def test_encoded_entries_nest_as_the_entries_do() -> None:
    rng = random.Random(1)
    parts: list[int | str] = [0, 1, 255, 256, 2**31 - 1, "", "a", "ab", "abcd", "\x00", "é", "\ud800", "x" * 300]
    lists = [tuple(rng.choices(parts, k=rng.randrange(6))) for _ in range(300)]
    for a in lists:
        assert decode(encode(a)) == a
        for b in lists[:40]:
            assert encode(a).startswith(encode(b)) == (a[: len(b)] == b)


class Model:
    """What the store should hold, by looking at everything. All is put without owners."""

    def __init__(self) -> None:
        self.blocks: dict[str, tuple[str, Prefix]] = {}  # key → parent, entries

    def put(self, key: str, parent: str, entries: Prefix) -> None:
        if key in self.blocks or (parent and parent not in self.blocks):
            return
        above = {one for one, _ in self.blocks.values()}
        for other, (beside, shorter) in list(self.blocks.items()):
            if beside == parent and other not in above and entries[: len(shorter)] == shorter:
                del self.blocks[other]
        self.blocks[key] = (parent, entries)

    def match(self, entries: Prefix) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        parent, left = "", entries
        while left:
            ranked = [
                (n, n == len(own), key)
                for key, (above, own) in self.blocks.items()
                if above == parent and (n := n_shared(own, left))
            ]
            if not ranked:
                break
            n, entire, parent = max(ranked)
            found.append((parent, n))
            if not entire:
                break
            left = left[n:]
        return found


def test_matches_are_those_of_brute_force(store: KvBlockStore) -> None:
    rng = random.Random(7)
    for tree in range(15):
        model, fingerprint = Model(), f"tree {tree}"
        parts: list[int | str] = [1, 2, 256, "p"] if tree % 2 else [1, 2]
        keys = [""]
        for _ in range(40):
            parent, entries = rng.choice(keys), tuple(rng.choices(parts, k=rng.randint(1, 5)))
            key = store.put(fingerprint, parent, entries, b"x")
            model.put(key, parent, entries)
            keys = ["", *model.blocks]
        wanted = [tuple(rng.choices(parts, k=rng.randrange(16))) for _ in range(40)]
        while_pending = [sum(n for _, n in matched(store, one, fingerprint)) for one in wanted]
        store.flush()
        for one, n_while_pending in zip(wanted, while_pending, strict=True):
            expected, found = model.match(one), matched(store, one, fingerprint)
            assert [n for _, n in found] == [n for _, n in expected]
            assert [key for key, _ in found[:-1]] == [key for key, _ in expected[:-1]]  # the last may be one of equals
            assert n_while_pending >= sum(n for _, n in expected)


# siblings


@pytest.mark.parametrize("pending", [True, False])
def test_the_growing_end_of_a_conversation_does_not_pile_up(store: KvBlockStore, folder: Path, pending: bool) -> None:
    (root,) = put_chain(store, [1, 2], owner="a")
    for n in range(1, 6):
        key = store.put(MODEL, root, range(n), b"x" * n, owner="a")
        if not pending:
            store.flush()
    store.flush()
    assert files(folder) == {root, key}
    assert matched(store, [1, 2, *range(9)]) == [(root, 2), (key, 5)]
    check_folder(folder)


def test_a_sibling_is_replaced_only_if_nobody_else_needs_it(store: KvBlockStore) -> None:
    of_another = store.put(MODEL, "", [1], b"x", owner="c")
    of_both = store.put(MODEL, "", [1, 2], b"x", owner="a")
    store.use([of_both], "b")
    of_nobody = store.put(MODEL, "", [1, 2, 3], b"x")
    with_child, child = put_chain(store, [1, 2, 3, 4], [5], owner="a")
    parting = store.put(MODEL, "", [1, 2, 3, 4, 6], b"x", owner="a")
    longest = store.put(MODEL, "", [1, 2, 3, 4, 5, 6], b"x", owner="a")
    store.flush()
    assert not store.contains(of_nobody)
    assert all(map(store.contains, [of_another, of_both, with_child, child, parting, longest]))


def test_replacing_a_block_hands_on_no_owner(store: KvBlockStore) -> None:
    """Otherwise what b added would stay on disk as a's."""
    store.put(MODEL, "", [1], b"x", owner="a")
    longer = store.put(MODEL, "", [1, "b's picture"], b"x", owner="b")
    assert store.forget_owner("b") == 1
    assert not store.contains(longer)
    assert matched(store, [1])


def test_a_block_can_be_stood_on_though_a_longer_sibling_holds_it(store: KvBlockStore) -> None:
    longer = store.put(MODEL, "", [1, 2, 3], b"x", owner="a")
    store.flush()
    short, child = put_chain(store, [1, 2], ["p", 4], owner="a")
    store.flush()
    assert matched(store, [1, 2, "p", 4]) == [(short, 2), (child, 2)]
    assert matched(store, [1, 2, 3, 4]) == [(longer, 3)]


def test_while_a_child_is_pending_its_parent_is_not_replaced(store: KvBlockStore) -> None:
    short = store.put(MODEL, "", [1, 2], b"x", owner="a")
    store.flush()
    with writer_held(store):
        longer = store.put(MODEL, "", [1, 2, 3], b"x", owner="a")
        child = store.put(MODEL, short, [4], b"x", owner="a")
    store.flush()
    assert all(map(store.contains, [short, longer, child]))


# forgetting


def test_what_an_owner_has_is_counted_and_what_others_share_of_it(store: KvBlockStore) -> None:
    put_chain(store, [1, 2], [3, 4], owner="one", n_bytes=100)
    put_chain(store, [1, 2], [5, 6], [7], owner="other", n_bytes=100)
    put_chain(store, [8], n_bytes=100)
    assert store.flush(10)
    assert store.owned("one") == KvOwned(2, 200, 1, 100)
    assert store.owned("other") == KvOwned(3, 300, 1, 100)
    assert store.owned("nobody") == KvOwned(0, 0, 0, 0)
    assert store.forget_owner("other") == 2
    assert store.owned("one") == KvOwned(2, 200, 0, 0)


def test_forgetting_removes_what_only_one_used(store: KvBlockStore, folder: Path) -> None:
    a = put_chain(store, [1], [2], ["a's picture"], owner="conversation a")
    b = put_chain(store, [1], [2], [4], owner="b")
    nobodys = put_chain(store, [9])
    store.flush()
    assert store.forget_owner("conversation a") == 1
    assert files(folder) == {*b, *nobodys}
    assert not store.contains(a[2])
    for path in folder.glob("index*"):
        assert b"picture" not in path.read_bytes()
        assert b"conversation" not in path.read_bytes()
        assert bytes.fromhex(a[2]) not in path.read_bytes()
    assert store.forget_owner("conversation a") == 0
    assert store.forget_owner("b") == 3
    assert files(folder) == set(nobodys)
    check_folder(folder)


def test_ancestors_of_what_others_use_stay_until_these_are_forgotten(store: KvBlockStore, folder: Path) -> None:
    root, middle = put_chain(store, [1], [2], owner="a")
    leaf = store.put(MODEL, middle, [3], b"x", owner="b")
    assert store.forget_owner("a") == 0
    store.flush()
    assert files(folder) == {root, middle, leaf}
    assert store.forget_owner("b") == 3
    assert files(folder) == set()


def test_blocks_of_nobody_keep_what_they_stand_on(store: KvBlockStore) -> None:
    root, leaf = put_chain(store, [1], [2], owner="a")
    store.put(MODEL, root, [3], b"nobody's")
    store.flush()
    assert store.forget_owner("a") == 1
    assert not store.contains(leaf)
    assert [n for _, n in matched(store, [1, 3])] == [1, 1]


def test_pending_blocks_are_forgotten_too(store: KvBlockStore, folder: Path) -> None:
    (root,) = put_chain(store, [1], owner="a")
    store.flush()
    with writer_held(store):
        a = store.put(MODEL, root, [2], b"a", owner="a")
        shared = store.put(MODEL, root, [3], b"shared", owner="a")
        store.use([shared], "b")
        below = store.put(MODEL, a, [4], b"a", owner="a")
        assert store.forget_owner("a") == 2
        assert store.pending_bytes == 6
        assert not store.contains(a)
        assert not store.contains(below)
    store.flush()
    assert files(folder) == {root, shared}
    check_folder(folder)
    assert store.forget_owner("b") == 2


def test_a_pending_block_of_another_keeps_its_ancestors(store: KvBlockStore, folder: Path) -> None:
    root, leaf = put_chain(store, [1], [2], owner="a")
    store.flush()
    with writer_held(store):
        pending = store.put(MODEL, root, [3], b"x", owner="b")
        assert store.forget_owner("a") == 1
    store.flush()
    assert files(folder) == {root, pending}
    assert not store.contains(leaf)
    assert store.forget_owner("b") == 2


def test_a_pending_use_counts_when_another_is_forgotten_and_not_when_its_own_is(store: KvBlockStore) -> None:
    keys = put_chain(store, [1], [2], owner="a")
    store.flush()
    with writer_held(store):
        store.use(keys, "b")
        store.use(keys, "c")
        assert store.forget_owner("c") == 0
        assert store.forget_owner("a") == 0
    store.flush()
    assert store.forget_owner("b") == 2


def test_what_is_put_while_it_is_forgotten_never_stays_half(store: KvBlockStore, folder: Path) -> None:
    for n in range(30):
        put_chain(store, [n], [1], [2], owner="a")
        store.forget_owner("a")
    store.flush()
    assert files(folder) == set()
    assert store.stats().n_blocks == 0


def test_wiping_removes_all(store: KvBlockStore, folder: Path) -> None:
    put_chain(store, [1], ["picture"], owner="a")
    store.flush()
    with writer_held(store):
        put_chain(store, [5], owner="a")
        store.wipe()
        assert store.pending_bytes == 0
    assert store.flush()
    assert files(folder) == set()
    assert matched(store, [1]) == matched(store, [5]) == []
    assert all(b"picture" not in path.read_bytes() for path in folder.glob("index*"))
    put_chain(store, [1])
    store.flush()
    assert len(files(folder)) == 1


def test_another_process_may_delete_under_us(store: KvBlockStore, folder: Path) -> None:
    keys = put_chain(store, [1], [2], owner="a")
    store.flush()
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as other:
        assert other.forget_owner("a") == 2
    assert [store.read(key) for key in keys] == [None, None]
    assert matched(store, [1, 2]) == []
    put_chain(store, [1], [2])
    store.flush()
    assert [n for _, n in matched(store, [1, 2])] == [1, 1]


# limits


def test_beyond_the_budget_leaves_go_first_the_longest_unused_ahead(folder: Path) -> None:
    with closing(KvBlockStore(folder, budget_bytes=1000)) as store:
        a = put_chain(store, [1], [2], [3], owner="a")
        b = put_chain(store, [4], [5], owner="b")
        store.use(a, "a")
        store.flush()
        assert store.stats().n_bytes == 1000
        (c,) = put_chain(store, [6])
        store.flush()
        assert files(folder) == {*a, b[0], c}
        d = store.put(MODEL, c, [7], bytes(500))
        store.flush()
        assert files(folder) == {a[0], c, d}
        assert store.stats().n_bytes == 900
        assert store.stats().n_evicted == 4
        check_folder(folder)


def test_a_chain_that_fills_the_budget_keeps_its_beginning(folder: Path) -> None:
    with closing(KvBlockStore(folder, budget_bytes=500)) as store:
        keys = put_chain(store, *([n] for n in range(5)))
        store.flush()
        assert [key for key, _ in matched(store, range(5))] == keys[:2]
        assert store.stats().n_dropped == 3
        put_chain(store, [9], [8])
        store.flush()
        assert [n for _, n in matched(store, [9, 8])] == [1, 1]


@pytest.mark.parametrize("budget", [0, 199])
def test_what_is_larger_than_the_budget_is_not_written(folder: Path, budget: int) -> None:
    with closing(KvBlockStore(folder, budget_bytes=budget)) as store:
        (key,) = put_chain(store, [1])
        assert store.flush()
        assert not store.contains(key)
        assert files(folder) == set()
        assert store.stats().n_dropped == 1


def test_no_more_is_written_in_a_day_than_allowed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [86_400.0 * 20_000 + 80_000]
    clock = lambda: now[0]  # noqa: E731
    with closing(KvBlockStore(folder, budget_bytes=BUDGET, daily_write_bytes=500, clock=clock)) as store:
        keys = put_chain(store, *([n] for n in range(5)))
        store.flush()
        assert [key for key, _ in matched(store, range(5))] == keys[:2]
        put_chain(store, [9])
        store.flush()
        assert (store.stats().written_today_bytes, store.stats().n_dropped) == (400, 4)
    with closing(KvBlockStore(folder, budget_bytes=BUDGET, daily_write_bytes=500, clock=clock)) as store:
        put_chain(store, [9])
        store.flush()
        assert store.stats().n_dropped == 1
        now[0] += 86_400 - 80_000
        put_chain(store, [9])
        store.flush()
        assert (store.stats().written_today_bytes, store.stats().n_blocks) == (200, 3)
    assert len([one for one in caplog.messages if "today's limit" in one]) == 2  # once for each of the two stores


# restarts


def test_after_a_restart_all_is_there(folder: Path) -> None:
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        keys = put_chain(store, [1, "p"], [2, 3], owner="a")  # closing writes what is pending
    store.close()
    assert store.match(MODEL, [1]) == []
    assert store.read(keys[0]) is None
    assert [future.result(5) for future in store.read_async(keys)] == [None, None]
    assert store.put(MODEL, "", [1, "p"], b"x") == keys[0]
    assert store.flush()
    assert not store.contains(keys[0])
    with pytest.raises(StoreError, match="closed"):
        store.forget_owner("a")
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        assert check_match(store, [1, "p", 2, 3]) == 2
        assert store.stats().n_blocks == 2
        assert store.forget_owner("a") == 2


def test_opening_removes_what_a_crash_left(folder: Path) -> None:
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        a = put_chain(store, [1], [2], [3])
        b = put_chain(store, [4], [5])
    file_of(folder, a[1]).unlink()  # a row without its file: what stands on it goes too
    stray = file_of(folder, "ab" * 20)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    stray.with_name(stray.name + ".unfinished").write_bytes(b"x")
    foreign = stray.with_name("notes.txt")
    foreign.write_bytes(b"x")
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        assert files(folder) == {a[0], *b, "notes.txt"}
        assert store.stats().n_blocks == 3
        foreign.unlink()
        check_folder(folder)


KILLED = """
import hashlib, itertools, sys
from pathlib import Path
from hearth.store.kv_blocks import KvBlockStore
store = KvBlockStore(Path(sys.argv[1]), budget_bytes=40_000)
print("ready", flush=True)
for number in itertools.count(int(sys.argv[2])):
    parent, path = "", ()
    for entries in ([number % 5], [number], [1, number, 3], ["p", number]):
        path += tuple(entries)
        payload = hashlib.shake_128(repr(path).encode()).digest(200)
        parent = store.put("model a", parent, entries, payload, owner=str(number))
    if number % 7 == 0:
        store.forget_owner(str(number - 3))
"""


def test_whenever_it_is_killed_what_is_found_is_whole(folder: Path) -> None:
    rng = random.Random()
    n_read = 0
    for round_ in range(N_KILLS):
        first = round_ * 10_000
        command = [sys.executable, "-c", KILLED, str(folder), str(first)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(rng.random() * 0.15)
            child.send_signal(signal.SIGKILL)
            child.wait()
        with closing(KvBlockStore(folder, budget_bytes=40_000)) as store:
            check_folder(folder)
            for number in range(first, first + 1000):
                entries = [number % 5, number, 1, number, 3, "p", number]
                n_found = len(store.match(MODEL, entries))
                assert check_match(store, entries) == n_found
                n_read += n_found
            assert store.stats().n_damaged == 0
    assert n_read > 20


# many threads


def test_opening_starts_no_thread_and_closing_ends_all(folder: Path) -> None:
    before = threading.active_count()
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as store:
        assert threading.active_count() == before
        store.warm_up()
        readers = [one for one in threading.enumerate() if one.name.startswith("kv-read-")]
        assert len(readers) == len({one.name for one in readers}) == N_THREADS
        keys = put_chain(store, [1])
        [future.result(5) for future in store.read_async(keys * 8)]
        assert all(one.daemon for one in threading.enumerate() if one.name.startswith("kv-"))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_block_removed_and_written_again_while_it_is_read(
    store: KvBlockStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [key] = put_chain(store, [1], owner="a")
    assert store.flush(5)
    read = kv_files.BlockFiles.read

    def removed_meanwhile(files: kv_files.BlockFiles, *block: Any) -> memoryview:
        monkeypatch.setattr(kv_files.BlockFiles, "read", read)
        store.forget_owner("a")
        try:
            return read(files, *block)
        finally:
            put_chain(store, [1], owner="a")
            assert store.flush(5)

    monkeypatch.setattr(kv_files.BlockFiles, "read", removed_meanwhile)
    assert store.read(key) == payload_of([1])
    assert store.stats().n_damaged == 0
    check_folder(folder)


def test_eight_threads_at_once(folder: Path) -> None:
    deadline = time.monotonic() + 1.5
    n_read = [0] * 8
    failures: list[BaseException] = []

    def work(store: KvBlockStore, thread: int) -> None:
        rng = random.Random(thread)
        try:
            while time.monotonic() < deadline:
                chain = [[rng.randrange(3)], [rng.randrange(3), 7], [rng.randrange(3), "p"], [rng.randrange(9)]]
                owner = f"owner {rng.randrange(4)}"
                action = rng.random()
                if action < 0.5:
                    keys = put_chain(store, *chain, owner=owner)
                    for future in store.read_async(keys):
                        future.result(10)
                elif action < 0.9:
                    n_read[thread] += check_match(store, flat(chain))
                    store.use([block.key for block in store.match(MODEL, flat(chain))], owner)
                elif action < 0.98:
                    store.forget_owner(owner)
                else:
                    store.wipe() if action > 0.995 else store.flush(1)
        except BaseException as error:
            failures.append(error)

    with closing(KvBlockStore(folder, budget_bytes=20_000)) as store:
        threads = [threading.Thread(target=work, args=(store, n)) for n in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert failures == []
        assert store.flush(10)
        check_folder(folder)
        assert store.pending_bytes == 0
        assert store.stats().n_bytes <= 20_000
        assert store.stats().n_damaged == 0
    assert sum(n_read) > 100
