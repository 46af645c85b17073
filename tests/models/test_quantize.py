"""Quantizing real files: what comes out, what is refused, and that nothing half-written stays."""

from __future__ import annotations

import struct
from collections import namedtuple
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from hearth.models import quantize as module
from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.errors import EngineError, ModelFileError, RequestError
from hearth.models.gguf_header import check_gguf
from hearth.models.imatrix import read_imatrix
from hearth.models.quantize import quantize, type_names
from hearth.models.tasks import Limits, run_task
from tests.models.tiny_gguf import write_tiny_gguf
from tests.models.tiny_mmproj import write_llava


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for K-quants, whose blocks have 256 weights."""
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "f32.gguf", n_embd=256, n_ff=512)


def made(source: Path, target: Path, kind: str, **options: Any) -> dict[str, Any]:
    """In a process of its own: the quantizer takes llama.cpp's log."""
    return run_task("quantize", Limits(seconds=60), source=source, target=target, type=kind, **options)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("Q8_0", 8.4, 9), ("q4_k_m", 4, 6), ("Q4_0", 4, 5.5), ("F16", 16, 17)]
)
def test_a_smaller_file_that_answers(source: Path, tmp_path: Path, kind: str, low: float, high: float) -> None:
    target = tmp_path / "out.gguf"
    result = made(source, target, kind)
    assert low < result["bits_per_weight"] < high
    assert result["target_bytes"] == target.stat().st_size < source.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    with LlamaEngine.load(target, EngineOptions(n_ctx=64, n_threads=1)) as engine:
        assert engine.info.n_vocab == len(engine.detokenize(list(range(10)))) or engine.info.n_vocab > 256


def test_progress_goes_up(source: Path, tmp_path: Path) -> None:
    said: list[float] = []
    run_task(
        "quantize",
        Limits(),
        lambda fraction, _: said.append(fraction),
        source=source,
        target=tmp_path / "o",
        type="Q8_0",
    )
    assert said == sorted(said)
    assert len(said) == len(check_gguf(source).tensors)


def test_every_type_has_a_name() -> None:
    assert {"F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "MXFP4_MOE"} <= set(type_names())
    assert not {"GUESSED", "NVFP4"} & set(type_names())


def test_an_unknown_type_names_the_known(source: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'Q4_X' is not known; one of BF16, .*Q4_K_M"):
        made(source, tmp_path / "o.gguf", "Q4_X")


def test_what_is_quantized_is_not_quantized_again_unasked(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "q8.gguf", tmp_path / "q4.gguf"
    made(source, first, "Q8_0")
    with pytest.raises(ModelFileError, match=r"are quantized already.*--requantize"):
        made(first, second, "Q4_0")
    assert not second.exists()
    made(first, second, "Q4_0", requantize=True)
    assert second.stat().st_size < first.stat().st_size


def test_a_target_is_not_overwritten_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious.gguf"
    target.write_text("mine")
    with pytest.raises(RequestError, match=r"is there already.*--force"):
        made(source, target, "Q8_0")
    assert target.read_text() == "mine"
    made(source, target, "Q8_0", replace=True)
    assert check_gguf(target).architecture == "llama"


def test_the_source_is_never_the_target(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(RequestError, match="same file"):
        made(source, source, "Q8_0", replace=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize("place", ["missing/out.gguf", "."])
def test_a_place_that_cannot_be_written(source: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(RequestError, match=r"no such folder|a folder"):
        made(source, tmp_path / place, "Q8_0")


def test_encoders_and_cut_files_are_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ModelFileError, match="an encoder or an adapter"):
        made(write_llava(tmp_path / "mmproj.gguf"), tmp_path / "o.gguf", "Q8_0")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="truncated"):
        made(cut, tmp_path / "o.gguf", "Q8_0")


def test_a_full_disk_is_noticed_before(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(EngineError, match=r"it needs 1 MB, 1 MB are free there; free some space"):
        quantize(lambda *_: None, source, tmp_path / "o.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == []


def write_imatrix(path: Path, source: Path, value: float = 1.0) -> Path:
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_string("general.type", "imatrix")
    for name, tensor in check_gguf(source).tensors.items():
        if len(tensor.shape) == 2:
            writer.add_tensor(f"{name}.in_sum2", np.full((1, tensor.shape[0]), 8 * value, np.float32))
            writer.add_tensor(f"{name}.counts", np.full((1, 1), 4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_coarse_types_need_an_importance_matrix(source: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs an importance matrix; give --imatrix"):
        made(source, tmp_path / "o.gguf", "IQ2_XXS")
    imatrix = write_imatrix(tmp_path / "imatrix.gguf", source)
    assert made(source, tmp_path / "o.gguf", "IQ2_XXS", imatrix=imatrix)["bits_per_weight"] < 4


def test_an_importance_matrix_is_a_mean_for_each_input(source: Path, tmp_path: Path) -> None:
    found = read_imatrix(write_imatrix(tmp_path / "i.gguf", source))
    assert found["blk.0.ffn_down.weight"].shape == (512,)
    assert set(found["blk.0.ffn_down.weight"]) == {2.0}


def test_the_older_format_of_importance(tmp_path: Path) -> None:
    path = tmp_path / "old.dat"
    values = np.array([2.0, 4.0], np.float32).tobytes()
    path.write_bytes(struct.pack("<ii", 1, 3) + b"abc" + struct.pack("<ii", 2, 2) + values)
    assert list(read_imatrix(path)["abc"]) == [1.0, 2.0]


@pytest.mark.parametrize("content", [b"", b"GG", struct.pack("<i", 1), struct.pack("<ii", 1, 2**30), b"\xff" * 64])
def test_a_bad_importance_matrix_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.dat"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=str(path)):
        read_imatrix(path)


def test_importance_that_is_not_finite_is_an_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ModelFileError, match="not finite"):
        read_imatrix(write_imatrix(tmp_path / "nan.gguf", source, float("nan")))
