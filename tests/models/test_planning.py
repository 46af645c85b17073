"""What llama.cpp plans for real files, that it is what the engine loads, and what happens where it does not fit."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hearth.models import llama_plan
from hearth.models.encoder_plan import plan_encoder
from hearth.models.engine import EngineOptions, LlamaEngine, settling
from hearth.models.engine.loading import load_parts
from hearth.models.engine.options import LoraAdapter
from hearth.models.engine.planning import Planner
from hearth.models.engine.sizes import context_options
from hearth.models.errors import ModelFileError, WontFitError
from hearth.models.fit import MemoryPlan
from hearth.models.gguf_header import check_gguf, read_gguf_header, tensor_bytes
from hearth.models.kv_size import kv_bytes_per_token
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import ContextOptions, LlamaContext
from hearth.models.machine_memory import Room
from hearth.models.mtmd import MediaEncoder
from hearth.models.types import MediaPiece, MediaShape
from tests.models.tiny_architectures import ARCHITECTURES, Architecture
from tests.models.tiny_gguf import write_tiny_gguf
from tests.models.tiny_lora import random_lora
from tests.models.tiny_mmproj import FAMILIES, Family

MIB = 1 << 20


def plan(path: Path, **options: object) -> MemoryPlan:
    with closing(Planner(path, check_gguf(path))) as planner:
        return planner.plan(EngineOptions(**options))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads that quantized KV divides."""
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "wide.gguf", n_embd=128, n_ctx_train=2048)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_kv_is_what_the_header_says(wide_model: Path, kv_type: str) -> None:
    per_token = kv_bytes_per_token(check_gguf(wide_model), kv_type)
    assert per_token is not None
    assert plan(wide_model, n_ctx=1024, kv_type=kv_type).kv_bytes == 1024 * per_token


def test_weights_are_those_of_the_file(wide_model: Path) -> None:
    header = check_gguf(wide_model)
    weights = sum(tensor_bytes(tensor) for tensor in header.tensors.values())
    assert weights <= plan(wide_model).weights_bytes <= 1.05 * weights


def test_a_larger_context_or_more_chats_take_more(wide_model: Path) -> None:
    small = plan(wide_model, n_ctx=512)
    assert plan(wide_model, n_ctx=2048).total_bytes > small.total_bytes
    assert plan(wide_model, n_ctx=512, n_parallel=16).total_bytes > small.total_bytes
    assert plan(wide_model, n_ctx=512, n_batch=64, n_ubatch=64).compute_bytes < small.compute_bytes


def test_drafts_and_adapters_count(wide_model: Path, tmp_path: Path) -> None:
    alone = plan(wide_model, n_ctx=512)
    assert alone.draft_bytes == 0
    assert plan(wide_model, n_ctx=512, draft_model=wide_model).draft_bytes > alone.weights_bytes
    lora = random_lora(1).write(tmp_path / "lora.gguf")
    assert plan(wide_model, n_ctx=512, lora=(LoraAdapter(lora),)).other_bytes > alone.other_bytes


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)
def test_every_architecture_is_planned_and_the_log_tells_nearly_the_same(
    architecture: Architecture, tmp_path: Path
) -> None:
    path = architecture.write(tmp_path / "model.gguf")
    header = check_gguf(path)
    model = LlamaModel.load(path, no_alloc=True)
    context = LlamaContext(model, context_options(model, EngineOptions(n_ctx=1024), header))
    exact = llama_plan.planned_buffers(context, header, -1)
    told = llama_plan._from_log(context, header, -1)
    context.close()
    model.close()
    assert sum(one.weights_bytes for one in exact) > 0
    assert sum(one.compute_bytes for one in exact) > 0
    for name in ("weights_bytes", "compute_bytes") + (("kv_bytes",) if architecture.sliceable else ()):
        assert sum(getattr(one, name) for one in told) == pytest.approx(
            sum(getattr(one, name) for one in exact), rel=0.1, abs=64 * 1024
        )


