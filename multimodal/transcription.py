"""Turns a recording into text: finds where it is not silent, cuts there, and has the speech model read each window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hearth.multimodal.errors import PerceptionCancelled, PerceptionError
from hearth.multimodal.sound import SAMPLE_RATE, Sound

if TYPE_CHECKING:
    from hearth.multimodal.whisper_model import WhisperModel

FRAME_SAMPLES = 320  # 20 ms
SILENCE_DB = -60.0  # dB of full scale: below, nothing is heard
ABOVE_FLOOR_DB = 6.0  # over the quietest tenth of the frames counts as sound …
BELOW_PEAK_DB = 35.0  # … but never more than so far under the loudest, so that steady noise is not cut away
PADDING_S = 0.2  # kept around sound
JOIN_S = 1.5  # a pause up to so long stays inside a window
SHORTEST_S = 0.1  # sound shorter than this is a click
CUT_FROM = 0.5  # a window that is too long is cut at its quietest place after this share of the longest window

QUIET_PEAK, TARGET_PEAK, MOST_GAIN = 0.25, 0.5, 10.0  # a quiet recording is amplified

NO_SPEECH_PROB = 0.6  # with unsure words, or …
NO_SPEECH_ALONE = 0.9  # … alone, a window is taken to hold no speech
UNSURE_LOGPROB = -1.0

LOCK_WAIT_S = 0.05


class NoSpeechError(PerceptionError):
    """Nobody speaks in a recording, or nothing of it is understood."""


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """What is said between two times, in seconds from the start of the recording."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that is said in a recording of ``duration_s`` seconds."""

    text: str
    segments: tuple[TranscriptSegment, ...]
    duration_s: float


class Transcriber:
    """Transcribes with one checkpoint, which is loaded on first use. Any thread; one recording after the other."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._model: WhisperModel | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Loads the model if that has not been done. Raises ModelFileError."""
        with self._lock:
            self._loaded()

    def transcribe(
        self,
        sound: Sound,
        *,
        on_progress: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Transcript:
        """The words of ``sound``. ``on_progress`` gets the share that is done, 0..1; the last call is 1.

        ``cancelled`` is asked between the blocks of the network, so a cancel takes effect within 200 ms.
        Raises NoSpeechError, PerceptionCancelled, ModelFileError.
        """

        def check() -> None:
            if cancelled is not None and cancelled():
                raise PerceptionCancelled(f"transcribing {sound.name} was cancelled; nothing was kept")

        report = on_progress or (lambda _: None)
        check()
        report(0.0)
        segments: list[TranscriptSegment] = []
        regions = sounding_regions(sound.samples)
        if regions:
            with self._alone(check):
                model = self._loaded()
                for start, end in windows(sound.samples, regions, model.window_s):
                    check()
                    if text := _words(model, sound.samples[start:end], check):
                        segments.append(TranscriptSegment(start / SAMPLE_RATE, end / SAMPLE_RATE, text))
                    report(end / len(sound.samples))
        if not segments:
            raise NoSpeechError(
                f"no speech found in {sound.name} ({sound.duration_s:.1f} s); speak closer to the microphone "
                "or attach another recording"
            )
        report(1.0)
        return Transcript(" ".join(segment.text for segment in segments), tuple(segments), sound.duration_s)

    @contextmanager
    def _alone(self, check: Callable[[], None]) -> Iterator[None]:
        """Waits for another recording to be done, but not beyond a cancel."""
        while not self._lock.acquire(timeout=LOCK_WAIT_S):
            check()
        try:
            yield
        finally:
            self._lock.release()

    def _loaded(self) -> WhisperModel:
        if self._model is None:
            from hearth.multimodal.whisper_model import WhisperModel

            self._model = WhisperModel(self.checkpoint)
        return self._model


def _words(model: WhisperModel, samples: NDArray[np.float32], check: Callable[[], None]) -> str:
    """The text of one window, empty when nobody speaks in it."""
    found = model.decode(_amplified(samples), check)
    unsure = found.avg_logprob < UNSURE_LOGPROB
    if found.no_speech_prob > NO_SPEECH_ALONE or (found.no_speech_prob > NO_SPEECH_PROB and unsure):
        return ""
    return found.text if any(letter.isalnum() for letter in found.text) else ""


def _amplified(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    peak = float(np.abs(samples).max(initial=0.0))
    if peak >= QUIET_PEAK or peak == 0.0:
        return samples
    return samples * np.float32(min(MOST_GAIN, TARGET_PEAK / peak))


def loudness_db(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Loudness of each 20 ms in dB of full scale, shape (n_frames,); the last frame may be shorter."""
    whole = len(samples) // FRAME_SAMPLES
    power = np.empty(-(-len(samples) // FRAME_SAMPLES), np.float32)
    frames = samples[: whole * FRAME_SAMPLES].reshape(whole, FRAME_SAMPLES)
    np.einsum("ij,ij->i", frames, frames, out=power[:whole])
    power[:whole] /= FRAME_SAMPLES
    if len(power) > whole:
        power[whole] = float(np.mean(samples[whole * FRAME_SAMPLES :] ** 2))
    return np.asarray(10.0 * np.log10(power + np.float32(1e-12)), np.float32)


def sounding_regions(samples: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Where ``samples`` are not silent: (start, end) in samples, in order, apart by more than ``JOIN_S``."""
    if not len(samples):
        return []
    loudness = loudness_db(samples)
    threshold = min(float(np.percentile(loudness, 10)) + ABOVE_FLOOR_DB, float(loudness.max()) - BELOW_PEAK_DB)
    heard = np.flatnonzero(loudness > max(SILENCE_DB, threshold))
    if not len(heard):
        return []
    gaps = np.flatnonzero(np.diff(heard) > JOIN_S * SAMPLE_RATE / FRAME_SAMPLES)
    firsts, lasts = heard[np.r_[0, gaps + 1]], heard[np.r_[gaps, len(heard) - 1]]
    padding = int(PADDING_S * SAMPLE_RATE)
    return [
        (max(0, int(first) * FRAME_SAMPLES - padding), min(len(samples), (int(last) + 1) * FRAME_SAMPLES + padding))
        for first, last in zip(firsts, lasts, strict=True)
        if (last + 1 - first) * FRAME_SAMPLES >= SHORTEST_S * SAMPLE_RATE
    ]


def windows(
    samples: NDArray[np.float32], regions: list[tuple[int, int]], longest_s: float
) -> Iterator[tuple[int, int]]:
    """Cuts ``regions`` into windows of at most ``longest_s``, each cut at the quietest 0.2 s it can have."""
    longest = int(longest_s * SAMPLE_RATE)
    for start, end in regions:
        while end - start > longest:
            cut = start + _quietest(samples[start : start + longest], int(longest * CUT_FROM))
            yield start, cut
            start = cut
        yield start, end


def _quietest(samples: NDArray[np.float32], first: int) -> int:
    """The middle of the quietest 0.2 s of ``samples`` from ``first`` on."""
    frames = 10
    power = np.power(10.0, loudness_db(samples[first:]) / 10.0)
    if len(power) <= frames:
        return len(samples)
    smooth = np.convolve(power, np.ones(frames), mode="valid")
    return first + (int(np.argmin(smooth)) + frames // 2) * FRAME_SAMPLES
