"""What an engine process wrote to standard error before it ended, and the end in a few words."""

from __future__ import annotations

import logging
import re
import signal
import threading

logger = logging.getLogger("hearth.engine.process")

KEPT_BYTES = 16_384
MAX_LINE_CHARS = 200
COLLECT_S = 0.1  # what is in the pipe when a process ends is read at once, unless something it started holds the pipe
_TELLING = re.compile(r"GGML_ASSERT|GGML_ABORT|ggml_abort|terminate called|what\(\):|out of memory|CUDA error")
_FRAME = re.compile(r'File "(?:.*[/\\])?([^"/\\]+)", line (\d+) in (\S+)')


class LastWords:
    """Reads a pipe to its end on a thread of its own and keeps the last 16 KiB. Owns the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="hearth-engine-stderr", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with open(self._fd, "rb", buffering=0) as pipe:  # noqa: PTH123 (a descriptor)
            while chunk := pipe.read(4096):
                self._kept = (self._kept + chunk)[-KEPT_BYTES:]
                logger.debug("the engine process wrote: %s", chunk.decode("utf-8", "replace").rstrip())

    def collect(self) -> list[str]:
        """The lines that were written, once the process has ended."""
        self._thread.join(COLLECT_S)
        lines = self._kept.decode("utf-8", "replace").splitlines()
        return [line.strip()[:MAX_LINE_CHARS] for line in lines if line.strip()]


def manner_of_death(status: int, last_words: list[str]) -> str:
    """The signal or the exit status of a process (as in ``Popen.returncode``) and the line that tells most."""
    telling = next((line for line in last_words if _TELLING.search(line)), None)
    if status < 0:
        how = f"signal {-status}, {_signal_name(-status)}"
        if -status == getattr(signal, "SIGKILL", None):
            how += ", often because memory ran out"
        telling = telling or _crashed_at(last_words)
    else:
        how = f"exit status {status:#x}" if status > 255 else f"exit status {status}"
        telling = telling or (last_words[-1] if last_words else None)
    return f"{how}: {telling}" if telling else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _crashed_at(last_words: list[str]) -> str | None:
    """The Python frame that faulthandler shows first for the thread that crashed."""
    after = next((i for i, line in enumerate(last_words) if line.startswith("Current thread")), len(last_words))
    frame = next((match for line in last_words[after:] if (match := _FRAME.search(line))), None)
    return f"in {frame[3]}, {frame[1]} line {frame[2]}" if frame else None
