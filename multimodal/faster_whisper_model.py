"""The only module that knows the faster-whisper package: a CTranslate2 folder → the words of one window of sound."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from hearth.models.errors import ModelError, ModelFileError
from hearth.multimodal.speech_doubts import FALLBACK_TEMPERATURES, MOST_COMPRESSION, NO_SPEECH_PROB, UNSURE_LOGPROB
from hearth.multimodal.transcripts import Check, Samples, SpeechOptions, TranscriptSegment, WindowTranscript, Word

T = TypeVar("T")
WINDOW_S = 30.0
SAMPLE_RATE = 16_000
BEAM_SIZE = 5
WAIT_S = 0.05  # between two looks whether a native call has ended or was cancelled
MISSING = (
    "faster-whisper is not installed; `uv sync --extra faster-whisper` (or pip install 'hearth[faster-whisper]') "
    "installs it"
)


def is_installed() -> bool:
    """Whether the package is there, without importing it."""
    from importlib.util import find_spec

    return find_spec("faster_whisper") is not None


class FasterWhisperModel:
    """A model of CTranslate2, as a SpeechBackend. One thread at a time.

    Native code cannot be interrupted: a cancel returns at once, and the window ends on a thread of its own.
    """

    name = "faster-whisper"
    window_s = WINDOW_S
    tells_times = True

    def __init__(self, folder: Path, module: Any = None) -> None:
        """``module`` stands for the package where it is handed in. Raises ModelFileError."""
        if module is None:
            if not is_installed():
                raise ModelFileError(f"{folder}: {MISSING}")
            import faster_whisper

            module = faster_whisper
        try:
            self._model = module.WhisperModel(
                str(folder),
                device="auto",
                compute_type="auto",  # the fastest that the device computes with
                cpu_threads=os.cpu_count() or 1,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise ModelFileError(f"{folder} is not a Whisper model of CTranslate2, or is cut off: {reason}") from error
        self.languages: tuple[str, ...] = tuple(self._model.supported_languages)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="hearth-faster-whisper")

    def language_probs(self, samples: Samples, check: Check) -> dict[str, float]:
        """How likely each language is in a window of at most 30 s at 16 kHz, shape (n_samples,)."""
        if self.languages == ("en",):
            return {"en": 1.0}
        _, _, found = self._watched(lambda _: self._model.detect_language(audio=samples), check)
        return {str(code): float(prob) for code, prob in found}

    def decode(self, samples: Samples, options: SpeechOptions, prompt: str, check: Check) -> WindowTranscript:
        """The words in ``samples``, shape (n_samples,), at most 30 s at 16 kHz, in ``options.language``."""
        duration_s = len(samples) / SAMPLE_RATE

        def work(abandoned: Event) -> tuple[TranscriptSegment, ...]:
            found, _ = self._model.transcribe(
                samples,
                language=options.language or "en",
                task=options.task,
                beam_size=BEAM_SIZE,
                temperature=list(FALLBACK_TEMPERATURES),
                compression_ratio_threshold=MOST_COMPRESSION,
                log_prob_threshold=UNSURE_LOGPROB,
                no_speech_threshold=NO_SPEECH_PROB,
                condition_on_previous_text=False,  # within a window; what stood before is the prompt
                initial_prompt=prompt or None,
                word_timestamps=options.words,
                vad_filter=False,  # silence has been left out already
            )
            segments: list[TranscriptSegment] = []
            for segment in found:  # decoded as they are asked for
                if abandoned.is_set():
                    break
                if segment.text.strip():
                    segments.append(_segment(segment, segments[-1].end_s if segments else 0.0, duration_s))
            return tuple(segments)

        return WindowTranscript(self._watched(work, check), duration_s)

    def _watched(self, work: Callable[[Event], T], check: Check) -> T:
        """``work`` on the worker's thread; what ``check`` raises abandons it."""
        abandoned = Event()
        future: Future[T] = self._worker.submit(work, abandoned)
        try:
            while True:
                check()
                try:
                    return future.result(timeout=WAIT_S)
                except TimeoutError:
                    if future.done():  # raised by the work itself
                        raise
        except (RuntimeError, ValueError, IndexError) as error:  # of native code, or of a folder that lacks parts
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise ModelError(f"faster-whisper failed ({reason}); convert the model again, or use a .pt") from error
        except BaseException:
            abandoned.set()
            future.cancel()
            raise


def _segment(found: Any, after_s: float, duration_s: float) -> TranscriptSegment:
    """In order and within the window."""
    start_s = min(duration_s, max(after_s, float(found.start)))
    end_s = min(duration_s, max(start_s, float(found.end)))
    words: list[Word] = []
    for word in found.words or ():
        first_s = min(duration_s, max(words[-1].end_s if words else 0.0, float(word.start)))
        last_s = min(duration_s, max(first_s, float(word.end)))
        words.append(Word(first_s, last_s, str(word.word), float(word.probability)))
    return TranscriptSegment(
        start_s,
        end_s,
        found.text.strip(),
        tuple(words),
        float(found.avg_logprob),
        float(found.no_speech_prob),
        float(found.temperature or 0.0),
    )
