"""The grammar of answers that quote sources, followed by llama.cpp with the words of the embedded model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hearth
from hearth import assets
from hearth.model_choice import choose
from hearth.model_library import POCKET
from hearth.models.engine.request_checks import MAX_GRAMMAR_CHARS
from hearth.models.llama import LlamaModel
from hearth.models.llama_sampler import Grammar
from hearth.quoting import NOT_IN_SOURCES, OPENING, quoting_grammar

SOURCES = (
    'Sources:\n[1] Re: shop: Opening hours are 9 to 5 [1]. We sell "old" lamps [1]!\n'
    "[2] House rules, p. 3: The yard closes at ten [2]. It is locked then [2]\n\n"
)


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaModel]:
    model = LlamaModel.load(assets.pocket_dir() / "language.gguf")
    yield model
    model.close()


def _fits(model: LlamaModel, grammar: str | None, answer: str) -> bool:
    """Whether the answer may be given, and end there."""
    assert grammar is not None
    follower = Grammar(model, grammar, "grammar")
    try:
        for token in (*model.tokenize(answer), *model.tokenize("<|end|>", parse_special=True)):
            if not follower.allows(token):
                return False
            follower.accept(token)
    finally:
        follower.close()
    return True


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ("About the yard: The yard closes at ten [2].", True),
        ("About yard close: The yard closes at ten [2].", True),
        ("About the yard: That is not in these sources.", True),
        ("About the yard: The yard closes at ten [1].", False),
        ("About the yard: The yard closes at nine [2].", False),
        ("About the yard: The yard closes [2].", False),
        ("About the garden: The yard closes at ten [2].", False),
        ("About the yard: It is locked then [2].", False),  # no word of the question
        ("About the yard", False),
        ("You are welcome.", True),
        ("A", True),
        ("Abroad, perhaps.", True),
    ],
)
def test_an_answer_quotes_a_sentence_or_is_free(model: LlamaModel, answer: str, fits: bool) -> None:
    assert _fits(model, quoting_grammar([SOURCES + "When does the yard close?"]), answer) is fits


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("when do you open", "Opening hours are 9 to 5 [1]."),  # another ending
        ("What do the lamps cost?", 'We sell "old" lamps [1]!'),
        ("Which are the house rules?", "It is locked then [2]."),  # the title has the word
    ],
)
def test_sentences_share_a_word_with_the_question(model: LlamaModel, question: str, sentence: str) -> None:
    topic = question.strip("?").split()[-1]
    assert _fits(model, quoting_grammar([SOURCES + question]), f"About {topic}: {sentence}")


def test_what_no_source_has_a_word_of_is_not_in_them(model: LlamaModel) -> None:
    grammar = quoting_grammar([SOURCES + "What is the wifi password?"])
    assert _fits(model, grammar, "About the wifi password: That is not in these sources.")
    assert not _fits(model, grammar, "About the wifi password: It is locked then [2].")


def test_a_later_question_asks_about_sources_from_before(model: LlamaModel) -> None:
    grammar = quoting_grammar([SOURCES + "When does the yard close?", "And the shop, when does it open?"])
    assert _fits(model, grammar, "About the shop: Opening hours are 9 to 5 [1].")
    assert _fits(model, grammar, "About the yard: The yard closes at ten [2].")


def test_a_title_with_a_colon_is_no_part_of_the_sentence(model: LlamaModel) -> None:
    grammar = quoting_grammar([SOURCES + "What are the opening hours?"])
    assert _fits(model, grammar, "About the opening hours: Opening hours are 9 to 5 [1].")
    assert not _fits(model, grammar, "About the opening hours: Re: shop: Opening hours are 9 to 5 [1].")


def test_what_never_ends_may_be_left_after_a_word(model: LlamaModel) -> None:
    words = " ".join(f"word{n}" for n in range(300))
    grammar = quoting_grammar([f"Sources:\n[1] table: {words} [1]\n\nWhat about word7?"])
    for n_words in (40, 41, 300):
        assert _fits(model, grammar, f"About word7: {' '.join(words.split()[:n_words])} [1]")
    assert not _fits(model, grammar, "About word7: word0 word1 [1]")


@pytest.mark.parametrize(
    "message",
    ["", "Hello", "Sources:\n", "Sources:\n\n\nWhat?", "Sources:\n[1] \n\nWhat?", "Sources:\n[1] [1]\n\nWhat?",
     "Sources:\nnone\n\nWhat?", "Sources:\n[1] untitled [1].\n\nWhat?"],
)  # fmt: skip
def test_without_a_sentence_to_quote_there_is_no_grammar(message: str) -> None:
    assert quoting_grammar([message]) is None


@pytest.mark.parametrize(
    "passage", ['"\\x41" [a-z]* | root ::= "', "日本語の文。 次の文。", "🙂\u2028\x7f\x01", "a\\", "\\", "x" * 9000]
)
def test_any_text_can_be_quoted(model: LlamaModel, passage: str) -> None:
    text = " ".join(passage.split())
    grammar = quoting_grammar([f"Sources:\n[1] tales: {text} [1].\n\nWhat of the tales? {passage}"])
    assert _fits(model, grammar, f"About the tales: {text} [1].")
    assert not _fits(model, grammar, f"About the tales: {text}. [1].")


def test_a_grammar_stays_as_long_as_an_engine_takes(model: LlamaModel) -> None:
    endless = "? " * 4000
    grammar = quoting_grammar([f"Sources:\n[1] t: {endless}[1].\n\n{endless}and t?"] * 2)
    assert grammar is not None
    assert len(grammar) < MAX_GRAMMAR_CHARS
    assert _fits(model, grammar, "No idea.")


def test_only_models_that_quote_are_held_to_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(POCKET).quotes_sources
    manifest = (assets.pocket_dir() / "pocket.toml").read_text()
    (tmp_path / "pocket.toml").write_text(manifest.replace("quotes_sources = true\n", ""))  # of an older version
    monkeypatch.setattr(assets, "pocket_dir", lambda: tmp_path)
    assert not choose(POCKET).quotes_sources


def test_what_the_embedded_model_quotes_stands_in_the_document(assistant: hearth.Assistant, tmp_path: Path) -> None:
    document = tmp_path / "ferry.txt"
    document.write_text(
        "The ferry to Skarholm leaves at 19:15. Tickets cost 12 euros. Dogs and cats travel free of charge on Sundays."
    )
    for seed in range(4):
        reply = assistant.ask("What do tickets cost?", documents=[document], temperature=2.0, seed=seed)
        quoted = re.sub(r"^About .*?: (.*?)( \[1\])?[.!?]$", r"\1.", reply.text)
        assert quoted == NOT_IN_SOURCES or quoted in document.read_text() or not reply.text.startswith(OPENING)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hearth.Assistant]:
    with hearth.Assistant(data_dir=tmp_path_factory.mktemp("data"), model="pocket") as assistant:
        yield assistant
