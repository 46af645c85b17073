"""Measures the pocket speech model through ``hearth.multimodal``: voices and sentences never trained on."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hearth.multimodal.sound import SAMPLE_RATE, Sound
from hearth.multimodal.transcription import NoSpeechError, Transcriber, whisper_checkpoint
from training.intervals import wilson
from training.speech_batches import coloured_noise, tones
from training.speech_text import everyday_sentence, held_out_sentence, world_sentence
from training.speech_voices import Speaker, draw_voice, held_out_voices

CHECKPOINT = Path(__file__).resolve().parent.parent / "assets" / "pocket" / "speech.pt"
BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True)
class SpeechScore:
    """A row of the evaluation table. ``score`` with its 95 % ``interval``; ``target`` is what it must reach."""

    skill: str
    n: int
    score: float
    interval: tuple[float, float]
    target: str


def edit_distance(said: list[str], heard: list[str]) -> int:
    """Fewest words to replace, drop or add to make ``heard`` of ``said``."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def normal_words(text: str) -> list[str]:
    """Words as Whisper's own normaliser compares them: no case, no punctuation, one spelling, numbers in digits."""
    from whisper.normalizers import EnglishTextNormalizer

    words: list[str] = EnglishTextNormalizer()(text).split()
    return words


def recording(samples: NDArray[np.float32], name: str = "evaluation.wav") -> Sound:
    """A Sound of 16 kHz samples that no file holds."""
    return Sound(samples.astype(np.float32), len(samples) / SAMPLE_RATE, "", name)


def spoken(rng: random.Random, sentence: str, speaker: Speaker, noise_db: float | None) -> NDArray[np.float32]:
    """``sentence`` in a held-out voice with pauses around it, in noise ``noise_db`` below the speech unless None."""
    samples = speaker.speak(sentence, draw_voice(rng, held_out_voices())).astype(np.float32) / 32768
    draw = np.random.default_rng(rng.getrandbits(32))
    pauses = [np.zeros(int(SAMPLE_RATE * draw.uniform(0.2, 0.8)), np.float32) for _ in range(2)]
    padded = np.concatenate([pauses[0], samples, pauses[1]])
    if noise_db is not None:
        power = float(np.sqrt(np.mean(samples**2)))
        padded = padded + coloured_noise(draw, len(padded)) * np.float32(power * 10 ** (-noise_db / 20))
    return np.asarray(padded / max(1.0, float(np.abs(padded).max())), np.float32)


def heard(transcriber: Transcriber, samples: NDArray[np.float32]) -> str:
    """What is transcribed, empty when no speech is found."""
    try:
        return transcriber.transcribe(recording(samples)).text
    except NoSpeechError:
        return ""


def _word_error_rate(
    skill: str,
    transcriber: Transcriber,
    n: int,
    draw: Callable[[random.Random], str],
    noise_db: float | None,
    target: str,
) -> SpeechScore:
    rng = random.Random(f"evaluation-{skill}")
    speaker = Speaker()
    errors, words = np.zeros(n), np.zeros(n)
    for index in range(n):
        sentence = draw(rng)
        said = normal_words(sentence)
        errors[index] = edit_distance(said, normal_words(heard(transcriber, spoken(rng, sentence, speaker, noise_db))))
        words[index] = len(said)
    chosen = np.random.default_rng(0).integers(0, n, (BOOTSTRAP_DRAWS, n))
    rates = errors[chosen].sum(1) / words[chosen].sum(1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return SpeechScore(skill, n, float(errors.sum() / words.sum()), (float(low), float(high)), target)


def _silent_share(transcriber: Transcriber, n: int) -> SpeechScore:
    draw = np.random.default_rng(11)
    silent = 0
    for index in range(n):
        length = int(SAMPLE_RATE * draw.uniform(1, 8))
        samples = np.zeros(length, np.float32)
        if index % 3:
            samples = (coloured_noise(draw, length) if index % 3 == 1 else tones(draw, length)).astype(np.float32)
            samples *= np.float32(10 ** (draw.uniform(-45, -6) / 20) / np.abs(samples).max())
        silent += heard(transcriber, samples) == ""
    low, high = wilson(silent, n)
    return SpeechScore("silence, noise and tones give no words", n, silent / n, (low, high), "≥ 98%")


def evaluate_speech(n: int = 100, checkpoint: Path = CHECKPOINT) -> list[SpeechScore]:
    """The rows of the table, ``n`` recordings each, the same ones every time. Raises RuntimeError without espeak-ng."""
    transcriber = Transcriber(whisper_checkpoint(checkpoint))
    rate = _word_error_rate
    return [
        rate("WER, world's questions, held-out voices", transcriber, n, world_sentence, None, "≤ 6%"),
        rate("WER, the same in noise of 15 dB", transcriber, n, world_sentence, 15.0, "≤ 15%"),
        rate("WER, held-out questions too", transcriber, n, held_out_sentence, None, "≤ 6%"),
        rate("WER, everyday sentences, held-out voices", transcriber, n, everyday_sentence, None, ""),
        _silent_share(transcriber, n),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    for row in evaluate_speech(options.n, options.checkpoint):
        print(f"{row.skill:45} {row.n:5} {row.score:.3f} [{row.interval[0]:.3f}, {row.interval[1]:.3f}] {row.target}")


if __name__ == "__main__":
    main()
