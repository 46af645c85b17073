"""Where answers from passages are to look: at what they share with a sentence, and from there at its beginning."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer

from training.batches import Rows, pack_chats
from training.chats import Chat, Message
from training.copying import start_with_copying
from training.language import LanguageConfig, LanguageModel
from training.quotes import Quoter
from training.reading import grounded_losses, grounded_rows
from training.smalltalk import Talker
from training.sources import BEGINNING, QUOTING, SOURCE_HEADS, UNDECIDED, source_lookups, start_with_quoting
from training.texts import Writer

SOURCES = "Sources:\n[1] The pool opens at eight [1]. The gym is in room 12 [1].\n[2] The gate is green [2].\n"


def rows_of(answer: str, tokenizer: Tokenizer, question: str = "Where is the gym?") -> Rows:
    chat = Chat((Message("user", SOURCES + question), Message("assistant", answer)), "grounded")
    return pack_chats([chat], tokenizer, random.Random(0), row_tokens=512)


def text(rows: Rows, places: list[int], tokenizer: Tokenizer) -> str:
    decoded: str = tokenizer.decode(rows.ids[0, places].tolist())
    return decoded.strip()


def test_an_answer_looks_at_what_its_sentence_shares_with_what_it_is_about(tokenizer: Tokenizer) -> None:
    rows = rows_of("About the gym: The gym is in room 12 [1].", tokenizer)
    source = source_lookups(rows, tokenizer)["source"]
    assert len(source.queries) == UNDECIDED
    assert text(rows, [int(source.queries[0, 1])], tokenizer) == ":"
    for wanted in source.wanted:
        places = wanted.nonzero().flatten().tolist()
        assert text(rows, places, tokenizer) in ("gym", "the gym")
        assert text(rows, list(range(places[-1] + 1, places[-1] + 4)), tokenizer).startswith("is in room")
        assert float(wanted.sum()) == 1.0


def test_every_token_of_a_passage_looks_at_how_its_sentence_begins(tokenizer: Tokenizer) -> None:
    rows = rows_of("About the gym: The gym is in room 12 [1].", tokenizer)
    beginning = source_lookups(rows, tokenizer)["beginning"]
    begins = set()
    for (_, column), wanted in zip(beginning.queries.tolist(), beginning.wanted, strict=True):
        places = wanted.nonzero().flatten().tolist()
        assert places[-1] <= column
        assert len(places) <= BEGINNING
        assert float(rows.weights[0, column]) == 0.0, "answers look elsewhere"
        begins.add(text(rows, places, tokenizer))
    assert any(begin.startswith("The gym") for begin in begins)
    assert any(begin.startswith("The gate") for begin in begins)


def test_an_answer_that_quotes_nothing_looks_nowhere(tokenizer: Tokenizer) -> None:
    for answer in ("That is not in these sources.", "About the gym: nobody knows whose it could have been."):
        assert len(source_lookups(rows_of(answer, tokenizer), tokenizer)["source"].queries) == 0


def test_passages_as_training_has_them_are_found_in_nearly_all_answers(tokenizer: Tokenizer) -> None:
    writer = Writer(random.Random(3))
    chats = [writer.grounded(max_words=90) for _ in range(40)]
    rows = pack_chats(chats, tokenizer, random.Random(0), row_tokens=512)
    quoting = sum(":" in chat.messages[-1].text for chat in chats)
    found = len(source_lookups(rows, tokenizer)["source"].queries) / UNDECIDED
    assert found >= 0.9 * quoting > 10


def test_losses_reach_the_heads(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(n_vocab=tokenizer.get_vocab_size()))
    losses = grounded_losses(model, rows_of("About the gym: The gym is in room 12 [1].", tokenizer), tokenizer)
    assert set(losses) == {"grounded", *SOURCE_HEADS}
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for head in SOURCE_HEADS.values():
        gradient = model.layers[head.layer].attention.qkv.weight.grad
        assert gradient is not None
        assert gradient[head.index * 64 : head.index * 64 + 64].abs().sum() > 0


def test_rows_of_the_stage_have_both_kinds_of_looks(tokenizer: Tokenizer) -> None:
    writer = Writer(random.Random(3))
    quoter = Quoter(writer, ["A sentence of a help page that is long enough to be quoted here."] * 3)
    lookups = source_lookups(grounded_rows(writer, quoter, tokenizer, 8, 1.0), tokenizer)
    assert all(len(of_head.queries) for of_head in lookups.values())


def test_a_quotation_looks_at_each_token_that_is_said_next(tokenizer: Tokenizer) -> None:
    rows = rows_of("About the gym: The gym is in room 12 [1].", tokenizer)
    quoted = source_lookups(rows, tokenizer)["quoted"]
    said = []
    for (_, column), wanted in zip(quoted.queries.tolist(), quoted.wanted, strict=True):
        places = wanted.nonzero().flatten().tolist()
        assert {int(rows.ids[0, place]) for place in places} == {int(rows.ids[0, column + 1])}
        said.append(int(rows.ids[0, column + 1]))
    assert tokenizer.decode(said).strip().startswith("The gym is in room 12 [1]")
    assert (quoted.wanted[0] > 0).sum() == 3, "three sentences begin with “The”"
    assert (quoted.wanted[3] > 0).sum() == 1


@torch.no_grad()
def test_the_head_that_quotes_looks_behind_the_token_said_last_from_the_start(tokenizer: Tokenizer) -> None:
    model = LanguageModel(LanguageConfig(n_vocab=tokenizer.get_vocab_size()))
    start_with_copying(model, 1)
    start_with_quoting(model)
    ids = torch.tensor([[40, 50, 60, 70, 80, 90, 100, 60]])
    positions = torch.arange(8)[None]
    _, entering = model.run(model.embedding(ids), positions, [QUOTING.layer])
    looked = model.attention_scores(entering[QUOTING.layer], positions, QUOTING.layer, QUOTING.index).softmax(-1)
    assert int(looked[0, -1].argmax()) == 3


def test_talk_follows_sources_now_and_then(tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    writer = Writer(rng)
    with_talk, without = (
        grounded_rows(writer, Quoter(writer, []), tokenizer, 40, 1.0, talker) for talker in (Talker(rng), None)
    )
    answers = [
        [answer for row in zip(rows.ids, rows.weights > 0, strict=True) for answer in _learnt(*row, tokenizer)]
        for rows in (with_talk, without)
    ]
    free = [sum(not answer.startswith("About ") for answer in said) for said in answers]
    assert free[0] >= 3
    assert free[1] == 0


def _learnt(ids: torch.Tensor, learnt: torch.Tensor, tokenizer: Tokenizer) -> list[str]:
    """The texts of answers, which alone are learnt."""
    edges = torch.diff(learnt.int(), prepend=torch.zeros(1, dtype=torch.int32)).nonzero().flatten().tolist()
    return [tokenizer.decode(ids[a:b].tolist()) for a, b in zip(edges[::2], [*edges[1::2], len(ids)], strict=False)]
