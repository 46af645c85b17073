"""Pulls that the page asked for: each a process of its own, watched by a thread and shown to any page."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hearth.models.errors import PullError
from hearth.network import environment_for_pull

log = logging.getLogger("hearth.pull")
STOP_S = 5.0  # for a pull to end by itself before it is ended
MAX_LINE_BYTES = 1 << 16
_WORKER = (sys.executable, "-m", "hearth.pull_worker")


@dataclass(frozen=True, slots=True)
class PullState:
    """A pull as it stands: running, done, or ended by ``error``. Bytes are of the whole pull."""

    name: str
    step: str = "starting"
    done_bytes: int = 0
    total_bytes: int = 0
    is_running: bool = True
    is_stopping: bool = False
    error: str = ""

    @property
    def fraction(self) -> float:
        """How much is fetched, 0..1."""
        return min(self.done_bytes / self.total_bytes, 1.0) if self.total_bytes else 0.0


class PullJobs:
    """The pulls of one server. Any thread may call."""

    def __init__(self, data_dir: Path, command: tuple[str, ...] = _WORKER) -> None:
        self._data_dir, self._command = data_dir, command
        self._changed = threading.Condition()
        self._version = 0
        self._states: dict[str, PullState] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._closed = False

    def start(self, name: str, quant: str | None = None) -> None:
        """Begins a pull; one that runs goes on. Raises PullError if no process can be started."""
        with self._changed:
            state = self._states.get(name)
            if self._closed or (state is not None and state.is_running):
                return
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    env=environment_for_pull(),
                )
            except OSError as error:
                raise PullError(f"{name}: no process for the pull: {error.strerror or error}") from error
            self._processes[name] = process
            self._set(PullState(name))
            order = {"name": name, "quant": quant, "data_dir": str(self._data_dir)}
            threading.Thread(target=self._watch, args=(name, process, order), name=f"pull-{name}", daemon=True).start()

    def stop(self, name: str) -> None:
        """Stops a pull; what was fetched is kept."""
        with self._changed:
            process, state = self._processes.get(name), self._states.get(name)
            if process is None or state is None:
                return
            self._set(replace(state, is_stopping=True))
        _close_input(process)
        threading.Thread(target=_end, args=(process,), name=f"stop-{name}", daemon=True).start()

    def states(self) -> tuple[int, Mapping[str, PullState]]:
        """(version, the last pull of each name)."""
        with self._changed:
            return self._version, dict(self._states)

    def wait(self, version: int, timeout_s: float) -> None:
        """Until something is newer than ``version``, or for ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > version, timeout_s)

    @property
    def busy(self) -> bool:
        """Whether a pull runs."""
        with self._changed:
            return bool(self._processes)

    def close(self) -> None:
        """Stops all pulls and waits for their ends. Idempotent."""
        with self._changed:
            self._closed = True
            processes = list(self._processes.values())
        for process in processes:
            _close_input(process)
        for process in processes:
            _end(process)

    def _watch(self, name: str, process: subprocess.Popen[str], order: dict[str, Any]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # it ended at once, or was stopped: told below
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        end = PullState(name, is_running=False, error="the process of the pull ended; pull again to go on")
        while line := process.stdout.readline(MAX_LINE_BYTES):
            end = self._take(line, end)
        process.stdout.close()
        process.wait()
        _close_input(process)
        with self._changed:
            self._processes.pop(name, None)
            stopped = self._states[name].is_stopping
            self._set(replace(end, error="stopped; what was fetched is kept") if stopped and end.error else end)

    def _take(self, line: str, end: PullState) -> PullState:
        """Notes a line of the process; returns what holds once the process has ended."""
        try:
            fields = json.loads(line)
            if "progress" in fields:
                progress = fields["progress"]
                with self._changed:
                    state = self._states[end.name]
                    self._set(
                        replace(
                            state,
                            step=str(progress["step"]),
                            done_bytes=int(progress["done_bytes"]),
                            total_bytes=int(progress["total_bytes"]),
                        )
                    )
                return end
            return replace(end, error=str(fields.get("error", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("not understood from the process of a pull: %r", line[:200])
            return end

    def _set(self, state: PullState) -> None:
        self._states[state.name] = state
        self._version += 1
        self._changed.notify_all()


def _close_input(process: subprocess.Popen[str]) -> None:
    """The end of its input tells the process to stop."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:  # it waits for a server that does not answer; its part is kept all the same
        process.kill()
