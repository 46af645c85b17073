"""Stage "text": the language model learns to copy, to read passages and to answer from them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import Rows, answer_loss, embed, next_token_loss, pack, pack_chats
from training.chats import Chat
from training.language import LanguageModel
from training.lookup import LOOKUP_WEIGHT, layers_of, lookup_losses
from training.loop import StagePlan, autocast, pick_device, run_stage
from training.prose import help_pages, sentences
from training.quotes import Quoter
from training.smalltalk import Talker
from training.sources import SOURCE_HEADS, source_lookups
from training.texts import Writer

CHATS_PER_STEP = 16
TALKS_PER_STEP = 48
TEXTS_PER_STEP = 32
TEXT_TOKENS = 128
SUMS_PER_STEP = 96
TALK_TOKENS = 128
GROUNDED_TOKENS = 512
CITATION_WEIGHT = 3.0  # of the number in “[2]”
FIRST_WEIGHTS = (4.0, 3.0)  # of the first tokens of a quoted sentence, which tell it from all others
QUOTED_SHARE = 0.35  # of the chats on passages
UNRELATED_SHARE = 0.08
TALK_SHARE = 0.2  # of them; other talk follows the last question
LAST_TOKENS = 96  # ids that are not drilled: the rarest words and the special tokens


class Drills:
    """Rows in which the second half repeats the first; only what can be copied is learnt, and a little prose."""

    def __init__(self, writer: Writer, tokenizer: Tokenizer, pages: list[str]) -> None:
        self.rng = writer.rng
        self.writer = writer
        self.tokenizer = tokenizer
        self.pages = pages
        self._n_plain = tokenizer.get_vocab_size() - LAST_TOKENS

    def rows(self, number: int) -> Rows:
        """``number`` rows of at most ``TEXT_TOKENS``."""
        examples: list[tuple[list[int], list[float]]] = []
        for _ in range(number):
            draw = self.rng.random()
            if self.pages and draw < 0.06:
                ids = self._ids(self.rng.choice(self.pages))[:TEXT_TOKENS]
                examples.append((ids, [0.3] * len(ids)))
                continue
            if draw < 0.5:
                first = [self.rng.randrange(self._n_plain) for _ in range(self.rng.randint(8, TEXT_TOKENS // 2))]
                examples.append((first + first, [0.0] * len(first) + [1.0] * len(first)))
                continue
            once, again = (self._ids(half) for half in self.writer.drill())
            ids = (once + again)[:TEXT_TOKENS]
            examples.append((ids, ([0.02] * len(once) + [1.0] * len(again))[:TEXT_TOKENS]))
        return pack(examples, self.rng, set())

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class Reading:
    """Losses of the text stage: drills and prose early, questions on passages throughout."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, pages: list[str], seed: int, device: torch.device
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.writer = Writer(self.rng)
        prose = sentences(pages)
        self.quoter = Quoter(self.writer, prose)
        self.talker = Talker(self.rng, prose=prose)
        self.drills = Drills(self.writer, tokenizer, pages)
        self.device = device

    def losses(self, progress: float) -> dict[str, Tensor]:
        drill_share = 0.2 if progress < 0.4 else 0.1
        shares = {"talk": 0.15, "sums": 0.2, "drill": drill_share, "grounded": 0.65 - drill_share}
        (name,) = self.rng.choices(tuple(shares), tuple(shares.values()))
        if name == "talk":
            rows = short_rows([self.talker.garbled() for _ in range(TALKS_PER_STEP)], self.tokenizer, self.rng)
        elif name == "sums":
            rows = short_rows([self.talker.sums() for _ in range(SUMS_PER_STEP)], self.tokenizer, self.rng)
        elif name == "drill":
            rows = self.drills.rows(TEXTS_PER_STEP)
        else:
            rows = grounded_rows(self.writer, self.quoter, self.tokenizer, CHATS_PER_STEP, progress)
            with autocast(self.device):
                return grounded_losses(self.model, self._moved(rows), self.tokenizer)
        with autocast(self.device):
            return {name: next_token_loss(self.model, self._moved(rows))}

    def _moved(self, rows: Rows) -> Rows:
        return Rows(rows.ids.to(self.device), rows.positions.to(self.device), rows.weights.to(self.device))


def short_rows(chats: list[Chat], tokenizer: Tokenizer, rng: random.Random) -> Rows:
    """Short chats, joined."""
    return pack_chats(chats, tokenizer, rng, row_tokens=TALK_TOKENS)


def grounded_rows(
    writer: Writer, quoter: Quoter, tokenizer: Tokenizer, number: int, progress: float, talker: Talker | None = None
) -> Rows:
    """Chats on passages: short ones first, then longer ones; several in a row, as turns that each bring their own. With
    ``talker`` some end with words that no source is asked for.
    """
    max_words = writer.rng.choice((30, 50, 80) if progress < 0.2 else (50, 90, 140, 200, 260))
    prompt_weight = 0.2 if progress < 0.1 else 0.0
    chats: list[Chat] = []
    for _ in range(number):
        draw = writer.rng.random()
        if draw < UNRELATED_SHARE:
            chats.append(writer.unrelated())
        elif draw < UNRELATED_SHARE + QUOTED_SHARE:
            chats.append(quoter.chat(max_words // 2))
        else:
            chats.append(writer.grounded(max_words=max_words))
        if talker and writer.rng.random() < TALK_SHARE:
            said = talker.fixed() if writer.rng.random() < 0.6 else talker.beyond()
            chats[-1] = replace(chats[-1], messages=chats[-1].messages + said.messages)
    rows = pack_chats(chats, tokenizer, writer.rng, prompt_weight=prompt_weight, row_tokens=GROUNDED_TOKENS)
    _weigh_first(rows, tokenizer)
    opening = tokenizer.token_to_id("Ġ[")
    if opening is not None:  # one token in ten tells where the answer stands
        cites = (rows.ids[:, :-1] == opening) & (rows.weights[:, 1:] == 1.0)
        rows.weights[:, 1:][cites] = CITATION_WEIGHT
    return rows


def grounded_losses(model: LanguageModel, rows: Rows, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Losses of the answers, and of where they look for what they quote."""
    lookups = {name: of_head.to(rows.ids.device) for name, of_head in source_lookups(rows, tokenizer).items()}
    hidden, entering = model.run(embed(model, rows), rows.positions, layers_of(SOURCE_HEADS))
    missed = lookup_losses(model, entering, rows.positions, lookups, SOURCE_HEADS)
    return {
        "grounded": answer_loss(model, rows, hidden),
        **{name: LOOKUP_WEIGHT * loss for name, loss in missed.items()},
    }


def _weigh_first(rows: Rows, tokenizer: Tokenizer) -> None:
    """Behind the colon that follows what an answer is about."""
    colon = tokenizer.token_to_id(":")
    for ids, weights in zip(rows.ids, rows.weights, strict=True):
        is_open = False
        for at in range(1, len(ids)):
            if weights[at] == 1.0 and weights[at - 1] < 1.0:
                is_open = True
            if is_open and ids[at - 1] == colon and weights[at - 1] >= 1.0:
                for later, weight in enumerate(FIRST_WEIGHTS[: len(ids) - at]):
                    weights[at + later] *= weight  # 0 behind the end of an answer
                is_open = False


def run(plan: StagePlan, model: LanguageModel, tokenizer: Tokenizer, data: Path, seed: int) -> None:
    device = pick_device()
    model.to(device)
    pages = help_pages(data)
    run_stage(plan, model, lambda step: Reading(model, tokenizer, pages, seed + 1 + step, device).losses)
