"""Transcription: windows, silence, progress, cancel, bad checkpoints, and the pocket model where it is there."""

from __future__ import annotations

import importlib.resources
import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.errors import ModelFileError, RequestError
from hearth.multimodal.errors import PerceptionCancelled
from hearth.multimodal.languages import LANGUAGES
from hearth.multimodal.sound import SAMPLE_RATE, Sound
from hearth.multimodal.transcription import NoSpeechError, Transcriber, whisper_checkpoint
from hearth.multimodal.transcripts import SpeechOptions, Transcript, TranscriptSegment, WindowTranscript, Word
from hearth.multimodal.voice_regions import find_voice, joined, windows
from hearth.multimodal.whisper_model import WhisperModel

POCKET = Path(str(importlib.resources.files("hearth.assets"))) / "pocket" / "speech.pt"


def sound(samples: NDArray[np.float32], name: str = "q.wav") -> Sound:
    return Sound(samples.astype(np.float32), len(samples) / SAMPLE_RATE, "0" * 64, name)


def noise(duration_s: float, level: float = 0.1) -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    return (level * rng.standard_normal(int(duration_s * SAMPLE_RATE))).astype(np.float32)


def silence(duration_s: float) -> NDArray[np.float32]:
    return np.zeros(int(duration_s * SAMPLE_RATE), np.float32)


@dataclass
class ScriptedModel:
    """A speech model that says what it is told, and notes what it was given."""

    answers: list[WindowTranscript | str]
    window_s: float = 30.0
    tells_times: bool = False
    languages: tuple[str, ...] = ("en",)
    probs: list[dict[str, float]] = field(default_factory=list)
    name: str = "scripted"
    durations_s: list[float] = field(default_factory=list)
    options: list[SpeechOptions] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def language_probs(self, samples: NDArray[np.float32], check: Callable[[], None]) -> dict[str, float]:
        check()
        assert len(samples)
        return self.probs.pop(0)

    def decode(
        self, samples: NDArray[np.float32], options: SpeechOptions, prompt: str, check: Callable[[], None]
    ) -> WindowTranscript:
        check()
        duration_s = len(samples) / SAMPLE_RATE
        self.durations_s.append(duration_s)
        self.options.append(options)
        self.prompts.append(prompt)
        answer = self.answers[min(len(self.durations_s), len(self.answers)) - 1]
        if isinstance(answer, WindowTranscript):
            return answer
        return WindowTranscript((TranscriptSegment(0.0, duration_s, answer),), duration_s)


def scripted(
    *answers: WindowTranscript | str, window_s: float = 30.0, **more: Any
) -> tuple[Transcriber, ScriptedModel]:
    model = ScriptedModel(list(answers), window_s, **more)
    return Transcriber(lambda: model), model


def said(text: str, no_speech_prob: float = 0.0, avg_logprob: float = -0.1) -> WindowTranscript:
    segment = TranscriptSegment(0.0, 2.0, text, (), avg_logprob, no_speech_prob)
    return WindowTranscript((segment,), 2.0)


def never() -> None:
    pass


ENGLISH = SpeechOptions(language="en")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper checkpoint of the smallest size, untrained."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = ModelDimensions(80, 1500, 16, 2, 1, 51864, 448, 16, 2, 1)
    state = Whisper(dims).state_dict()
    state["decoder.positional_embedding"] = torch.zeros(448, 16)
    path = tmp_path_factory.mktemp("speech") / "tiny.pt"
    torch.save({"dims": vars(dims), "model_state_dict": state, "window_s": 30.0}, path)
    return path


def test_silence_costs_nothing_and_says_no_speech() -> None:
    transcriber, model = scripted(said("never"))
    with pytest.raises(NoSpeechError, match=r"no speech found in q\.wav \(3\.2 s\)"):
        transcriber.transcribe(sound(silence(3.2)))
    assert model.durations_s == []


def test_silence_does_not_load_the_model() -> None:
    with pytest.raises(NoSpeechError):
        Transcriber(whisper_checkpoint(Path("missing.pt"))).transcribe(sound(silence(1.0)))


@pytest.mark.parametrize(
    "answer", [said("Thank you.", 0.95), said("you", 0.7, -1.5), said(""), said(" . "), said("...", 0.1)]
)
def test_windows_without_words_are_dropped(answer: WindowTranscript) -> None:
    transcriber, model = scripted(answer)
    with pytest.raises(NoSpeechError):
        transcriber.transcribe(sound(noise(2.0)))
    assert len(model.durations_s) == 1


