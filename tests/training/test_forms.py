"""Ways to ask and to state: what is trained, what is held out, and that all blanks are filled."""

from __future__ import annotations

import random

from training import beyond
from training.about_hearth import FORMS, about_hearth
from training.facts import FACT_KINDS
from training.invented import Inventor, is_held_out_name
from training.question_forms import question_forms
from training.questions import EVERYDAY_SKILLS, QUESTIONS
from training.smalltalk import BEYOND, NO_PICTURE, Talker
from training.world import as_spoken, spoken_sentence


def test_no_sentence_is_both_trained_and_held_out() -> None:
    assert set(EVERYDAY_SKILLS) < set(QUESTIONS)
    for forms in QUESTIONS.values():
        assert all(map(forms.may_be_trained, forms.typed))
        assert len(set(forms.typed)) == len(forms.typed)
        assert forms.held_out


def test_spoken_sentences_have_no_open_blanks() -> None:
    rng = random.Random(3)
    for _ in range(500):
        assert "{" not in spoken_sentence(rng)
    assert as_spoken("What's this, please?") == "what's this please"


def test_every_question_about_hearth_has_a_form_that_is_kept() -> None:
    rng = random.Random(3)
    held_out = [form for forms in FORMS.values() for form in forms.held_out]
    assert len(set(map(str.casefold, held_out))) == len(held_out) > 200
    for forms in (*FORMS.values(), *question_forms("small_talk").values()):
        assert len(set(forms.questions)) == len(forms.questions) >= 25
        assert all(map(forms.may_be_trained, forms.questions))
    asked = {about_hearth(rng).messages[0].text for _ in range(3000)}
    assert len(asked) > 1500
    assert all(forms.may_be_trained(question) for question in asked for forms in FORMS.values())


def test_every_fact_kind_has_sentences_to_train_on_and_one_to_keep() -> None:
    for kind in FACT_KINDS:
        assert len(kind.statements) >= 3
        assert len(kind.questions) >= 3
        assert kind.held_out_statement not in kind.statements
        assert kind.held_out_question not in kind.questions
        for statement in (*kind.statements, kind.held_out_statement):
            assert (statement.count("{s}"), statement.count("{v}"), statement[-1]) == (1, 1, ".")
        for question in (*kind.questions, kind.held_out_question):
            assert (question.count("{s}"), question.count("{v}")) == (1, 0)


def test_a_question_beyond_the_model_is_answered_with_what_it_is_and_what_to_do() -> None:
    for held_out in (False, True):
        talker = Talker(random.Random(4), held_out=held_out)
        assert talker.beyond().messages[-1].text == BEYOND
        assert talker.no_picture().messages[-1].text == NO_PICTURE
        for _ in range(100):
            assert all("{" not in message.text for message in talker.any().messages)
    assert "--model" in BEYOND
    assert "GGUF" in BEYOND


def test_what_lies_beyond_is_asked_for_in_many_ways() -> None:
    questions = beyond.FORMS.questions
    assert len(set(map(str.casefold, questions))) == len(questions) > 1500
    assert all(map(beyond.FORMS.may_be_trained, questions))
    rng = random.Random(5)
    asked = [beyond.beyond_question(rng, Inventor(rng)) for _ in range(3000)]
    assert not any("{" in question for question in asked)
    assert len(set(asked)) > 2000
    kept = beyond.beyond_question(rng, Inventor(rng, held_out=True), held_out=True)
    assert kept not in questions


def test_what_lies_beyond_is_asked_for_in_prose_too() -> None:
    talker = Talker(random.Random(2), prose=["Show the size of a file"])
    asked = [talker.beyond() for _ in range(60)]
    assert all(chat.messages[1].text == BEYOND for chat in asked)
    assert 3 < sum("size of a file" in chat.messages[0].text for chat in asked) < 40


def test_held_out_names_are_never_trained() -> None:
    trained, kept = Inventor(random.Random(0)), Inventor(random.Random(0), held_out=True)
    assert not any(is_held_out_name(trained("place")) for _ in range(200))
    assert all(is_held_out_name(kept("place")) for _ in range(200))
