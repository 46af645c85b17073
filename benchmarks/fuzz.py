"""Does a hostile file ever crash the application, hang it or fill its memory? Makes hundreds from a seed, and looks.

    python benchmarks/fuzz.py [--rounds 100] [--seed 1] [--only models pictures …] [--number 17] [--keep FOLDER]

`models`      GGUFs (models, encoders, adapters): header, inspection, choice, and an engine that loads and answers
`templates`   chat templates: endless, huge, prying, nonsensical
`pictures`    bombs, wrong sizes, cut and changed files of each format
`documents`   PDF, Office, EPUB, mail, HTML, tables, text and code
`recordings`  sound and video

Each file is read as the application reads it, in a process beside this one. Allowed are success and a HearthError
that names the file; a user who has waited 6 s presses stop where the page has one. Wrong is any other error, a step
over 10 s, the process ending, and more than 1.5 GiB on top of what it began with (its own children included). A native
crash in the engine's own process is counted apart. Equal seeds make equal files; `--number` makes one of them again and
`--keep` keeps those that went wrong. Linux only. Prints a table and one JSON line; the exit code is 1 if anything was
wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from figures import Figure, header, say, summary
from ours import temporary_folder
from sdist import BUILD

KINDS = ("models", "templates", "pictures", "documents", "recordings")
HANG_S = 10.0
MEMORY_BYTES = 3 << 29
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Hostile:
    """One file. ``role`` tells models from encoders and adapters."""

    kind: str
    number: int
    what: str
    name: str
    data: bytes
    role: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.kind}-{self.number}-{self.name}"


def make(kind: str, number: int, seed: int) -> Hostile:
    """The file with this number; the first ones of a kind are made by hand, the others by chance."""
    import fuzz_documents
    import fuzz_gguf
    import fuzz_media
    import fuzz_templates

    rng = random.Random(f"{seed} {kind} {number}")
    if kind == "models":
        what, role, data = fuzz_gguf.hostile(rng, number)
        return Hostile(kind, number, f"{role}, {what}", f"{role}.gguf", data, role)
    if kind == "templates":
        what, source = fuzz_templates.hostile(rng, number)
        return Hostile(kind, number, what, "template.jinja", source.encode("utf-8", "surrogatepass"))
    maker = {
        "pictures": fuzz_media.hostile_picture,
        "documents": fuzz_documents.hostile,
        "recordings": fuzz_media.hostile_recording,
    }[kind]
    return Hostile(kind, number, *maker(rng, number))


@dataclass
class Tally:
    """What became of the files of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)  # of files, by the worst that became of one
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    memory: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    most_bytes: int = 0

    def problems(self) -> dict[str, list[str]]:
        return {
            "crashes": self.crashes,
            "hangs": self.hangs,
            "memory over the limit": self.memory,
            "other errors": self.wrong,
        }