def test_sure_words_are_kept_though_the_window_looks_empty() -> None:
    transcriber, _ = scripted(said("What is this?", 0.7, -0.2))
    assert transcriber.transcribe(sound(noise(2.0))).text == "What is this?"


def test_segments_lie_where_the_sound_is() -> None:
    transcriber, _ = scripted("One.", "Two.")
    samples = np.concatenate([silence(3), noise(2), silence(5), noise(1), silence(4)])
    transcript = transcriber.transcribe(sound(samples))
    assert transcript.text == "One. Two."
    assert transcript.duration_s == pytest.approx(15.0)
    first, second = transcript.segments
    assert (first.start_s, first.end_s) == (pytest.approx(2.8, abs=0.05), pytest.approx(5.2, abs=0.05))
    assert (second.start_s, second.end_s) == (pytest.approx(9.8, abs=0.05), pytest.approx(11.2, abs=0.05))


def test_long_sound_is_cut_where_it_is_quiet() -> None:
    samples = noise(20.0)
    samples[int(8.5 * SAMPLE_RATE) : int(8.9 * SAMPLE_RATE)] *= 0.05
    cuts = list(windows(samples, [(0, len(samples))], 10.0))
    assert cuts[0][1] / SAMPLE_RATE == pytest.approx(8.7, abs=0.15)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == len(samples)
    assert all(end - start <= 10 * SAMPLE_RATE for start, end in cuts)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(cuts))


def test_quiet_speech_and_steady_noise_are_heard() -> None:
    assert find_voice(noise(2.0, 0.004)).regions
    assert find_voice(noise(2.0, 0.2)).regions
    assert not find_voice(noise(2.0, 0.0002)).regions
    assert not find_voice(np.zeros(0, np.float32)).regions


def test_a_click_is_no_sound() -> None:
    samples = silence(2.0)
    samples[16_000:16_100] = 0.9
    assert find_voice(samples).regions == ()


