"""Runs work on a stranger's file in a process of its own, within limits of time and memory; a failure is an error.

The parent sends a pickled task, the child answers in lines of JSON: progress, then a result or an error. A child whose
parent is gone leaves by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

from hearth.models.errors import EngineError, HearthError, ModelFileError, RequestError, WontFitError

TASKS: Final = {
    "inspect": "hearth.models.inspection:inspect",
    "fit": "hearth.models.fit_report:fit_report",
    "quantize": "hearth.models.quantize:quantize",
    "score": "hearth.models.score:score",
}
MAX_LINE_BYTES: Final = 4 << 20  # of an answer
LAST_WORDS_BYTES: Final = 4096
_ERRORS: Final = {kind.__name__: kind for kind in (EngineError, ModelFileError, RequestError, WontFitError)}
_LOOK_S: Final = 0.05
_START: Final = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[1:]; "
    "from hearth.models.tasks import child; child()"
)

Report = Callable[[float, str], None]
"""Takes how far a task is, 0..1, and what it does."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory_bytes`` is of address space, which a process reserves more of than it uses; None is no limit."""

    seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    name: str
    arguments: dict[str, Any]
    limits: Limits


def run_task(
    name: str,
    limits: Limits,
    report: Report | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    **arguments: Any,
) -> dict[str, Any]:
    """Returns what the task returns, as JSON has it. ``name`` is one of ``TASKS``, or a ``module:function`` like those.
    ``arguments`` must pickle.

    Raises the error that the task raised, and EngineError if it broke the limits, crashed, or was cancelled.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None
        assert process.stdout is not None
        lines: SimpleQueue[bytes] = SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                pickle.dump(_Task(name, arguments, limits), process.stdin)
                process.stdin.flush()
            answer = _wait(name, lines, limits, report or (lambda *_: None), cancelled)
        finally:
            process.kill()
            status = process.wait()
            reader.join()
            process.stdin.close()
            process.stdout.close()
        if answer is None:
            raise EngineError(f"{_shown(name)}: the process ended ({_manner(status, errors)})")
    if "error" in answer:
        raise _ERRORS.get(str(answer.get("kind")), EngineError)(str(answer["error"]))
    result: dict[str, Any] = answer["result"]
    return result


def _wait(
    name: str, lines: SimpleQueue[bytes], limits: Limits, report: Report, cancelled: Callable[[], bool]
) -> dict[str, Any] | None:
    """The last answer, None if the process ended without one."""
    deadline_s = None if limits.seconds is None else time.monotonic() + limits.seconds
    while True:
        try:
            line = lines.get(timeout=_LOOK_S)
        except Empty:
            if cancelled():
                raise EngineError(f"{_shown(name)} was stopped") from None
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise EngineError(
                    f"{_shown(name)}: not done after {limits.seconds:g} s, the limit; is the file damaged or hostile?"
                ) from None
            continue
        if not line:
            return None
        answer = json.loads(line)
        if "progress" not in answer:
            return dict(answer)
        report(float(answer["progress"]), str(answer["text"]))


def _shown(name: str) -> str:
    return name.rpartition(":")[2].removesuffix("_task")


def _read_lines(pipe: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    """Ends with an empty line."""
    with contextlib.suppress(ValueError, OSError):
        while line := pipe.readline(MAX_LINE_BYTES):
            if not line.endswith(b"\n"):
                break
            lines.put(line)
    lines.put(b"")


def _manner(status: int, errors: IO[bytes]) -> str:
    from hearth.models.engine.last_words import manner_of_death

    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - LAST_WORDS_BYTES))
    return manner_of_death(status, [line for line in errors.read().decode("utf-8", "replace").splitlines() if line])


def child() -> None:
    """The process, from its start to its end."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code prints
    task: _Task = pickle.load(sys.stdin.buffer)
    _limit(task.limits)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        module, _, function = TASKS.get(task.name, task.name).partition(":")
        run = getattr(importlib.import_module(module), function)
        result = run(lambda fraction, text: say({"progress": fraction, "text": text}), **task.arguments)
        say({"result": result})
    except HearthError as error:
        say({"error": str(error), "kind": type(error).__name__})
    except MemoryError:
        limit = task.limits.memory_bytes or 0
        say(
            {
                "error": f"{_shown(task.name)}: it takes more than {limit / (1 << 20):,.0f} MiB, the limit",
                "kind": "EngineError",
            }
        )
    os._exit(0)  # no teardown: native libraries may crash in theirs


def _limit(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows: the parent's deadline remains
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_bytes is not None:
        with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def when_orphaned(clean_up: Callable[[], None]) -> None:
    """Has a child call this before it leaves because its parent is gone."""
    _clean_ups.append(clean_up)


_clean_ups: list[Callable[[], None]] = []


def _leave_with_the_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):  # until its end of the pipe is closed
            pass
    for clean_up in _clean_ups:
        with contextlib.suppress(OSError):
            clean_up()
    os._exit(1)
