"""Turns a recording into text: finds where it is not silent, cuts there, and has the speech model read each window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import RequestError
from hearth.multimodal.errors import PerceptionCancelled, PerceptionError
from hearth.multimodal.languages import LANGUAGES, language_name
from hearth.multimodal.sound import SAMPLE_RATE, Sound
from hearth.multimodal.speech_doubts import MOST_COMPRESSION, compression, is_invented
from hearth.multimodal.transcripts import (
    Check,
    SpeechBackend,
    SpeechOptions,
    Transcript,
    TranscriptSegment,
    WindowTranscript,
)
from hearth.multimodal.voice_regions import Span, Voice, end_of_window, find_voice, joined, windows

LONG_PAUSE_S = 5.0  # a pause up to so long stays inside a window of a model that tells times
QUIET_PEAK, TARGET_PEAK, MOST_GAIN = 0.25, 0.5, 10.0  # a quiet recording is amplified
SURE_OF_LANGUAGE = 0.5  # a language less likely than this is looked for in the next window too …
LANGUAGE_WINDOWS = 3  # … of so many
KEPT_SHARE = 0.5  # of a window must be finished if the next one is to begin where it broke off
PROMPT_CHARS = 800  # of the words before that a window is told; more than a model takes
PROMPT_TEMPERATURE = 0.5  # words decoded above are not told to the next window
LOCK_WAIT_S = 0.05

Progress = Callable[[float], None]


class NoSpeechError(PerceptionError):
    """Nobody speaks in a recording, or nothing of it is understood."""


def whisper_checkpoint(path: Path, size: str | None = None) -> Callable[[], SpeechBackend]:
    """Loads a checkpoint in OpenAI's format; ``size`` is the official one that it must be."""

    def load() -> SpeechBackend:
        from hearth.multimodal.whisper_model import WhisperModel

        return WhisperModel(path, size)

    return load


def converted_model(folder: Path) -> Callable[[], SpeechBackend]:
    """Loads a folder of CTranslate2 by faster-whisper."""

    def load() -> SpeechBackend:
        from hearth.multimodal.faster_whisper_model import FasterWhisperModel

        return FasterWhisperModel(folder)

    return load


