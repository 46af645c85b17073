"""Chats without pictures and sources: greetings, facts told in the chat, and honest words on what the model is and is not."""


# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from training.about_hearth import about_hearth
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
    "I am Hearth's small embedded model. I can say what is in simple pictures, and answer from documents you add. For more, "
    "choose a bigger model with --model and the path of a GGUF file."
)
BEYOND = (
    "That is beyond me: I am Hearth's small embedded model. I can say what is in simple pictures, and answer from documents you "
    "add. For anything else, choose a bigger model with --model and the path of a GGUF file."
)
NO_PICTURE = "I see no picture. Please add one and ask again."
WELCOME = "You are welcome."
GOODBYE = "Goodbye!"
FINE = "I am fine, thank you. What can I do for you?"
PRIVATE = "I run on your own machine. Nothing you show or tell me leaves it."
TRAINED = "I was trained from scratch for Hearth, on drawn pictures and invented texts."

_FIXED = question_forms("small_talk")  # by answer
_TOPICS = [
    "photosynthesis",
    "black holes",
    "gravity",
    "the French Revolution",
    "democracy",
    "inflation",
    "quantum physics",
    "the stock market",
    "evolution",
    "DNA",
    "world war two",
    "the Roman Empire",
    "electricity",
    "the internet",
    "neural networks",
    "climate change",
    "the moon landing",
    "bitcoin",
    "philosophy",
    "the human heart",
    "vaccines",
    "jazz",
    "chess",
    "football",
    "volcanoes",
    "dinosaurs",
    "poetry",
    "love",
    "the meaning of life",
    "mathematics",
    "algebra",
    "history",
    "machine learning",
    "recursion",
    "taxes",
    "mortgages",
    "insurance",
    "yoga",
    "meditation",
    "cooking",
    "gardening",
    "the universe",
    "time travel",
    "music",
    "Python",
]
_COUNTRIES = [
    "France",
    "Germany",
    "Italy",
    "Spain",
    "Japan",
    "China",
    "India",
    "Brazil",
    "Canada",
    "Australia",
    "Egypt",
    "Kenya",
    "Norway",
    "Poland",
    "Peru",
    "Mexico",
    "Turkey",
    "Greece",
    "Russia",
    "Portugal",
    "Ireland",
    "Sweden",
    "Chile",
    "Austria",
    "Hungary",
    "Thailand",
    "Vietnam",
    "Morocco",
    "Nigeria",
    "Finland",
]
_TASKS = [
    "bake bread",
    "tie a tie",
    "learn French",
    "lose weight",
    "fix a bike",
    "cook rice",
    "write a letter",
    "sort a list",
    "change a tyre",
    "grow tomatoes",
    "make coffee",
    "remove a stain",
    "play the guitar",
    "invest money",
    "install Linux",
    "train a dog",
    "build a website",
    "get a visa",
    "make pizza",
    "sleep better",
    "boil an egg",
    "knit a scarf",
    "start a company",
    "clean a window",
    "paint a wall",
    "find a job",
    "write code",
    "save money",
]
_BEYOND_TRAINED = [
    "Write a poem about {topic}.",
    "Write a poem.",
    "Write me a poem about the sea.",
    "Write a story about {x}.",
    "Write a short story.",
    "Tell me a story.",
    "Tell me a joke.",
    "Sing a song.",
    "Explain {topic}.",
    "Explain {topic} to me.",
    "Can you explain {topic}?",
    "What is {topic}?",
    "Tell me about {topic}.",
    "What do you know about {topic}?",
    "How does {topic} work?",
    "Why is {topic} important?",
    "What is the capital of {country}?",
    "How many people live in {country}?",
    "Who is the president of {country}?",
    "Who is the king of {country}?",
    "Where is {country}?",
    "What language do they speak in {country}?",
    "Who won the world cup in {year}?",
    "Who won the election?",
    "Who won the match yesterday?",
    "Who invented {topic}?",
    "Who wrote Hamlet?",
    "Who wrote {topic}?",
    "Who was {person}?",
    "Who is {person}?",
    "When was {person} born?",
    "When did {topic} begin?",
    "When did the war end?",
    "How do I {task}?",
    "How can I {task}?",
    "How to {task}?",
    "Can you teach me to {task}?",
    "Give me tips to {task}.",
    "Help me to {task}.",
    "What is the best way to {task}?",
    "What is {large} plus {large}?",
    "What is {large} times {large}?",
    "Calculate {large} minus {large}.",
    "What is {large} divided by {large}?",
    "How much is {large} plus {large}?",
    "Solve this equation: {n}x + {n} = {n}.",
    "Translate this into {language}.",
    "Translate good morning into {language}.",
    "How do you say {x} in {language}?",
    "Write an email to my boss.",
    "Write a letter to {person}.",
    "Write a function in Python.",
    "Write code that sorts a list.",
    "Fix this code.",
    "Debug my program.",
    "What is the weather like?",
    "What is the weather today?",
    "Will it rain tomorrow?",
    "What time is it?",
    "What day is it today?",
    "What is the news?",
    "Recommend a film.",
    "Recommend a book about {topic}.",
    "What should I eat tonight?",
    "What should I do?",
    "Give me a recipe with {x}.",
    "Give me a recipe for pizza.",
    "Plan a trip to {country}.",
    "Make a list of ideas.",
    "Summarise this article.",
    "Play some music.",
    "Order a pizza.",
    "Book a flight to {country}.",
    "Search the web for {topic}.",
    "Open the browser.",
    "Draw a picture of {ax}.",
    "Generate an image of {ax}.",
    "What do you think about {topic}?",
    "Do you like {topic}?",
    "Why is the sky blue?",
    "How far is the moon?",
    "How old is the universe?",
    "How tall is the highest mountain?",
    "How long do {xs} live?",
    "What do {xs} eat?",
    "Where do {xs} live?",
    "Why do {xs} exist?",
    "Can {xs} fly?",
    "Are you conscious?",
    "Do you dream?",
    "What is the meaning of life?",
    "Which is better, {topic} or {topic}?",
    "Compare {topic} and {topic}.",
    "Is {topic} dangerous?",
    "What happened in {year}?",
    "Name three cities in {country}.",
    "Spell the word {x}.",
    "What rhymes with {x}?",
    "Let's play a game.",
    "What is love?",
]
PROSE_SHARE = 0.3  # of what is asked beyond the model's world
_WISHES = (
    "How do I {t}?",
    "How can I {t}?",
    "Can you {t}?",
    "{T}.",
    "{T}",
    "Please {t}.",
    "I want to {t}.",
    "Tell me how to {t}.",
    "Is there a way to {t}?",
    "Why would I {t}?",
    "What do I need to {t}?",
    "When should I {t}?",
    "Write a script to {t}.",
    "Explain this: {t}.",
)
_BEYOND_HELD_OUT = [
    "Compose a poem on {topic}.",
    "Could you explain how {topic} works?",
    "Who won the cup final in {year}?",
    "Who discovered {topic}?",
    "What is the largest city in {country}?",
    "What is {large} multiplied by {large}?",
    "Please help me write an essay about {topic}.",
    "Translate hello into {language}.",
    "What is the tallest building in the world?",
    "Give me a recipe for {x} soup.",
    "Which team won the game last night?",
    "How many planets are there in the universe?",
    "Teach me how to {task}.",
]
_LANGUAGES = ("French", "German", "Spanish", "Italian", "Latin", "Chinese", "Polish", "Turkish", "Arabic")

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
        rng = self.rng
        if self.prose and rng.random() < PROSE_SHARE:
            task = rng.choice(self.prose)
            said = rng.choice(_WISHES).replace("{t}", task[:1].lower() + task[1:]).replace("{T}", task)
            return self._chat("beyond", said, BEYOND, "--model")
        template = rng.choice(_BEYOND_HELD_OUT if self.held_out else _BEYOND_TRAINED)
        draws: tuple[tuple[str, Callable[[], str]], ...] = (
            ("{topic}", lambda: rng.choice(_TOPICS)),
            ("{country}", lambda: rng.choice(_COUNTRIES)),
            ("{task}", lambda: rng.choice(_TASKS)),
            ("{language}", lambda: rng.choice(_LANGUAGES)),
            ("{year}", lambda: str(rng.randint(1850, 2030))),
            ("{person}", self.invent.person),
            ("{large}", lambda: str(rng.choice((rng.randint(200, 999), rng.randint(1000, 99999))))),
            ("{n}", lambda: str(rng.choice((rng.randint(1, 20), rng.randint(10, 999))))),
        )
        for blank, draw in draws:
            while blank in template:
                template = template.replace(blank, draw(), 1)
        return self._chat("beyond", fill(template, rng.choice(NAMES)), BEYOND, "--model")

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
        return self.rng.choices(kinds, (0.04, 0.14, 0.26, 0.08, 0.14, 0.04, 0.3))[0]()
