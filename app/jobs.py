"""Turns as jobs of the server: each runs on its own thread and pages only follow it, so a reload loses nothing."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hearth.drafts import RecordingDraft
from hearth.events import (
    Citation,
    CitationsFound,
    Done,
    MemoryChanged,
    Notice,
    Phase,
    Reply,
    Transcribed,
    TurnEvent,
    TurnFailed,
)
from hearth.models.errors import EngineError, HearthError, RequestError
from hearth.models.types import TextDelta

log = logging.getLogger("hearth.jobs")
KEPT_FINISHED = 32  # finished jobs kept for pages that have not seen their end
KEPT_FINISHED_S = 600.0


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a user sent in one go. Paths point to uploaded files, which stay until the job has ended."""

    conversation_id: str
    text: str = ""
    images: tuple[Path, ...] = ()
    audio: tuple[Path, ...] = ()
    documents: tuple[Path, ...] = ()
    drafts: tuple[RecordingDraft, ...] = ()  # of recordings among ``audio`` that were begun to be written down

    @property
    def files(self) -> tuple[Path, ...]:
        """All attachments, pictures first."""
        return (*self.images, *self.audio, *self.documents)


@dataclass(frozen=True, slots=True)
class TurnProgress:
    """Everything that a page needs to draw a turn as it stands; ``version`` grows with every event."""

    version: int = 0
    phase: Phase | None = None
    text: str = ""
    transcripts: tuple[str, ...] = ()
    citations: tuple[Citation, ...] = ()
    notices: tuple[str, ...] = ()
    stopping: bool = False
    reply: Reply | None = None
    error: HearthError | None = None

    @property
    def finished(self) -> bool:
        """Whether the terminal event has come."""
        return self.reply is not None or self.error is not None


StreamTurn = Callable[[TurnRequest, threading.Event], Iterator[TurnEvent]]
"""Runs one turn; setting the event stops it within 200 ms."""


