"""Packs chats and texts into rows for the language model: ids, positions with gaps, and which ids are to be learnt."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from training.chats import IMAGE_ID, Chat, encode, special_id
from training.language import LanguageModel

GAP_SHARE = 0.15  # of the rows get a jump in position, as if a long chat had been cut out
MAX_GAP = 1400
LENGTH_STEP = 32  # rows are padded to a multiple of it, so that compiled code sees few shapes


@dataclass(frozen=True)
class Rows:
    """Right-padded rows of shape (batch, length). ``weights`` are 0 where a token is not to be learnt."""

    ids: Tensor
    positions: Tensor
    weights: Tensor


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

    Chats that follow each other are joined into one longer conversation while it stays within ``row_tokens``.
    """
    boundaries = {special_id(tokenizer, f"<|{role}|>") for role in ("user", "assistant")}
    examples: list[tuple[list[int], list[float]]] = []
    for chat in chats:
        ids, learnt = encode(chat, tokenizer)
        weights = [1.0 if own else prompt_weight for own in learnt]
        if examples and len(examples[-1][0]) + len(ids) <= row_tokens:
            examples[-1] = (examples[-1][0] + ids[1:], examples[-1][1] + weights[1:])  # one beginning per conversation
        else:
            examples.append((ids, weights))
    return pack(examples, rng, boundaries)


def next_token_loss(model: LanguageModel, rows: Rows, visual: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy. ``visual`` (tokens of all pictures, n_embd) fills the image places in order."""
    is_image = rows.ids == IMAGE_ID
    embedded = model.embedding(rows.ids.clamp(min=0))
    if visual is not None:
        embedded = embedded.masked_scatter(is_image[..., None], visual.to(embedded.dtype))
    hidden = model(embedded, rows.positions)
    weights = rows.weights[:, 1:].clone()
    weights[is_image[:, 1:]] = 0.0
    wanted = weights > 0
    logits = model.logits(hidden[:, :-1][wanted])  # only where there is something to learn
    losses = F.cross_entropy(logits.float(), rows.ids[:, 1:][wanted], reduction="none")
    return (losses * weights[wanted]).sum() / weights.sum()
