"""What doctor says of a good machine and of each thing that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hearth import assets, doctor, machine
from hearth.cli import main
from hearth.devices import Device, devices
from hearth.doctor import Finding, examine, line, to_dict
from hearth.multimodal import faster_whisper_model
from hearth.settings import Settings
from hearth.store.lock import FolderLock
from tests.multimodal.test_speech_header import write_converted


def finding(name: str, **settings: Any) -> Finding:
    return next(one for one in examine(Settings(**settings)) if one.name == name)


def test_every_finding_has_a_remedy_unless_all_is_well(tmp_path: Path) -> None:
    findings = examine(Settings(model=str(tmp_path / "nosuch.gguf"), data_dir=tmp_path / "new"))
    assert [one for one in findings if one.state == "fail" and not one.remedy] == []
    assert {one.name for one in findings} >= {
        "versions",
        "memory",
        "llama.cpp",
        "model",
        "speech",
        "data folder",
        "disk",
    }
    assert not (tmp_path / "new").exists()


def test_the_processor_is_among_the_devices_of_the_build() -> None:
    found = devices()
    assert any(device.kind == "cpu" for device in found)
    assert all(isinstance(device, Device) and device.name for device in found)


def test_a_gpu_that_the_build_does_not_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "devices", lambda: (Device("CPU", "a processor", "cpu", 1, 1),))
    monkeypatch.setattr(doctor, "unused_accelerator", lambda: "cuda")
    told = finding("llama.cpp")
    assert told.state == "warn"
    assert "ACCEL=cuda" in told.remedy


def test_a_gpu_that_is_used_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "devices", lambda: (Device("CUDA0", "A card", "gpu", 8 * 2**30, 12 * 2**30),))
    assert "CUDA0: A card, 8.0 GiB free" in finding("llama.cpp").detail


def test_missing_and_empty_model_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "pocket_dir", lambda: tmp_path)
    assert finding("embedded models").state == "fail"
    (tmp_path / "pocket.toml").write_text(
        'language = "language.gguf"\nspeech = "speech.pt"\nversion = "0"\nn_ctx = 2048\n'
    )
    (tmp_path / "language.gguf").write_bytes(b"GGUF")
    (tmp_path / "speech.pt").touch()
    told = finding("embedded models")
    assert told.state == "fail"
    assert "speech.pt" in told.detail
    assert "language.gguf" not in told.detail
    (tmp_path / "speech.pt").write_bytes(b"x")
    assert finding("embedded models").state == "ok"
    (tmp_path / "pocket.toml").write_text("language = ")
    assert "not a valid manifest" in finding("embedded models").detail


def test_a_model_that_is_no_gguf_fails_with_its_path(tmp_path: Path) -> None:
    page = tmp_path / "model.gguf"
    page.write_text("<html>not found</html>")
    told = finding("model", model=str(page))
    assert told.state == "fail"
    assert str(page) in told.detail


def test_the_speech_model_is_named_with_its_backend(tmp_path: Path) -> None:
    told = finding("speech", data_dir=tmp_path)
    assert (told.state, told.remedy) == ("ok", "")
    assert told.detail == "pocket by whisper, 21 MiB, English only"


def test_a_speech_model_that_is_missing_or_damaged_fails_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told = finding("speech", data_dir=tmp_path, speech_model="base")
    assert told.state == "fail"
    assert "hearth models pull whisper-base" in told.detail
    damaged = tmp_path / "models" / "speech" / "whisper-base.pt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PK\x03\x04")
    told = finding("speech", data_dir=tmp_path, speech_model="base")
    assert told.state == "fail"
    assert str(damaged) in told.detail
    assert "hearth models pull whisper-base" in told.remedy
    monkeypatch.setattr(assets, "pocket_dir", lambda: tmp_path)
    assert "install again" in finding("speech", data_dir=tmp_path).remedy


def test_a_speech_model_for_another_backend_fails_with_its_remedy(tmp_path: Path) -> None:
    told = finding("speech", data_dir=tmp_path, speech_backend="faster-whisper")
    assert told.state == "fail"
    assert "HEARTH_SPEECH_BACKEND=auto" in told.remedy
    (tmp_path / "model.bin").touch()
    told = finding("speech", data_dir=tmp_path, speech_model=str(tmp_path))
    assert told.state == "fail"
    assert "faster-whisper" in told.detail


def test_a_model_of_faster_whisper_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster_whisper_model, "is_installed", lambda: True)
    folder = write_converted(tmp_path / "converted")
    told = finding("speech", data_dir=tmp_path, speech_model=str(folder))
    assert told.state == "ok"
    assert "by faster-whisper" in told.detail
    (folder / "model.bin").write_bytes(b"html")
    assert finding("speech", data_dir=tmp_path, speech_model=str(folder)).state == "fail"


def test_data_folder_in_use_or_in_the_way(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    try:
        told = finding("data folder", data_dir=tmp_path)
    finally:
        lock.release()
    assert told.state == "warn"
    assert "in use" in told.detail
    assert finding("data folder", data_dir=tmp_path).state == "ok"
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert finding("data folder", data_dir=in_the_way).state == "fail"
    assert finding("data folder", data_dir=in_the_way / "below").state == "fail"


@pytest.mark.parametrize(("free_mib", "state"), [(50, "fail"), (500, "warn"), (5000, "ok")])
def test_disk(free_mib: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "disk_free_bytes", lambda _: free_mib * 2**20)
    assert finding("disk", data_dir=tmp_path).state == state


def test_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(4 * 2**30, 2**30))
    assert finding("memory").state == "warn"


def test_lines_and_json_say_the_same() -> None:
    findings = (Finding("disk", "fail", "none free", "free some"), Finding("memory", "ok", "8 GiB"))
    assert line(findings[0]) == "fail  disk             none free → free some"
    assert to_dict(findings)["ok"] is False
    assert to_dict(findings[1:])["ok"] is True


def test_the_command_prints_json_and_fails_with_its_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "--model", str(tmp_path / "nosuch.gguf"), "--data-dir", str(tmp_path)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert any("nosuch.gguf" in one["detail"] for one in told["findings"])


def test_the_command_looks_at_the_speech_model_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nosuch.pt"
    assert main(["doctor", "--json", "--speech-model", str(path), "--data-dir", str(tmp_path / "data")]) == 1
    (told,) = (one for one in json.loads(capsys.readouterr().out)["findings"] if one["name"] == "speech")
    assert told["state"] == "fail"
    assert str(path) in told["detail"]
