"""Heads that look things up: where their targets lie in a batch, and what they find and hand on."""

from __future__ import annotations

import random

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from hearth.multimodal.print_cells import Printed
from hearth.multimodal.views import n_tokens, tile_frame
from training.answers import Examiner
from training.batches import Rows, embed, pack_chats
from training.chats import IMAGE_ID, Chat, Message, text_ids
from training.checkpoints import new_network
from training.copying import start_with_copying
from training.exchanges import spelled
from training.fonts import fonts
from training.imagined import SCENE_PX, Imaginer, as_read
from training.language import LanguageConfig, LanguageModel
from training.lettering import start_with_print
from training.lookup import (
    HEADS,
    Lookups,
    attribute_ids,
    character_ids,
    layers_of,
    lookup_losses,
    lookups_of,
    start_with_lookup,
)
from training.pictures import Material
from training.printing import Printer
from training.scene_pool import print_tokens
from training.scenes import Scene, Thing
from training.view_batches import SIDE_PX

N_SCENE = n_tokens(SCENE_PX, SCENE_PX)
STAR = Scene(Imaginer.blank, (Thing("star", "red", (0, 1), (8, 72, 56, 120)),), "white")
CIRCLE = Scene(Imaginer.blank, (Thing("circle", "red", (2, 1), (136, 72, 184, 120)),), "white")
NAMED = "The {} is on the left."


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    language = LanguageModel(LanguageConfig(n_layers=5))
    start_with_copying(language, seed=0)
    return language.eval()


def chat(answer: str) -> Chat:
    return Chat((Message("user", "Where are they?", (Imaginer.blank,)), Message("assistant", answer)), "x")


def word(tokenizer: Tokenizer, text: str) -> int:
    ids: list[int] = tokenizer.encode(f" {text}", add_special_tokens=False).ids
    return ids[0]


def packed(chats: list[Chat], scenes: list[tuple[Scene, ...]], tokenizer: Tokenizer) -> tuple[Rows, dict[str, Lookups]]:
    rows = pack_chats(chats, tokenizer, random.Random(1), row_tokens=512)
    return rows, lookups_of([chats[i] for i in rows.order], [scenes[i] for i in rows.order], rows, tokenizer)


def test_lookups_lie_where_the_tokens_of_the_batch_do(tokenizer: Tokenizer) -> None:
    chats = [chat(NAMED.format("star")), chat("The circle is on the right."), chat("I cannot see that.")]
    rows, lookups = packed(chats, [(STAR,), (CIRCLE,), (STAR,)], tokenizer)
    seeing = [lookups["by name"], lookups["one by one"]]
    for of_head in seeing:
        assert torch.allclose(of_head.wanted.sum(1), torch.ones(len(of_head.queries)))
        for (row, column), wanted in zip(of_head.queries.tolist(), of_head.wanted, strict=True):
            assert rows.weights[row, column + 1] == 1.0, "what it goes on to say is an answer's"
            targets = wanted.nonzero().flatten()
            assert (rows.ids[row, targets] == IMAGE_ID).all()
            assert targets.max() < column
    by_name, one = ((of_head.wanted > 0).sum(1).max() for of_head in seeing)
    assert one < by_name, "one thing is looked up in the whole picture only"


def test_where_all_are_counted_the_head_looks_at_its_own_token(tokenizer: Tokenizer) -> None:
    answer = "Counting the stars: 1 on the left, so there is one."
    rows, lookups = packed([chat(answer)], [(STAR,)], tokenizer)
    one = lookups["one by one"]
    itself = one.wanted[torch.arange(len(one.queries)), one.queries[:, 1]] == 1.0
    following = [tokenizer.decode([int(rows.ids[row, at + 1])]).strip() for row, at in one.queries[itself].tolist()]
    assert following == [",", "so"]


