"""The head that looks things up: which tokens an answer is about, where they lie in a batch, and what is handed on."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from hearth.multimodal.views import n_tokens
from training.asking import named_by
from training.batches import embed, pack_chats
from training.chats import IMAGE_ID, Chat, Message, encode
from training.copying import start_with_copying
from training.imagined import SIDE_PX, Imaginer
from training.language import LanguageConfig, LanguageModel
from training.lookup import LAYER, lookup_loss, lookups_of, start_with_lookup, subjects
from training.scenes import Scene, Thing
from training.tokenizer import train_tokenizer

N_SCENE = n_tokens(SIDE_PX, SIDE_PX)
PICTURE = Imaginer.blank


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(None, seed=1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    language = LanguageModel(LanguageConfig(n_layers=3))
    start_with_copying(language, seed=0)
    return language.eval()


def chat(answer: str) -> Chat:
    return Chat((Message("user", "Where are they?", (PICTURE,)), Message("assistant", answer)), "x")


def word(tokenizer: Tokenizer, text: str) -> int:
    ids: list[int] = tokenizer.encode(f" {text}", add_special_tokens=False).ids
    return ids[0]


def test_a_token_is_about_what_was_named_last(tokenizer: Tokenizer) -> None:
    asked = chat("There are two stars, and the circle is on the left.")
    ids, _ = encode(asked, tokenizer)
    found = [(tokenizer.decode([ids[at]]), name) for at, name in subjects(asked, ["star", "circle"], tokenizer)]
    assert found[0][1] == "star"
    assert found[0][0].strip() in ("stars", "s"), "from the end of the name on"
    about = {text.strip(): name for text, name in found}
    assert about["left"] == "circle"
    assert "There" not in about
    assert subjects(asked, [], tokenizer) == []


def test_lookups_lie_where_the_tokens_of_the_batch_do(tokenizer: Tokenizer) -> None:
    chats = [chat("The star is on the left."), chat("The circle is red."), chat("It is green.")]
    said = [["star"] * 3 + [""] * (N_SCENE - 3), [""] * 5 + ["circle"] * (N_SCENE - 5), [""] * N_SCENE]
    rows = pack_chats(chats, tokenizer, random.Random(1), row_tokens=512)
    in_order = [chats[i] for i in rows.order]
    lookups = lookups_of(in_order, [said[i] for i in rows.order], rows, tokenizer)
    assert torch.allclose(lookups.wanted.sum(1), torch.ones(len(lookups.queries)))
    spoken = {0: "star", 1: "circle"}
    for (row, column), wanted in zip(lookups.queries.tolist(), lookups.wanted, strict=True):
        assert rows.weights[row, column] == 1.0, "a token of an answer"
        targets = wanted.nonzero().flatten()
        assert (rows.ids[row, targets] == IMAGE_ID).all()
        assert targets.max() < column
        assert len(targets) in (3, N_SCENE - 5)
    there = {len(wanted.nonzero()) for wanted in lookups.wanted}
    assert there == {3, N_SCENE - 5}, spoken


def test_what_a_later_picture_shows_is_not_looked_up_before_it(tokenizer: Tokenizer, model: LanguageModel) -> None:
    early, late = chat("The star is red."), chat("The star is blue.")
    both = Chat(
        (Message("user", "Is the star red?"), Message("assistant", "No star is."), *early.messages, *late.messages), "x"
    )
    rows = pack_chats([both], tokenizer, random.Random(1), row_tokens=512)
    lookups = lookups_of([both], [["star"] * (2 * N_SCENE)], rows, tokenizer)
    targets = [int((wanted > 0).sum()) for wanted in lookups.wanted]
    assert set(targets) == {N_SCENE, 2 * N_SCENE}
    entering = torch.randn(*rows.ids.shape, model.config.n_embd)
    assert lookup_loss(model, entering, rows.positions, lookups).isfinite()


def test_a_name_for_every_visual_token_of_any_picture() -> None:
    thing = Thing("star", "red", (0, 1), (0, 20, 40, 60))
    for size in ((96, 96), (192, 96), (60, 110)):
        names = named_by(Scene(Image.new("RGB", size), (thing,), "white"), SIDE_PX // 2)
        assert len(names) == n_tokens(*size)
        assert set(names) == {"star", ""}
    assert set(named_by(Scene(Image.new("RGB", (96, 96)), (), None, "words", (), "hello"), SIDE_PX // 2)) == {""}


def test_no_lookups_in_chats_without_names(tokenizer: Tokenizer, model: LanguageModel) -> None:
    rows = pack_chats([chat("It is green.")], tokenizer, random.Random(1), row_tokens=512)
    lookups = lookups_of([chat("It is green.")], [[""] * N_SCENE], rows, tokenizer)
    assert lookups.queries.shape == (0, 2)
    entering = torch.zeros(*rows.ids.shape, model.config.n_embd)
    assert lookup_loss(model, entering, rows.positions, lookups) == 0


def test_the_head_finds_the_token_that_says_the_word_before(model: LanguageModel, tokenizer: Tokenizer) -> None:
    words = [word(tokenizer, one) for one in ("left", "right", "red", "blue")]
    start_with_lookup(model, words)
    star, circle = word(tokenizer, "star"), word(tokenizer, "circle")
    ids = torch.randint(100, 4000, (1, 60), generator=torch.Generator().manual_seed(1))
    ids[0, -2] = star
    with torch.inference_mode():
        embedded = model.embedding(ids).clone()
        for at, (name, place) in {10: (star, words[0]), 30: (circle, words[1])}.items():
            embedded[0, at] = model.embedding.weight[name] + model.embedding.weight[place]
        positions = torch.arange(60)[None]
        _, entering = model.run(embedded, positions, LAYER)
        scores = model.attention_scores(entering, positions, LAYER, 0)[0, -1]
    assert scores[10] > scores[30]
    assert scores[10] > scores[:58].median() + 1


def test_scores_are_those_of_attention(model: LanguageModel, tokenizer: Tokenizer) -> None:
    rows = pack_chats([chat("It is green.")], tokenizer, random.Random(1), row_tokens=512)
    with torch.inference_mode():
        hidden, entering = model.run(embed(model, rows), rows.positions, 1)
        assert torch.equal(hidden, model(embed(model, rows), rows.positions))
        scores = model.attention_scores(entering, rows.positions, 1, 0)
    assert scores[0, 3, 4:].isinf().all()
    assert scores[0, 3, :4].isfinite().all()
