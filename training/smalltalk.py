"""Chats without pictures and sources: greetings, facts told, and honest words on what the model is and is not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from training.about_hearth import about_hearth
from training.beyond import beyond_question
from training.chats import Chat, Message
from training.invented import Inventor
from training.question_forms import question_forms
from training.questions import EVERYDAY_SKILLS, QUESTIONS
from training.sums import sum_chat
from training.texts import Writer
from training.told import Teller
from training.world import COLOURS, NAMES, SHAPES, fill

HELLO = "Hello! Show me a picture, add a document, or ask me something."
WHAT_I_AM = (
    "I am Hearth's small embedded model. I can say what is in simple pictures, and answer from documents you add. "
    "For more, choose a bigger model with --model and the path of a GGUF file."
)
BEYOND = (
    "That is beyond me: I am Hearth's small embedded model. I can say what is in simple pictures, and answer from "
    "documents you add. For anything else, choose a bigger model with --model and the path of a GGUF file."
)
NO_PICTURE = "I see no picture. Please add one and ask again."
WELCOME = "You are welcome."
GOODBYE = "Goodbye!"
FINE = "I am fine, thank you. What can I do for you?"
PRIVATE = "I run on your own machine. Nothing you show or tell me leaves it."
TRAINED = "I was trained from scratch for Hearth, on drawn pictures and invented texts."

_FIXED = question_forms("small_talk")  # by answer

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are Hearth, a local assistant.",
    "Be polite and short.",
    "Answer in one sentence.",
)
LEFT_OUT = 0.15  # of the words of a garbled question


class Talker:
    """Chats without pictures. With ``held_out`` it asks in words that training never sees.

    ``prose`` are things that one can do, so that what lies beyond the model is asked for in more words than it can
    learn by heart.
    """

    def __init__(self, rng: random.Random, *, held_out: bool = False, prose: Sequence[str] = ()) -> None:
        self.prose = prose
        self.rng = rng
        self.held_out = held_out
        self.invent = Inventor(rng, held_out=held_out)
        self.writer = Writer(rng, held_out=held_out)
        self.teller = Teller(rng, held_out=held_out)

    def _chat(self, skill: str, question: str, answer: str, expected: str) -> Chat:
        return Chat((Message("user", self.teller.worn(question)), Message("assistant", answer)), skill, (expected,))

    def fixed(self) -> Chat:
        """A greeting, thanks, goodbye or a question about the model itself."""
        answer = self.rng.choice((HELLO, WHAT_I_AM, WHAT_I_AM, WHAT_I_AM, WELCOME, GOODBYE, FINE, PRIVATE, TRAINED))
        forms = _FIXED[answer]
        question = self.rng.choice(forms.held_out if self.held_out else forms.questions)
        return self._chat("about itself" if answer == WHAT_I_AM else "small talk", question, answer, answer)

    def beyond(self) -> Chat:
        """Something that a model of this size cannot know or do."""
        question = beyond_question(self.rng, self.invent, self.prose, held_out=self.held_out)
        return self._chat("beyond", question, BEYOND, "--model")

    def no_picture(self) -> Chat:
        """A question about a picture where there is none."""
        rng = self.rng
        skill = rng.choice([s for s in EVERYDAY_SKILLS if s not in ("which_picture", "both")])
        forms = QUESTIONS[skill]
        template = rng.choice(forms.held_out if self.held_out else forms.typed)
        name = rng.choice((*NAMES, *SHAPES))
        question = fill(
            template,
            name,
            rng.choice(NAMES),
            rng.choice(tuple(COLOURS)),
            "on the left",
            rng.choice(("first", "second")),
        )
        return self._chat("no picture", question, NO_PICTURE, NO_PICTURE)

    def told(self) -> Chat:
        """Facts told, then asked for; now and then with something else in between."""
        between: tuple[Message, ...] = ()
        if self.rng.random() < 0.3:
            between = self.rng.choice((self.fixed, self.beyond, self.no_picture))().messages
        return self.teller.told(between)

    def sums(self) -> Chat:
        return sum_chat(self.rng, held_out=self.held_out)

    def about_hearth(self) -> Chat:
        return about_hearth(self.rng, held_out=self.held_out)

    def distracted(self) -> Chat:
        """Small talk for which the memory brought sources; they change nothing."""
        first, *rest = self.fixed().messages
        messages = (Message("user", self.writer.stray_sources() + first.text), *rest)
        return Chat(messages, "small talk", (rest[0].text,))

    def garbled(self) -> Chat:
        """As ``any``, often with words of a lone question left out, so that no single word decides the answer."""
        chat = self.any()
        if len(chat.messages) != 2 or self.rng.random() < 0.4:
            return chat
        question, answer = chat.messages
        kept = [word for word in question.text.split(" ") if self.rng.random() > LEFT_OUT]
        return replace(chat, messages=(replace(question, text=" ".join(kept) or question.text), answer))

    def any(self) -> Chat:
        """One of all kinds, in the shares of training."""
        kinds = (self.distracted, self.fixed, self.beyond, self.no_picture, self.told, self.sums, self.about_hearth)
        return self.rng.choices(kinds, (0.04, 0.14, 0.28, 0.08, 0.14, 0.02, 0.3))[0]()
