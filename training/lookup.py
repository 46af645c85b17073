"""Two heads that look things up: from an answer to the visual tokens that it is about, handing on what they say.

An answer like "The melon is on the left" needs the place that the tokens over the melon say, and no other. From answers
alone the language model did not find out how in tens of thousands of questions: of two things, left or right stayed a
guess. As the copy circuit (``training.copying``) the heads are therefore given: they look for what the token before
says, and hand on words of place, colour, size and number. And they are told where to look (``training.looks``): the
first at all that bears the name, the second at the one thing that an answer is at, be it the third of five dice or,
when all are counted, none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import Rows
from training.chats import IMAGE_ID, Chat
from training.copying import N_CODE, SLOW_PAIRS
from training.language import LanguageModel
from training.looks import NOTHING, Look, Sight, looks_of, sights
from training.scenes import Scene
from training.world import COLOURS, NUMBERS, PLACES, SIZES

LAYERS, HEAD = (2, 3), 0  # of the head that looks for names, of the one that looks for one thing
MATCHING = 2.0
HANDED_ON = (1.0, 0.5)


@dataclass(frozen=True)
class Lookups:
    """Where a head is to look in a batch: ``queries`` (n, 2) are row and column of tokens; ``wanted`` (n, length) the
    shares of the tokens that each is to look at, 1 in all.
    """

    queries: Tensor
    wanted: Tensor

    def to(self, device: torch.device) -> Lookups:
        return Lookups(self.queries.to(device), self.wanted.to(device))


def attribute_ids(tokenizer: Tokenizer) -> list[int]:
    """Tokens of the words that visual tokens say besides names."""
    words = {word for text in (*PLACES.values(), *SIZES) for word in text.split()} - {"on", "at", "in", "the"}
    ids = (
        tokenizer.encode(" " + word, add_special_tokens=False).ids for word in sorted({*words, *COLOURS, *NUMBERS[1:]})
    )
    return sorted({token for of_word in ids for token in of_word})


@torch.no_grad()
def start_with_lookup(model: LanguageModel, words: list[int]) -> None:
    """Overwrites two heads of ``model``, which has its copy circuit and its word vectors; ``words`` are handed on."""
    config = model.config
    head_dim = config.n_embd // config.n_heads
    query, key, value = (
        slice(at * config.n_embd + HEAD * head_dim, at * config.n_embd + (HEAD + 1) * head_dim) for at in range(3)
    )
    code = _code_of_previous(model)
    slow = slice(head_dim - 2 * SLOW_PAIRS, head_dim)
    basis = torch.linalg.svd(model.embedding.weight[words], full_matrices=False).Vh[:head_dim]
    columns = slice(HEAD * head_dim, HEAD * head_dim + len(basis))
    for layer, handed_on in zip(LAYERS, HANDED_ON, strict=True):
        attention = model.layers[layer].attention
        weight = attention.qkv.weight
        weight[query], weight[key], weight[value] = 0.0, 0.0, 0.0
        weight[query][slow] = MATCHING**0.5 * torch.eye(config.n_embd)[-N_CODE:][: 2 * SLOW_PAIRS]
        weight[key][slow] = MATCHING**0.5 * code[: 2 * SLOW_PAIRS]
        weight[value][: len(basis)] = basis
        attention.output.weight[:, HEAD * head_dim : (HEAD + 1) * head_dim] = 0.0
        attention.output.weight[:, columns] = handed_on * basis.T


def _code_of_previous(model: LanguageModel) -> Tensor:
    """How the first layer notes the token before, (N_CODE, n_embd), its rows of length 1."""
    config = model.config
    attention = model.layers[0].attention
    head_dim = config.n_embd // config.n_heads
    part = slice((config.n_heads - 1) * head_dim, config.n_heads * head_dim)
    noted: Tensor = attention.output.weight[-N_CODE:, part] @ attention.qkv.weight[2 * config.n_embd :][part]
    lengths: Tensor = noted.norm(dim=1, keepdim=True)
    return noted / lengths


def lookups_of(
    chats: list[Chat], scenes: list[tuple[Scene, ...]], rows: Rows, tokenizer: Tokenizer
) -> tuple[Lookups, Lookups]:
    """For each of the two heads; ``chats`` and the ``scenes`` of their pictures are in the order of ``rows``."""
    length = rows.ids.shape[1]
    queries: tuple[list[tuple[int, int]], ...] = ([], [])
    wanted: tuple[list[Tensor], ...] = ([], [])
    for chat, drawn, (row, start) in zip(chats, scenes, rows.starts, strict=True):
        under = [sight for picture, scene in enumerate(drawn) for sight in sights(scene, picture)]
        columns = start + (rows.ids[row, start + 1 :] == IMAGE_ID).nonzero().flatten()[: len(under)] + 1
        at: dict[Sight, list[int]] = {}
        for sight, column in zip(under, columns.tolist(), strict=True):
            if sight:
                at.setdefault(sight, []).append(column)
        for look in looks_of(chat, drawn, tokenizer):
            here = start + look.token
            for head, targets in enumerate(_targets(look, at, here)):
                before = [column for column in targets if column <= here]  # a later picture may show the same
                if before:
                    share = torch.zeros(length)
                    share[before] = 1 / len(before)
                    queries[head].append((row, here))
                    wanted[head].append(share)
    first, second = (
        Lookups(torch.tensor(q, dtype=torch.long).view(-1, 2), torch.stack(w) if w else torch.zeros(0, length))
        for q, w in zip(queries, wanted, strict=True)
    )
    return first, second


def _targets(look: Look, at: dict[Sight, list[int]], here: int) -> tuple[list[int], list[int]]:
    """Columns for the head that looks for names, and for the one that looks for one thing, which prefers the view of
    the whole picture: only its tokens say number and size.
    """
    named = [column for sight, columns in at.items() if sight.seen in look.named for column in columns]
    if look.one == NOTHING:
        return named, [here]
    one = [column for sight, columns in at.items() if sight.whole and sight.seen in look.one for column in columns]
    return named, one


def lookup_losses(
    model: LanguageModel, entering: dict[int, Tensor], positions: Tensor, lookups: tuple[Lookups, Lookups]
) -> list[Tensor]:
    """For each head the mean cross-entropy of where it looks, 0 if it need not; ``entering`` (batch, length, n_embd) is
    what enters each of ``LAYERS``.
    """
    losses: list[Tensor] = []
    for layer, of_head in zip(LAYERS, lookups, strict=True):
        scores = model.attention_scores(entering[layer], positions, layer, HEAD)
        rows, columns = of_head.queries.T
        logs = scores[rows, columns].log_softmax(-1)
        missed = -(of_head.wanted * logs.masked_fill(of_head.wanted == 0, 0.0)).sum()
        losses.append(missed / max(1, len(rows)))
    return losses
