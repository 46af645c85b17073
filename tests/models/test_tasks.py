"""Work in a process of its own: what it returns, what it raises, and that nothing gets past the limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hearth.models import tasks
from hearth.models.errors import EngineError, ModelFileError
from hearth.models.tasks import Limits, run_task
from tests.models.tiny_gguf import write_tiny_gguf


def test_a_result_and_its_progress(tiny_model: Path) -> None:
    said: list[tuple[float, str]] = []
    found = run_task("inspect", Limits(seconds=30), lambda *step: said.append(step), path=tiny_model)
    assert found["architecture"] == "llama"
    assert said[0] == (0.0, "reading the header")


def test_an_error_comes_out_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        run_task("inspect", Limits(), path=tmp_path / "absent.gguf")


def test_the_limit_of_memory(tiny_model: Path) -> None:
    with pytest.raises(EngineError, match=r"MiB, the limit|process ended"):
        run_task("fit", Limits(seconds=30, memory_bytes=120 << 20), path=tiny_model, options=None)


def test_the_limit_of_time(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.gguf")  # opening it waits for a writer
    started_s = time.monotonic()
    with pytest.raises(EngineError, match=r"not done after 0\.5 s"):
        run_task("inspect", Limits(seconds=0.5), path=tmp_path / "never.gguf")
    assert time.monotonic() - started_s < 5


def test_a_crash_is_an_error(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr(tasks, "_START", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(EngineError, match=r"process ended \(signal 11"):
        run_task("inspect", Limits(), path=tiny_model)


def test_a_task_can_be_stopped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.gguf")
    with pytest.raises(EngineError, match="inspect was stopped"):
        run_task("inspect", Limits(), cancelled=lambda: True, path=tmp_path / "never.gguf")


def test_a_child_does_not_outlive_its_parent_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "big.gguf", n_embd=768, n_ff=3072, n_layer=12, n_head=12, n_head_kv=12)
    code = (
        "import sys; from pathlib import Path; from hearth.models.tasks import Limits, run_task\n"
        "folder = Path(sys.argv[1])\n"
        "run_task('quantize', Limits(), lambda *_: print('on', flush=True), source=folder / 'big.gguf', "
        "target=folder / 'out.gguf', type='Q2_K', n_threads=1)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"on\n"
        parent.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while [path.name for path in tmp_path.iterdir()] != [source.name]:
        assert time.monotonic() < deadline_s, list(tmp_path.iterdir())
        time.sleep(0.05)
