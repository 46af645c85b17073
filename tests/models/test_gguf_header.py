"""Files that are no usable GGUF are refused with their path and the reason, before native code sees them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.errors import EngineError, ModelFileError
from hearth.models.gguf_header import check_gguf
from tests.models.tiny_gguf import write_tiny_gguf


def test_a_good_file_is_described(tiny_model: Path) -> None:
    header = check_gguf(tiny_model)
    assert header.architecture == "llama"
    assert header.metadata["llama.block_count"] == 2
    assert header.size_bytes == tiny_model.stat().st_size
    assert 0 < header.data_offset < header.size_bytes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"<!DOCTYPE html><html><body>Not Found", "HTML page"),
        (struct.pack("<Q", 60) + b'{"__metadata__": {}}', "safetensors"),
        (b"PK\x03\x04rest of it", "ZIP archive or PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"just some words", "a text file"),
        (b"\x00\x01\x02\x03", "00 01 02 03"),
        (b"GGUF", "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors, the limit is"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "metadata entries, the limit is"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99), "unknown type 99"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        LlamaEngine.load(path, EngineOptions())
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        check_gguf(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="a folder"):
        check_gguf(tmp_path)


def test_nested_arrays_are_bounded(tmp_path: Path) -> None:
    deep = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50
    path = tmp_path / "deep.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + deep)
    with pytest.raises(ModelFileError, match="nested deeper"):
        check_gguf(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_truncated(tiny_model: Path, tmp_path: Path, fraction: float) -> None:
    whole = tiny_model.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(ModelFileError, match=r"truncated|0 bytes|starts with|text file"):
        check_gguf(path)


def test_a_split_model_needs_all_its_parts(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "big-00001-of-00002.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match=r"big-00002-of-00002\.gguf: no such file"):
        check_gguf(path)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "future.gguf", architecture="hexaflow")
    with pytest.raises(ModelFileError, match="hexaflow"):
        LlamaEngine.load(path, EngineOptions())


def test_loading_can_be_stopped(tiny_model: Path) -> None:
    with pytest.raises(EngineError, match="stopped"):
        LlamaEngine.load(tiny_model, EngineOptions(), cancelled=lambda: True)


def test_progress_is_told_and_its_errors_come_out(tiny_model: Path) -> None:
    fractions: list[float] = []
    LlamaEngine.load(tiny_model, EngineOptions(), on_progress=fractions.append).close()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0

    def broken(_fraction: float) -> None:
        raise ValueError("the bar broke")

    with pytest.raises(ValueError, match="the bar broke"):
        LlamaEngine.load(tiny_model, EngineOptions(), on_progress=broken)
