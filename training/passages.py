"""What answers from passages fail at: held-out names, questions or statements, and which part of an answer.

python -m training.passages --runs training/runs/pocket [--stage chat] [--n 50] [--show 3]

A token counts as right where it is the likeliest, those before it given, as in `training.breakdown`.
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from itertools import compress
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.batches import pack_chats
from training.chats import Chat
from training.checkpoints import saved_network
from training.invented import Inventor
from training.language import LanguageModel
from training.texts import Writer

ROOT = Path(__file__).resolve().parent.parent
MAX_WORDS = 260
PASSAGES = (4, 5, 6, 7, 8)
# what is held out: names, questions, statements
CONDITIONS = (
    (False, False, False), (True, False, False), (False, True, False), (False, False, True), (True, True, True),
)  # fmt: skip


def writer_of(rng: random.Random, names: bool, questions: bool, statements: bool) -> Writer:
    """One answerable question a chat, as in the exam, in words of which some are held out."""
    writer = Writer(rng, held_out=True)
    writer.asks_held_out, writer.states_held_out = questions, statements
    writer.invent = Inventor(rng, held_out=names)
    return writer


@torch.inference_mode()
def answered(language: LanguageModel, tokenizer: Tokenizer, chat: Chat) -> tuple[list[int], list[int]]:
    """The tokens of the answer, and what the model finds likeliest at each."""
    rows = pack_chats([chat], tokenizer, random.Random(0))
    logits = language.logits(language(language.embedding(rows.ids), rows.positions)[:, :-1])
    learnt = rows.weights[:, 1:] > 0
    return rows.ids[:, 1:][learnt].tolist(), logits[learnt].argmax(-1).tolist()


def judged(wanted: list[int], found: list[int], colon: int) -> dict[str, bool]:
    """Whether the answer is right: what it takes up, the first token of what it quotes, the rest, and all."""
    right = [a == b for a, b in zip(wanted, found, strict=True)]
    at = wanted.index(colon) + 1  # of the first quoted token
    return {"taken up": all(right[:at]), "first": right[at], "rest": all(right[at + 1 :]), "all": all(right)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs" / "pocket")
    parser.add_argument("--stage", default="chat", help="whose checkpoint")
    parser.add_argument("--n", type=int, default=50, help="questions of each condition")
    parser.add_argument("--show", type=int, default=0, help="so many wrong answers of each, <<wanted|likeliest>>")
    args = parser.parse_args()
    network, tokenizer = saved_network(args.runs, args.stage)
    language = network.language.eval()
    (colon,) = tokenizer.encode(":", add_special_tokens=False).ids
    print(f"{'held out':30}{'taken up':>9}{'first':>9}{'rest':>9}{'all':>9}")
    for names, questions, statements in CONDITIONS:
        rng = random.Random(5)
        writer = writer_of(rng, names, questions, statements)
        parts = {"taken up": 0, "first": 0, "rest": 0, "all": 0}
        shown: list[str] = []
        for _ in range(args.n):
            chat = writer.grounded(max_words=MAX_WORDS, passages_of=rng.choice(PASSAGES))
            wanted, found = answered(language, tokenizer, chat)
            marks = judged(wanted, found, colon)
            parts = {part: number + marks[part] for part, number in parts.items()}
            if not marks["all"] and len(shown) < args.show:
                said = "".join(map(partial(_marked, tokenizer), wanted, found))
                shown.append(f"    {chat.messages[-2].text.splitlines()[-1]} {said}")
        kept = ", ".join(compress(("names", "questions", "statements"), (names, questions, statements)))
        counts = "".join(f"{number / args.n:9.0%}" for number in parts.values())
        print(f"{kept or 'nothing':30}{counts}", *shown, sep="\n")


def _marked(tokenizer: Tokenizer, wanted: int, found: int) -> str:
    said: str = tokenizer.decode([wanted])
    return said if wanted == found else f"<<{said}|{tokenizer.decode([found])}>>"


if __name__ == "__main__":
    main()