class TurnJob:
    """One turn. The log is kept folded into a TurnProgress, so memory is bounded by the length of the answer."""

    def __init__(self, request: TurnRequest, n_messages_before: int) -> None:
        self.id = secrets.token_hex(8)
        self.request = request
        self.n_messages_before = n_messages_before  # messages of the conversation when the turn began
        self.cancelled = threading.Event()
        self.finished_at: float | None = None  # time.monotonic()
        self._progress = TurnProgress()
        self._changed = threading.Condition()

    @property
    def progress(self) -> TurnProgress:
        """The turn as it stands."""
        with self._changed:
            return self._progress

    def wait(self, version: int, timeout_s: float) -> TurnProgress:
        """The turn as soon as it is newer than ``version``, or as it stands after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._progress.version > version, timeout_s)
            return self._progress

    def stop(self) -> None:
        """Asks the turn to end; followers see ``stopping`` at once. Any thread, any time."""
        self.cancelled.set()
        self._update(lambda progress: replace(progress, stopping=not progress.finished))

    def run(self, stream: StreamTurn) -> None:
        """Runs the turn to its end; raises nothing."""
        try:
            with contextlib.closing(_generator(stream(self.request, self.cancelled))) as events:
                for event in events:
                    self._update(partial(_fold, event))
        except Exception as error:  # the turn ends with it, the page goes on
            log.exception("a turn raised")
            self._fail(EngineError(f"unexpected {type(error).__name__}: {error}; the log has the details"))
        if not self.progress.finished:
            self._fail(EngineError("the turn ended without a result; ask again"))

    def _fail(self, error: HearthError) -> None:
        self._update(lambda progress: replace(progress, error=error))

    def _update(self, change: Callable[[TurnProgress], TurnProgress]) -> None:
        with self._changed:
            self._progress = replace(change(self._progress), version=self._progress.version + 1)
            if self._progress.finished and self.finished_at is None:
                self.finished_at = time.monotonic()
            self._changed.notify_all()


class TurnJobs:
    """The jobs of a server: at most one running turn per conversation. All methods may be called from any thread."""

    def __init__(
        self, stream: StreamTurn, *, kept_finished: int = KEPT_FINISHED, kept_finished_s: float = KEPT_FINISHED_S
    ) -> None:
        self._stream = stream
        self._kept_finished = kept_finished
        self._kept_finished_s = kept_finished_s
        self._jobs: dict[str, TurnJob] = {}  # by conversation: its latest
        self._threads: dict[str, threading.Thread] = {}  # by job
        self._lock = threading.Lock()
        self._closed = False

    def start(self, request: TurnRequest, n_messages_before: int = 0) -> TurnJob:
        """Begins a turn. Raises RequestError while another one runs in the conversation, EngineError once closed."""
        with self._lock:
            if self._closed:
                raise EngineError("Hearth is shutting down; start it again")
            latest = self._jobs.get(request.conversation_id)
            if latest is not None and latest.finished_at is None:
                raise RequestError("an answer is still being written in this chat; stop it or wait for its end")
            self._drop_old()
            job = TurnJob(request, n_messages_before)
            thread = threading.Thread(target=self._run, args=(job,), name=f"hearth-job-{job.id}", daemon=True)
            self._jobs[request.conversation_id] = job
            self._threads[job.id] = thread
            thread.start()
            return job

    def latest(self, conversation_id: str) -> TurnJob | None:
        """The running or last finished job of a conversation, if it is still kept."""
        with self._lock:
            return self._jobs.get(conversation_id)

    def running(self, conversation_id: str) -> TurnJob | None:
        """The running job of a conversation."""
        job = self.latest(conversation_id)
        return job if job is not None and job.finished_at is None else None

    def stop(self, conversation_id: str) -> bool:
        """Stops the running turn of a conversation; False if there is none."""
        job = self.running(conversation_id)
        if job is not None:
            job.stop()
        return job is not None

    def forget(self, conversation_id: str, timeout_s: float = 5.0) -> None:
        """Stops and drops the job of a conversation that is being deleted."""
        job = self.running(conversation_id)
        if job is not None:
            job.stop()
            with self._lock:
                thread = self._threads.get(job.id)
            if thread is not None:
                thread.join(timeout_s)
        with self._lock:
            self._jobs.pop(conversation_id, None)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stops all running turns and waits for their ends. Idempotent."""
        with self._lock:
            self._closed = True
            jobs, threads = list(self._jobs.values()), list(self._threads.values())
        for job in jobs:
            job.cancelled.set()
        for thread in threads:
            thread.join(timeout_s)

    def _run(self, job: TurnJob) -> None:
        job.run(self._stream)
        with self._lock:
            self._threads.pop(job.id, None)

    def _drop_old(self) -> None:
        finished = sorted(
            ((job.finished_at, key) for key, job in self._jobs.items() if job.finished_at is not None), reverse=True
        )
        oldest = time.monotonic() - self._kept_finished_s
        for position, (finished_at, key) in enumerate(finished, 1):
            if position >= self._kept_finished or finished_at < oldest:
                del self._jobs[key]


def _fold(event: TurnEvent, progress: TurnProgress) -> TurnProgress:
    match event:
        case Phase():
            return replace(progress, phase=event)
        case TextDelta(text):
            return replace(progress, text=progress.text + text)
        case Transcribed():
            return replace(progress, transcripts=(*progress.transcripts, event.text))
        case CitationsFound(citations):
            return replace(progress, citations=citations)
        case MemoryChanged():
            added = f"“{event.title}” is in memory now ({event.n_passages} passages)."
            return replace(progress, notices=(*progress.notices, added))
        case Notice(text):
            return replace(progress, notices=(*progress.notices, text))
        case Done(reply):
            return replace(progress, reply=reply, text=reply.text, citations=reply.citations)
        case TurnFailed(error):
            return replace(progress, error=error)


def _generator(events: Iterator[TurnEvent]) -> Generator[TurnEvent, None, None]:
    """``events`` as a generator, which can be closed."""
    yield from events
