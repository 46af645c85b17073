"""Recordings in chats and in memory: words as they were corrected, times for citations, and nothing left behind."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hearth
from hearth import speech
from hearth.cli import main
from hearth.drafts import RecordingDraft
from hearth.models.errors import ModelFileError, RequestError
from hearth.multimodal import faster_whisper_model
from hearth.multimodal.speech_files import SpeechFiles
from hearth.multimodal.transcription import NoSpeechError
from hearth.multimodal.transcripts import SpeechOptions, Transcript, TranscriptSegment, WindowTranscript
from hearth.settings import Settings, SettingsError
from tests.models.tiny_gguf import write_tiny_gguf

SECRET = "The zanzibar orchid blooms in the winter garden behind the lighthouse."
SAID = (
    "Welcome to the talk about gardens and the people who look after them all through the long year.",
    "First we speak about soil, water and light, because nothing grows well without these three things, and then about "
    "the tools that everybody should have in the shed before the spring begins and the beds are dug over once more.",
    SECRET,
    "At last somebody asks how often the gate of the garden is painted, and nobody knows the answer.",
)


class Backend:
    """A speech model that says ``SAID``, one sentence in ten seconds."""

    name, window_s, tells_times, languages = "scripted", 30.0, True, ("en", "de")

    def __init__(self) -> None:
        self.n_windows = 0

    def language_probs(self, samples: NDArray[np.float32], check: Callable[[], None]) -> dict[str, float]:
        assert len(samples)
        check()
        return {"en": 0.1, "de": 0.9}

    def decode(
        self, samples: NDArray[np.float32], options: SpeechOptions, prompt: str, check: Callable[[], None]
    ) -> WindowTranscript:
        assert len(samples)
        check()
        assert options.language
        assert prompt == ""
        first = 2 * (self.n_windows % 2)
        self.n_windows += 1
        found = tuple(
            TranscriptSegment(10.0 * number, 10.0 * number + 9.0, text)
            for number, text in enumerate(SAID[first : first + 2])
        )
        return WindowTranscript(found, len(samples) / 16_000)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    made = Backend()
    monkeypatch.setattr(speech, "backend_loader", lambda *_: lambda: made)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx_train=1024)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Forty seconds of noise, quietest in the middle: two windows."""
    samples = 3000 * np.random.default_rng(1).standard_normal(40 * 16_000)
    samples[int(19.9 * 16_000) : int(20.1 * 16_000)] *= 0.1
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.astype("<i2").tobytes())
    path = tmp_path / "talk.wav"
    path.write_bytes(out.getvalue())
    return path


@pytest.fixture
def assistant(model: Path, tmp_path: Path, backend: Backend) -> Iterator[hearth.Assistant]:
    assert backend
    with hearth.Assistant(model=str(model), data_dir=tmp_path / "data", temperature=0.0) as opened:
        yield opened


