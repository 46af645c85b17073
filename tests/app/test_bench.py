"""`hearth bench` on a tiny model: what is measured, what is printed, and how a bad model or size is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearth import bench
from hearth.cli import main
from hearth.models.errors import RequestError
from hearth.settings import Settings
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", n_ctx_train=2048)


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> Settings:
    return Settings(model=str(model), data_dir=tmp_path, n_threads=1)


def test_a_restart_finds_the_chat_and_goes_on_the_same(settings: Settings) -> None:
    result = bench.bench_kv(settings, 600)
    assert result.prefix_tokens == 600
    assert result.restored_tokens == 599
    assert result.identical_tokens == result.compared_tokens > 0
    assert result.ratio == pytest.approx(result.restart_ttft_s / result.cold_ttft_s)
    assert result.theoretical_bytes_per_token == 2 * 2 * 2 * 16 * 2  # layers, K and V, heads, width, bytes
    assert result.bytes_per_token > result.theoretical_bytes_per_token
    assert list(settings.data_dir.iterdir()) == []


def test_the_engine_is_measured_alone_and_together(settings: Settings) -> None:
    phases: list[str] = []
    result = bench.bench_engine(settings, 100, phases.append)
    assert result.prompt_tokens == 100
    assert result.parallel == settings.n_parallel
    speeds = (result.prefill_tokens_per_s, result.decode_tokens_per_s, result.parallel_tokens_per_s)
    assert min(*speeds, result.step_overhead_us) > 0
    assert any("together" in phase for phase in phases)


@pytest.mark.parametrize("measure", [bench.bench_kv, bench.bench_engine])
def test_a_prompt_that_does_not_fit_is_refused_with_its_limits(
    settings: Settings, measure: type[bench.KvBench]
) -> None:
    with pytest.raises(RequestError, match=r"tokens is 5000.*within 16\.\."):
        measure(settings, 5000)  # type: ignore[call-arg,arg-type]


@pytest.mark.usefixtures("settings")
def test_the_commands_print_one_json_object(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--model", str(model), "--data-dir", str(tmp_path), "--tokens", "200", "--json"]
    assert main(["bench", "kv", *common]) == 0
    kv = json.loads(capsys.readouterr().out)
    assert {"cold_ttft_s", "restart_ttft_s", "ratio", "identical_tokens", "bytes_per_token"} <= set(kv)
    assert main(["bench", "engine", *common]) == 0
    engine = json.loads(capsys.readouterr().out)
    assert {"prefill_tokens_per_s", "decode_tokens_per_s", "parallel", "parallel_tokens_per_s"} <= set(engine)
    assert engine["step_overhead_us"] > 0


@pytest.mark.usefixtures("settings")
def test_the_commands_print_lines_for_people(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--model", str(model), "--data-dir", str(tmp_path), "--tokens", "64"]
    assert main(["bench", "kv", *common]) == 0
    assert "after a restart" in capsys.readouterr().out
    assert main(["bench", "engine", *common]) == 0
    assert "together" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["kv", "engine"])
def test_a_bad_model_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a model")
    assert main(["bench", command, "--model", str(bad), "--data-dir", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(bad) in captured.err


def test_common_length() -> None:
    assert bench.common_length((1, 2, 3), (1, 2, 4)) == 2
    assert bench.common_length((1, 2), (1, 2, 3)) == 2
    assert bench.common_length((), (1,)) == 0
