"""Batches of the speech training set: shards of clean speech → augmented recordings → log-mel windows and tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from training.speech_text import spelled
from training.speech_voices import SAMPLE_RATE, Utterance, read_shard

LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # of the CTC head, whose blank is 0
WINDOW_S = 30
POOL_UTTERANCES = 1024
LENGTH_STEP = 5120  # samples: 0.32 s, 32 mel frames
TOKENS_STEP = 6
NO_SPEECH_SHARE = 0.07


@dataclass(frozen=True)
class Recording:
    """``samples`` float32 (n_samples,) at 16 kHz; ``text`` is empty when nobody speaks. Speech lies in start..end."""

    samples: NDArray[np.float32]
    text: str
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True)
class BatchOptions:
    """``batch_s`` seconds of sound a batch, padding included; ``full`` pads every window to 30 s as Whisper does."""

    shards: Path
    token_ids: tuple[int, ...]
    seed: int
    batch_s: float = 40.0
    full: bool = False
    full_batch: int = 2
    max_s: float = 14.0
    timestamps_share: float = 0.06
    noise_clips: int = 24
    easy: bool = False  # single sentences, mostly clean: attention and CTC find the alignment sooner


def coloured_noise(rng: np.random.Generator, length: int) -> NDArray[np.float32]:
    """White to brown noise of unit power, shape (length,)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20.0) ** rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum, length)
    return np.asarray(noise / (noise.std() + 1e-9), np.float32)


def tones(rng: np.random.Generator, length: int) -> NDArray[np.float32]:
    """Hum, beeps or chords of unit power, shape (length,)."""
    time = np.arange(length) / SAMPLE_RATE
    total = np.zeros(length)
    onset = 0.0
    while onset < length / SAMPLE_RATE:
        lasting = rng.uniform(0.1, 1.5)
        inside = (time >= onset) & (time < onset + lasting)
        base = rng.uniform(60, 900)
        for harmonic in range(1, rng.integers(2, 7)):
            total[inside] += np.sin(2 * np.pi * base * harmonic * time[inside]) / harmonic * rng.random()
        onset += lasting * rng.uniform(0.5, 1.5)
    return np.asarray(total / (total.std() + 1e-9), np.float32)


class Noises:
    """Clips of noise and tones made once, from which stretches are cut: drawing them anew would cost half the CPU."""

    def __init__(self, rng: np.random.Generator, *, clips: int, clip_s: int = 40) -> None:
        length = clip_s * SAMPLE_RATE
        self._noise = [coloured_noise(rng, length) for _ in range(clips)]
        self._tones = [tones(rng, length) for _ in range(clips)]

    def cut(self, rng: np.random.Generator, length: int, *, tonal: bool = False) -> NDArray[np.float32]:
        """A stretch of shape (length,) of about unit power."""
        clips = self._tones if tonal else self._noise
        clip = clips[rng.integers(len(clips))]
        start = int(rng.integers(0, len(clip) - length))
        return clip[start : start + length]


