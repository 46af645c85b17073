"""Questions about Hearth itself, answered as its own pages have it.

``forms/about_hearth.json`` has for each answer what one may want to do and to know, which are put into many sentences,
and whole questions; those held out were written by somebody who had not seen the others.
"""

from __future__ import annotations

import random

from training.chats import Chat, Message
from training.exchanges import capital
from training.question_forms import question_forms
from training.world import as_spoken, varied

LEFT_OUT = 0.1  # of the words of some questions
WHOLE_SHARE = 0.75  # of the questions are asked as they were written, the others put together
_FOR_TASKS = (
    "How do I {}?",
    "How can I {}?",
    "How to {}?",
    "How does one {}?",
    "I want to {}.",
    "I need to {}.",
    "Tell me how to {}.",
    "Show me how to {}.",
    "What do I have to do to {}?",
    "What must I do to {}?",
    "Is there a way to {}?",
    "Is it possible to {}?",
    "Please help me to {}.",
    "In Hearth, how do I {}?",
)
_FOR_THINGS = (
    "What is {}?",
    "Tell me {}.",
    "Do you know {}?",
    "{}?",
    "What was {} again?",
    "I am looking for {}.",
    "Can you tell me {}?",
    "Give me {}.",
)
FORMS = question_forms("about_hearth")


def about_hearth(rng: random.Random, *, held_out: bool = False) -> Chat:
    """A question about Hearth and its answer."""
    answer = rng.choice(tuple(FORMS))
    question = rng.choice(FORMS[answer].held_out) if held_out else _trained(rng, answer)
    return Chat((Message("user", question), Message("assistant", answer)), "about Hearth", (answer,))


def _trained(rng: random.Random, answer: str) -> str:
    forms = FORMS[answer]
    question = rng.choice(forms.questions)
    if rng.random() >= WHOLE_SHARE and (forms.tasks or forms.things):
        opener, said = rng.choice(
            [*((_FOR_TASKS, task) for task in forms.tasks), *((_FOR_THINGS, thing) for thing in forms.things)]
        )
        composed = capital(rng.choice(opener).format(said))
        question = composed if forms.may_be_trained(composed) else question
    if rng.random() < 0.3:
        kept = [word for word in question.split(" ") if rng.random() > LEFT_OUT]
        question = " ".join(kept) or question
    question = varied(question, rng)
    return as_spoken(question) if rng.random() < 0.2 else question
