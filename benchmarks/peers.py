"""llama-bench, llama-batched-bench and llama-server with the settings of our engine: threads, batch sizes, flash
attention, KV type."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from http_client import get_status, post
from ours import N_BATCH, Run
from sdist import BUILD

TOOL_LIMIT_S = 900
START_LIMIT_S = 120
STOP_LIMIT_S = 10
HOST = "127.0.0.1"


class PeerError(Exception):
    """A peer is not built, or failed; the message says which and why."""


def tool(name: str) -> Path:
    path = BUILD / "llama" / "bin" / (name + (".exe" if os.name == "nt" else ""))
    if not path.is_file():
        raise PeerError(f"{name} is not built: run benchmarks/build_peers.py")
    return path


def environment(run: Run) -> dict[str, str]:
    """Without the waiting policy that our engine sets for itself, unless the peers are to have it too."""
    ours = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "100000"}  # as in hearth.models.llama
    if run.peer_openmp == "same":
        return {**os.environ, **ours}
    return {name: value for name, value in os.environ.items() if name not in ours}


def llama_bench(run: Run, depth: int, n_tokens: int, repeats: int = 2) -> list[float]:
    """Decode tokens a second behind ``depth`` tokens, one for each repeat. It samples nothing."""
    command = [
        *(str(tool("llama-bench")), "-m", str(run.model), "-p", "0", "-n", str(n_tokens), "-d", str(depth)),
        *("-b", str(N_BATCH), "-ub", str(N_BATCH), "-t", str(run.n_threads), "-fa", "on", "-r", str(repeats)),
        *("-ctk", "f16", "-ctv", "f16", "-ngl", str(run.n_gpu_layers), "-o", "json"),
    ]
    (result,) = json.loads(_output(run, command))
    return [float(speed) for speed in result["samples_ts"]]


def batched_bench(run: Run, *, unified: bool) -> tuple[float, float]:
    """(prefill, decode) tokens a second of all chats together."""
    s = run.sizes
    command = [
        *(str(tool("llama-batched-bench")), "-m", str(run.model), "-c", str(cells(run)), "-fit", "off"),
        *("-npp", str(s.chat_prompt), "-ntg", str(s.chat_answer), "-npl", str(s.n_chats)),
        *("-kvu" if unified else "-no-kvu", "--output-format", "jsonl", *_common_settings(run)),
    ]
    lines = [line for line in _output(run, command).splitlines() if line.startswith("{")]
    if not lines:
        raise PeerError("llama-batched-bench measured nothing: the context is too small for its chats")
    result = json.loads(lines[-1])
    return float(result["speed_pp"]), float(result["speed_tg"])


def cells(run: Run) -> int:
    """KV cells for all chats of the rows about several, with some to spare for each."""
    return run.sizes.n_chats * (run.sizes.chat_prompt + run.sizes.chat_answer + 128)


def _common_settings(run: Run) -> list[str]:
    threads, batch = str(run.n_threads), str(N_BATCH)
    return [
        *("-t", threads, "-tb", threads, "-b", batch, "-ub", batch, "-fa", "on"),
        *("-ctk", "f16", "-ctv", "f16", "-ngl", str(run.n_gpu_layers)),
    ]


def _output(run: Run, command: list[str]) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(run), timeout=TOOL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{name} took more than {TOOL_LIMIT_S} s") from error
    if done.returncode:
        raise PeerError(f"{name} failed ({done.returncode}): {' '.join(done.stderr.split()[-40:])}")
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process that answers ``/health`` once its model is loaded. Ends with the block."""

    def __init__(self, command: list[str], port: int, env: dict[str, str], log: Path) -> None:
        self.port = port
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while get_status(self.port, "/health") != 200:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                tail = self._log.read_text("utf-8", "replace")[-500:]
                raise PeerError(f"the server did not start: {' '.join(tail.split())}")
            time.sleep(0.05)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return post(self.port, path, body)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def llama_server(run: Run, folder: Path, *, n_ctx: int, n_slots: int = 1, unified: bool = False) -> Server:
    """llama-server; slots are saved in ``folder``. Nothing else is kept: its cache in RAM would help only itself."""
    port = free_port()
    command = [
        *(str(tool("llama-server")), "-m", str(run.model), "-c", str(n_ctx), "-np", str(n_slots)),
        *("--host", HOST, "--port", str(port), "--slot-save-path", f"{folder}{os.sep}", "--cache-ram", "0"),
        *("-kvu" if unified else "-no-kvu", "-fit", "off", "--no-webui", *_common_settings(run)),
    ]
    return Server(command, port, environment(run), folder / "llama-server.log")


def our_server(
    run: Run, folder: Path, *, n_ctx: int, n_slots: int = 1, unified: bool = True, resume: bool = False
) -> Server:
    """Our engine behind HTTP (engine_server.py), with its KV store in ``folder``. ``n_ctx`` cells in all. ``resume``:
    it loads the last chat at its start."""
    port = free_port()
    command = [
        *(sys.executable, str(Path(__file__).with_name("engine_server.py")), "--model", str(run.model)),
        *("--port", str(port), "--kv", str(folder / "kv"), "--n-parallel", str(n_slots)),
        *(("--n-ctx", str(n_ctx)) if unified else ("--n-ctx", str(n_ctx // n_slots), "--separate-kv")),
        *("--n-threads", str(run.n_threads), *(["--save-all"] if run.quick else []), *(["--resume"] if resume else [])),
        *("--gpu-layers", str(run.n_gpu_layers), *(["--in-thread"] if run.in_thread else [])),
    ]
    return Server(command, port, dict(os.environ), folder / "our-server.log")
