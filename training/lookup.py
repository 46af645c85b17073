"""A head that looks things up: from a name in an answer to visual tokens that say it, handing on what else they say.

An answer like "The melon is on the left" needs the place that the tokens over the melon say, and no other. From answers
alone the language model did not find out how in tens of thousands of questions: of two things, left or right stayed a
guess. As the copy circuit (``training.copying``) the head is therefore given: it looks for what the token before says,
and hands on words of place, colour, size and number. And it is told where to look: the scenes of ``training.imagined``
say which tokens an answer is about at each of its words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hearth.multimodal.views import n_tokens
from training.batches import Rows
from training.chats import IMAGE_ID, Chat, text_ids
from training.copying import N_CODE, SLOW_PAIRS
from training.language import LanguageModel
from training.vocabulary import plural

LAYER, HEAD = 2, 0
MATCHING = 2.0
HANDED_ON = 1.0


@dataclass(frozen=True)
class Lookups:
    """Where answers of a batch are to look: ``queries`` (n, 2) are row and column of tokens; ``wanted`` (n, length) the
    shares of the visual tokens that each is about, 1 in all.
    """

    queries: Tensor
    wanted: Tensor


@torch.no_grad()
def start_with_lookup(model: LanguageModel, words: list[int]) -> None:
    """Overwrites one head of ``model``, which has the copy circuit; ``words`` are ids of what is to be handed on."""
    config = model.config
    head_dim = config.n_embd // config.n_heads
    attention = model.layers[LAYER].attention
    query, key, value = (
        slice(at * config.n_embd + HEAD * head_dim, at * config.n_embd + (HEAD + 1) * head_dim) for at in range(3)
    )
    code = _code_of_previous(model)
    slow = slice(head_dim - 2 * SLOW_PAIRS, head_dim)
    weight = attention.qkv.weight
    weight[query], weight[key], weight[value] = 0.0, 0.0, 0.0
    weight[query][slow] = MATCHING**0.5 * torch.eye(config.n_embd)[-N_CODE:][: 2 * SLOW_PAIRS]
    weight[key][slow] = MATCHING**0.5 * code[: 2 * SLOW_PAIRS]
    basis = torch.linalg.svd(model.embedding.weight[words], full_matrices=False).Vh[:head_dim]
    weight[value][: len(basis)] = basis
    columns = slice(HEAD * head_dim, HEAD * head_dim + len(basis))
    attention.output.weight[:, HEAD * head_dim : (HEAD + 1) * head_dim] = 0.0
    attention.output.weight[:, columns] = HANDED_ON * basis.T


def _code_of_previous(model: LanguageModel) -> Tensor:
    """How the first layer notes the token before, (N_CODE, n_embd), its rows of length 1."""
    config = model.config
    attention = model.layers[0].attention
    head_dim = config.n_embd // config.n_heads
    part = slice((config.n_heads - 1) * head_dim, config.n_heads * head_dim)
    noted: Tensor = attention.output.weight[-N_CODE:, part] @ attention.qkv.weight[2 * config.n_embd :][part]
    lengths: Tensor = noted.norm(dim=1, keepdim=True)
    return noted / lengths


def lookups_of(chats: list[Chat], said: list[list[str]], rows: Rows, tokenizer: Tokenizer) -> Lookups:
    """``said`` are the names that the visual tokens of each chat say, "" for none; both in the order of ``rows``."""
    queries: list[tuple[int, int]] = []
    wanted: list[Tensor] = []
    for chat, names, (row, start) in zip(chats, said, rows.starts, strict=True):
        columns = start + (rows.ids[row, start + 1 :] == IMAGE_ID).nonzero().flatten()[: len(names)] + 1
        of_name = {name: columns[[at for at, one in enumerate(names) if one == name]] for name in set(names) - {""}}
        for at, name in subjects(chat, list(of_name), tokenizer):
            before = of_name[name][of_name[name] < start + at]  # a later picture may show the same
            if len(before):
                queries.append((row, start + at))
                share = torch.zeros(rows.ids.shape[1])
                share[before] = 1 / len(before)
                wanted.append(share)
    if not queries:
        return Lookups(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, rows.ids.shape[1]))
    return Lookups(torch.tensor(queries), torch.stack(wanted))


def subjects(chat: Chat, names: list[str], tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """Which of ``names`` a token of an answer is about, the one named last: (place of the token in the chat, name)."""
    if not names:
        return []
    forms = {form.lower(): name for name in names for form in (name, plural(name))}
    pattern = re.compile(rf"\b({'|'.join(sorted(map(re.escape, forms), key=len, reverse=True))})\b", re.IGNORECASE)
    found: list[tuple[int, str]] = []
    at = 1
    for message in chat.messages:
        at += 1 + sum(n_tokens(image.width, image.height) for image in message.images)
        if message.role == "user":
            text = message.gap + message.text if message.images else message.text
            at += len(text_ids(text, tokenizer)) + 1
            continue
        offsets = tokenizer.encode(message.text, add_special_tokens=False).offsets
        named = [(match.end(), forms[match[1].lower()]) for match in pattern.finditer(message.text)]
        for token, (_, end) in enumerate(offsets):
            before = [name for until, name in named if until <= end]
            if before:
                found.append((at + token, before[-1]))
        at += len(offsets) + 1
    return found


def lookup_loss(model: LanguageModel, entering: Tensor, positions: Tensor, lookups: Lookups) -> Tensor:
    """Mean cross-entropy of where the head looks, 0 if it need not; ``entering`` (batch, length, n_embd) is what enters
    its layer.
    """
    scores = model.attention_scores(entering, positions, LAYER, HEAD)
    rows, columns = lookups.queries.T
    logs = scores[rows, columns].log_softmax(-1)
    return -(lookups.wanted * logs.masked_fill(lookups.wanted == 0, 0.0)).sum() / max(1, len(rows))
