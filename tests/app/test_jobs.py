"""Turns as jobs: following, joining late, stopping, one per conversation, and what is kept of finished ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

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
from hearth.jobs import TurnJob, TurnJobs, TurnProgress, TurnRequest
from hearth.models.errors import EngineError, RequestError
from hearth.models.types import TextDelta

PATIENCE_S = 20.0


class Script:
    """A turn that does what the test puts into its queue; None ends it without a terminal event."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[TurnEvent | Exception | None] = queue.SimpleQueue()
        self.closed = threading.Event()

    def stream(self, request: TurnRequest, cancelled: threading.Event) -> Iterator[TurnEvent]:
        try:
            while True:
                try:
                    event = self.events.get(timeout=0.01)
                except queue.Empty:
                    if cancelled.is_set():
                        yield done(request.conversation_id, "", "cancelled")
                        return
                    continue
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed.set()


def done(conversation: str = "c", text: str = "hello", reason: str = "stop") -> Done:
    return Done(Reply(text, conversation, "m", reason))  # type: ignore[arg-type]


def ended(job: TurnJob) -> TurnProgress:
    version = -1
    while True:
        progress = job.wait(version, PATIENCE_S)
        if progress.finished:
            return progress
        assert progress.version > version, "the job hangs"
        version = progress.version


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def jobs(script: Script) -> Iterator[TurnJobs]:
    running = TurnJobs(script.stream)
    yield running
    running.close()


def test_the_log_folds_into_what_a_page_draws(jobs: TurnJobs, script: Script) -> None:
    citation = Citation(1, "d", "Notes", 2, 0, 4, "text", 0.5)
    for event in (
        Phase("transcribing", 0.5),
        Transcribed("q.wav", "what is it", 1.0),
        CitationsFound((citation,)),
        MemoryChanged("d", "Notes", 3),
        Notice("page 2 is a scan"),
        TextDelta("hel"),
        TextDelta("lo"),
    ):
        script.events.put(event)
    job = jobs.start(TurnRequest("c", "hi"))
    progress = job.progress
    while progress.text != "hello":
        progress = job.wait(progress.version, PATIENCE_S)
    assert progress.phase == Phase("transcribing", 0.5)
    assert progress.transcripts == ("what is it",)
    assert progress.citations == (citation,)
    assert progress.notices == ("“Notes” is in memory now (3 passages).", "page 2 is a scan")
    assert not progress.finished
    script.events.put(done())
    assert ended(job).reply is not None


def test_a_follower_that_comes_late_sees_everything(jobs: TurnJobs, script: Script) -> None:
    job = jobs.start(TurnRequest("c", "hi"))
    script.events.put(TextDelta("one "))
    script.events.put(TextDelta("two"))
    first = job.progress
    while first.text != "one two":
        first = job.wait(first.version, PATIENCE_S)
    assert jobs.running("c") is job
    assert job.wait(-1, PATIENCE_S).text == "one two"
    script.events.put(done(text="one two"))
    assert ended(job).text == "one two"
    assert jobs.running("c") is None
    assert jobs.latest("c") is job


def test_waiting_ends_without_news(jobs: TurnJobs) -> None:
    job = jobs.start(TurnRequest("c", "hi"))
    assert job.wait(job.progress.version, 0.01).version == job.progress.version


def test_stop_is_seen_at_once_and_ends_the_turn(jobs: TurnJobs, script: Script) -> None:
    job = jobs.start(TurnRequest("c", "hi"))
    assert jobs.stop("c")
    assert job.progress.stopping or job.progress.finished
    progress = ended(job)
    assert progress.reply is not None
    assert progress.reply.finish_reason == "cancelled"
    assert script.closed.wait(PATIENCE_S)
    assert not jobs.stop("c")


def test_one_turn_at_a_time_per_conversation(jobs: TurnJobs) -> None:
    first = jobs.start(TurnRequest("c", "hi"))
    with pytest.raises(RequestError, match="stop it or wait"):
        jobs.start(TurnRequest("c", "more"))
    other = jobs.start(TurnRequest("d", "hi"))
    assert jobs.running("c") is first
    assert jobs.running("d") is other
    jobs.stop("c")
    ended(first)
    assert jobs.start(TurnRequest("c", "more")) is not first


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (TurnFailed(EngineError("out of memory; use a smaller model"), "c"), "out of memory; use a smaller model"),
        (None, "without a result"),
        (ValueError("bug"), "unexpected ValueError: bug"),
    ],
)
def test_every_job_ends_with_a_reply_or_an_error(
    jobs: TurnJobs, script: Script, last: TurnEvent | Exception | None, said: str
) -> None:
    job = jobs.start(TurnRequest("c", "hi"))
    script.events.put(last)
    assert said in str(ended(job).error)


def test_few_finished_jobs_are_kept() -> None:
    jobs = TurnJobs(lambda request, _: iter([done(request.conversation_id)]), kept_finished=3)
    for number in range(8):
        ended(jobs.start(TurnRequest(f"c{number}", "hi")))
    kept = [number for number in range(8) if jobs.latest(f"c{number}") is not None]
    assert kept[-1] == 7
    assert len(kept) <= 3
    jobs.close()


def test_old_finished_jobs_are_dropped() -> None:
    jobs = TurnJobs(lambda request, _: iter([done(request.conversation_id)]), kept_finished_s=-1.0)
    ended(jobs.start(TurnRequest("c", "hi")))
    ended(jobs.start(TurnRequest("d", "hi")))
    assert jobs.latest("c") is None
    jobs.close()


def test_deleting_a_conversation_ends_its_turn(jobs: TurnJobs, script: Script) -> None:
    job = jobs.start(TurnRequest("c", "hi"))
    jobs.forget("c")
    assert job.progress.finished
    assert jobs.latest("c") is None
    assert script.closed.is_set()


def test_close_ends_all_and_refuses_more(jobs: TurnJobs) -> None:
    job = jobs.start(TurnRequest("c", "hi"))
    jobs.close()
    assert job.progress.finished
    with pytest.raises(EngineError, match="shutting down"):
        jobs.start(TurnRequest("d", "hi"))
