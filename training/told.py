"""Facts that somebody tells in a chat, and questions for them later, with pronouns where people use them."""


# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

import random
from dataclasses import dataclass

from training.chats import Chat, Message
from training.invented import Inventor
from training.vocabulary import plural
from training.world import NAMES, as_spoken, varied

LEFT_OUT = 0.1  # of the words of a question, in some of the chats
GARBLED_SHARE = 0.25


@dataclass(frozen=True)
class Telling:
    """``{v}`` is the value told. The last question is kept for evaluation."""

    value: str
    tellings: tuple[str, ...]
    reply: str
    questions: tuple[str, ...]
    answer: str


def _telling(value: str, tellings: str, reply: str, questions: str, answer: str) -> Telling:
    return Telling(value, tuple(tellings.split(" / ")), reply, tuple(questions.split(" / ")), answer)


TELLINGS: tuple[Telling, ...] = (
    _telling("person", "My name is {v}. / I am {v}. / I'm {v}. / Call me {v}. / Hello, my name is {v}. / Hi, I am {v}. / My name's {v}.", "Nice to meet you, {v}.",
             "What is my name? / Who am I? / What's my name? / Do you know my name? / Do you remember my name? / Tell me my name. / What do people call me? / And my name? / Can you say my name? / What am I called?", "Your name is {v}."),
    _telling("place", "I live in {v}. / My home is in {v}. / I moved to {v}. / We live in {v}. / I have a flat in {v}.", "I see, you live in {v}.",
             "Where do I live? / Where is my home? / Which town do I live in? / Do you know where I live? / What is my home town? / Tell me where I live. / In which place do I live? / In which town do I live?", "You live in {v}."),
    _telling("things", "I like {v}. / I love {v}. / I really like {v}. / I am very fond of {v}.", "I see, you like {v}.",
             "What do I like? / What is it that I like? / What do I love? / Tell me what I like. / Which things do I like? / What did I say that I like? / Do you know what I like?", "You like {v}."),
    _telling("colour", "My favourite colour is {v}. / My favorite color is {v}. / I like the colour {v} best. / {v} is my favourite colour.", "I see, your favourite colour is {v}.",
             "What is my favourite colour? / What is my favorite color? / Which colour is my favourite? / Do you know my favourite colour? / What colour do I like most? / Tell me my favourite colour. / And my favourite colour? / Which colour do I like best?", "Your favourite colour is {v}."),
    _telling("colour", "My car is {v}. / I have a {v} car. / I drive a {v} car. / The colour of my car is {v}.", "I see, your car is {v}.",
             "What colour is my car? / What color is my car? / Which colour does my car have? / What is the colour of my car? / Do you know the colour of my car? / Tell me the colour of my car. / Which colour is my car?", "Your car is {v}."),
    _telling("colour", "My front door is {v}. / Our door is {v}. / We painted the door {v}.", "I see, your door is {v}.",
             "What colour is my door? / Which colour is the door? / What color is our door? / What is the colour of the door? / Tell me the colour of my door. / What colour does my door have?", "Your door is {v}."),
    _telling("name", "My dog is called {v}. / My dog's name is {v}. / I have a dog called {v}. / We have a dog. He is called {v}. / The name of my dog is {v}.", "{v} is a good name for a dog.",
             "What is my dog called? / What is the name of my dog? / What is my dog's name? / Do you know my dog's name? / What do I call my dog? / Tell me the name of my dog. / And what is he called? / How is my dog called?", "Your dog is called {v}."),
    _telling("name", "My cat is called {v}. / My cat's name is {v}. / I have a cat called {v}. / We have a cat. She is called {v}.", "{v} is a good name for a cat.",
             "What is my cat called? / What is the name of my cat? / What is my cat's name? / Do you know my cat's name? / Tell me the name of my cat. / What do I call my cat? / How is my cat called?", "Your cat is called {v}."),
    _telling("job", "I am a {v}. / I work as a {v}. / My job is {v}. / I earn my living as a {v}.", "I see, you work as a {v}.",
             "What is my job? / What do I work as? / Which job do I have? / What kind of work do I do? / Tell me my job. / Do you know my job? / What do I do? / What do I do for a living?", "You work as a {v}."),
    _telling("age", "I am {v} years old. / I'm {v} years old. / My age is {v}. / I turned {v} this year.", "I see, you are {v} years old.",
             "How old am I? / What is my age? / Do you know my age? / Tell me my age. / How many years old am I? / And my age? / Do you know how old I am?", "You are {v} years old."),
    _telling("number", "My lucky number is {v}. / My favourite number is {v}. / The number I like best is {v}.", "I see, your number is {v}.",
             "What is my lucky number? / What is my favourite number? / Which number do I like best? / Do you remember my number? / What number did I tell you? / Tell me my number. / What was my number? / Which number is my favourite?", "Your number is {v}."),
    _telling("number", "Remember the number {v}. / The number is {v}. / Please remember {v}. / Keep in mind the number {v}.", "I will remember {v}.",
             "What is the number? / Which number should you remember? / What was the number? / Which number did I tell you? / What number did I give you? / Tell me the number. / Which number was it?", "The number is {v}."),
    _telling("code", "The password is {v}. / My password is {v}. / The code is {v}. / Remember the code {v}.", "I will remember {v}.",
             "What is the password? / What is the code? / What was the password? / What was the code? / Which code did I tell you? / Tell me the code. / What is my password? / Do you remember the code?", "It is {v}."),
    _telling("room", "My office is in {v}. / I work in {v}. / You find me in {v}.", "I see, you are in {v}.",
             "Where is my office? / In which room do I work? / Where do I work? / Where can people find me? / Which room is my office in? / Tell me where my office is. / Where is my room?", "You are in {v}."),
    _telling("day", "My appointment is on {v}. / I see the doctor on {v}. / My meeting is on {v}.", "I see, it is on {v}.",
             "When is my appointment? / On which day is it? / When do I see the doctor? / When is my meeting? / Which day is it? / Tell me the day. / On what day is it?", "It is on {v}."),
    _telling("time", "My train leaves at {v}. / I take the train at {v}. / The train goes at {v}.", "I see, your train leaves at {v}.",
             "When does my train leave? / At what time is my train? / When is my train? / What time does the train go? / When do I have to be at the station? / Tell me the time of my train. / When does the train leave?", "Your train leaves at {v}."),
    _telling("name", "My sister is called {v}. / I have a sister, {v}. / My sister's name is {v}.", "I see, your sister is {v}.",
             "What is my sister called? / What is the name of my sister? / Who is my sister? / What is her name? / Do you know her name? / Tell me her name. / What is my sister's name?", "Your sister is called {v}."),
    _telling("name", "My brother is called {v}. / I have a brother, {v}. / My brother's name is {v}.", "I see, your brother is {v}.",
             "What is my brother called? / What is the name of my brother? / Who is my brother? / What is his name? / Do you know his name? / Tell me his name. / What is my brother's name?", "Your brother is called {v}."),
    _telling("food", "For lunch I had {v}. / I ate {v} today. / My lunch was {v}.", "That sounds good.",
             "What did I eat? / What did I have for lunch? / What was my lunch? / Do you know what I ate? / Tell me what I ate. / What have I eaten?", "You had {v}."),
    _telling("place", "I was born in {v}. / I come from {v}. / I grew up in {v}.", "I see, you come from {v}.",
             "Where was I born? / Where do I come from? / Where am I from? / Where did I grow up? / Which town do I come from? / Tell me where I come from. / From where do I come?", "You come from {v}."),
)  # fmt: skip
# a person told about, then asked for with a pronoun: (who, he or she, his or her)
_RELATIVES = (
    ("sister", "she", "her"),
    ("brother", "he", "his"),
    ("mother", "she", "her"),
    ("father", "he", "his"),
    ("friend", "she", "her"),
    ("boss", "he", "his"),
    ("neighbour", "she", "her"),
    ("uncle", "he", "his"),
    ("aunt", "she", "her"),
)
_ABOUT_THEM: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "place",
        "{They} lives in {v}.",
        (
            "Where does {they} live?",
            "Where is {their} home?",
            "In which town does {they} live?",
            "Do you know where {they} lives?",
            "Which town does {they} live in?",
        ),
        "{They} lives in {v}.",
    ),
    (
        "job",
        "{They} works as a {v}.",
        (
            "What is {their} job?",
            "What does {they} work as?",
            "What does {they} do?",
            "Which job does {they} have?",
            "What does {they} do for a living?",
        ),
        "{They} works as a {v}.",
    ),
    (
        "age",
        "{They} is {v} years old.",
        (
            "How old is {they}?",
            "What is {their} age?",
            "Do you know {their} age?",
            "And how old is {they}?",
            "How many years old is {they}?",
        ),
        "{They} is {v} years old.",
    ),
    (
        "colour",
        "{Their} car is {v}.",
        (
            "What colour is {their} car?",
            "Which colour does {their} car have?",
            "What color is {their} car?",
            "And {their} car?",
            "What is the colour of {their} car?",
        ),
        "{Their} car is {v}.",
    ),
    (
        "name",
        "{Their} dog is called {v}.",
        (
            "What is {their} dog called?",
            "What is the name of {their} dog?",
            "Does {they} have a dog?",
            "How is {their} dog called?",
            "What is {their} dog's name?",
        ),
        "{Their} dog is called {v}.",
    ),
)
UNTOLD = {
    "What is my name?": "You have not told me your name.",
    "What's my name?": "You have not told me your name.",
    "Who am I?": "You have not told me your name.",
    "Where do I live?": "You have not told me where you live.",
    "How old am I?": "You have not told me how old you are.",
    "What do I like?": "You have not told me what you like.",
    "What is my job?": "You have not told me what your job is.",
}


