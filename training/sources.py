"""Where answers from passages are to look: at the sentence that they quote, and from there at its beginning.

An answer says what it is about, and then quotes the sentence that tells it. The sentence is known by a word in its
middle, but it must be quoted from its first token on, and a token cannot know what comes after it. So it takes
steps, which a short training hardly finds. One head looks from every token of a passage at how its sentence begins, and
another from an answer at the word that the sentence shares with what is asked. A third, which is given as the copy
circuit is, looks from every token of a quotation at the one to be said next: many sentences begin with “The”. All are
told where that is.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from training.batches import Rows
from training.copying import N_CODE
from training.language import LanguageModel
from training.lookup import Head, Lookups, code_of_previous, hand_on, start_matching

QUOTING = Head(5, 2, 0.5)
SOURCE_HEADS = {"beginning": Head(1, 1), "source": Head(3, 1), "quoted": QUOTING}
ENDS = (".", "!", "?", "Ċ", "].", "]")  # tokens behind which a sentence begins
BEGINNING = 3  # tokens that tell a sentence from others
RECOGNISED = 5  # tokens of a quotation by which its source is found
UNDECIDED = 4  # tokens of a quotation before which it is looked up
QUOTED_MATCHING = 6.0


@torch.no_grad()
def start_with_quoting(model: LanguageModel) -> None:
    """Overwrites the head "quoted" of ``model``, which has its copy circuit: it looks for what stands behind the token
    said last, and hands on the directions in which words differ most.
    """
    noting = torch.eye(model.config.n_embd)[-N_CODE:]
    start_matching(model, QUOTING, code_of_previous(model), noting, QUOTED_MATCHING)
    basis = torch.linalg.svd(model.embedding.weight, full_matrices=False).Vh
    hand_on(model, QUOTING, basis, QUOTING.handed_on or 0.0)


def source_lookups(rows: Rows, tokenizer: Tokenizer) -> dict[str, Lookups]:
    """For each of ``SOURCE_HEADS``, of rows of chats on passages."""
    ends = {token for end in ENDS if (token := tokenizer.token_to_id(end)) is not None}
    colon = tokenizer.token_to_id(":")
    found: dict[str, list[tuple[int, int, list[int]]]] = {name: [] for name in SOURCE_HEADS}
    for row, (tokens, weights) in enumerate(zip(rows.ids.tolist(), (rows.weights > 0).tolist(), strict=True)):
        starts = _sentence_starts(tokens, ends)
        used = len(tokens) - next((at for at, token in enumerate(reversed(tokens)) if token), len(tokens))
        for at in range(used):
            if not weights[at] and at > starts[at]:
                found["beginning"].append((row, at, list(range(starts[at], min(starts[at] + BEGINNING, at + 1)))))
        for topic, quoted in _quotations(tokens, weights, colon):
            source, length = _source(tokens, quoted, starts)
            if source is not None:
                alike = sorted(set(starts[:quoted]))
                for later in range(length):  # where all that was said up to there stands
                    alike = [at for at in alike if tokens[at + later] == tokens[quoted + later]]
                    found["quoted"].append((row, quoted - 1 + later, [at + later for at in alike]))
                matching = _matching(tokens, set(tokens[topic:quoted]), source, starts)
                found["source"] += [(row, quoted - 1 + later, matching) for later in range(UNDECIDED)]
    return {name: Lookups.of(queries, rows.ids.shape[1]) for name, queries in found.items()}


def _sentence_starts(tokens: list[int], ends: set[int]) -> list[int]:
    """For each place the one where its sentence begins."""
    starts, start = [], 0
    for at in range(len(tokens)):
        if at and tokens[at - 1] in ends and tokens[at] not in ends:
            start = at
        starts.append(start)
    return starts


def _quotations(tokens: list[int], is_answer: list[bool], colon: int | None) -> list[tuple[int, int]]:
    """Of every answer that has one: its first place, and the first behind its first colon."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    for at in range(1, len(tokens)):
        if is_answer[at] and not is_answer[at - 1]:
            start = at
        elif not is_answer[at]:
            start = None
        if start is not None and tokens[at] == colon and at + RECOGNISED < len(tokens):
            found.append((start, at + 1))
            start = None
    return found


def _source(tokens: list[int], quoted: int, starts: list[int]) -> tuple[int | None, int]:
    """Where what is quoted from ``quoted`` on stands ahead, at the beginning of a sentence, and how many tokens of it;
    the longest such.
    """
    best, longest = None, RECOGNISED - 1
    for at in sorted(set(starts[:quoted])):
        length = 0
        while at + length < quoted and quoted + length < len(tokens) and tokens[at + length] == tokens[quoted + length]:
            length += 1
        if length > longest:
            best, longest = at, length
    return best, longest


def _matching(tokens: list[int], topic: set[int], source: int, starts: list[int]) -> list[int]:
    """Where the sentence that begins at ``source`` says what it shares with the topic and few others; else its end."""
    end = source
    while end + 1 < len(tokens) and starts[end + 1] == source:
        end += 1
    shared = [at for at in range(source, end + 1) if tokens[at] in topic]
    if not shared:
        return [end]
    often = {at: tokens.count(tokens[at]) for at in shared}
    rarest = min(often.values())
    return [at for at in shared if often[at] <= 2 * rarest]
