"""Time of `import hearth` and of `hearth --help`, each in a new process, and the slowest imports.

Prints a table and, as the last line, one JSON object. Seconds are medians, with the bare interpreter's start taken off.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "import hearth": "import hearth",
    "hearth --help": "import sys; from hearth.cli import main; sys.exit(main(['--help']))",
    "hearth.Assistant": "import hearth; hearth.Assistant",
}
SLOWEST = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="processes per statement (default 10)")
    options = parser.parse_args()
    bare = _median_s("pass", options.rounds)
    result = {"interpreter": round(bare, 4)}
    for name, statement in STATEMENTS.items():
        result[name] = round(_median_s(statement, options.rounds) - bare, 4)
        print(f"{name:<20} {result[name]:.3f} s   slowest: {_slowest(statement)}")
    print(json.dumps({"benchmark": "import_time", "rounds": options.rounds, "seconds": result}))
    return 0


def _median_s(statement: str, rounds: int) -> float:
    return statistics.median(_seconds(statement) for _ in range(rounds + 1))


def _seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], capture_output=True, check=True)
    return time.perf_counter() - started


def _slowest(statement: str) -> str:
    """The modules that took longest by themselves, from ``-X importtime``."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    )
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \| \s*(\S+)", told.stderr)
    worst = sorted(((int(own_us), name) for own_us, name in rows), reverse=True)[:SLOWEST]
    return ", ".join(f"{name} {own_us / 1000:.0f} ms" for own_us, name in worst)


if __name__ == "__main__":
    sys.exit(main())