def test_progress_rises_to_one() -> None:
    transcriber, _ = scripted(said("Words."), window_s=5.0)
    seen: list[float] = []
    transcriber.transcribe(sound(noise(22.0)), on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert len(seen) > 4


def test_cancel_between_windows_and_the_next_one_works() -> None:
    transcriber, model = scripted(said("Words."), window_s=5.0)
    with pytest.raises(PerceptionCancelled, match=r"q\.wav was cancelled"):
        transcriber.transcribe(sound(noise(60.0)), cancelled=lambda: len(model.durations_s) >= 2)
    assert len(model.durations_s) == 2
    assert transcriber.transcribe(sound(noise(1.0))).text == "Words."


def test_cancel_while_another_recording_is_transcribed() -> None:
    transcriber, _ = scripted(said("Words."))
    asked = iter([False, False, True])
    with transcriber._lock, pytest.raises(PerceptionCancelled):
        transcriber.transcribe(sound(noise(1.0)), cancelled=lambda: next(asked, True))


def test_cancel_inside_the_network(tiny_checkpoint: Path) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise PerceptionCancelled("stopped")

    model = WhisperModel(tiny_checkpoint)
    with pytest.raises(PerceptionCancelled):
        model.decode(noise(2.0), ENGLISH, "", check)
    assert asked == 3
    model.decode(noise(1.0), ENGLISH, "", never)
    assert asked == 3


def test_a_decoder_that_loops_is_stopped(tiny_checkpoint: Path) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1

    WhisperModel(tiny_checkpoint).decode(noise(1.0), ENGLISH, "", check)
    assert asked <= 1 + 16 + 8


def test_load_is_done_once_and_by_one_thread(tiny_checkpoint: Path) -> None:
    transcriber = Transcriber(whisper_checkpoint(tiny_checkpoint))
    threads = [threading.Thread(target=transcriber.load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = transcriber._backend
    transcriber.load()
    assert transcriber._backend is loaded


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"speech\.pt does not exist"):
        Transcriber(whisper_checkpoint(tmp_path / "speech.pt")).transcribe(sound(noise(1.0)))


def test_truncated_and_foreign_checkpoints(tmp_path: Path, tiny_checkpoint: Path) -> None:
    import torch

    cut = tmp_path / "cut.pt"
    cut.write_bytes(tiny_checkpoint.read_bytes()[:5000])
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)
    for path in (cut, foreign):
        with pytest.raises(ModelFileError, match=f"{path.name}.* is not a Whisper checkpoint or is cut off") as caught:
            Transcriber(whisper_checkpoint(path)).load()
        assert "\n" not in str(caught.value)


def test_a_language_is_detected_in_the_first_windows_and_kept() -> None:
    transcriber, model = scripted("Eins.", languages=("en", "de", "fr"), window_s=5.0)
    model.probs = [{"en": 0.4, "de": 0.35, "fr": 0.25}, {"en": 0.1, "de": 0.8, "fr": 0.1}, {"fr": 1.0}]
    transcript = transcriber.transcribe(sound(noise(20.0)))
    assert transcript.language == "de"
    assert transcript.language_prob == pytest.approx((0.35 + 0.8) / 2)
    assert {options.language for options in model.options} == {"de"}
    assert len(model.probs) == 1
    told = transcriber.transcribe(sound(noise(2.0)), SpeechOptions(language="fr"))
    assert (told.language, told.language_prob) == ("fr", None)


@pytest.mark.parametrize(
    ("options", "languages", "message"),
    [
        (SpeechOptions(language="de"), ("en",), "knows English only; choose another model"),
        (SpeechOptions(task="translate"), ("en",), "cannot translate"),
        (SpeechOptions(language="yue"), tuple(LANGUAGES)[:99], "99 languages, without Cantonese"),
    ],
)
def test_what_a_model_does_not_know_is_refused(
    options: SpeechOptions, languages: tuple[str, ...], message: str
) -> None:
    transcriber, model = scripted("never", languages=languages)
    with pytest.raises(RequestError, match=message):
        transcriber.transcribe(sound(noise(1.0)), options)
    assert model.options == []


def test_a_window_that_breaks_off_is_followed_by_one_that_begins_there() -> None:
    done = TranscriptSegment(0.0, 6.0, "A whole sentence.")
    broken = TranscriptSegment(6.0, 10.0, "The beginning of")
    last = TranscriptSegment(0.0, 5.0, "The beginning of another.")
    transcriber, model = scripted(
        WindowTranscript((done, broken), 6.0), WindowTranscript((last,), 5.0), window_s=10.0, tells_times=True
    )
    transcript = transcriber.transcribe(sound(noise(12.0)))
    assert transcript.text == "A whole sentence. The beginning of another."
    assert [segment.start_s for segment in transcript.segments] == [0.0, 6.0]
    assert len(model.durations_s) == 2


def test_a_window_that_hardly_began_is_not_read_again() -> None:
    broken = TranscriptSegment(0.1, 9.0, "All of it.")
    transcriber, model = scripted(WindowTranscript((broken,), 0.1), window_s=10.0, tells_times=True)
    transcriber.transcribe(sound(noise(18.0)))
    assert len(model.durations_s) == 2


def test_pauses_stay_inside_a_window_of_a_model_that_tells_times() -> None:
    samples = np.concatenate([noise(2), silence(3), noise(2), silence(9), noise(2)])
    regions = find_voice(samples).regions
    assert len(regions) == 3
    assert len(joined(regions, 30.0, 5.0)) == 2
    assert len(joined(regions, 6.0, 5.0)) == 3
    said_at = ((0.0, 2.0, "One."), (2.6, 4.6, "Thank you."), (5.0, 7.0, "Two."))
    segments = tuple(TranscriptSegment(*one) for one in said_at)
    transcriber, _ = scripted(WindowTranscript(segments, 7.0), said("Three."), tells_times=True)
    assert transcriber.transcribe(sound(samples)).text == "One. Two. Three."  # nothing sounds at 2.6


@pytest.mark.parametrize("answer", [said("the " * 60), said("mumbled", 0.3, -2.5)])
def test_repetitions_and_what_was_not_understood_are_dropped(answer: WindowTranscript) -> None:
    transcriber, _ = scripted(answer, tells_times=True)
    with pytest.raises(NoSpeechError):
        transcriber.transcribe(sound(noise(2.0)))


def test_a_window_is_told_the_words_before_it_only_if_wished() -> None:
    transcriber, model = scripted("One two.", "Three.", window_s=5.0)
    transcriber.transcribe(sound(noise(12.0)))
    assert set(model.prompts) == {""}
    transcriber.transcribe(sound(noise(12.0)), SpeechOptions(carry_text=True))
    assert model.prompts[-1].endswith("Three.")
    assert model.prompts[-2:] != ["", ""]


def test_segments_are_told_as_they_come() -> None:
    transcriber, _ = scripted("One.", "Two.", window_s=5.0)
    heard: list[str] = []
    transcript = transcriber.transcribe(sound(noise(8.0)), on_segment=lambda segment: heard.append(segment.text))
    assert tuple(heard) == tuple(segment.text for segment in transcript.segments)


def test_an_hour_is_read_in_bounded_memory_and_can_be_cancelled() -> None:
    hour = np.zeros(3600 * SAMPLE_RATE, np.float32)
    hour[::7] = 0.01
    tracemalloc.start()
    transcriber, model = scripted("Words.", tells_times=True)
    transcript = transcriber.transcribe(sound(hour), cancelled=lambda: False)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(transcript.segments) == len(model.durations_s) >= 120
    assert max(model.durations_s) <= 30.0
    assert peak_bytes < hour.nbytes // 2 + hour.nbytes  # the test's own copy, and little more
    with pytest.raises(PerceptionCancelled):
        transcriber.transcribe(sound(hour), cancelled=lambda: len(model.durations_s) > 125)


def test_times_of_characters_are_those_of_their_words_or_segments() -> None:
    words = (Word(4.0, 4.5, " Two", 0.9), Word(4.5, 5.0, " three.", 0.9))
    segments = (TranscriptSegment(1.0, 2.0, "One."), TranscriptSegment(3.9, 5.1, "Two three.", words))
    transcript = Transcript.of(segments, 6.0, "en", None, "transcribe")
    assert transcript.text == "One. Two three."
    assert transcript.times_of(0, 4) == (1.0, 2.0)
    assert transcript.times_of(0, 9) == (1.0, 5.1)
    assert transcript.times_of(transcript.text.index("three"), len(transcript.text)) == (4.5, 5.1)
    assert Transcript.from_dict(transcript.to_dict()) == transcript
    assert Transcript("", (), 1.0).times_of(0, 1) is None


def test_the_pocket_model_tells_when_words_are_said(pocket: Transcriber, tmp_path: Path) -> None:
    spoken = speak("What is this?", tmp_path, "en-us+f3")
    padded = sound(np.concatenate([silence(2.0), spoken.samples]))
    (segment,) = pocket.transcribe(padded, SpeechOptions(words=True)).segments
    assert "".join(word.text for word in segment.words).strip() == segment.text == "What is this?"
    times = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 1.7 <= times[0] <= times[-1] <= padded.duration_s


@pytest.fixture(scope="session")
def pocket() -> Transcriber:
    if not POCKET.is_file():
        pytest.skip("the pocket speech model is not in the assets")
    transcriber = Transcriber(whisper_checkpoint(POCKET))
    transcriber.load()
    return transcriber


def speak(text: str, folder: Path, voice: str) -> Sound:
    """``text`` by espeak-ng, read as a user's file would be."""
    import shutil
    import subprocess

    from hearth.multimodal.sound import read_sound

    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    path = folder / "spoken.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True)
    return read_sound(path.read_bytes(), path.name)


@pytest.mark.parametrize("voice", ["en-us+f3", "en-gb-x-rp"])
def test_pocket_model_hears_a_question_in_a_voice_it_never_heard(
    pocket: Transcriber, tmp_path: Path, voice: str
) -> None:
    assert pocket.transcribe(speak("What is this?", tmp_path, voice)).text == "What is this?"


def test_pocket_model_finds_no_words_in_noise(pocket: Transcriber) -> None:
    for samples in (noise(3.0, 0.02), noise(6.0, 0.2)):
        with pytest.raises(NoSpeechError):
            pocket.transcribe(sound(samples))


def test_pocket_model_is_cancelled_within_a_window(pocket: Transcriber) -> None:
    started = time.monotonic()
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic() - started)
        return len(asked) > 4

    with pytest.raises(PerceptionCancelled):
        pocket.transcribe(sound(noise(10.0)), cancelled=cancelled)
    assert len(asked) == 5
