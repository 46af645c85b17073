"""Speech by espeak-ng, drawn from a seed, kept in shards: utterances of 16 kHz samples with what was said."""

from __future__ import annotations

import argparse
import ctypes
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from training.speech_text import training_sentence, word_lists

SAMPLE_RATE = 16_000
UTTERANCES_PER_SHARD = 2_000
ACCENTS = (
    "en-gb",
    "en-gb",
    "en-us",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice and how it speaks: words per minute, pitch 0..99, pause between words in 10 ms."""

    name: str
    words_per_minute: int = 165
    pitch: int = 50
    word_gap: int = 0


def held_out_voices() -> tuple[str, ...]:
    """The accent en-gb-x-rp and the variants f3, m5, Michael, grandma, steph3 and klatt4 are never trained on."""
    return word_lists()["held_out_voices"]


def draw_voice(rng: random.Random, names: Sequence[str] | None = None) -> Voice:
    """A voice of the training set, or one of ``names``, at a drawn speed and pitch."""
    if names is None:
        variant = "" if rng.random() < 0.15 else "+" + rng.choice(word_lists()["variants"])
        name = rng.choice(ACCENTS) + variant
    else:
        name = rng.choice(names)
    gap = rng.randint(1, 8) if rng.random() < 0.2 else 0
    return Voice(name, rng.randint(120, 210), rng.randint(25, 75), gap)


class Speaker:
    """espeak-ng inside this process (2 ms a sentence instead of 70 by its command). Not for several threads."""

    _SYNCHRONOUS, _UTF8, _RATE, _PITCH, _WORD_GAP = 2, 1, 1, 3, 7  # constants of espeak-ng/speak_lib.h

    def __init__(self) -> None:
        """Raises RuntimeError when the library is not installed."""
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise RuntimeError("espeak-ng is not installed; on Debian: apt-get install espeak-ng") from error
        self._sample_rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, None, 0)
        self._pieces: list[NDArray[np.int16]] = []
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = callback(self._collect)  # kept: the library holds only a pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str, voice: Voice) -> NDArray[np.int16]:
        """``text`` spoken, silence cut off, shape (n_samples,) at 16 kHz. Raises ValueError: no such voice."""
        name = voice.name.replace("en-gb+", "gmw/en+") if voice.name != "en-gb" else "gmw/en"
        if self._library.espeak_SetVoiceByName(name.encode()):
            raise ValueError(f"espeak-ng has no voice {voice.name!r}; `espeak-ng --voices=en` lists them")
        for parameter, value in (
            (self._RATE, voice.words_per_minute),
            (self._PITCH, voice.pitch),
            (self._WORD_GAP, voice.word_gap),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, self._UTF8, None, None)
        self._library.espeak_Synchronize()
        return _trimmed(np.concatenate([np.zeros(1, np.int16), *self._pieces]), self._sample_rate)


def _trimmed(samples: NDArray[np.int16], rate: int) -> NDArray[np.int16]:
    common = int(np.gcd(rate, SAMPLE_RATE))
    resampled = resample_poly(samples.astype(np.float32), SAMPLE_RATE // common, rate // common)
    audible = np.flatnonzero(np.abs(resampled) > 100)
    if not len(audible):
        return np.zeros(SAMPLE_RATE // 10, np.int16)
    margin = SAMPLE_RATE // 25  # 40 ms
    kept = resampled[max(0, audible[0] - margin) : audible[-1] + margin]
    return np.asarray(np.clip(kept, -32768, 32767), np.int16)


@dataclass(frozen=True)
class Utterance:
    """``samples`` int16 of shape (n_samples,) at 16 kHz saying ``text``."""

    samples: NDArray[np.int16]
    text: str


def write_shard(folder: Path, index: int, *, seed: int, world_share: float) -> None:
    """Synthesises shard ``index`` (once: an existing one is kept). The index and ``seed`` decide its content."""
    target = folder / f"{index:05d}.npy"
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"{seed}-{index}")
    speaker = Speaker()
    texts, pieces = [], []
    for _ in range(UTTERANCES_PER_SHARD):
        text = training_sentence(rng, world_share=world_share)
        texts.append(text)
        pieces.append(speaker.speak(text, draw_voice(rng)))
    lengths = [len(piece) for piece in pieces]
    target.with_suffix(".json").write_text(json.dumps({"texts": texts, "lengths": lengths}))
    part = target.with_suffix(".part.npy")
    np.save(part, np.concatenate(pieces))
    part.rename(target)


def read_shard(path: Path) -> Iterator[Utterance]:
    """The utterances of a shard, mapped into memory."""
    said = json.loads(path.with_suffix(".json").read_text())
    samples = np.load(path, mmap_mode="r")
    start = 0
    for text, length in zip(said["texts"], said["lengths"], strict=True):
        yield Utterance(samples[start : start + length], text)
        start += length


def main() -> None:
    """Writes shards ahead of (or beside) training: ``python -m training.speech_voices 0 20``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, help="one past the last shard")
    parser.add_argument("--folder", type=Path, default=Path("training/runs/speech/shards"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world-share", type=float, default=0.7)
    options = parser.parse_args()
    for index in range(options.first, options.last):
        write_shard(options.folder, index, seed=options.seed, world_share=options.world_share)
        print(f"shard {index} written", flush=True)


if __name__ == "__main__":
    main()