class Worker:
    """The process that reads; started again when it has ended."""

    def __init__(self, sound_files: dict[str, Path]) -> None:
        self._arguments = json.dumps({role: str(path) for role, path in sound_files.items()})
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str | None] = Queue()
        self._base_bytes = 0

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        BUILD.mkdir(parents=True, exist_ok=True)
        with (BUILD / "fuzz.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lines = Queue()
        Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        if self._lines.get(timeout=120) is None:
            raise SystemExit(f"the worker does not start; see {BUILD / 'fuzz.log'}")
        self._base_bytes = rss_bytes(self._process.pid)

    def read(self, hostile: Hostile, path: Path, tally: Tally) -> None:
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        label = f"{hostile.kind} {hostile.number} ({hostile.what})"
        self._process.stdin.write(json.dumps({"kind": hostile.kind, "path": str(path), "role": hostile.role}) + "\n")
        self._process.stdin.flush()
        step, began_s, grown = "start", time.monotonic(), 0
        while True:
            try:
                line = self._lines.get(timeout=LOOK_S)
            except Empty:
                line = ""
            grown = max(grown, tree_bytes(self._process.pid) - self._base_bytes)
            took_s = time.monotonic() - began_s
            if line is None:
                status = self._process.wait()
                tally.crashes.append(f"{label}: {step}: the process ended with {status}")
                break
            if line:
                tally.slowest_s = max(tally.slowest_s, took_s)
            if took_s > HANG_S:
                tally.hangs.append(f"{label}: {step}: {took_s:.0f} s")
            if grown > MEMORY_BYTES:
                tally.memory.append(f"{label}: {step}: {grown / (1 << 30):.2f} GiB")
            if took_s > HANG_S or grown > MEMORY_BYTES:
                self.end()
                break
            if line:
                answer = json.loads(line)
                if "outcomes" in answer:
                    self._note(label, answer["outcomes"], tally)
                    break
                step, began_s = answer["step"], time.monotonic()
        tally.most_bytes = max(tally.most_bytes, grown)

    def _note(self, label: str, outcomes: list[tuple[str, str]], tally: Tally) -> None:
        wrong = [f"{label}: {step}: {outcome}" for step, outcome in outcomes if outcome.startswith("wrong")]
        tally.wrong += wrong
        kinds = {outcome.partition(":")[0] for _, outcome in outcomes}
        order = ("wrong", "engine ended", "stopped", "refused", "read")
        tally.outcomes[next(kind for kind in order if kind in kinds)] += 1
        if "engine ended" in kinds:
            say(next(f"{label}: {outcome}" for _, outcome in outcomes if outcome.startswith("engine ended")))

    def end(self) -> None:
        """By force; its own children leave when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _read_lines(pipe: Any, lines: Queue[str | None]) -> None:
    for line in pipe:
        lines.put(line)
    lines.put(None)


def rss_bytes(pid: int) -> int:
    """Memory of a process that is its own: not that of files it maps. 0 if it has ended."""
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
        return sum(int(fields.get(key, "0").split()[0]) for key in ("RssAnon", "RssShmem")) * 1024
    except (OSError, ValueError):
        return 0


def tree_bytes(pid: int) -> int:
    """Of a process and all that it started."""
    total, left = 0, [pid]
    while left:
        one = left.pop()
        total += rss_bytes(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                left += map(int, task.read_text().split())
            except OSError:
                continue
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="files of each kind (default 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--number", type=int, nargs="+", help="these files only")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the files that went wrong")
    given = parser.parse_args()
    os.environ["HEARTH_OFFLINE"] = "1"
    figures: list[Figure] = []
    print(header(), flush=True)
    with temporary_folder() as work:
        worker = Worker(write_sound_files(work))
        os.environ["HEARTH_DATA_DIR"] = str(work / "hearth")
        try:
            for kind in given.only:
                numbers = given.number or range(given.rounds)
                for figure in run(kind, list(numbers), given.seed, worker, work, given.keep):
                    figures.append(figure)
                    print(figure.line(), flush=True)
        finally:
            worker.end()
    print(summary("fuzz", figures, {"rounds": given.rounds, "seed": given.seed}))
    return 0 if all(figure.reached is not False for figure in figures) else 1


def write_sound_files(work: Path) -> dict[str, Path]:
    import fuzz_gguf

    (work / "sound").mkdir()
    paths = {}
    for role, data in fuzz_gguf.originals().items():
        paths[role] = work / "sound" / f"sound-{role}.gguf"
        paths[role].write_bytes(data)
    return paths


def run(kind: str, numbers: list[int], seed: int, worker: Worker, work: Path, keep: Path | None) -> list[Figure]:
    tally = Tally()
    started_s = time.monotonic()
    for number in numbers:
        hostile = make(kind, number, seed)
        folder = work / kind
        folder.mkdir(exist_ok=True)
        path = folder / hostile.file_name
        path.write_bytes(hostile.data)
        n_before = [len(found) for found in tally.problems().values()]
        worker.read(hostile, path, tally)
        for found, before in zip(tally.problems().values(), n_before, strict=True):
            for problem in found[before:]:
                say(problem)
            if found[before:] and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep)
        path.unlink()
    took_s = time.monotonic() - started_s
    say(
        f"{kind}: {took_s:.0f} s, slowest step {tally.slowest_s:.1f} s, at most {tally.most_bytes / (1 << 20):,.0f} MiB"
    )
    details = {"files": len(numbers), "seconds": round(took_s), **tally.outcomes}
    details |= {"slowest_step_s": round(tally.slowest_s, 2), "most_mib": tally.most_bytes >> 20}
    return [
        Figure(kind, f"{kind}: {len(numbers)} files, {name}", len(found), 0, True, details | {"problems": found})
        for name, found in tally.problems().items()
    ]


if __name__ == "__main__":
    raise SystemExit(main())