class Transcriber:
    """Transcribes with one model, which is loaded on first use. Any thread; one recording after the other."""

    def __init__(
        self, load: Callable[[], SpeechBackend], options: SpeechOptions | None = None, identity: str = ""
    ) -> None:
        """``options`` are those of recordings that bring none. ``identity`` changes whenever the words might."""
        self.options = options or SpeechOptions()
        self.identity = identity
        self._load = load
        self._backend: SpeechBackend | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Loads the model if that has not been done. Raises ModelFileError."""
        with self._lock:
            self._loaded()

    def transcribe(
        self,
        sound: Sound,
        options: SpeechOptions | None = None,
        *,
        on_progress: Progress | None = None,
        on_segment: Callable[[TranscriptSegment], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Transcript:
        """The words of ``sound``. ``on_progress`` gets the share that is done, 0..1; the last call is 1. ``on_segment``
        gets what is heard as it comes.

        ``cancelled`` is asked between the blocks of the network, so a cancel takes effect within 200 ms.
        Raises NoSpeechError, PerceptionCancelled, ModelFileError, RequestError (a language or translation that the
        model does not know).
        """

        def check() -> None:
            if cancelled is not None and cancelled():
                raise PerceptionCancelled(f"transcribing {sound.name} was cancelled; nothing was kept")

        options = options or self.options
        report = on_progress or (lambda _: None)
        check()
        report(0.0)
        segments: list[TranscriptSegment] = []
        language, prob = options.language or "en", None
        voice = find_voice(sound.samples)
        if voice.regions:
            with self._alone(check):
                backend = self._loaded()
                _refuse_unknown(backend, options)
                reading = _Reading(backend, sound.samples, voice)
                language, prob = reading.language(options, check)
                for segment in reading.segments(replace(options, language=language), report, check):
                    segments.append(segment)
                    if on_segment is not None:
                        on_segment(segment)
        if not segments:
            raise NoSpeechError(
                f"no speech found in {sound.name} ({sound.duration_s:.1f} s); speak closer to the microphone "
                "or attach another recording"
            )
        report(1.0)
        return Transcript.of(tuple(segments), sound.duration_s, language, prob, options.task)

    @contextmanager
    def _alone(self, check: Check) -> Iterator[None]:
        """Waits for another recording to be done, but not beyond a cancel."""
        while not self._lock.acquire(timeout=LOCK_WAIT_S):
            check()
        try:
            yield
        finally:
            self._lock.release()

    def _loaded(self) -> SpeechBackend:
        if self._backend is None:
            self._backend = self._load()
        return self._backend


class _Reading:
    """One recording being read, window by window."""

    def __init__(self, backend: SpeechBackend, samples: NDArray[np.float32], voice: Voice) -> None:
        self._backend = backend
        self._samples = samples
        self._voice = voice
        pause_s = LONG_PAUSE_S if backend.tells_times else 0.0
        self._spans: list[Span] = joined(voice.regions, backend.window_s, pause_s)

    def language(self, options: SpeechOptions, check: Check) -> tuple[str, float | None]:
        """The language as told, or the likeliest in the first windows with its probability."""
        if options.language is not None:
            return options.language, None
        if len(self._backend.languages) == 1:
            return self._backend.languages[0], None
        sums: dict[str, float] = {}
        best, share = "en", 0.0
        first = islice(windows(self._samples, self._spans, self._backend.window_s), LANGUAGE_WINDOWS)
        for number, (start, end) in enumerate(first, 1):
            check()
            for code, prob in self._backend.language_probs(_amplified(self._samples[start:end]), check).items():
                sums[code] = sums.get(code, 0.0) + prob
            best = max(sums, key=lambda code: sums[code])
            share = sums[best] / number
            if share >= SURE_OF_LANGUAGE:
                break
        return best, share

    def segments(self, options: SpeechOptions, report: Progress, check: Check) -> Iterator[TranscriptSegment]:
        """What is said, in order. A window that breaks off in a sentence is followed by one that begins with it."""
        prompt = ""
        for start, end in self._spans:
            while start < end:
                check()
                stop = end_of_window(self._samples, start, end, self._backend.window_s)
                found = self._backend.decode(_amplified(self._samples[start:stop]), options, prompt, check)
                duration_s = (stop - start) / SAMPLE_RATE
                goes_on = stop < end and KEPT_SHARE * duration_s <= found.finished_s < duration_s
                next_start = start + int(found.finished_s * SAMPLE_RATE) if goes_on else stop
                kept = list(self._kept(found, start / SAMPLE_RATE, found.finished_s if goes_on else duration_s))
                yield from kept
                prompt = _prompt(prompt, kept) if options.carry_text else ""
                start = next_start
                report(start / len(self._samples))

    def _kept(self, found: WindowTranscript, offset_s: float, until_s: float) -> Iterator[TranscriptSegment]:
        """The segments that begin before ``until_s`` and were not invented, with times from the recording's start."""
        whole = " ".join(segment.text for segment in found.segments)
        if compression(whole) > MOST_COMPRESSION:  # at every temperature
            return
        for segment in found.segments:
            instantaneous = segment.end_s <= segment.start_s
            invented = instantaneous or is_invented(segment, trusts_doubts=self._backend.tells_times)
            if invented or segment.start_s >= until_s:
                continue
            moved = _moved(segment, offset_s)
            if not self._backend.tells_times or self._voice.sounds_between(moved.start_s, moved.end_s):
                yield moved


def _refuse_unknown(backend: SpeechBackend, options: SpeechOptions) -> None:
    known = backend.languages
    if options.task == "translate" and len(known) == 1:
        raise RequestError(
            f"this speech model knows {language_name(known[0])} only and cannot translate; choose a multilingual one "
            "by --speech-model, e.g. base"
        )
    if options.language is not None and options.language not in known:
        if len(known) == 1:
            reason = f"this speech model knows {language_name(known[0])} only"
        else:
            missing = ", ".join(language_name(code) for code in LANGUAGES if code not in known)
            reason = f"this speech model knows {len(known)} languages, without {missing}"
        raise RequestError(f"language {options.language!r}: {reason}; choose another model by --speech-model")


def _moved(segment: TranscriptSegment, offset_s: float) -> TranscriptSegment:
    def at(time_s: float) -> float:
        return round(time_s + offset_s, 3)

    words = tuple(replace(word, start_s=at(word.start_s), end_s=at(word.end_s)) for word in segment.words)
    return replace(segment, start_s=at(segment.start_s), end_s=at(segment.end_s), words=words)


def _prompt(before: str, kept: Sequence[TranscriptSegment]) -> str:
    """What the next window is told: the last words, none that were guessed at."""
    if any(segment.temperature > PROMPT_TEMPERATURE for segment in kept):
        return ""
    return " ".join([before, *(segment.text for segment in kept)]).strip()[-PROMPT_CHARS:]


def _amplified(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    peak = float(np.abs(samples).max(initial=0.0))
    if peak >= QUIET_PEAK or peak == 0.0:
        return samples
    return samples * np.float32(min(MOST_GAIN, TARGET_PEAK / peak))
