"""Does saved KV ever give a wrong answer, lose a chat or hang? Kills, damages, starves it, and looks.

    python benchmarks/kv_torture.py [--rounds 200] [--quick] [--only kill flips …] [--resume]

`kill`        a process that chats (hearth.Assistant, a store of a few MB so that blocks are evicted too) is killed with
              SIGKILL at random moments, while it starts, answers or writes; the next one must find every chat that was
              answered, word by word, and go on in it as an engine without a store does
`flips`       a bit of a block or of the index is turned over
`truncations` a quarter as many: a block or the index is cut short
`versions`    later formats, foreign files, swapped blocks, another model, another KV type
`read-only`   folders and files that cannot be written, read or entered
`full`        a small disk with little room or none

Works with a tiny model of random weights on one thread. Prints a table and one JSON line; the exit code is 1 if
anything was wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from figures import Figure, figure_of, header, say, summary
from ours import opened, temporary_folder
from sdist import BUILD, ROOT

from hearth.bench import common_length

KINDS = ("kill", "flips", "truncations", "versions", "read-only", "full")
HANG_S = 60.0  # without a word from a process
# Two best tokens whose log-probabilities are nearer may change places by rounding: the same prompt computed in other
# portions moves them by up to 0.013 with this model (flash attention adds up in f16); a wrong cell by whole units.
NEAR_TIE = 0.08
ISOLATED_EVERY = 5  # rounds, of which one runs the engine in a process of its own
EARLY_KILLS = 0.2  # share of rounds in which the process is killed while it starts
Found = dict[str, Any]


class Child:
    """A process that prints JSON objects; killed at the end, whatever happens."""

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
        self._log = BUILD / "kv_torture.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._lines: Queue[str | None] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, timeout_s: float) -> Found | None:
        """The next object, None at the end. Raises queue.Empty."""
        line = self._lines.get(timeout=max(timeout_s, 0.001))
        if line is None:
            self._lines.put(None)
            return None
        try:
            found: Found = json.loads(line)
        except ValueError:  # it was killed in the middle of a line
            return self.next(timeout_s)
        return found

    def kill(self) -> list[Found]:
        """SIGKILL; what it had said until then."""
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        left = []
        while (found := self.next(10)) is not None:
            left.append(found)
        return left

    def exit_code(self) -> int:
        return self._process.wait(HANG_S)

    @property
    def last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][-200:] if lines else "no reason given"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="kills, and bit flips (default 200)")
    parser.add_argument("--quick", action="store_true", help="10 rounds")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments of kills")
    parser.add_argument("--resume", action="store_true", help="keep the kinds that an interrupted run has finished")
    given = parser.parse_args()
    rounds = 10 if given.quick else given.rounds
    kept = BUILD / "kv_torture.jsonl"
    figures = _kept(kept) if given.resume else []
    print(header(), flush=True)
    with temporary_folder() as work:
        model, other = _write_models(work)
        for kind in given.only:
            done = [figure for figure in figures if figure.row == kind]
            if not done:
                started_s = time.monotonic()
                done = list(
                    _kills(work, model, rounds, given.seed)
                    if kind == "kill"
                    else _damages(work, model, other, kind, rounds)
                )
                figures += done
                kept.write_text("".join(json.dumps(figure.to_json()) + "\n" for figure in figures), "utf-8")
                say(f"{kind}: {time.monotonic() - started_s:.0f} s")
            for figure in done:
                print(figure.line(), flush=True)
    print(summary("kv_torture", figures, {"rounds": rounds, "seed": given.seed}))
    return 0 if all(figure.reached is not False for figure in figures) else 1


def _kept(path: Path) -> list[Figure]:
    if not path.is_file():
        return []
    return [figure_of(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _write_models(folder: Path) -> tuple[Path, Path]:
    """Two models with equal shapes and vocabularies, by the writer of the tests; heads wide enough for any KV type."""
    spec = importlib.util.spec_from_file_location("tiny_gguf", ROOT / "tests" / "models" / "tiny_gguf.py")
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    paths = [folder / "tiny.gguf", folder / "other.gguf"]
    for seed, path in enumerate(paths):
        tiny.write_tiny_gguf(path, n_embd=128, n_ctx_train=4096, seed=seed)
    return paths[0], paths[1]


# kills


class Chats:
    """What was answered, and whether the processes that came later agree."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine  # without a store
        self.said: dict[str, list[tuple[str, str]]] = {}  # conversation → (role, text), as it was acknowledged
        self.n_turns = self.n_lost = self.n_wrong = self.n_disk_tokens = self.n_restored = 0
        self.near_ties: list[tuple[float, int]] = []  # (difference of log-probabilities, tokens from disk)
        self.problems: list[str] = []

    def take(self, found: Found) -> None:
        if found["event"] == "messages":
            self._compare(found)
        elif found["event"] == "turn":
            self.n_turns += 1
            self.n_disk_tokens += found["disk_tokens"]
            self.n_restored += found["disk_tokens"] > 0
            said = self.said.setdefault(found["conversation"], [])
            said += [("user", found["question"]), ("assistant", found["answer"])]
            self._recompute(found)

    def _compare(self, found: Found) -> None:
        """All that was acknowledged is there, in its order; a turn that was cut off may have left more."""
        messages = iter([(role, text) for role, text in found["messages"]])
        if not all(said in messages for said in self.said.get(found["conversation"], [])):
            self.n_lost += 1
            self.problems.append(f"conversation {found['conversation']} lost messages")

    def _recompute(self, found: Found) -> None:
        from hearth.bench import ask
        from hearth.models.types import SamplingParams

        tokens = tuple(found["tokens"])
        finished = ask(self._engine, found["prompt"], max(len(tokens), 1), SamplingParams(n_logprobs=2)).finished
        same = common_length(tokens, finished.tokens)
        if same == len(tokens) == len(finished.tokens):
            return
        if same < len(finished.logprobs):
            (_, best), (_, second) = finished.logprobs[same].top[:2]
            if best - second < NEAR_TIE:
                self.near_ties.append((round(best - second, 5), found["disk_tokens"]))
                return
        self.n_wrong += 1
        self.problems.append(f"another answer from token {same} on, {found['disk_tokens']} tokens from disk")