def test_the_context_that_is_planned_is_the_one_that_is_loaded(
    wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ContextOptions] = []
    init = LlamaContext.__init__

    def note(self: LlamaContext, model: LlamaModel, options: ContextOptions, *rest: object) -> None:
        made.append(options)
        init(self, model, options, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LlamaContext, "__init__", note)
    options = EngineOptions(n_ctx=700, n_parallel=3, kv_type="q8_0", n_batch=256, n_ubatch=128, draft_model=wide_model)
    with closing(Planner(wide_model, check_gguf(wide_model))) as planner:
        planner.plan(options)
    planned = made[:]
    made.clear()
    monkeypatch.setattr(settling, "_is_roomy", lambda *_: True)
    load_parts(wide_model, options).close()
    assert made == planned


def test_planning_takes_no_weights_and_cannot_decode(wide_model: Path) -> None:
    model = LlamaModel.load(wide_model, no_alloc=True)
    try:
        assert model.n_vocab > 256
    finally:
        model.close()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.name)
def test_encoders_are_planned_with_their_largest_picture(family: Family, tmp_path: Path) -> None:
    mmproj, text = family.write_encoder(tmp_path / "mmproj.gguf"), family.write_text(tmp_path / "text.gguf")
    header = read_gguf_header(mmproj)
    planned = plan_encoder(mmproj, header, on_gpu=False)
    assert planned.weights_bytes == sum(tensor_bytes(tensor) for tensor in header.tensors.values())
    assert planned.compute_bytes > 0
    assert plan(text, n_ctx=512, mmproj=mmproj).encoder_bytes > planned.total_bytes
    if not family.sees:
        assert planned.max_tokens is None
        return
    model = LlamaModel.load(text)
    encoder = MediaEncoder.load(mmproj, model, n_threads=1, on_gpu=False)
    shapes = [MediaShape(width=width, height=height) for width, height in ((4096, 4096), (4096, 1024), (300, 900))]
    counts = [sum(one.n_tokens for one in encoder.plan(shape) if isinstance(one, MediaPiece)) for shape in shapes]
    encoder.close()
    model.close()
    assert planned.max_tokens == max(counts)


def small_machine(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 1 << 30) -> None:
    monkeypatch.setattr(settling, "rooms", lambda: (Room("RAM", free, total),))


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_machine(monkeypatch, 2 * MIB)
    loaded: list[float] = []
    with pytest.raises(WontFitError, match=r"wide\.gguf won't fit: n_ctx 2,048 needs .* 2 MiB are free"):
        LlamaEngine.load(wide_model, EngineOptions(n_ctx=2048), on_progress=loaded.append)
    assert loaded == []
    LlamaEngine.load(wide_model, EngineOptions(n_ctx=2048, check_fit=False)).close()


def test_a_context_nobody_asked_for_shrinks_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tiny_gguf(tmp_path / "long.gguf", n_layer=8, n_head_kv=4, n_ctx_train=8192)
    small_machine(monkeypatch, 24 * MIB)
    with LlamaEngine.load(path, EngineOptions()) as engine:
        assert 512 <= engine.info.n_ctx < 8192
        assert "because memory is short" in engine.info.fit_note
    assert any("because memory is short" in record.getMessage() for record in caplog.records)


def test_a_roomy_machine_is_not_asked_twice(wide_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_machine(monkeypatch, 1 << 40, 1 << 40)
    monkeypatch.setattr(settling, "Planner", None)
    with LlamaEngine.load(wide_model, EngineOptions()) as engine:
        assert engine.info.fit_note == ""


def test_a_model_that_cannot_be_planned_is_left_to_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_gguf(tmp_path / "future.gguf", architecture="hexaflow")
    small_machine(monkeypatch, 2 * MIB)
    with pytest.raises(ModelFileError, match="hexaflow"):
        LlamaEngine.load(path, EngineOptions())


def test_memory_that_runs_out_while_loading_is_an_error_with_a_remedy(wide_model: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from hearth.models.engine import EngineOptions, LlamaEngine\n"
        "path = Path(sys.argv[1]); LlamaEngine.load(path, EngineOptions()).close()\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)\n"
        "try: LlamaEngine.load(path, EngineOptions(n_ctx=1 << 22, check_fit=False))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "LlamaEngine.load(path, EngineOptions(n_ctx=512)).close(); print('still usable')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(wide_model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WontFitError memory ran out while wide.gguf was loaded" in done.stdout
    assert "try fewer n_gpu_layers (0 for none), a smaller n_ctx" in done.stdout
    assert "still usable" in done.stdout
