"""What is heard in a recording, the options of a transcription, and what a speech model must offer for it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Task = Literal["transcribe", "translate"]
Samples = NDArray[np.float32]
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """``language``: a code of ``languages``, None to detect it. ``task``: what is said, or its English translation.
    ``words``: with the time of every word. ``carry_text``: a window is told the words before it."""

    language: str | None = None
    task: Task = "transcribe"
    words: bool = False
    carry_text: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its punctuation; times in seconds, ``probability`` in 0..1."""

    start_s: float
    end_s: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """What is said between two times, in seconds. ``avg_logprob`` per token, near 0 when sure; ``no_speech_prob`` in
    0..1; ``temperature`` at which it was decoded, above 0 where the first attempt failed."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that is said in a recording of ``duration_s`` seconds: ``text`` is its segments', joined by spaces.

    ``language`` is a code; ``language_prob`` in 0..1, None if the language was not detected but told or the only one.
    Of a translation it is the language that was spoken. ``made_by`` stands for the model and the options.
    """

    text: str
    segments: tuple[TranscriptSegment, ...]
    duration_s: float
    language: str = "en"
    language_prob: float | None = None
    task: Task = "transcribe"
    made_by: str = ""

    @classmethod
    def of(
        cls,
        segments: tuple[TranscriptSegment, ...],
        duration_s: float,
        language: str,
        language_prob: float | None,
        task: Task,
    ) -> Transcript:
        """With the text of its segments."""
        return cls(" ".join(segment.text for segment in segments), segments, duration_s, language, language_prob, task)

    def times_of(self, start: int, end: int) -> tuple[float, float] | None:
        """When the characters ``text[start:end]`` are said, in seconds; by the words where they are known, else by the
        segments. None for a transcript without segments."""
        if not self.segments:
            return None
        starts, at = [], 0
        for segment in self.segments:
            starts.append(at)
            at += len(segment.text) + 1
        first = self.segments[max(0, bisect_right(starts, start) - 1)]
        offset = start - starts[max(0, bisect_right(starts, start) - 1)]
        last = self.segments[max(0, bisect_right(starts, max(start, end - 1)) - 1)]
        return _word_start_s(first, offset), last.end_s

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transcript:
        """The reverse of ``to_dict``. Raises KeyError, TypeError, ValueError for anything else."""
        segments = tuple(
            TranscriptSegment(**{**segment, "words": tuple(Word(**word) for word in segment["words"])})
            for segment in fields["segments"]
        )
        return cls(**{**fields, "segments": segments})


@dataclass(frozen=True, slots=True)
class WindowTranscript:
    """What a model makes of one window: ``segments`` with times from its start; from ``finished_s`` on, something was
    begun that goes on behind the window."""

    segments: tuple[TranscriptSegment, ...]
    finished_s: float


class SpeechBackend(Protocol):
    """A loaded speech model. One thread at a time."""

    name: str
    """Of the program that runs it."""
    window_s: float
    """Longest window, in seconds of sound, on which the model is at its best; at most 30."""
    tells_times: bool
    """Whether it was trained by Whisper's recipe: it tells times, and its doubts mean what Whisper's do."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages it knows, at least one."""

    def language_probs(self, samples: Samples, check: Check) -> dict[str, float]:
        """How likely each language is in a window of at most 30 s at 16 kHz, shape (n_samples,)."""

    def decode(self, samples: Samples, options: SpeechOptions, prompt: str, check: Check) -> WindowTranscript:
        """The words in a window, in ``options.language``, which is given. ``prompt`` is what was said before it.

        ``check`` is called at least every 200 ms; what it raises ends the decoding.
        """


def _word_start_s(segment: TranscriptSegment, offset: int) -> float:
    """When the word at character ``offset`` of the segment begins; the segment's beginning where words are unknown."""
    at = 0
    for word in segment.words:
        found = segment.text.find(word.text.strip(), at)
        if found < 0:
            break
        at = found + len(word.text.strip())
        if at > offset:
            return word.start_s
    return segment.start_s