def _kills(work: Path, model: Path, rounds: int, seed: int) -> Iterator[Figure]:
    from ours import Run

    rng = random.Random(seed)
    data = work / "data"
    n_hangs = n_failed = n_early = 0
    with opened(Run(model, model, n_threads=1, in_thread=True), n_ctx=4096, n_parallel=1) as engine:
        chats = Chats(engine)
        for number in range(rounds + 1):
            last = number == rounds
            verified = rng.sample(sorted(chats.said), min(2, len(chats.said))) if not last else sorted(chats.said)[-40:]
            child = Child(
                "torture_chat.py",
                *("--model", str(model), "--data", str(data), "--seed", str(rng.randrange(1 << 30))),
                *(["--isolate"] if number % ISOLATED_EVERY == ISOLATED_EVERY - 1 else []),
                *(["--once"] if last else []),
                *(["--verify", *verified] if verified else []),
            )
            is_early = not last and rng.random() < EARLY_KILLS
            n_early += is_early
            outcome = _run_until_kill(child, chats, rng, is_early=is_early, to_the_end=last)
            n_hangs += outcome == "hang"
            n_failed += outcome == "failed"
            if outcome in ("hang", "failed"):
                chats.problems.append(f"round {number}: {outcome}: {child.last_words}")
            if number % 10 == 9 or last:
                say(
                    f"kill {min(number + 1, rounds)}/{rounds}: {len(chats.said)} chats, {chats.n_turns} answers, "
                    f"{chats.n_disk_tokens:,} tokens from disk, {len(chats.problems)} problems"
                )
    details = {
        "rounds": rounds,
        "killed_while_starting": n_early,
        "conversations": len(chats.said),
        "answers": chats.n_turns,
        "answers_with_restored_tokens": chats.n_restored,
        "tokens_from_disk": chats.n_disk_tokens,
        "near_ties": chats.near_ties,
        "problems": chats.problems[:20],
    }
    note = "" if chats.n_restored else "nothing was ever restored: this shows nothing"
    yield Figure("kill", f"wrong restores after {rounds} kills", float(chats.n_wrong), 0.0, True, details, note)
    yield Figure("kill", f"lost chats after {rounds} kills", float(chats.n_lost), 0.0, True)
    yield Figure("kill", f"hangs in {rounds} kills", float(n_hangs), 0.0, True)
    yield Figure("kill", f"failures to start or answer in {rounds} kills", float(n_failed), 0.0, True)


