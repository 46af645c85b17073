"""The choice of context and layers, on machines that are made up: what fits is chosen, what does not is explained."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models.engine.options import EngineOptions
from hearth.models.errors import EngineError, WontFitError
from hearth.models.fit import MemoryPlan, choose, judge, remedy
from hearth.models.machine_memory import Room

GIB = 1 << 30
MIB = 1 << 20
KV_FACTOR = {"f16": 1.0, "q8_0": 17 / 32, "q4_0": 9 / 32}


def machine(
    *, weights: int, kv_per_token: int, n_layers: int = 32, n_ctx_train: int = 8192, gpu: bool = False, mapped: int = 0
) -> Callable[[EngineOptions], MemoryPlan]:
    """Plans of a model of so many bytes, spread evenly over its layers."""

    def plan(options: EngineOptions) -> MemoryPlan:
        n_ctx = options.n_ctx or n_ctx_train
        n_gpu = 0 if not gpu else n_layers if options.n_gpu_layers < 0 else min(options.n_gpu_layers, n_layers)
        kv = int(kv_per_token * n_ctx * KV_FACTOR[options.kv_type])
        on_gpu = (weights + kv) * n_gpu // n_layers
        return MemoryPlan(
            n_ctx=n_ctx,
            n_gpu_layers=options.n_gpu_layers,
            n_layers=n_layers,
            weights_bytes=weights,
            kv_bytes=kv,
            compute_bytes=100 * MIB,
            encoder_bytes=0,
            draft_bytes=0,
            other_bytes=50 * MIB,
            mapped_bytes=min(mapped, weights) if not n_gpu else 0,
            gpu_bytes=(("GPU0", on_gpu),) if n_gpu else (),
        )

    return plan


def ram(free: float, total: float = 64) -> Room:
    return Room("RAM", int(free * GIB), int(total * GIB))


def card(free: float, total: float = 24, *, in_ram: bool = False) -> Room:
    return Room("GPU0", int(free * GIB), int(total * GIB), in_ram)


SEVEN_B = {"weights": 4 * GIB, "kv_per_token": 128 * 1024}


def test_what_fits_is_left_as_it_is() -> None:
    fitted = choose("m.gguf", EngineOptions(), machine(**SEVEN_B), [ram(32)])
    assert (fitted.options.n_ctx, fitted.options.n_gpu_layers, fitted.note) == (8192, -1, "")
    assert fitted.verdict.state == "fits"
    assert "needs 5.1 GiB of RAM" in fitted.verdict.reason


def test_a_context_that_was_not_asked_for_is_lowered() -> None:
    fitted = choose("m.gguf", EngineOptions(), machine(**SEVEN_B), [ram(5.5, 6)])
    assert fitted.options.n_ctx == 4096
    assert fitted.verdict.state == "fits"
    assert fitted.note == "n_ctx is 4,096 instead of 8,192, because memory is short"


def test_a_context_that_was_asked_for_is_not() -> None:
    with pytest.raises(WontFitError, match="n_ctx 4096 or kv_type q8_0 fits") as caught:
        choose("m.gguf", EngineOptions(n_ctx=8192), machine(**SEVEN_B), [ram(4.9, 6)])
    assert "8,192 needs 5.1 GiB of RAM" in str(caught.value)
    assert "4.9 GiB are free" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tight_fit_says_so_and_what_would_be_roomier() -> None:
    fitted = choose("m.gguf", EngineOptions(n_ctx=8192), machine(**SEVEN_B), [ram(5.5, 6)])
    assert fitted.verdict.state == "tight"
    assert fitted.verdict.remedy == "n_ctx 4096 or kv_type q8_0 fits"


def test_the_smallest_context_is_better_than_none() -> None:
    fitted = choose("m.gguf", EngineOptions(), machine(**SEVEN_B), [ram(4.25, 5)])
    assert fitted.options.n_ctx is not None
    assert 512 <= fitted.options.n_ctx < 4096
    assert fitted.verdict.state == "tight"


def test_a_model_that_can_never_fit_names_a_size() -> None:
    with pytest.raises(WontFitError, match=r"smaller model or quantization of about 1\.5 GiB; check_fit = false"):
        choose("m.gguf", EngineOptions(), machine(**SEVEN_B), [ram(2, 4)])


def test_pages_of_the_file_that_do_not_fit_make_it_slow_not_impossible() -> None:
    fitted = choose("m.gguf", EngineOptions(n_ctx=512), machine(**SEVEN_B, mapped=4 * GIB), [ram(2, 4)])
    assert fitted.verdict.state == "tight"
    assert "read from the disk again and again" in fitted.verdict.reason


def test_all_layers_go_to_a_gpu_that_holds_them() -> None:
    fitted = choose("m.gguf", EngineOptions(), machine(**SEVEN_B, gpu=True), [ram(32), card(12)])
    assert (fitted.options.n_gpu_layers, fitted.options.n_ctx) == (-1, 8192)


def test_a_smaller_context_comes_before_fewer_layers() -> None:
    fitted = choose("m.gguf", EngineOptions(), machine(**SEVEN_B, gpu=True), [ram(32), card(5.0, 5)])
    assert (fitted.options.n_gpu_layers, fitted.options.n_ctx) == (-1, 4096)


def test_as_many_layers_as_fit() -> None:
    plan = machine(**SEVEN_B, gpu=True)
    fitted = choose("m.gguf", EngineOptions(), plan, [ram(32), card(3, 4)])
    n = fitted.options.n_gpu_layers
    assert 0 < n < 32
    rooms = [ram(32), card(3, 4)]
    assert judge(plan(fitted.options), rooms).state == "fits"
    assert judge(plan(replace(fitted.options, n_gpu_layers=n + 1)), rooms).state != "fits"
    assert f"{n} of 32 layers are on the GPU" in fitted.note


def test_layers_that_were_asked_for_stay_and_the_error_says_how_many_fit() -> None:
    plan = machine(**SEVEN_B, gpu=True)
    with pytest.raises(WontFitError, match=r"of GPU0.*n_gpu_layers \d+ fits") as caught:
        choose("m.gguf", EngineOptions(n_gpu_layers=32, n_ctx=8192), plan, [ram(32), card(3, 4)])
    found = re.search(r"n_gpu_layers (\d+)", str(caught.value))
    assert found is not None
    assert judge(plan(EngineOptions(n_gpu_layers=int(found[1]), n_ctx=8192)), [ram(32), card(3, 4)]).state == "fits"


def test_a_gpu_without_memory_of_its_own_takes_the_machines() -> None:
    plan = machine(**SEVEN_B, gpu=True)
    assert judge(plan(EngineOptions(n_ctx=8192)), [ram(32), card(20, in_ram=True)]).state == "fits"
    assert judge(plan(EngineOptions(n_ctx=8192)), [ram(3), card(20, in_ram=True)]).state == "won't fit"


def test_nothing_is_judged_where_the_system_says_nothing() -> None:
    verdict = judge(machine(**SEVEN_B)(EngineOptions()), [])
    assert verdict.state == "fits"
    assert "does not say" in verdict.reason


def test_a_kv_type_that_the_model_cannot_have_is_no_remedy() -> None:
    plan = machine(**SEVEN_B)

    def picky(options: EngineOptions) -> MemoryPlan:
        if options.kv_type != "f16":
            raise EngineError("heads of 16 cannot be quantized")
        return plan(options)

    assert remedy(EngineOptions(n_ctx=8192), picky, [ram(4.9, 6)]) == "n_ctx 4096 fits"


@given(
    weights=st.integers(1, 40),
    kv=st.integers(1, 512),
    free=st.floats(0.5, 48),
    gpu_free=st.floats(0.0, 48),
    n_ctx=st.none() | st.integers(512, 131_072),
    n_gpu_layers=st.just(-1) | st.integers(0, 40),
)
def test_what_is_chosen_is_within_the_limits(
    weights: int, kv: int, free: float, gpu_free: float, n_ctx: int | None, n_gpu_layers: int
) -> None:
    plan = machine(weights=weights * GIB // 2, kv_per_token=kv * 1024, gpu=gpu_free > 0)
    rooms = [ram(free, 64), card(gpu_free, 48)]
    options = EngineOptions(n_ctx=n_ctx, n_gpu_layers=n_gpu_layers)
    try:
        fitted = choose("m.gguf", options, plan, rooms)
    except WontFitError as error:
        text = str(error)
    else:
        text = ""
    assert "\n" not in text
    if text:
        return
    assert judge(fitted.plan, rooms).state in ("fits", "tight")
    assert fitted.plan == plan(fitted.options)
    if n_ctx is not None:
        assert fitted.options.n_ctx == n_ctx
    if n_gpu_layers >= 0:
        assert fitted.options.n_gpu_layers == n_gpu_layers