def files_with(folder: Path, words: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


def test_a_recording_in_memory_is_cited_with_its_time(
    assistant: hearth.Assistant, backend: Backend, talk: Path, tmp_path: Path
) -> None:
    document = assistant.memory.add(talk)
    assert document.title == "talk.wav"
    hit = assistant.memory.search("where does the orchid bloom?", k=1)[0]
    assert hit.passage is not None
    assert SECRET in hit.passage.text
    assert hit.passage.start_s == pytest.approx(10.0, abs=0.2)  # it begins a sentence earlier
    assert hit.passage.end_s is not None
    assert hit.passage.end_s > hit.passage.start_s
    reply = assistant.ask("Where does the zanzibar orchid bloom?", max_tokens=2)
    cited = next(citation for citation in reply.citations if SECRET in citation.text)
    assert cited.start_s == hit.passage.start_s
    assert assistant.memory.recording_of(document.id) == document.sha256
    kept = assistant.transcript(document.sha256)
    assert kept is not None
    assert (kept.language, kept.language_prob) == ("de", 0.9)
    assert [segment.text for segment in kept.segments] == list(SAID)
    assert backend.n_windows == 2

    data_dir = tmp_path / "data"
    assert files_with(data_dir, "zanzibar orchid")
    assistant.conversations.delete(reply.conversation_id)
    assistant.memory.forget(document.id)
    assert assistant.transcript(document.sha256) is None
    assert assistant.memory.recording_of(document.id) is None
    assert files_with(data_dir, "zanzibar orchid") == []


def test_words_are_sent_as_they_were_corrected_and_kept_as_they_were_heard(
    assistant: hearth.Assistant, backend: Backend, talk: Path, tmp_path: Path
) -> None:
    heard = assistant.transcribe(talk)
    assert heard.text == " ".join(SAID)
    corrected = hearth.HeardRecording(talk, "the cat sat", heard)
    events = list(assistant.stream("and", audio=[corrected], max_tokens=2))
    told = next(event for event in events if isinstance(event, hearth.Transcribed))
    assert (told.text, told.language, told.language_prob) == ("the cat sat", "de", 0.9)
    done = events[-1]
    assert isinstance(done, hearth.Done)
    question = assistant.conversations.messages(done.reply.conversation_id)[0]
    assert question.text == "and\nthe cat sat"
    (attachment,) = question.attachments
    kept = assistant.transcript(attachment.sha256)
    assert kept == heard
    assert backend.n_windows == 2
    assistant.memory.add(talk)  # the same recording is not transcribed twice
    assert backend.n_windows == 2
    assistant.conversations.delete(done.reply.conversation_id)
    assert assistant.transcript(attachment.sha256) is not None  # memory has it still
    assistant.memory.forget(assistant.memory.list()[0].id)
    assert assistant.transcript(attachment.sha256) is None
    assert files_with(tmp_path / "data", "zanzibar orchid") == []
    with pytest.raises(RequestError, match="words are empty"):
        assistant.ask(audio=[hearth.HeardRecording(talk, "  ")])


def test_progress_is_told_in_seconds(assistant: hearth.Assistant, talk: Path) -> None:
    events = list(assistant.stream(audio=[talk], max_tokens=1))
    done_s = [event.done_s for event in events if isinstance(event, hearth.Phase) and event.done_s is not None]
    assert done_s[0] == 0.0
    assert done_s[-1] == pytest.approx(40.0)
    assert done_s == sorted(done_s)
    assert {event.total_s for event in events if isinstance(event, hearth.Phase)} == {None, 40.0}


def test_transcribing_can_be_cancelled_and_takes_its_own_language(assistant: hearth.Assistant, talk: Path) -> None:
    with pytest.raises(hearth.HearthError, match="cancelled"):
        assistant.transcribe(talk, cancelled=lambda: True)
    assert assistant.transcribe(talk, language="German").language_prob is None
    with pytest.raises(RequestError, match="did you mean german"):
        assistant.transcribe(talk, language="germn")


def test_settings_name_languages_and_tasks() -> None:
    assert Settings(speech_language="German").speech_language == "de"
    with pytest.raises(SettingsError, match=r"argument speech_language = 'germn'.*did you mean german"):
        Settings(speech_language="germn")
    with pytest.raises(SettingsError, match="speech_task = 'sing'"):
        Settings(speech_task="sing")


def test_the_program_is_chosen_by_format_setting_and_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, folder = tmp_path / "base.pt", tmp_path / "faster-whisper-base"
    both, ours, theirs = (
        SpeechFiles("base", *paths, "base") for paths in ((checkpoint, folder), (checkpoint, None), (None, folder))
    )

    def chosen(files: SpeechFiles, backend: str = "auto") -> str:
        return speech.choose_backend(files, Settings(data_dir=tmp_path, speech_backend=backend))

    with pytest.raises(ModelFileError, match="uv sync --extra faster-whisper"):
        chosen(theirs)
    assert chosen(both) == chosen(ours) == "whisper"
    monkeypatch.setattr(faster_whisper_model, "is_installed", lambda: True)
    assert (chosen(theirs), chosen(ours), chosen(both)) == ("faster-whisper", "whisper", "whisper")
    speech.save_measurements(tmp_path, "base", {"whisper": 0.5, "faster-whisper": 0.2})
    speech.save_measurements(tmp_path, "small", {"whisper": 1.5})
    assert chosen(both) == "faster-whisper"
    assert chosen(both, "whisper") == "whisper"
    speech.save_measurements(tmp_path, "base", {"whisper": 0.1, "faster-whisper": 0.2})
    assert chosen(both) == "whisper"
    assert speech.load_measurements(tmp_path)["small"] == {"whisper": 1.5}
    for files, backend, message in ((theirs, "whisper", "cannot read"), (ours, "faster-whisper", "not there in")):
        with pytest.raises(ModelFileError, match=message):
            chosen(files, backend)
    (tmp_path / speech.RECORD_NAME).write_text('{"version": 1, "models": [')
    assert speech.load_measurements(tmp_path) == {}


def test_the_command_writes_every_format(
    backend: Backend, talk: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for form, beginning in (("txt", SAID[0]), ("srt", "1\n00:00:00,000 --> "), ("vtt", "WEBVTT\n\n00:00:00.000 --> ")):
        assert main(["transcribe", str(talk), "--format", form]) == 0
        assert capsys.readouterr().out.startswith(beginning)
    assert main(["transcribe", str(talk), "--format", "json", "--language", "German", "--translate"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["language"], fields["language_prob"], fields["task"]) == ("de", None, "translate")
    assert backend.n_windows == 8
    assert not (tmp_path / "hearth-data").exists()  # no data folder is opened
    assert main(["transcribe", str(talk), "--format", "doc"]) == 2
    assert main(["transcribe", str(tmp_path / "none.wav")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_the_bench_keeps_what_it_measured(capsys: pytest.CaptureFixture[str], backend: Backend, tmp_path: Path) -> None:
    assert backend
    assert main(["bench", "speech", "--json", "--data-dir", str(tmp_path / "d")]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["model"], fields["chosen"]) == ("pocket", "whisper")
    assert fields["backends"][0]["real_time_factor"] > 0
    assert set(speech.load_measurements(tmp_path / "d")) == {"pocket"}
    assert main(["bench", "speech", "--data-dir", str(tmp_path / "d")]) == 0
    assert "s a second of sound" in capsys.readouterr().out


def test_a_transcript_that_cannot_be_read_is_made_again(
    assistant: hearth.Assistant, backend: Backend, talk: Path
) -> None:
    heard = assistant.transcribe(talk)
    assistant.ask(audio=[hearth.HeardRecording(talk, "the cat", heard)], max_tokens=1)
    (conversation,) = assistant.conversations.list()
    sha256 = assistant.conversations.messages(conversation.id)[0].attachments[0].sha256
    assistant._runtime.store.transcripts.put(sha256, heard.made_by, {"segments": 3})
    assert assistant.transcribe(talk).text == heard.text
    assert backend.n_windows == 4


def draft_of(transcribe: Callable[..., Transcript]) -> RecordingDraft:
    return RecordingDraft(Path("q.wav"), transcribe)


def finished(draft: RecordingDraft) -> Any:
    state = draft.state
    while not state.finished:
        state = draft.wait(state.version, 5.0)
    return state


def test_a_draft_tells_what_it_hears_and_sends_what_was_corrected() -> None:
    go_on = threading.Event()
    segment = TranscriptSegment(0.0, 1.0, "Helo.")

    def transcribe(recording: Path, *, on_progress: Any, on_segment: Any, cancelled: Any) -> Transcript:
        assert recording.name == "q.wav"
        assert not cancelled()
        on_progress(0.5)
        on_segment(segment)
        go_on.wait(5)
        return Transcript.of((segment,), 1.0, "en", None, "transcribe")

    draft = draft_of(transcribe)
    state = draft.state
    while not state.text:
        state = draft.wait(state.version, 5.0)
    assert (state.text, state.fraction, state.finished) == ("Helo.", 0.5, False)
    assert draft.recording() == Path("q.wav")
    go_on.set()
    made = finished(draft).transcript
    assert draft.recording() == hearth.HeardRecording(Path("q.wav"), "Helo.", made)
    draft.corrected = "Hello."
    assert draft.recording() == hearth.HeardRecording(Path("q.wav"), "Hello.", made)


@pytest.mark.parametrize("error", [NoSpeechError("no speech found in q.wav"), ZeroDivisionError("odd")])
def test_a_draft_that_fails_can_still_be_written_by_hand(error: Exception) -> None:
    def transcribe(recording: Path, **_: Any) -> Transcript:
        assert recording
        raise error

    draft = draft_of(transcribe)
    assert str(error) in str(finished(draft).error)
    draft.corrected = ""
    assert draft.recording() == Path("q.wav")
    draft.corrected = "By hand."
    assert draft.recording() == hearth.HeardRecording(Path("q.wav"), "By hand.", None)


def test_a_model_that_hears_gets_recordings_as_they_are(assistant: hearth.Assistant) -> None:
    assert not assistant.hears_by_itself
    runtime: Any = assistant._runtime
    info = SimpleNamespace(media=SimpleNamespace(hears=True, sample_rate=16_000))
    engine = SimpleNamespace(peek=lambda: None, get=lambda: SimpleNamespace(info=info))
    fake: Any = SimpleNamespace(choice=SimpleNamespace(mmproj=Path("m.gguf")), engine=engine, hears=True)
    assistant._runtime = fake
    try:
        assert assistant.hears_by_itself
        fake.engine.peek = engine.get
        fake.hears = False
        assert not assistant.hears_by_itself
    finally:
        assistant._runtime = runtime
