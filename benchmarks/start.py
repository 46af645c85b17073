"""Time from starting `hearth` to a page that can be used, the model loading behind it.

    python benchmarks/start.py [--rounds N] [--chromium PATH]

Each round starts the command with the same data folder; the first one only warms the disk cache. "answers" is the first
whole response of the server, "ready" the moment when a browser that was open before lets the box for questions be typed
into. Prints seconds, the median, and one JSON line. Without Chromium and Playwright only "answers" is measured.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from figures import Figure, header, say, summary
from peers import free_port

TARGET_S = 4.0
LIMIT_S = 60.0
LOOK_S = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    given = parser.parse_args()
    answers, ready = [], []
    with ExitStack() as stack:
        browser = _browser(stack, given.chromium)
        data = stack.enter_context(tempfile.TemporaryDirectory())
        for i in range(given.rounds + 1):
            answer_s, ready_s = _round(Path(data), browser)
            if i:
                answers.append(answer_s)
                ready += [] if ready_s is None else [ready_s]
                say(f"{i}/{given.rounds}: answers after {answer_s:.2f} s, ready after {ready_s or 0:.2f} s")
    print(header())
    details = {"answers_s": [round(s, 3) for s in answers], "ready_s": [round(s, 3) for s in ready]}
    value = statistics.median(ready) if ready else None
    note = "" if ready else "no Chromium or Playwright here"
    figure = Figure("start", "seconds from `hearth` to a page that can be used", value, TARGET_S, True, details, note)
    print(figure.line())
    print(summary("start", [figure], {"rounds": given.rounds}))
    return 0


def _browser(stack: ExitStack, path: Path) -> Any:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if not path.is_file():
        return None
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    playwright = stack.enter_context(sync_playwright())
    browser = playwright.chromium.launch(executable_path=str(path), args=options)
    stack.callback(browser.close)
    return browser


def _round(data: Path, browser: Any) -> tuple[float, float | None]:
    port = free_port()
    command = [str(Path(sys.executable).with_name("hearth")), "--no-browser", "--port", str(port)]
    # a warm start has its bytecode, also where the environment forbids to write it
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["HEARTH_DATA_DIR"] = str(data)
    page = browser.new_page() if browser is not None else None
    started_s = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answer_s = _wait_for_answer(port, process, started_s)
        if page is None:
            return answer_s, None
        page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
        page.locator("#hearth-box textarea").fill("Hello")
        return answer_s, time.perf_counter() - started_s
    finally:
        if page is not None:
            page.close()
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)


def _wait_for_answer(port: int, process: subprocess.Popen[bytes], started_s: float) -> float:
    while time.perf_counter() - started_s < LIMIT_S:
        if process.poll() is not None:
            raise SystemExit(f"hearth ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT_S) as response:
                response.read()
            return time.perf_counter() - started_s
        except (urllib.error.URLError, ConnectionError):
            time.sleep(LOOK_S)
    raise SystemExit(f"no answer after {LIMIT_S:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
