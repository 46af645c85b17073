"""What the pocket models know: colours, shapes and places; how questions on them are filled in and worn."""

from __future__ import annotations

import random

from hearth.multimodal import locating
from training.questions import EVERYDAY_SKILLS, QUESTIONS
from training.vocabulary import PLURAL_ONLY, picture_names, plural, with_article

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (242, 130, 30),
    "yellow": (248, 206, 40),
    "green": (52, 158, 72),
    "blue": (48, 104, 214),
    "purple": (132, 64, 176),
    "pink": (242, 132, 180),
    "brown": (126, 82, 48),
    "black": (28, 28, 30),
    "white": (246, 246, 246),
    "grey": (136, 138, 142),
}
SHAPES = ("circle", "square", "triangle", "rectangle", "star", "heart", "cross", "diamond", "hexagon")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
NAMES_DRAWN: tuple[str, ...] = tuple(sorted(set(picture_names().values())))
NAMES: tuple[str, ...] = tuple(sorted(set(picture_names().values())))

# grid cell (column, row) of the thing's centre -> how its place is said
PLACES: dict[tuple[int, int], str] = {(at % 3, at // 3): name for at, name in enumerate(locating.PLACES)}

# how large a thing is said to be: word -> up to which share of the picture's side, by the root of its area
SIZES = {"very small": 0.16, "small": 0.24, "medium": 0.33, "large": 0.43, "very large": 10.0}


def size_word(share: float) -> str:
    """For a share of the picture's area."""
    return next(word for word, limit in SIZES.items() if share**0.5 <= limit)


def fill(template: str, name: str, other: str = "", colour: str = "", place: str = "", nth: str = "") -> str:
    """A question sentence with its blanks filled in, verb and article agreeing."""
    be = "are" if name in PLURAL_ONLY else "is"
    blanks = {
        "{x}": name,
        "{ax}": with_article(name) if name else "",
        "{xs}": plural(name) if name else "",
        "{y}": other,
        "{ay}": with_article(other) if other else "",
        "{c}": colour,
        "{is}": be,
        "{Is}": be.capitalize(),
        "{place}": place,
        "{nth}": nth,
    }
    for blank, value in blanks.items():
        template = template.replace(blank, value)
    return template


def as_spoken(text: str) -> str:
    """How a transcript of ``text`` looks: lower case, no punctuation but apostrophes."""
    return " ".join("".join(ch if ch.isalnum() or ch == "'" else " " for ch in text.lower()).split())


_OPENERS = [
    "Please",
    "Hey;",
    "OK;",
    "So;",
    "Now",
    "Well;",
    "Hearth;",
    "Say;",
    "Tell me;",
    "One question:",
    "I wonder;",
    "Quick question:",
    "Excuse me;",
    "Look:",
    "And",
    "Then",
]
_CLOSERS = (", please", " please", " for me", " now", " then", ", Hearth", " again")


def varied(text: str, rng: random.Random) -> str:
    """Sometimes with a word or two before or after, as people put them."""
    draw = rng.random()
    if draw < 0.16:
        first = text if text.startswith(("I ", "I'm", "Hearth")) else text[:1].lower() + text[1:]
        return f"{rng.choice(_OPENERS).replace(';', ',')} {first}"
    if draw < 0.26 and text[-1:] in "?.!":
        return text[:-1] + rng.choice(_CLOSERS) + text[-1]
    return text


_SPOKEN_EXTRA = (
    "Hello.",
    "Hi there.",
    "Good morning.",
    "Thank you.",
    "Thanks a lot.",
    "Goodbye.",
    "Who are you?",
    "What are you?",
    "What can you do?",
    "How are you?",
    "My name is {person}.",
    "What is my name?",
    "I like {xs}.",
    "What do I like?",
    "Where is the meeting?",
    "When is the meeting?",
    "When does the {room} open?",
    "When does it close?",
    "How much does the {x} cost?",
    "Who has the key?",
    "What is the password?",
    "What is the phone number?",
    "Who wrote the letter?",
    "How long is the trip?",
    "What does the contract say?",
    "Where is the {room}?",
)
_SPOKEN_PEOPLE = ("Anna", "Peter", "Maria", "Tom", "Lisa", "David", "Emma", "Paul", "Julia", "Mark")
_SPOKEN_ROOMS = ("library", "office", "shop", "museum", "school", "kitchen", "station", "garden", "hotel", "bank")


def spoken_sentence(rng: random.Random) -> str:
    """A question of the pocket world as someone types it; spoken aloud it is what the speech model hears."""
    if rng.random() < 0.12:
        sentence = rng.choice(_SPOKEN_EXTRA).replace("{person}", rng.choice(_SPOKEN_PEOPLE))
        return fill(sentence.replace("{room}", rng.choice(_SPOKEN_ROOMS)), rng.choice(NAMES))
    skill = rng.choice(("name", "colour", "side", "count", "colour", "side", "count", *EVERYDAY_SKILLS))
    template = rng.choice(QUESTIONS[skill].questions + QUESTIONS[skill].held_out)
    name = rng.choice((*NAMES, *SHAPES))
    return fill(
        template,
        name,
        other=rng.choice(NAMES),
        colour=rng.choice(tuple(COLOURS)),
        place=rng.choice(tuple(PLACES.values())),
        nth=rng.choice(("first", "second")),
    )
