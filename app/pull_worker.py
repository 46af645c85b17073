"""A pull in a process of its own: `python -m hearth.pull_worker`, told and watched by lines of JSON.

The process that has the user's chats never opens a connection to another machine; this one has nothing but a name.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hearth.model_library import ModelLibrary
from hearth.models.errors import HearthError
from hearth.models.pulling import PullProgress, pull

PROGRESS_EVERY_S = 0.2


def main() -> int:
    """Reads one line, ``{"name", "quant", "data_dir"}``; the end of standard input stops the pull."""
    order = json.loads(sys.stdin.readline())
    stopped = threading.Event()
    threading.Thread(target=_wait_for_end, args=(stopped,), daemon=True).start()
    library = ModelLibrary(Path(order["data_dir"]))
    try:
        entry = library.entry(order["name"])
        result = pull(entry, library.models_dir, quant=order["quant"], on_progress=_Teller(), cancelled=stopped.is_set)
    except HearthError as error:
        _say({"error": str(error), "stopped": stopped.is_set()})
        return 1
    _say({"done": result.name})
    return 0


class _Teller:
    """Writes progress, not too often."""

    def __init__(self) -> None:
        self._step: tuple[str, str] = ("", "")
        self._last_s = 0.0

    def __call__(self, progress: PullProgress) -> None:
        now, step = time.monotonic(), (progress.step, progress.file)
        if step != self._step or now - self._last_s >= PROGRESS_EVERY_S:
            self._step, self._last_s = step, now
            _say({"progress": asdict(progress)})


def _wait_for_end(stopped: threading.Event) -> None:
    sys.stdin.read()
    stopped.set()


def _say(fields: dict[str, Any]) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    sys.exit(main())
