"""Decoding beside other busy programs: how many tokens a second, with all threads, with one, and as the engine chooses.

    python benchmarks/busy.py [--programs 0 1 2] [--limit-s 60]

Each busy program is an endless loop in a session of its own, as programs of a desktop are, so that the scheduler gives
each as much of the machine as it gives the engine. A case that takes longer than the limit is ended and says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from ours import Run, decode_rate, opened, whole
from sdist import MODELS

from hearth.bench import ask
from hearth.models.engine.threads import ThreadChoice

PROMPT, ANSWER, REPEATS = 256, 64, 3  # tokens, tokens, answers
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
CHOICES = ("by time", "all", "one")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODELS / "random-0.5b-q4_0.gguf")
    parser.add_argument("--programs", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=60.0)
    parser.add_argument("--one", choices=CHOICES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_rates(given.model, given.threads, given.one)))
        return 0
    rows = []
    for n_programs in given.programs:
        busy: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(n_programs):
                busy.append(subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True))
            for choice in CHOICES:
                rates = _apart(given, choice)
                rows.append({"programs": n_programs, "threads": choice, "tokens_per_s": rates})
                shown = ", ".join(f"{rate:.1f}" for rate in rates) if rates else f"nothing in {given.limit_s:.0f} s"
                print(f"{n_programs} busy programs, threads {choice:<8} {shown}", flush=True)
        finally:
            for process in busy:
                process.kill()
                process.wait()
    print(json.dumps({"benchmark": "busy", "rows": rows}))
    return 0


def _apart(given: argparse.Namespace, choice: str) -> list[float]:
    """Measured in a process of its own; empty if that took too long."""
    command = [sys.executable, __file__, "--one", choice, "--model", str(given.model), "--threads", str(given.threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=given.limit_s)
    except subprocess.TimeoutExpired:
        return []
    rates: list[float] = json.loads(done.stdout.splitlines()[-1])
    return rates


def _rates(model: Path, n_threads: int, choice: str) -> list[float]:
    if choice == "all":  # as if there were no choice
        ThreadChoice.measured = lambda *_: False  # type: ignore[method-assign, assignment]
        ThreadChoice.compare = lambda *_: None  # type: ignore[method-assign]
    run = Run(model, model, in_thread=True, n_threads=1 if choice == "one" else n_threads)
    prompt = run.prompt(800, PROMPT)
    with opened(run, n_ctx=1024, n_parallel=1, n_sequences=1) as engine:
        ask(engine, prompt, 2)
        return [round(decode_rate(whole(ask(engine, prompt, ANSWER), ANSWER)), 1) for _ in range(REPEATS)]


if __name__ == "__main__":
    sys.exit(main())
