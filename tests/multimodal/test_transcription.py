"""Transcription: windows, silence, progress, cancel, bad checkpoints, and the pocket model where it is there."""

from __future__ import annotations

import importlib.resources
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.errors import ModelFileError
from hearth.multimodal.errors import PerceptionCancelled
from hearth.multimodal.sound import SAMPLE_RATE, Sound
from hearth.multimodal.transcription import NoSpeechError, Transcriber, sounding_regions, windows
from hearth.multimodal.whisper_model import WhisperModel, WindowTranscript, find_checkpoint

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

    answers: list[WindowTranscript]
    window_s: float = 30.0
    durations_s: list[float] = field(default_factory=list)

    def decode(self, samples: NDArray[np.float32], check: Callable[[], None] | None = None) -> WindowTranscript:
        if check is not None:
            check()
        self.durations_s.append(len(samples) / SAMPLE_RATE)
        return self.answers[min(len(self.durations_s), len(self.answers)) - 1]


def scripted(*answers: WindowTranscript, window_s: float = 30.0) -> tuple[Transcriber, ScriptedModel]:
    transcriber = Transcriber(Path("unused.pt"))
    model = ScriptedModel(list(answers), window_s)
    transcriber._model = model  # type: ignore[assignment]
    return transcriber, model


def said(text: str, no_speech_prob: float = 0.0, avg_logprob: float = -0.1) -> WindowTranscript:
    return WindowTranscript(text, no_speech_prob, avg_logprob)


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
    torch.save({"dims": vars(dims), "model_state_dict": state}, path)
    return path


def test_silence_costs_nothing_and_says_no_speech() -> None:
    transcriber, model = scripted(said("never"))
    with pytest.raises(NoSpeechError, match=r"no speech found in q\.wav \(3\.2 s\)"):
        transcriber.transcribe(sound(silence(3.2)))
    assert model.durations_s == []


def test_silence_does_not_load_the_model() -> None:
    with pytest.raises(NoSpeechError):
        Transcriber(Path("missing.pt")).transcribe(sound(silence(1.0)))


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
    transcriber, _ = scripted(said("One."), said("Two."))
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
    assert sounding_regions(noise(2.0, 0.004))
    assert sounding_regions(noise(2.0, 0.2))
    assert not sounding_regions(noise(2.0, 0.0002))
    assert not sounding_regions(np.zeros(0, np.float32))


def test_a_click_is_no_sound() -> None:
    samples = silence(2.0)
    samples[16_000:16_100] = 0.9
    assert sounding_regions(samples) == []


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
        model.decode(noise(2.0), check)
    assert asked == 3
    model.decode(noise(1.0))
    assert asked == 3


def test_a_decoder_that_loops_is_stopped(tiny_checkpoint: Path) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1

    WhisperModel(tiny_checkpoint).decode(noise(1.0), check)
    assert asked <= 1 + 16 + 8


def test_load_is_done_once_and_by_one_thread(tiny_checkpoint: Path) -> None:
    transcriber = Transcriber(tiny_checkpoint)
    threads = [threading.Thread(target=transcriber.load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = transcriber._model
    transcriber.load()
    assert transcriber._model is loaded


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"speech\.pt does not exist"):
        Transcriber(tmp_path / "speech.pt").transcribe(sound(noise(1.0)))


def test_truncated_and_foreign_checkpoints(tmp_path: Path, tiny_checkpoint: Path) -> None:
    import torch

    cut = tmp_path / "cut.pt"
    cut.write_bytes(tiny_checkpoint.read_bytes()[:5000])
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)
    for path in (cut, foreign):
        with pytest.raises(ModelFileError, match=f"{path.name}.* is not a Whisper checkpoint or is cut off") as caught:
            Transcriber(path).load()
        assert "\n" not in str(caught.value)


def test_checkpoint_by_name(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_checkpoint(str(tiny_checkpoint)) == tiny_checkpoint
    with pytest.raises(ModelFileError, match="'base' is not on this machine"):
        find_checkpoint("base")
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "base.pt").write_bytes(b"x")
    assert find_checkpoint("base") == tmp_path / "whisper" / "base.pt"


@pytest.fixture(scope="session")
def pocket() -> Transcriber:
    if not POCKET.is_file():
        pytest.skip("the pocket speech model is not in the assets")
    transcriber = Transcriber(POCKET)
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
