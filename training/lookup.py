"""Heads that look things up: two from an answer to the visual tokens that it is about, handing on what they say.

An answer like "The melon is on the left" needs the place that the tokens over the melon say, and no other. From answers
alone the language model did not find out how in tens of thousands of questions: of two things, left or right stayed a
guess. As the copy circuit (``training.copying``) the heads are therefore given: they look for what the token before
says, and hand on words of place, colour, size and number. And they are told where to look (``training.looks``): the
first at all that bears the name, the second at the one thing that an answer is at, be it the third of five dice or,
when all are counted, none. A third looks whether a word has been said before, in the question or further ahead in the
answer, and at itself if not: that is what "so yes" and "so no" follow from. A fourth, which is not given but only told,
looks at the one of several things that is concluded: the bigger one, whose size stands before its name. A fifth is for
print, and looks for the next character of a word, or for the first of a value: it is given as the copy circuit is, and
hands on characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hearth.multimodal.print_cells import CHARACTERS, Printed
from training.batches import Rows
from training.chats import IMAGE_ID, Chat
from training.copying import N_CODE, SLOW_PAIRS, noted, turn
from training.language import LanguageModel
from training.looks import Look, looks_of
from training.scenes import Scene
from training.sights import MARKS, NOTHING, Sight, sights
from training.world import COLOURS, NUMBERS, PLACES, SIZES

MATCHING = 2.0
SAID_MATCHING = READ_MATCHING = 6.0
LOOKUP_WEIGHT = 0.2  # of where heads look, beside the answers


@dataclass(frozen=True)
class Head:
    """An attention head, and how much of what it looks at it hands on at first; None leaves that as it is."""

    layer: int
    index: int
    handed_on: float | None = None


HEADS = {
    "by name": Head(2, 0, 1.0),
    "one by one": Head(3, 0, 0.5),
    "said before": Head(1, 0),
    "reason": Head(4, 0),
    "read": Head(3, 2, 1.0),
}


@dataclass(frozen=True)
class Lookups:
    """Where a head is to look in a batch: ``queries`` (n, 2) are row and column of tokens; ``wanted`` (n, length) the
    shares of the tokens that each is to look at, 1 in all.
    """

    queries: Tensor
    wanted: Tensor

    @classmethod
    def of(cls, found: list[tuple[int, int, list[int]]], length: int) -> Lookups:
        """``found``: row, column and the columns to look at, all alike, of a batch of rows of ``length``."""
        wanted = torch.zeros(len(found), length)
        for at, (_, _, targets) in enumerate(found):
            wanted[at, targets] = 1 / len(targets)
        return cls(torch.tensor([one[:2] for one in found], dtype=torch.long).view(-1, 2), wanted)

    def to(self, device: torch.device) -> Lookups:
        return Lookups(self.queries.to(device), self.wanted.to(device))


def character_ids(tokenizer: Tokenizer) -> list[int]:
    """Tokens of the characters that can be read."""
    encoded = (tokenizer.encode(character, add_special_tokens=False).ids for character in CHARACTERS)
    return [ids[0] for ids in encoded if len(ids) == 1]


def attribute_ids(tokenizer: Tokenizer) -> list[int]:
    """Tokens of the words that visual tokens say besides names."""
    words = {word for text in (*PLACES.values(), *SIZES) for word in text.split()} - {"on", "at", "in", "the"}
    ids = (
        tokenizer.encode(" " + word, add_special_tokens=False).ids for word in sorted({*words, *COLOURS, *NUMBERS[1:]})
    )
    return sorted({token for of_word in ids for token in of_word})


@torch.no_grad()
def start_with_lookup(model: LanguageModel, words: list[int], characters: list[int]) -> None:
    """Overwrites heads of ``model``, which has its copy circuit and its word vectors; ``words`` and ``characters`` are
    handed on.
    """
    basis = torch.linalg.svd(model.embedding.weight[words], full_matrices=False).Vh
    code = code_of_previous(model)
    noting = torch.eye(model.config.n_embd)[-N_CODE:]
    for head in HEADS.values():
        if head == HEADS["said before"]:
            start_matching(model, head, code, code, SAID_MATCHING)
        elif head == HEADS["read"]:
            start_reading(model, characters)
        elif head.handed_on is not None:
            start_matching(model, head, noting, code, MATCHING)
            hand_on(model, head, basis, head.handed_on)


@torch.no_grad()
def start_reading(model: LanguageModel, characters: list[int]) -> None:
    """Overwrites the head that reads: it looks for what stands behind the last two characters that were said.

    What is read tells of the character before the last one what a token notes of the last one, turned
    (``training.lettering``).
    """
    head = HEADS["read"]
    code, noting = code_of_previous(model), torch.eye(model.config.n_embd)[-N_CODE:]
    letters = model.embedding.weight[characters]
    alike = (letters @ code.T).norm() / noted(model, letters).norm()  # a note is as loud as what it is of
    start_matching(model, head, code + alike * turn() @ noting, noting, READ_MATCHING)
    basis = torch.linalg.svd(model.embedding.weight[characters], full_matrices=False).Vh
    hand_on(model, head, basis, head.handed_on or 0.0)


@torch.no_grad()
def start_matching(model: LanguageModel, head: Head, asked: Tensor, found: Tensor, gain: float) -> None:
    """Lets ``head`` look from tokens to those before which say by ``found`` what they say by ``asked``, (n, n_embd)."""
    head_dim = model.config.n_embd // model.config.n_heads
    slow = slice(head_dim - 2 * SLOW_PAIRS, head_dim)
    weight = model.layers[head.layer].attention.qkv.weight
    for part, rows in enumerate((asked, found)):
        start = part * model.config.n_embd + head.index * head_dim
        weight[start : start + head_dim] = 0.0
        weight[start : start + head_dim][slow] = gain**0.5 * rows[: 2 * SLOW_PAIRS]


def hand_on(model: LanguageModel, head: Head, basis: Tensor, share: float) -> None:
    head_dim = model.config.n_embd // model.config.n_heads
    attention = model.layers[head.layer].attention
    start = head.index * head_dim
    value = attention.qkv.weight[2 * model.config.n_embd + start :][:head_dim]
    handed = basis[:head_dim]
    value[:] = 0.0
    value[: len(handed)] = handed
    attention.output.weight[:, start : start + head_dim] = 0.0
    attention.output.weight[:, start : start + len(handed)] = share * handed.T


def code_of_previous(model: LanguageModel) -> Tensor:
    """How the first layer notes the token before, (N_CODE, n_embd), its rows of length 1."""
    config = model.config
    attention = model.layers[0].attention
    head_dim = config.n_embd // config.n_heads
    part = slice((config.n_heads - 1) * head_dim, config.n_heads * head_dim)
    noted: Tensor = attention.output.weight[-N_CODE:, part] @ attention.qkv.weight[2 * config.n_embd :][part]
    lengths: Tensor = noted.norm(dim=1, keepdim=True)
    return noted / lengths


def lookups_of(
    chats: list[Chat],
    scenes: list[tuple[Scene, ...]],
    rows: Rows,
    tokenizer: Tokenizer,
    printed: Callable[[Scene], Sequence[Printed]] = lambda _: (),
) -> dict[str, Lookups]:
    """For each of ``HEADS``; ``chats`` and the ``scenes`` of their pictures are in the order of ``rows``; ``printed``
    is what is read of a scene.
    """
    found: dict[str, list[tuple[int, int, list[int]]]] = {name: [] for name in HEADS}
    for chat, drawn, (row, start) in zip(chats, scenes, rows.starts, strict=True):
        under = [sight for picture, scene in enumerate(drawn) for sight in sights(scene, picture, printed(scene))]
        columns = start + (rows.ids[row, start + 1 :] == IMAGE_ID).nonzero().flatten()[: len(under)] + 1
        at: dict[Sight, list[int]] = {}
        for sight, column in zip(under, columns.tolist(), strict=True):
            if sight:
                at.setdefault(sight, []).append(column)
        for look in looks_of(chat, drawn, tokenizer):
            here = start + look.token
            for name, targets in zip(HEADS, _targets(look, at, start), strict=True):
                ahead = [column for column in targets if column <= here]  # a later picture may show the same
                if ahead:
                    found[name].append((row, here, ahead))
    return {name: Lookups.of(of_head, rows.ids.shape[1]) for name, of_head in found.items()}


def _targets(look: Look, at: dict[Sight, list[int]], start: int) -> tuple[list[int], ...]:
    """Columns to look at, for each of ``HEADS``."""
    named = [column for sight, columns in at.items() if sight.seen in look.named for column in columns]
    one = [
        column + look.behind
        for sight, columns in at.items()
        if sight.seen in look.one and sight.whole != look.in_tiles
        for column in columns
    ]
    itself = [start + look.token]
    before = [start + place for place in look.before or ()]
    if look.before is not None:
        before = before or itself
    reason = [] if look.reason is None else [start + look.reason]
    is_read = any(thing >= MARKS for _, thing in look.one)
    one_by_one = itself if look.one == NOTHING else [] if is_read else one
    return named, one_by_one, before, reason, one if is_read else []


def layers_of(heads: Mapping[str, Head]) -> list[int]:
    return sorted({head.layer for head in heads.values()})


def lookup_losses(
    model: LanguageModel,
    entering: dict[int, Tensor],
    positions: Tensor,
    lookups: dict[str, Lookups],
    heads: Mapping[str, Head] = HEADS,
) -> dict[str, Tensor]:
    """For each of ``heads`` the mean cross-entropy of where it looks, 0 if it need not; ``entering`` (batch, length,
    n_embd) is what enters their layers.
    """
    losses: dict[str, Tensor] = {}
    for name, head in heads.items():
        scores = model.attention_scores(entering[head.layer], positions, head.layer, head.index)
        rows, columns = lookups[name].queries.T
        logs = scores[rows, columns].log_softmax(-1)
        missed = -(lookups[name].wanted * logs.masked_fill(lookups[name].wanted == 0, 0.0)).sum()
        losses[name] = missed / max(1, len(rows))
    return losses