def test_what_a_later_picture_shows_is_not_looked_up_before_it(tokenizer: Tokenizer, model: LanguageModel) -> None:
    early, late = chat("The star is red."), chat("The star is blue.")
    both = Chat(
        (Message("user", "Is the star red?"), Message("assistant", "No star is."), *early.messages, *late.messages), "x"
    )
    rows, lookups = packed([both], [(STAR, STAR)], tokenizer)
    pictures = (rows.ids[0] == IMAGE_ID).nonzero().flatten()
    for of_head in (lookups["by name"], lookups["one by one"]):
        for (_, column), wanted in zip(of_head.queries.tolist(), of_head.wanted, strict=True):
            assert set(wanted.nonzero().flatten().tolist()) <= set(pictures[pictures < column].tolist())
    entering = {layer: torch.randn(*rows.ids.shape, model.config.n_embd) for layer in layers_of(HEADS)}
    assert all(
        loss.isfinite() and loss >= 0 for loss in lookup_losses(model, entering, rows.positions, lookups).values()
    )


def test_no_lookups_in_chats_that_are_about_nothing_seen(tokenizer: Tokenizer, model: LanguageModel) -> None:
    rows, lookups = packed(
        [chat("I cannot see that.")], [(Scene(Imaginer.blank, (), None, "words", (), "hello"),)], tokenizer
    )
    assert [len(of_head.queries) for of_head in lookups.values()] == [0] * len(HEADS)
    entering = {layer: torch.zeros(*rows.ids.shape, model.config.n_embd) for layer in layers_of(HEADS)}
    assert all(loss == 0 for loss in lookup_losses(model, entering, rows.positions, lookups).values())


def test_the_heads_find_the_token_that_says_the_word_before(model: LanguageModel, tokenizer: Tokenizer) -> None:
    start_with_lookup(model, attribute_ids(tokenizer), character_ids(tokenizer))
    left, right = (word(tokenizer, one) for one in ("left", "right"))
    assert {left, right} <= set(attribute_ids(tokenizer))
    star, circle = word(tokenizer, "star"), word(tokenizer, "circle")
    ids = torch.randint(100, 4000, (1, 60), generator=torch.Generator().manual_seed(1))
    ids[0, -2] = star
    with torch.inference_mode():
        embedded = model.embedding(ids).clone()
        for at, (name, place) in {10: (star, left), 30: (circle, right)}.items():
            embedded[0, at] = model.embedding.weight[name] + model.embedding.weight[place]
        positions = torch.arange(60)[None]
        _, entering = model.run(embedded, positions, layers_of(HEADS))
        for name in ("by name", "one by one"):
            head = HEADS[name]
            scores = model.attention_scores(entering[head.layer], positions, head.layer, head.index)[0, -1]
            assert scores[10] > scores[30]
            assert scores[10] > scores[:58].median()


def test_a_head_finds_where_a_word_was_said_before(model: LanguageModel, tokenizer: Tokenizer) -> None:
    start_with_lookup(model, attribute_ids(tokenizer), character_ids(tokenizer))
    ids = torch.randint(100, 4000, (1, 60), generator=torch.Generator().manual_seed(1))
    ids[0, 12] = ids[0, -1] = word(tokenizer, "star")
    head, positions = HEADS["said before"], torch.arange(60)[None]
    with torch.inference_mode():
        _, entering = model.run(model.embedding(ids), positions, layers_of(HEADS))
        scores = model.attention_scores(entering[head.layer], positions, head.layer, head.index)[0, -1]
    assert set(scores.topk(2).indices.tolist()) == {12, 59}


def test_the_head_that_reads_looks_behind_the_character_that_was_said_last(
    model: LanguageModel, tokenizer: Tokenizer
) -> None:
    start_with_lookup(model, attribute_ids(tokenizer), character_ids(tokenizer))
    characters = character_ids(tokenizer)
    assert len(set(characters)) == len(characters) > 70
    places = torch.arange(2, 38)
    ids = torch.tensor([[*characters[:40], characters[at]] for at in places])  # the last one stood at each of these
    head, positions = HEADS["read"], torch.arange(ids.shape[1]).expand(len(ids), -1)
    with torch.inference_mode():
        _, entering = model.run(model.embedding(ids), positions, layers_of(HEADS))
        scores = model.attention_scores(entering[head.layer], positions, head.layer, head.index)[:, -1]
    behind = scores.gather(1, places[:, None] + 1)[:, 0] - scores[:, :40].median(1).values
    assert behind.mean() > 1, "random characters' vectors are not at right angles"


