"""The page's parts without Gradio: sending, history, ingest queue, samples, sorting of uploads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from hearth import assets
from hearth.jobs import TurnJob
from hearth.models.errors import EngineError, RequestError
from hearth.multimodal.errors import PerceptionError
from hearth.ui.chat import SHOWN_MESSAGES, Chat, View
from hearth.ui.ingest import IngestQueue
from hearth.ui.samples import find_samples, welcome
from hearth.ui.uploads import sort_uploads
from tests.app.fake_assistant import FakeAssistant

PATIENCE_S = 30.0


@pytest.fixture
def assistant(tmp_path: Path) -> Iterator[FakeAssistant]:
    opened = FakeAssistant(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def chat(assistant: FakeAssistant) -> Iterator[Chat]:
    made = Chat(assistant)  # type: ignore[arg-type]  # a fake
    yield made
    made.jobs.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("not-a.pdf", "sound.wav", "text.png", "strange.bin")}
    Image.new("RGB", (8, 8)).save(paths["not-a.pdf"], "PNG")
    paths["sound.wav"].write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28))
    paths["text.png"].write_text("Words, not a picture.\n")
    paths["strange.bin"].write_bytes(bytes(range(256)))
    return paths


def finished(job: TurnJob) -> TurnJob:
    version = -1
    while not job.progress.finished:
        version = job.wait(version, PATIENCE_S).version
    return job


def test_uploads_are_sorted_by_content_not_by_name(files: dict[str, Path]) -> None:
    uploads = sort_uploads(files.values())
    assert uploads.images == (files["not-a.pdf"],)
    assert uploads.audio == (files["sound.wav"],)
    assert set(uploads.documents) == {files["text.png"], files["strange.bin"]}


def test_an_upload_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r"gone.png: cannot be read .* attach it again"):
        sort_uploads([tmp_path / "gone.png"])


def test_a_new_chat_is_named_after_its_first_words(chat: Chat) -> None:
    view = View()
    finished(chat.send(view, "  Tell me\n about kettles " + "x" * 100, []))
    assert view.conversation_id is not None
    assert chat.title(view.conversation_id).startswith("Tell me about kettles")
    assert len(chat.title(view.conversation_id)) <= 60
    assert len(chat.history(view)) == 2


def test_a_spoken_question_names_its_chat(chat: Chat, files: dict[str, Path]) -> None:
    view = View()
    finished(chat.send(view, "", [files["sound.wav"]]))
    assert chat.title(view.conversation_id) == "What is this?"


@pytest.mark.parametrize("text", ["", "   \n "])
def test_nothing_is_not_sent(chat: Chat, text: str) -> None:
    view = View()
    with pytest.raises(RequestError, match="write a question"):
        chat.send(view, text, [])
    assert chat.conversations() == []


def test_a_second_question_waits_for_the_first(chat: Chat) -> None:
    view = View()
    job = chat.send(view, "slow story", [])
    with pytest.raises(RequestError, match="stop it or wait"):
        chat.send(view, "more", [])
    job.stop()
    finished(job)
    finished(chat.send(view, "more", []))
    assert len(chat.history(view)) == 4


def test_the_history_leaves_the_running_turn_to_its_job(chat: Chat, assistant: FakeAssistant) -> None:
    view = View()
    finished(chat.send(view, "first", []))
    job = chat.send(view, "slow second", [])
    while not job.progress.text:  # its question is stored by now
        job.wait(job.progress.version, PATIENCE_S)
    assert view.conversation_id is not None
    assert len(assistant.conversations.messages(view.conversation_id)) == 3
    assert len(chat.history(view)) == 2
    assert len(chat.live(job)) == 2


def test_a_failed_turn_is_given_back_once(chat: Chat) -> None:
    view = View()
    job = finished(chat.send(view, "fail now", []))
    assert chat.failed(view) is job
    view.restored = job.id
    assert chat.failed(view) is None
    assert "remove its password" in str(chat.history(view)[-1]["content"])


def test_a_long_chat_shows_its_end_first(chat: Chat, assistant: FakeAssistant) -> None:
    conversation = assistant.conversations.create("long").id
    for number in range(SHOWN_MESSAGES + 10):
        assistant.conversations.append(conversation, "user", f"message {number}")
    view = View(conversation)
    shown = chat.history(view)
    assert len(shown) == SHOWN_MESSAGES + 1
    assert "Show 10 earlier messages" in str(shown[0]["content"])
    view.whole = True
    assert len(chat.history(view)) == SHOWN_MESSAGES + 10


def test_deleting_the_open_chat_leaves_an_empty_one(chat: Chat) -> None:
    view = View()
    chat.send(view, "slow story", [])
    assert view.conversation_id is not None
    chat.delete(view, view.conversation_id)
    assert view.conversation_id is None
    assert chat.conversations() == []
    assert chat.history(view) == []


def test_an_empty_title_changes_nothing(chat: Chat) -> None:
    view = View()
    finished(chat.send(view, "kettles", []))
    assert view.conversation_id is not None
    chat.rename(view.conversation_id, "  \n ")
    assert chat.title(view.conversation_id) == "kettles"
    chat.rename(view.conversation_id, " Two\nwords ")
    assert chat.title(view.conversation_id) == "Two words"


def test_the_meter_is_that_of_the_last_answer(chat: Chat) -> None:
    view = View()
    assert chat.meter(view) == ""
    finished(chat.send(view, "kettles", []))
    assert "20 %" in chat.meter(view)


def settled(ingest: IngestQueue) -> None:
    while ingest.busy:
        version, _ = ingest.states()
        ingest.wait(version, PATIENCE_S)


def test_files_are_read_in_order_and_failures_stay_named(tmp_path: Path) -> None:
    added: list[str] = []

    def add(path: Path, on_progress: Callable[[float], None], _: Callable[[], bool]) -> None:
        on_progress(0.5)
        if path.name == "bad":
            raise PerceptionError("bad: not a document")
        if path.name == "bug":
            raise ValueError("oops")
        added.append(path.name)

    ingest = IngestQueue(add)
    ingest.submit([tmp_path / name for name in ("a", "bad", "b", "bug", "c")])
    settled(ingest)
    assert added == ["a", "b", "c"]
    _, states = ingest.states()
    assert [(state.name, state.error) for state in states] == [
        ("bad", "bad: not a document"),
        ("bug", "unexpected ValueError: oops; the log has the details"),
    ]
    ingest.submit([tmp_path / "d"])
    settled(ingest)
    assert ingest.states()[1] == []


def test_progress_is_seen_and_closing_stops_it(tmp_path: Path) -> None:
    halfway = threading.Event()

    def add(_: Path, on_progress: Callable[[float], None], cancelled: Callable[[], bool]) -> None:
        on_progress(0.5)
        halfway.set()
        while not cancelled():
            pass
        raise EngineError("stopped")

    ingest = IngestQueue(add)
    ingest.submit([tmp_path / "a", tmp_path / "b"])
    assert halfway.wait(PATIENCE_S)
    first, second = ingest.states()[1]
    assert (first.started, first.fraction, second.started) == (True, 0.5, False)
    ingest.close()
    assert not ingest.busy


def test_samples_are_offered_only_if_their_files_are_there(tmp_path: Path) -> None:
    assert find_samples(tmp_path / "none", tmp_path / "uploads") == ()
    assert "#sample/" not in welcome(())
    for sample in find_samples(assets.samples_dir(), tmp_path / "uploads"):
        assert all(path.is_file() for path in sample.paths)
        assert f"#sample/{sample.key}" in welcome((sample,))


def test_the_welcome_tells_the_truth_about_where_answers_are_made() -> None:
    assert "Everything stays on this machine." in welcome(())
    told = welcome((), stays=False, engine="<gpu>")
    assert "Everything stays" not in told
    assert "the server &lt;gpu&gt;" in told
    assert "Everything stays" in welcome((), engine="127.0.0.1:8000")
