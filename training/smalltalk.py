"""Chats without pictures and sources: greetings, facts told in the chat, and honest words on what the model is and is not."""


# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from training.about_hearth import about_hearth
from training.chats import Chat, Message
from training.invented import Inventor
from training.sums import sum_chat
from training.texts import Writer
from training.told import Teller
from training.world import COLOURS, NAMES, PICTURE_QUESTIONS, SHAPES, fill

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

# question forms by answer; the last four of each are kept for evaluation
_FIXED: dict[str, str] = {
    HELLO: "Hello|Hello hello|Hiya|Hi all|Hey you|Howdy|Good afternoon|Hello again|Hi again!|Good evening!|Ahoy|Hi|Hello!|Hi!|Hey|Hi there|Hello there!|Good morning|Good evening|Good afternoon!|Good day|Hey there|Hello Hearth|"
    "Hi Hearth!|Greetings|Morning!|Is anyone there?|Good morning!|Hello, Hearth!|Hello, are you there?|Hi, nice to see you!",
    WHAT_I_AM: "What kind of things can you do?|What sort of questions can you answer?|What kind of questions can I ask?|What can you answer?|What can you see?|Which things can you do?|What can I do with you?|What can I do here?|What are you for?|What are you made for?|What do you offer?|Tell me what you are.|Tell me who you are.|Tell me what you can do.|Show me what you can do.|Explain what you can do.|Say what you are.|Say who you are.|Who or what is Hearth?|What is Hearth for?|Are you a robot?|Are you human?|Are you a computer?|Are you a language model?|Are you GPT?|Are you Llama?|Are you Claude?|How big are you?|How many parameters do you have?|Which languages do you speak?|How does this work?|How do I start?|What should I do first?|What now?|What are you able to help with?|What can this program do?|Who are you really?|So who are you?|What exactly are you?|Describe yourself.|Your name?|And you are?|What's your name?|What's this?|What are your skills?|What can't you do for me?|Can you do anything?|What do you understand?|Can you see?|Can you hear me?|What are you?|Who are you?|What can you do?|What is Hearth?|Tell me about yourself.|What do you know?|"
    "What can I ask you?|Are you ChatGPT?|Are you an AI?|Are you a person?|Which model are you?|What model is this?|"
    "Help|How can you help me?|What is your name?|Introduce yourself.|What are you able to do?|What are your abilities?|"
    "How do I use you?|What can't you do?|Are you a big model?|What kind of model are you?|Who am I talking to?|"
    "What are you good at?|Can you help me?|What do you do?|What is this program?|How smart are you?|"
    "Do you have a name?|What sort of things can you do?|Who is this?|What are you capable of?|Who or what are you?",
    WELCOME: "Thanks a million|Thx|Thanks, Hearth!|Thank you, Hearth.|Great.|Nice.|Cool, thanks!|Super|Wonderful, thank you!|That was right.|Excellent.|OK, thanks.|Thanks for that.|Thank you for your help.|I thank you.|Thanks|Thank you|Thank you!|Thanks a lot|Thank you very much.|Great, thanks!|Thanks, that helps.|Perfect, thank you|"
    "Nice, thanks|Cheers|Good job|Well done!|Very good.|That's right.|Many thanks!|Thanks so much.|Thank you so much!|Thanks, great.",
    GOODBYE: "Ciao|Farewell|Bye, Hearth!|Goodbye, Hearth.|See you tomorrow.|See you then|Good night!|I am leaving.|That was all.|Until next time!|Talk to you later|Have a nice day!|Bye|Goodbye|Bye!|See you|See you later.|Good night|Bye bye|That is all.|Until tomorrow|I have to go.|Goodbye!|See you soon!|Goodbye for now.|Bye for now!",
    FINE: "How do you feel?|How's it going?|How are things?|Are you OK?|Are you all right?|How have you been?|How is your day?|What's up?|How was your day?|How are you this morning?|Is everything fine?|How are you?|How are you doing?|How do you do?|How is it going?|How are you today?|Are you well?|Everything all right?|How are you feeling?|Are you fine?",
    PRIVATE: "Is it safe to show you a letter?|Who reads what I write?|Do you keep my data secret?|Where does my data go?|Do you talk to the internet?|Are you connected to the internet?|Do you work offline?|Can you work without the internet?|Is what I say private?|Do you share my documents?|Is this chat private?|Do you spy on me?|Are you in the cloud?|Do you run in the cloud?|Is my data safe?|Are you online?|Do you send my data anywhere?|Where do you run?|Is this private?|"
    "Do you need the internet?|Who can see my pictures?|Does anything leave my computer?|Are my documents private?|"
    "Do you upload my files?|Is my data sent to a server?|Do my files stay on my machine?|Is anything sent over the internet?",
    TRAINED: "Who created you?|What data were you trained on?|How did they train you?|From what did you learn?|Who wrote you?|Where were you made?|Where were you trained?|What did you learn from?|Who is your maker?|Were you trained from scratch?|How did you come to be?|Who made you?|How were you trained?|Where do you come from?|What were you trained on?|Who trained you?|Who built you?|"
    "On what data were you trained?|How were you made?|Who developed you?|How did you learn this?",
}
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
        forms = _FIXED[answer].split("|")
        question = self.rng.choice(forms[-4:] if self.held_out else forms[:-4])
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
        skill = rng.choice([s for s in PICTURE_QUESTIONS if s not in ("which_picture", "both")])
        phrasings = PICTURE_QUESTIONS[skill]
        template = rng.choice(phrasings.held_out if self.held_out else phrasings.trained)
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
        return self.rng.choices(kinds, (0.05, 0.14, 0.16, 0.12, 0.26, 0.14, 0.13))[0]()