class Teller:
    """Chats in which facts are told and asked for. With ``held_out``: questions and names that training never sees."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out
        self.invent = Inventor(rng, held_out=held_out)

    def worn(self, text: str) -> str:
        """Sometimes as a transcript or a hurried typist writes it."""
        if not self.held_out:
            text = varied(text, self.rng)
        draw = self.rng.random()
        if draw < 0.2:
            return as_spoken(text)
        return text.rstrip("?.!") if draw < 0.28 else text

    def told(self, between: tuple[Message, ...] = ()) -> Chat:
        """One to four facts told, ``between`` said, then the facts asked for in any order."""
        rng = self.rng
        if not self.held_out and rng.random() < 0.08:
            question = rng.choice(tuple(UNTOLD))
            return Chat(
                (Message("user", question), Message("assistant", UNTOLD[question])), "told facts", (UNTOLD[question],)
            )
        if rng.random() < 0.3:
            return self._relative(between)
        kinds: list[Telling] = []
        for kind in rng.sample(TELLINGS, rng.choice((1, 2, 2, 3, 4))):
            if kind.value not in {other.value for other in kinds}:  # two numbers or two colours could be meant alike
                kinds.append(kind)
        messages, asked = [], []
        for kind in kinds:
            value = self._value(kind.value)
            said = self.worn(_capital(rng.choice(kind.tellings).replace("{v}", value)))
            value = as_spoken(value) if said.islower() else value
            messages += [Message("user", said), Message("assistant", _capital(kind.reply.replace("{v}", value)))]
            asked.append((self._question(kind.questions), kind.answer.replace("{v}", value), value))
        rng.shuffle(asked)
        messages += between
        for question, answer, _ in asked:
            messages += [Message("user", self.worn(question)), Message("assistant", answer)]
        return Chat(tuple(messages), "told facts", (asked[-1][2],))

    def _relative(self, between: tuple[Message, ...]) -> Chat:
        rng = self.rng
        who, they, their = rng.choice(_RELATIVES)
        name = self._value("name")
        told = rng.sample(_ABOUT_THEM, rng.choice((1, 2, 2, 3)))

        def put(text: str, value: str) -> str:
            for blank, word in (
                ("{they}", they),
                ("{They}", _capital(they)),
                ("{their}", their),
                ("{Their}", _capital(their)),
            ):
                text = text.replace(blank, word)
            return text.replace("{v}", value)

        start = rng.choice(
            (f"My {who} is called {name}.", f"I have a {who}, {name}.", f"This is about my {who} {name}.")
        )
        values = [self._value(kind) for kind, *_ in told]
        facts = [put(fact, value) for (_, fact, _, _), value in zip(told, values, strict=True)]
        messages: list[Message] = []
        if rng.random() < 0.5:
            messages += [Message("user", " ".join((start, *facts))), Message("assistant", "I see.")]
        else:
            for sentence in (start, *facts):
                messages += [Message("user", sentence), Message("assistant", "I see.")]
        messages += between
        asked = list(zip(told, values, strict=True))
        rng.shuffle(asked)
        for (_, _, questions, answer), value in asked:
            question = put(self._question(questions), value)
            messages += [Message("user", self.worn(question)), Message("assistant", put(answer, value))]
        return Chat(tuple(messages), "told facts", (asked[-1][1],))

    def _question(self, questions: tuple[str, ...]) -> str:
        if self.held_out:
            return questions[-1]
        question = self.rng.choice(questions[:-1])
        if self.rng.random() < GARBLED_SHARE:
            words = [word for word in question.split(" ") if "{" in word or self.rng.random() > LEFT_OUT]
            question = " ".join(words) or question
        return question

    def _value(self, kind: str) -> str:
        if kind == "things":
            return plural(self.rng.choice(NAMES))
        if kind == "age":
            return str(self.rng.randint(5, 99))
        return self.invent("place" if kind == "name" else kind)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