def test_the_head_that_reads_looks_rather_where_the_character_before_the_last_one_is_the_same(
    model: LanguageModel, tokenizer: Tokenizer
) -> None:
    start_with_lookup(model, attribute_ids(tokenizer), character_ids(tokenizer))
    vision = new_network(tokenizer.get_vocab_size()).vision
    start_with_print(vision, model, tokenizer)
    begins = "abcdfghklmnpst"
    printed = [Printed(one, 12.0, 12.0, begins=False) for begin in begins for one in f"{begin}er "]
    read = torch.from_numpy(print_tokens(vision).tokens(printed, tile_frame(SCENE_PX, SCENE_PX, SIDE_PX)))
    assert len(read) == len(printed)
    head, behind = HEADS["read"], [4 * at + 2 for at in range(len(begins))]
    scores = torch.zeros(len(begins), len(begins))
    for at, begin in enumerate(begins):
        written = model.embedding(torch.tensor(text_ids(spelled(f"{begin}e"), tokenizer)))
        entering = torch.cat((read, written))[None]
        positions = torch.arange(entering.shape[1])[None]
        with torch.inference_mode():
            _, before = model.run(entering, positions, layers_of(HEADS))
            of_all = model.attention_scores(before[head.layer], positions, head.layer, head.index)[0, -1]
        scores[at] = of_all[behind]
    scores = scores - scores.mean(0) - scores.mean(1, keepdim=True) + scores.mean()
    assert scores.diagonal().mean() > 3 * scores.std() / len(begins) ** 0.5


def test_what_is_printed_is_looked_at_by_the_head_that_reads(tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    painter = Imaginer(Material((), {}), rng, Printer(fonts(), rng, held_out=True))
    sign = painter.words()
    asked = Message("user", "Read it.", (sign.image,))
    answered = Message("assistant", Examiner(rng).ask(sign, "words").answer)
    rows = pack_chats([Chat((asked, answered), "words")], tokenizer, random.Random(1), row_tokens=512)
    lookups = lookups_of([Chat((asked, answered), "words")], [(sign,)], rows, tokenizer, as_read)
    assert len(lookups["one by one"].queries) == 0
    places = lookups["read"].wanted.argmax(1).tolist()
    assert places == list(range(places[0], places[0] + len(sign.text) + 1)), "one after the other, then the space"
    assert places[0] == 2 + N_SCENE, "behind the beginning, the role and the views"


def test_scores_are_those_of_attention(model: LanguageModel, tokenizer: Tokenizer) -> None:
    rows = pack_chats([chat("It is green.")], tokenizer, random.Random(1), row_tokens=512)
    block, head_dim = model.layers[1], model.config.n_embd // model.config.n_heads
    output = block.attention.output
    try:
        with torch.inference_mode():
            hidden, entering = model.run(embed(model, rows), rows.positions, (1,))
            assert torch.equal(hidden, model(embed(model, rows), rows.positions))
            scores = model.attention_scores(entering[1], rows.positions, 1, 2)
            normed = block.attention_norm(entering[1])
            values = block.attention.qkv(normed)[..., 2 * model.config.n_embd :][..., 2 * head_dim : 3 * head_dim]
            block.attention.output = nn.Identity()
            mixed = block.attention(normed, *model._turns(rows.positions))[..., 2 * head_dim : 3 * head_dim]
        torch.testing.assert_close(scores.softmax(-1) @ values, mixed, atol=1e-4, rtol=1e-4)
    finally:
        block.attention.output = output