def _run_until_kill(child: Child, chats: Chats, rng: random.Random, *, is_early: bool, to_the_end: bool) -> str:
    """Listens until the moment of the kill. "killed", "ended" (in order), "hang" or "failed"."""
    kill_s = time.monotonic() + (rng.uniform(0.02, 1.2) if is_early else 1e9)
    outcome = "killed"
    heard_s = time.monotonic()
    while True:
        try:
            found = child.next(min(kill_s, heard_s + HANG_S) - time.monotonic())
        except Empty:
            if time.monotonic() >= kill_s:
                break
            outcome = "hang"
            break
        if found is None:
            return "ended" if child.exit_code() == 0 and to_the_end else "failed"
        heard_s = time.monotonic()
        chats.take(found)
        if found["event"] == "verified" and not to_the_end:
            kill_s = time.monotonic() + rng.uniform(0.0, 1.5)
        if time.monotonic() >= kill_s:
            break
    for found in child.kill():
        chats.take(found)
    return outcome


# damages


def _damages(work: Path, model: Path, other: Path, kind: str, rounds: int) -> Iterator[Figure]:
    """Has the cases of a kind run, in another process again after one that hung or died."""
    total = {"flips": rounds, "truncations": max(rounds // 4, 1)}.get(kind, 1)
    folder = work / kind
    n_wrong = n_hangs = n_crashes = n_cases = n_restored = start = 0
    problems: list[str] = []
    how = ""
    restart = True
    while restart:
        restart = False
        child = Child(
            "torture_damage.py",
            *("--model", str(model), "--other-model", str(other), "--work", str(folder), "--kind", kind),
            *("--rounds", str(total), "--start", str(start)),
        )
        while True:
            try:
                found = child.next(HANG_S)
            except Empty:
                n_hangs += 1
                problems.append(f"case {start} hangs")
                child.kill()
                start, restart = start + 1, start + 1 < max(total, 100) and n_hangs + n_crashes < 10
                break
            if found is None:
                if child.exit_code() != 0:
                    n_crashes += 1
                    problems.append(f"case {start}: {child.last_words}")
                    start, restart = start + 1, n_cases > 0 and n_hangs + n_crashes < 10
                break
            if "wrong" not in found:
                how = found.get("how", how)
                continue
            n_cases, start = n_cases + 1, found["n"] + 1
            n_restored += sum(found["restored"])
            if found["wrong"]:
                n_wrong += 1
                problems.append(f"{found['case']}: {'; '.join(found['wrong'])}")
            if n_cases % 20 == 0:
                say(f"{kind} {n_cases}/{total}: {n_restored:,} tokens restored, {len(problems)} problems")
    shutil.rmtree(folder, ignore_errors=True)
    details = {"cases": n_cases, "tokens_restored": n_restored, "how": how, "problems": problems[:20]}
    note = "" if n_cases else "no case was run"
    value = float(n_wrong) if n_cases else None
    yield Figure(kind, f"wrong restores, {n_cases} × {kind}", value, 0.0, True, details, note)
    yield Figure(kind, f"hangs and crashes, {n_cases} × {kind}", float(n_hangs + n_crashes), 0.0, True)


if __name__ == "__main__":
    sys.exit(main())
