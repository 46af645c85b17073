"""Time of the first answer about a picture, from the start of the process to its end, and where it goes.

Each round is a new process with an empty data folder, as `hearth ask "…" --image F` is; the first round only warms the
disk cache. Prints a table and, as the last line, one JSON object. Seconds are medians; processor time tells what a
busy machine's clock hides.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUESTION = "What is this?"
STAGES = ("interpreter", "import", "open", "until first text", "rest of the answer", "close", "exit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured processes (default 5)")
    parser.add_argument("--image", type=Path, help="a picture (default: the sample that ships with Hearth)")
    parser.add_argument("--model", default="pocket", help="'pocket' or the path of a GGUF file")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _answer(options.image, options.model, options.child)
    from hearth import assets

    image = options.image or assets.samples_dir() / "picture.png"
    if not image.is_file():
        parser.error(f"{image}: no such picture")
    rounds = [_round(image, options.model) for _ in range(options.rounds + 1)][1:]
    commands = [_command(image, options.model) for _ in range(options.rounds)]
    _report(rounds, commands)
    return 0


def _round(image: Path, model: str) -> dict[str, float]:
    """Seconds of every stage of one process, and the turn's own timings."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--child", str(Path(folder) / "data"), "--image", str(image), "--model", model]
        started, used_s = time.time(), _processor_s()
        done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
        ended, used_s = time.time(), _processor_s() - used_s
    if done.returncode:
        raise SystemExit(f"the measured process failed: {done.stderr.strip()[-500:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    marks = [started, *told["marks"], ended]
    seconds = {stage: after - before for stage, before, after in zip(STAGES, marks, marks[1:], strict=False)}
    return {**seconds, "whole": ended - started, "processor": used_s, **told["timings"]}


def _processor_s() -> float:
    """Seconds of processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _command(image: Path, model: str) -> float:
    """Seconds of the command itself, from start to exit."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hearth", "ask", QUESTION, "--image", str(image), "--model", model]
        started = time.perf_counter()
        subprocess.run([*command, "--data-dir", str(Path(folder) / "data")], capture_output=True, check=True)
        return time.perf_counter() - started


def _answer(image: Path, model: str, data_dir: Path) -> int:
    """The measured process: the same calls as the command, with the clock read between them."""
    marks = [time.time()]
    from hearth.assistant import Assistant
    from hearth.events import Done, TurnFailed
    from hearth.models.types import TextDelta

    marks.append(time.time())
    assistant = Assistant(model=model, data_dir=data_dir)
    marks.append(time.time())
    first_text = None
    timings: dict[str, float] = {}
    for event in assistant.stream(QUESTION, images=[image]):
        if isinstance(event, TextDelta) and first_text is None:
            first_text = time.time()
        elif isinstance(event, Done):
            timings = event.reply.to_dict()["timings"]
        elif isinstance(event, TurnFailed):
            print(event.error, file=sys.stderr)
            return 1
    marks += [first_text or time.time(), time.time()]
    assistant.close()
    marks.append(time.time())
    print(json.dumps({"marks": marks, "timings": timings}))
    return 0


def _report(rounds: list[dict[str, float]], commands: list[float]) -> None:
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    print(f"{'stage':<24} seconds")
    for stage in STAGES:
        print(f"{stage:<24} {medians[stage]:7.3f}")
    print(f"{'whole process':<24} {medians['whole']:7.3f}  of which the processors worked {medians['processor']:.3f}")
    print("\nwithin the turn, as Reply.timings tells (stages overlap):")
    for name in [name for name in medians if name not in (*STAGES, "whole", "processor")]:
        print(f"{name:<24} {medians[name]:7.3f}")
    command = statistics.median(commands)
    print(f"\n`hearth ask` as a command: {command:.2f} s (fastest {min(commands):.2f}, slowest {max(commands):.2f})")
    rounded = {name: round(value, 4) for name, value in medians.items()}
    print(json.dumps({"benchmark": "ask", "rounds": len(rounds), "command_s": round(command, 4), "stages": rounded}))


if __name__ == "__main__":
    sys.exit(main())
