"""Where a recording is not silent, and where to cut what is too long for one window of a speech model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hearth.multimodal.sound import SAMPLE_RATE

FRAME_SAMPLES = 320  # 20 ms
SILENCE_DB = -60.0  # dB of full scale: below, nothing is heard
ABOVE_FLOOR_DB = 6.0  # over the quietest tenth of the frames counts as sound …
BELOW_PEAK_DB = 35.0  # … but never more than so far under the loudest, so that steady noise is not cut away
PADDING_S = 0.2  # kept around sound
JOIN_S = 1.5  # a pause up to so long stays inside a window
SHORTEST_S = 0.1  # sound shorter than this is a click
CUT_FROM = 0.5  # a window that is too long is cut at its quietest place after this share of the longest window

Span = tuple[int, int]
"""(start, end) in samples."""


@dataclass(frozen=True)
class Voice:
    """``regions`` where something sounds, in order, apart by more than ``JOIN_S``; ``heard`` tells it for each 20 ms,
    shape (n_frames,)."""

    regions: tuple[Span, ...]
    heard: NDArray[np.bool_]

    def sounds_between(self, start_s: float, end_s: float) -> bool:
        """Whether anything sounds between two times, ``PADDING_S`` around them included."""
        per_s = SAMPLE_RATE / FRAME_SAMPLES
        first, last = int(max(0.0, start_s - PADDING_S) * per_s), int((end_s + PADDING_S) * per_s) + 1
        return bool(self.heard[first:last].any())


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


def find_voice(samples: NDArray[np.float32]) -> Voice:
    """Where ``samples``, shape (n_samples,) at 16 kHz, are not silent."""
    if not len(samples):
        return Voice((), np.zeros(0, np.bool_))
    loudness = loudness_db(samples)
    threshold = min(float(np.percentile(loudness, 10)) + ABOVE_FLOOR_DB, float(loudness.max()) - BELOW_PEAK_DB)
    heard = loudness > max(SILENCE_DB, threshold)
    at = np.flatnonzero(heard)
    if not len(at):
        return Voice((), heard)
    gaps = np.flatnonzero(np.diff(at) > JOIN_S * SAMPLE_RATE / FRAME_SAMPLES)
    firsts, lasts = at[np.r_[0, gaps + 1]], at[np.r_[gaps, len(at) - 1]]
    padding = int(PADDING_S * SAMPLE_RATE)
    regions = (
        (max(0, int(first) * FRAME_SAMPLES - padding), min(len(samples), (int(last) + 1) * FRAME_SAMPLES + padding))
        for first, last in zip(firsts, lasts, strict=True)
        if (last + 1 - first) * FRAME_SAMPLES >= SHORTEST_S * SAMPLE_RATE
    )
    return Voice(tuple(regions), heard)


def joined(regions: tuple[Span, ...], longest_s: float, pause_s: float) -> list[Span]:
    """``regions`` with neighbours in one as long as they fit into ``longest_s`` and pause for at most ``pause_s``."""
    spans: list[Span] = []
    for start, end in regions:
        if spans and start - spans[-1][1] <= pause_s * SAMPLE_RATE and end - spans[-1][0] <= longest_s * SAMPLE_RATE:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def windows(samples: NDArray[np.float32], spans: list[Span], longest_s: float) -> Iterator[Span]:
    """Cuts ``spans`` into windows of at most ``longest_s``, each cut at the quietest 0.2 s it can have."""
    for start, end in spans:
        while start < end:
            cut = end_of_window(samples, start, end, longest_s)
            yield start, cut
            start = cut


def end_of_window(samples: NDArray[np.float32], start: int, end: int, longest_s: float) -> int:
    """Where the window from ``start`` on ends: at ``end``, or at a quiet place if that is too far."""
    longest = int(longest_s * SAMPLE_RATE)
    if end - start <= longest:
        return end
    return start + _quietest(samples[start : start + longest], int(longest * CUT_FROM))


def _quietest(samples: NDArray[np.float32], first: int) -> int:
    """The middle of the quietest 0.2 s of ``samples`` from ``first`` on."""
    frames = 10
    power = np.power(10.0, loudness_db(samples[first:]) / 10.0)
    if len(power) <= frames:
        return len(samples)
    smooth = np.convolve(power, np.ones(frames), mode="valid")
    return first + (int(np.argmin(smooth)) + frames // 2) * FRAME_SAMPLES
