"""Measures for `hearth bench speech` how fast recordings are transcribed by every program that can run the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from hearth import assets
from hearth.attachments import read_files
from hearth.speech import (
    BACKENDS,
    Backend,
    backend_loader,
    choose_backend,
    options_of,
    save_measurements,
    speech_files,
)

if TYPE_CHECKING:
    from hearth.multimodal.sound import Sound
    from hearth.multimodal.speech_files import SpeechFiles
    from hearth.settings import Settings

DEFAULT_S = 25.0  # of the recording that is measured if none is given: the sample, again and again
PAUSE_S = 0.4
AGAIN_S = 30.0  # what took longer is not measured a second time

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BackendSpeed:
    """``real_time_factor``: seconds of work for a second of sound, below 1 is faster than listening."""

    backend: str
    load_s: float
    transcribe_s: float
    real_time_factor: float
    text: str


@dataclass(frozen=True, slots=True)
class SpeechBench:
    """``chosen`` is what `speech_backend = auto` uses from now on."""

    model: str
    sound: str
    duration_s: float
    backends: tuple[BackendSpeed, ...]
    chosen: str


def bench_speech(settings: Settings, audio: Path | None, say: Say) -> SpeechBench:
    """Measures every program that is installed and finds the model in its format, and keeps the figures for `auto`.

    Raises ModelFileError, PerceptionError, StoreError.
    """
    files = speech_files(settings)
    sound = _default_sound() if audio is None else _read(audio)
    measured = tuple(_measure(files, backend, settings, sound, say) for backend in _available(files))
    save_measurements(settings.data_dir, files.name, {one.backend: one.real_time_factor for one in measured})
    chosen = choose_backend(files, settings)
    return SpeechBench(files.name, sound.name, sound.duration_s, measured, chosen)


def _available(files: SpeechFiles) -> list[Backend]:
    from hearth.multimodal.faster_whisper_model import is_installed

    formats = {"whisper": files.checkpoint is not None, "faster-whisper": files.converted and is_installed()}
    return [backend for backend in BACKENDS if formats[backend]]


def _measure(files: SpeechFiles, backend: Backend, settings: Settings, sound: Sound, say: Say) -> BackendSpeed:
    from hearth.multimodal.transcription import NoSpeechError, Transcriber

    say(f"{backend}: loading {files.name}")
    started = perf_counter()
    transcriber = Transcriber(backend_loader(files, backend), options_of(settings))
    transcriber.load()
    load_s = perf_counter() - started
    say(f"{backend}: transcribing {sound.duration_s:.0f} s")
    text, best_s = "", float("inf")
    for _ in range(2):
        started = perf_counter()
        with suppress(NoSpeechError):
            text = transcriber.transcribe(sound).text
        best_s = min(best_s, perf_counter() - started)
        if best_s > AGAIN_S:
            break
    return BackendSpeed(backend, load_s, best_s, best_s / sound.duration_s, text)


def _read(audio: Path) -> Sound:
    from hearth.multimodal.sound import read_sound

    file = read_files(audio, "recording")[0]
    return read_sound(file.data, file.name)


def _default_sound() -> Sound:
    import numpy as np

    from hearth.multimodal.sound import SAMPLE_RATE, Sound

    spoken = _read(assets.samples_dir() / "question.wav")
    once = np.concatenate([spoken.samples, np.zeros(int(PAUSE_S * SAMPLE_RATE), np.float32)])
    samples = np.tile(once, int(DEFAULT_S * SAMPLE_RATE / len(once)))
    return Sound(samples, len(samples) / SAMPLE_RATE, spoken.sha256, f"{spoken.name}, repeated")
