"""Packs chats and texts into rows for the language model: ids, positions with gaps, and which ids are to be learnt."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from training.chats import IMAGE_ID, Chat, encode, special_id
from training.language import LanguageModel

GAP_SHARE = 0.15  # of the rows get a jump in position, as if a long chat had been cut out
MAX_GAP = 1400
LENGTH_STEP = 128  # rows are padded to a multiple of it: compiled code is made for every length anew


@dataclass(frozen=True)
class Rows:
    """Right-padded rows of shape (batch, length). ``weights`` are 0 where a token is not to be learnt; ``order`` tells
    which chats stand in them one after the other, ``starts`` for each the row and the place where it begins. All but
    the first of a row lack their first token: they begin one place before the first that they have.
    """

    ids: Tensor
    positions: Tensor
    weights: Tensor
    order: tuple[int, ...] = ()
    starts: tuple[tuple[int, int], ...] = ()


def pack(examples: list[tuple[list[int], list[float]]], rng: random.Random, boundaries: set[int]) -> Rows:
    """Rows from (ids, weights); position gaps open only in front of ids in ``boundaries`` (the role tokens)."""
    longest = max(len(ids) for ids, _ in examples)
    longest += -longest % LENGTH_STEP
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    weights = torch.zeros(len(examples), longest)
    positions = torch.arange(longest).repeat(len(examples), 1)
    for row, (tokens, row_weights) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(tokens)] = torch.tensor(row_weights)
        if rng.random() < GAP_SHARE:
            at = rng.choice([i for i, token in enumerate(tokens) if token in boundaries] or [0])
            positions[row, at:] += rng.randint(1, MAX_GAP)
    return Rows(ids, positions, weights)


def pack_chats(
    chats: list[Chat],
    tokenizer: Tokenizer,
    rng: random.Random,
    *,
    prompt_weight: float = 0.0,
    row_tokens: int = 0,
) -> Rows:
    """Rows of whole chats. ``prompt_weight`` is the weight of the user's words, 1 being that of the answers.

    Chats are joined into longer conversations of at most ``row_tokens``, so that the rows are full; ``order`` of the
    rows is the order of the chats then.
    """
    boundaries = {special_id(tokenizer, f"<|{role}|>") for role in ("user", "assistant")}
    encoded: list[tuple[list[int], list[float]]] = []
    for chat in chats:
        ids, learnt = encode(chat, tokenizer)
        encoded.append((ids, [1.0 if own else prompt_weight for own in learnt]))
    joined = _fitted([len(ids) for ids, _ in encoded], row_tokens)
    examples: list[tuple[list[int], list[float]]] = []
    starts: list[tuple[int, int]] = []
    for row, members in enumerate(joined):
        rng.shuffle(members)
        first, *others = (encoded[member] for member in members)
        ids, weights = list(first[0]), list(first[1])
        starts.append((row, 0))
        for more_ids, more_weights in others:  # one beginning per conversation
            starts.append((row, len(ids) - 1))
            ids += more_ids[1:]
            weights += more_weights[1:]
        examples.append((ids, weights))
    order = tuple(member for row in joined for member in row)
    return replace(pack(examples, rng, boundaries), order=order, starts=tuple(starts))


def _fitted(lengths: list[int], room: int) -> list[list[int]]:
    """Indices grouped so that few groups are needed whose lengths add up to ``room`` at most: the longest first, each
    where it just fits. What is longer than ``room`` stays alone.
    """
    groups: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        fitting = [at for at, free in enumerate(left) if free >= lengths[index]]
        if fitting:
            tightest = min(fitting, key=left.__getitem__)
            groups[tightest].append(index)
            left[tightest] -= lengths[index]
        else:
            groups.append([index])
            left.append(room - lengths[index])
    return groups


def next_token_loss(model: LanguageModel, rows: Rows, visual: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy. ``visual`` (tokens of all pictures, n_embd) fills the image places in order."""
    return answer_loss(model, rows, model(embed(model, rows, visual), rows.positions))


def embed(model: LanguageModel, rows: Rows, visual: Tensor | None = None) -> Tensor:
    """What the first layer gets, (batch, length, n_embd)."""
    embedded: Tensor = model.embedding(rows.ids.clamp(min=0))
    if visual is not None:
        embedded = embedded.masked_scatter((rows.ids == IMAGE_ID)[..., None], visual.to(embedded.dtype))
    return embedded


def answer_loss(model: LanguageModel, rows: Rows, hidden: Tensor) -> Tensor:
    """Weighted mean cross-entropy, given the hidden states."""
    is_image = rows.ids == IMAGE_ID
    weights = rows.weights[:, 1:].clone()
    weights[is_image[:, 1:]] = 0.0
    wanted = weights > 0
    logits = model.logits(hidden[:, :-1][wanted])  # only where there is something to learn
    losses = F.cross_entropy(logits.float(), rows.ids[:, 1:][wanted], reduction="none")
    return (losses * weights[wanted]).sum() / weights.sum()