def room(rng: np.random.Generator, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """``samples`` as heard in a small room by a plain microphone: decaying reflections and a band limit."""
    size = scipy.fft.next_fast_len(len(samples) + SAMPLE_RATE // 3, real=True)
    spectrum = scipy.fft.rfft(samples, size)
    if rng.random() < 0.5:
        length = int(SAMPLE_RATE * rng.uniform(0.05, 0.3))
        decay = np.exp(-6.9 * np.arange(length, dtype=np.float32) / length)
        response = rng.standard_normal(length, dtype=np.float32) * decay * np.float32(rng.uniform(0.02, 0.15))
        response[0] = 1.0
        spectrum *= scipy.fft.rfft(response, size)
    frequency = np.linspace(0, SAMPLE_RATE / 2, len(spectrum), dtype=np.float32)
    if rng.random() < 0.5:
        spectrum /= 1 + (frequency / np.float32(rng.uniform(3000, 7500))) ** 8
    if rng.random() < 0.5:
        squared = (frequency / np.float32(rng.uniform(50, 300))) ** 2
        spectrum *= squared / (1 + squared)
    heard = scipy.fft.irfft(spectrum, size)[: len(samples)]
    return np.asarray(heard / (np.abs(heard).max() + np.float32(1e-9)), np.float32)


def without_speech(rng: np.random.Generator, noises: Noises, length: int) -> Recording:
    """Silence, noise, tones or both."""
    kind = rng.integers(0, 4)
    samples = np.zeros(length, np.float32)
    if kind in (1, 3):
        samples += noises.cut(rng, length)
    if kind in (2, 3):
        samples += noises.cut(rng, length, tonal=True) * np.float32(rng.uniform(0.2, 2.0))
    peak = np.abs(samples).max() + 1e-9
    return Recording((samples / peak * 10 ** (rng.uniform(-50, -3) / 20)).astype(np.float32), "")


def record(rng: np.random.Generator, noises: Noises, utterances: list[Utterance], *, clean: bool = False) -> Recording:
    """One recording in which ``utterances`` are said one after another, with noise, room and level drawn."""
    lead, trail = rng.uniform(0.0, 0.6), rng.uniform(0.05, 0.9)
    pieces: list[NDArray[np.float32]] = [np.zeros(int(lead * SAMPLE_RATE), np.float32)]
    for index, utterance in enumerate(utterances):
        if index:
            pieces.append(np.zeros(int(rng.uniform(0.15, 0.9) * SAMPLE_RATE), np.float32))
        pieces.append(np.asarray(utterance.samples, np.float32) / np.float32(32768))
    end_s = sum(map(len, pieces)) / SAMPLE_RATE
    samples = np.concatenate([*pieces, np.zeros(int(trail * SAMPLE_RATE), np.float32)])
    samples /= np.abs(samples).max() + 1e-9
    if rng.random() < (0.1 if clean else 0.3):
        samples = room(rng, samples)
    power = float((samples**2).mean()) ** 0.5
    if rng.random() < (0.2 if clean else 0.5):
        noise = noises.cut(rng, len(samples), tonal=rng.random() < 0.2)
        samples = samples + noise * np.float32(power * 10 ** (-rng.uniform(25 if clean else 8, 40) / 20))
    level = 10 ** (rng.uniform(-26, 0) / 20) / (np.abs(samples).max() + 1e-9)
    text = " ".join(utterance.text for utterance in utterances)
    return Recording((samples * level).astype(np.float32), text, lead, end_s)


def log_mel(waveforms: Tensor) -> Tensor:
    """Whisper's features, each row normalised alone: (n, n_samples) → (n, 80, n_samples / 160)."""
    from whisper.audio import HOP_LENGTH, N_FFT, mel_filters

    spectrum = torch.stft(waveforms, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True)
    power = torch.view_as_real(spectrum[..., :-1]).square().sum(-1)  # without the root that abs() takes
    mel = mel_filters("cpu", 80) @ power
    log = mel.clamp(min=1e-10).log10()
    return (torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class SpeechBatches(IterableDataset[dict[str, Tensor]]):
    """An endless stream of batches of like length, decided by ``options.seed`` and the shards that exist.

    mel (n, 80, n_frames) · tokens (n, n_tokens) input ids of the used vocabulary · targets, same shape, -100 where no
    loss is taken · letters (n, n_letters) for CTC with letter_lengths (n,).
    """

    def __init__(self, options: BatchOptions) -> None:
        self.options = options

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        from whisper.tokenizer import get_tokenizer

        torch.set_num_threads(1)
        self._tokenizer = get_tokenizer(multilingual=False)
        self._waiting: dict[int, list[Recording]] = {}
        self._index = {token: index for index, token in enumerate(self.options.token_ids)}
        rng = np.random.default_rng(self.options.seed)
        self._noises = Noises(rng, clips=self.options.noise_clips)
        while True:
            shards = sorted(p for p in self.options.shards.glob("*.npy") if ".part" not in p.name)
            pool = self._pool(rng, shards)
            for recording in self._recordings(rng, pool):
                if batch := self._add(recording):
                    yield self._collate(rng, batch)

    def _pool(self, rng: np.random.Generator, shards: list[Path]) -> list[Utterance]:
        pool: list[Utterance] = []
        for shard in rng.choice(len(shards), size=min(4, len(shards)), replace=False):
            utterances = list(read_shard(shards[shard]))
            chosen = rng.choice(len(utterances), size=POOL_UTTERANCES // 4, replace=False)
            pool += [utterances[i] for i in chosen]
        return pool

    def _recordings(self, rng: np.random.Generator, pool: list[Utterance]) -> Iterator[Recording]:
        """The pool's utterances alone or several in a row, and here and there a recording without speech."""
        order = list(rng.permutation(len(pool)))
        limit_s = 28.0 if self.options.full else self.options.max_s
        while order:
            if rng.random() < NO_SPEECH_SHARE:
                yield without_speech(
                    rng, self._noises, int(SAMPLE_RATE * rng.uniform(0.5, limit_s if self.options.full else 5.0))
                )
                continue
            group = [pool[order.pop()]]
            if self.options.easy:
                yield record(rng, self._noises, group, clean=True)
                continue
            most = int(rng.choice([1, 1, 2, 4, 8] if self.options.full else [1, 1, 1, 1, 1, 1, 2, 3]))
            while order and len(group) < most:
                group.append(pool[order.pop()])
            while len(group) > 1 and sum(len(u.samples) for u in group) / SAMPLE_RATE + 0.9 * len(group) > limit_s:
                group.pop()
            yield record(rng, self._noises, group)

    def _add(self, recording: Recording) -> list[Recording] | None:
        """Puts a recording with others of its length; a full batch is handed out."""
        length = self._length(recording)
        if length > WINDOW_S * SAMPLE_RATE:
            return None
        waiting = self._waiting.setdefault(length, [])
        waiting.append(recording)
        options = self.options
        size = options.full_batch if options.full else max(1, int(options.batch_s * SAMPLE_RATE / length))
        if len(waiting) < size:
            return None
        return self._waiting.pop(length)

    def _length(self, recording: Recording) -> int:
        """Samples of the window it is padded to. Few different ones: every new shape costs the CPU backend dearly."""
        if self.options.full:
            return WINDOW_S * SAMPLE_RATE
        step = LENGTH_STEP if len(recording.samples) < 8 * LENGTH_STEP else 3 * LENGTH_STEP
        return -(-(len(recording.samples) + 1600) // step) * step

    def _row(self, rng: np.random.Generator, recording: Recording) -> tuple[list[int], list[int]]:
        """Input and target tokens of a recording."""
        tokenizer = self._tokenizer
        if not recording.text:
            return [tokenizer.sot, tokenizer.no_timestamps], [tokenizer.no_speech, tokenizer.eot]
        text = tokenizer.encode(" " + recording.text)
        if rng.random() < self.options.timestamps_share:
            first = tokenizer.timestamp_begin + round(recording.start_s * 50)
            last = tokenizer.timestamp_begin + round(recording.end_s * 50)
            tokens = [tokenizer.sot, first, *text, last, tokenizer.eot]
        else:
            tokens = [tokenizer.sot, tokenizer.no_timestamps, *text, tokenizer.eot]
        return tokens[:-1], tokens[1:]

    def _collate(self, rng: np.random.Generator, batch: list[Recording]) -> dict[str, Tensor]:
        waves = torch.zeros(len(batch), max(self._length(recording) for recording in batch))
        rows, letters = [], []
        for index, recording in enumerate(batch):
            waves[index, : len(recording.samples)] = torch.from_numpy(recording.samples)
            rows.append(self._row(rng, recording))
            letters.append([LETTERS.index(letter) + 1 for letter in spelled(recording.text)])
        known = [all(token in self._index for token in row[0] + row[1]) for row in rows]
        width = -(-max(len(row[0]) for row in rows) // TOKENS_STEP) * TOKENS_STEP
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        targets = torch.full((len(batch), width), -100)
        for index, (inputs, outputs) in enumerate(rows):
            if known[index]:
                tokens[index, : len(inputs)] = torch.tensor([self._index[t] for t in inputs])
                targets[index, : len(outputs)] = torch.tensor([self._index[t] for t in outputs])
        letter_lengths = torch.tensor([len(row) for row in letters])
        padded = torch.zeros(len(batch), max(1, int(letter_lengths.max())), dtype=torch.long)
        for index, row_letters in enumerate(letters):
            padded[index, : len(row_letters)] = torch.tensor(row_letters, dtype=torch.long)
        return {
            "mel": log_mel(waves),
            "tokens": tokens,
            "targets": targets,
            "letters": padded,
            "letter_lengths": letter_lengths,
        }


def stream(options: BatchOptions, workers: int = 1) -> Iterator[Any]:
    """Batches made in a process beside the training."""
    from torch.utils.data import DataLoader

    return iter(DataLoader(SpeechBatches(options), batch_size=None, num_workers=workers, prefetch_factor=8))


def seed_of(seed: int, step: int) -> int:
    """A seed for the stream that begins at ``step``, so that a resumed run does not repeat its batches."""
    return random.Random(f"{seed}-{step}").getrandbits(32)
