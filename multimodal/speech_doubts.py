"""Whether a window was decoded well, and which of its words were invented. Thresholds as in Whisper's paper."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hearth.multimodal.transcripts import TranscriptSegment

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MOST_COMPRESSION = 2.4  # of the text by zlib: above, the decoder repeats itself
UNSURE_LOGPROB = -1.0  # per token: below, the decoding failed
NO_SPEECH_PROB = 0.6  # with unsure words, or …
NO_SPEECH_ALONE = 0.9  # … alone, a window is taken to hold no speech
HOPELESS_LOGPROB = -2.0  # per token, a probability of 14 %: below, nothing was understood at any temperature


@dataclass(frozen=True, slots=True)
class Attempt:
    """One decoding of a window: what it gave, and how sure it was."""

    result: Any
    avg_logprob: float
    no_speech_prob: float
    compression: float


def decoding_failed(attempt: Attempt) -> bool:
    """Whether another temperature is worth trying: it repeats itself or is unsure, though somebody seems to speak."""
    if attempt.avg_logprob < UNSURE_LOGPROB and attempt.no_speech_prob > NO_SPEECH_PROB:
        return False
    return attempt.compression > MOST_COMPRESSION or attempt.avg_logprob < UNSURE_LOGPROB


def best_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """When all have failed: the surest of those that do not repeat themselves."""
    return max(attempts, key=lambda one: (one.compression <= MOST_COMPRESSION, one.avg_logprob))


def compression(text: str) -> float:
    """How many times shorter zlib makes ``text``; near 1 for a sentence, high for repetitions."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def is_invented(segment: TranscriptSegment, *, trusts_doubts: bool) -> bool:
    """Whether the model itself doubts that anything is said. ``trusts_doubts``: it was trained by Whisper's recipe."""
    if not any(letter.isalnum() for letter in segment.text):
        return True
    unsure = segment.avg_logprob < UNSURE_LOGPROB
    if segment.no_speech_prob > NO_SPEECH_ALONE or (segment.no_speech_prob > NO_SPEECH_PROB and unsure):
        return True
    return trusts_doubts and segment.avg_logprob < HOPELESS_LOGPROB
