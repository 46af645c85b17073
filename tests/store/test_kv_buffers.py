"""Memory for blocks is used again, and never while somebody may look at it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from hearth.store.kv_blocks import KvBlockStore
from hearth.store.kv_buffers import N_KEPT, Buffers


def test_what_is_given_back_is_used_again() -> None:
    buffers = Buffers()
    first = buffers.take(100)
    assert len(first) >= 100
    second = buffers.take(100)
    assert second is not first
    buffers.give_back(first)
    assert buffers.take(50) is first
    assert len(buffers.take(200)) >= 200


def test_what_is_never_given_back_is_replaced() -> None:
    buffers = Buffers()
    kept = [buffers.take(10) for _ in range(3 * N_KEPT)]
    assert len({id(buffer) for buffer in kept}) == 3 * N_KEPT
    for buffer in kept:
        buffers.give_back(buffer)
    assert buffers._spare.qsize() == N_KEPT


def test_blocks_that_are_read_at_once_do_not_share_memory(tmp_path: Path) -> None:
    with closing(KvBlockStore(tmp_path / "kv", budget_bytes=1 << 20)) as store:
        payloads = [bytes([n]) * 1000 for n in range(12)]
        keys = [store.put("model", "", [n], payload) for n, payload in enumerate(payloads)]
        assert store.flush(5)
        for _ in range(3):
            found = [future.result(5) for future in store.read_async(keys)]
            assert found == payloads
            for payload in found:
                assert payload is not None
                store.recycle(payload)


def test_memory_is_ready_when_a_store_opens_again(tmp_path: Path) -> None:
    with closing(KvBlockStore(tmp_path / "kv", budget_bytes=1 << 20)) as store:
        key = store.put("model", "", [1], bytes(5000))
        assert store.flush(5)
    with closing(KvBlockStore(tmp_path / "kv", budget_bytes=1 << 20)) as store:
        assert store._buffers._spare.qsize() == N_KEPT
        store.announce([key, "00" * 16, "no key"])
        payload = store.read_async([key])[0].result()
        assert payload == bytes(5000)
        assert store._buffers._spare.qsize() == N_KEPT - 1
