"""Trains the byte-level BPE that language model and text encoder share; llama.cpp knows its split rule as "smollm"."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.chats import SPECIAL_TOKENS
from training.products import products
from training.texts import Writer
from training.world import COLOURS, NAMES, NUMBERS, SHAPES, as_spoken, spoken_sentence

N_TOKENS = 5120
DRAWN_REPEATS = 400  # often enough that a word which a visual token is to say becomes one token


_WORDS_TEXT = (
    "left right top bottom middle background text picture pictures bar bars chart value first second third "
    "Neither None seven eight nine ten says reads word number written printed plus minus times equals more fewer "
    "bigger smaller larger above below both differ common none same different Yes No product kind colour place "
    "count JSON true false"
)
_WORDS = tuple(_WORDS_TEXT.split())
ROOT = Path(__file__).resolve().parent.parent


def hearth_pages() -> list[str]:
    """Hearth's own pages, in the order of their names."""
    return [path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]


def corpus(data: Path | None, seed: int) -> Iterator[str]:
    """World sentences, passages and help pages, in about the shares of training; without ``data`` no help pages."""
    rng = random.Random(seed)
    writer = Writer(rng)
    for name in NAMES:
        yield f"It is a {name}. There are two {name}s. {name} " * DRAWN_REPEATS
    for product in products(data).values() if data else ():
        yield f"It is {product.name}. a {product.kind} " * DRAWN_REPEATS
    for word in (*SHAPES, *NUMBERS, *COLOURS, *_WORDS):
        yield f"{word} a {word} the {word}s " * DRAWN_REPEATS
    yield from hearth_pages()
    for _ in range(30_000):
        sentence = spoken_sentence(rng)
        yield sentence if rng.random() < 0.6 else as_spoken(sentence)
    for _ in range(12_000):
        for message in writer.grounded().messages:
            yield message.text
    pages = data / "tldr-pages.jsonl.xz" if data else None
    if pages and pages.is_file():
        with lzma.open(pages, "rt", encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line, _ in zip(lines, range(1500), strict=False))


def train_tokenizer(data: Path | None, seed: int) -> Tokenizer:
    """A tokenizer of ``N_TOKENS`` entries; the special ones come last and ``<|end|>`` has the highest id.

    open_clip takes a text's feature at its highest id, which is how the end of the text is found.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(data, seed), trainer)
    if tokenizer.get_vocab_size() != N_TOKENS - len(SPECIAL_TOKENS):
        raise ValueError(f"the corpus gave {tokenizer.get_vocab_size()} tokens instead of {N_TOKENS}: it is too small")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
