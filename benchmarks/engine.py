"""Every figure of the engine side by side with its peers: a table as it is measured, then one JSON line.

    python benchmarks/engine.py [--quick] [--rows restart decode …] [--resume]

Each row runs in a process of its own with a time limit; what it prints is kept in benchmarks/build/, so that a run that
was interrupted goes on with `--resume`. Ratios compare medians within a row, measured in turns. The models come from
random_models.py, the peers from build_peers.py; rows that need a peer which is not built say so and are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import rows_kv
import rows_server
import rows_speed
from figures import Figure, figure_of, header, say, summary
from ours import QUICK, Run, Sizes
from peers import PeerError
from random_models import model_path, read_vocabulary
from sdist import BUILD, locked

ROWS: dict[str, Callable[[Run], Iterator[Figure]]] = {
    "restart": rows_kv.restart,
    "picture": rows_kv.picture,
    "server_restore": rows_server.server_restore,
    "identical": rows_kv.identical,
    "sizes": rows_kv.sizes,
    "shared": rows_kv.shared,
    "branch": rows_kv.branch,
    "decode": rows_speed.decode,
    "batch": rows_speed.batch,
    "server_chats": rows_server.server_chats,
    "gap": rows_speed.gap,
    "overhead": rows_speed.overhead,
    "lookup": rows_speed.lookup,
}
ROW_LIMIT_S = 1200
QUICK_LIMIT_S = 180


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF (default: random 0.5b, with --quick the tiny one)")
    parser.add_argument("--chain-model", type=Path, help="for `gap` and `lookup` (default: the chain model beside it)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, help="of each measurement (default 3, with --quick 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gpu-layers", type=int, default=0, help="layers on the accelerator, ours and the peers'")
    parser.add_argument("--prefix", type=int, help="tokens of the long chat (default 4096)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-thread", action="store_true", help="run our engine in the benchmark's own process")
    parser.add_argument(
        "--peer-openmp",
        choices=("own", "same"),
        default="own",
        help="own: the peers' threads spin as they do by default; same: they sleep at barriers as ours do",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("--resume", action="store_true", help="keep what an interrupted run has measured")
    parser.add_argument("--row-limit", type=int, help=f"seconds for a row (default {ROW_LIMIT_S})")
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.model or model_path("tiny" if given.quick else "0.5b")
    if not model.is_file():
        parser.error(f"{model}: no such model; run benchmarks/random_models.py")
    run = _run_of(given, model)
    if given.child:
        return _child(run, given.child)
    kept = BUILD / f"engine-{run.model.stem}{'-quick' if run.quick else ''}.jsonl"
    figures = _kept(kept) if given.resume else []
    kept.parent.mkdir(parents=True, exist_ok=True)
    _write(kept, figures)
    limit_s = given.row_limit or (QUICK_LIMIT_S if run.quick else ROW_LIMIT_S)
    print(header(), flush=True)
    for row in given.rows:
        done = [figure for figure in figures if figure.row == row]
        if not done:
            started_s = time.monotonic()
            done = _measure(row, limit_s)
            figures += done
            _write(kept, figures)
            say(f"{row}: {time.monotonic() - started_s:.0f} s")
        for figure in done:
            print(figure.line(), flush=True)
    print(summary("engine", figures, _surroundings(run)))
    return 0


def _run_of(given: argparse.Namespace, model: Path) -> Run:
    chain = given.chain_model or model.with_name(model.name.replace("-q4_0.gguf", "-chain-q4_0.gguf"))
    sizes = QUICK if given.quick else Sizes()
    return Run(
        model=model.resolve(),
        chain_model=chain.resolve(),
        n_vocab=len(read_vocabulary(model)["tokenizer.ggml.tokens"]),
        n_threads=given.threads,
        repeats=given.repeats or (1 if given.quick else 3),
        seed=given.seed,
        quick=given.quick,
        in_thread=given.in_thread,
        n_gpu_layers=given.gpu_layers,
        peer_openmp=given.peer_openmp,
        sizes=replace(sizes, prefix=given.prefix or sizes.prefix),
    )


def _child(run: Run, row: str) -> int:
    """Measures one row; its figures go to standard output, a line each."""
    try:
        for figure in ROWS[row](run):
            print(json.dumps(figure.to_json()), flush=True)
    except PeerError as error:
        print(json.dumps({"problem": str(error)}), flush=True)
    return 0


def _measure(row: str, limit_s: float) -> list[Figure]:
    """Runs a row in a process group of its own, so that nothing of it outlives the limit."""
    say(f"{row} …")
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--child", row]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=limit_s)
        problem = "" if process.returncode == 0 else f"failed with exit code {process.returncode}; see above"
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        problem = f"not done after {limit_s:.0f} s"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    problem = next((line["problem"] for line in lines if "problem" in line), problem)
    figures = [figure_of(line) for line in lines if "problem" not in line]
    return [*figures, *([Figure(row, row, None, 0.0, True, note=problem)] if problem else [])]


def _kept(path: Path) -> list[Figure]:
    """Rows of an earlier run that were measured entirely."""
    if not path.is_file():
        return []
    figures = [figure_of(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    broken = {figure.row for figure in figures if figure.value is None}
    return [figure for figure in figures if figure.row not in broken]


def _write(path: Path, figures: list[Figure]) -> None:
    path.write_text("".join(json.dumps(figure.to_json()) + "\n" for figure in figures), "utf-8")


def _surroundings(run: Run) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "model": run.model.name,
        "llama_cpp_python": locked().version,
        "processor": _processor(),
        "threads": run.n_threads,
        "gpu_layers": run.n_gpu_layers,
        "repeats": run.repeats,
        "engine": "in the benchmark's process" if run.in_thread else "in its own process",
        "peer_openmp": run.peer_openmp,
        "quick": run.quick,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
