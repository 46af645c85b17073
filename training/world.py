"""What the pocket models can be asked: colours, shapes, sides, and the question sentences of every skill."""

from __future__ import annotations

import random
from dataclasses import dataclass

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
PLACES: dict[tuple[int, int], str] = {
    (0, 0): "at the top left",
    (1, 0): "at the top",
    (2, 0): "at the top right",
    (0, 1): "on the left",
    (1, 1): "in the middle",
    (2, 1): "on the right",
    (0, 2): "at the bottom left",
    (1, 2): "at the bottom",
    (2, 2): "at the bottom right",
}

# how large a thing is said to be: word -> up to which share of the picture's side, by the root of its area
SIZES = {"very small": 0.16, "small": 0.24, "medium": 0.33, "large": 0.43, "very large": 10.0}


def size_word(share: float) -> str:
    """For a share of the picture's area."""
    return next(word for word, limit in SIZES.items() if share**0.5 <= limit)


@dataclass(frozen=True)
class Phrasings:
    """Question sentences of one skill; ``held_out`` ones are asked in evaluation only."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


def _phrasings(trained: str, held_out: str) -> Phrasings:
    return Phrasings(tuple(trained.strip().split("\n")), tuple(held_out.strip().split("\n")))


# {x} a name, {ax} with its article, {xs} its plural, {y}/{ay} a second one, {c} a colour, {is}/{it} agree with x
PICTURE_QUESTIONS: dict[str, Phrasings] = {
    "name": _phrasings(
        """What is this?
What's this?
What is in the picture?
What is in this picture?
What's in the picture?
What is in the image?
What do you see?
What do you see here?
What do you see in the picture?
What can you see?
What can you see in this picture?
What does the picture show?
What does this image show?
What is shown here?
What is it?
What thing is this?
What object is this?
Which thing is this?
What am I looking at?
Name this.
Name this thing.
Name the thing in the picture.
Tell me what this is.
Tell me what you see.
Can you tell me what this is?
Do you know what this is?
Please tell me what is in the picture.
Please name this thing.
Can you name it?
Identify this.
What have we here?
What is that?
What would you call this?
Recognise this?
And what is this?
And this?""",
        """What does this picture show?
What can you see in the picture?
Could you tell me what this is?
Please name the thing in the picture.
What is shown in this image?""",
    ),
    "colour": _phrasings(
        """What colour is the {x}?
What color is the {x}?
What colour {is} the {x}?
Which colour {is} the {x}?
What colour does the {x} have?
What is the colour of the {x}?
What is the color of the {x}?
Tell me the colour of the {x}.
Tell me the color of the {x}.
What colour is it?
What color is it?
Which colour is it?
What colour is this?
What color is this?
What colour is this {x}?
What color is this {x}?
And what colour is it?
And the colour?
What is its colour?
What is the colour of this thing?
Name the colour of the {x}.
Can you tell me the colour of the {x}?
Can you tell me what colour it is?
Do you see what colour the {x} {is}?
Please tell me the colour.""",
        """Which color {is} the {x}?
Can you tell me what colour the {x} {is}?
Please tell me the colour of the {x}.
What colour is the thing in the picture?""",
    ),
    "side": _phrasings(
        """Where is the {x}?
Where {is} the {x}?
Where in the picture {is} the {x}?
Where do you see the {x}?
Where can you see the {x}?
On which side {is} the {x}?
Which side {is} the {x} on?
On what side of the picture {is} the {x}?
Where is it?
And where is it?
Where in the picture is it?
On which side is it?
Which side is it on?
Is it on the left or on the right?
Is it left or right?
Is it at the top or at the bottom?
{Is} the {x} on the left or on the right?
{Is} the {x} left or right?
{Is} the {x} at the top or at the bottom?
Tell me where the {x} {is}.
Tell me where it is.
In which part of the picture {is} the {x}?
What is the position of the {x}?
Can you tell me where the {x} {is}?
Can you say where it is?""",
        """Where in this picture {is} the {x}?
On which side of the picture {is} the {x}?
Please tell me where the {x} {is}.
On which side do you see the {x}?""",
    ),
    "count": _phrasings(
        """How many {xs} are there?
How many {xs} do you see?
How many {xs} can you see?
How many {xs} are in the picture?
How many {xs} are in this picture?
How many {xs} are shown?
How many {xs} does the picture show?
Count the {xs}.
Count the {xs} in the picture.
Please count the {xs}.
Can you count the {xs}?
What is the number of {xs}?
Tell me how many {xs} there are.
Tell me the number of {xs}.
How many are there?
How many do you see?
And how many are there?
How many things are there?
How many things do you see?
How many things are in the picture?
How many objects are there?
Count the things.""",
        """How many {xs} can you see in the picture?
Tell me how many {xs} you see.
Please tell me how many {xs} there are.
Can you count the {xs} in the picture?""",
    ),
    "is_it": _phrasings(
        """Is this {ay}?
Is it {ay}?
Is that {ay}?
Do you see {ay}?
Is there {ay}?
Is there {ay} in the picture?
Does the picture show {ay}?
Can you see {ay}?
Is {ay} in the picture?""",
        """Can you see {ay} in the picture?
Is this a picture of {ay}?""",
    ),
    "is_colour": _phrasings(
        """Is the {x} {c}?
{Is} the {x} {c}?
Is it {c}?
Is this {x} {c}?
Is the colour {c}?""",
        """Would you say the {x} {is} {c}?
Do you think it is {c}?""",
    ),
    "background": _phrasings(
        """What colour is the background?
What color is the background?
Which colour is the background?
What is the colour of the background?
What is behind the {x}?
And the background?""",
        """What colour does the background have?
Tell me the colour of the background.""",
    ),
    "describe": _phrasings(
        """Describe the picture.
Describe this picture.
Describe the image.
Describe this.
Describe what you see.
Please describe the picture.
Tell me about this picture.
Tell me about the picture.
Can you describe this?
Give me a description.
What is this a picture of?
Write a caption.
Caption this.""",
        """Can you describe the picture?
Please describe what you see.""",
    ),
    "beside": _phrasings(
        """What is {place}?
What do you see {place}?
What can you see {place}?
Which thing is {place}?
And what is {place}?
What is {place} of the picture?""",
        """What is the thing {place}?
What is shown {place}?""",
    ),
    "which_picture": _phrasings(
        """Which picture shows {ay}?
Which picture shows the {y}?
Which one shows {ay}?
Which one shows the {y}?
Which one is the {y}?
Which picture is the {y}?
In which picture do you see {ay}?
In which picture is the {y}?
Where is the {y}, in the first or in the second picture?
Which of the two pictures shows {ay}?
Which image has {ay}?""",
        """Which of these pictures shows the {y}?
Which of the two shows {ay}?
In which of the pictures is the {y}?""",
    ),
    "ordinal": _phrasings(
        """What is in the {nth} picture?
What does the {nth} picture show?
What do you see in the {nth} picture?
What is the {nth} one?
What is in the {nth} image?
And the {nth} one?
And what is in the {nth} picture?
Name the thing in the {nth} picture.""",
        """What can you see in the {nth} picture?
Tell me what is in the {nth} picture.""",
    ),
    "both": _phrasings(
        """What do you see in the pictures?
What is in these pictures?
What do the pictures show?
What are these?
What do you see?
Describe the pictures.
What is the difference?
What is different?""",
        """What do these two pictures show?
What can you see in the pictures?""",
    ),
}


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
    skill = rng.choice(("name", "colour", "side", "count", "colour", "side", "count", *PICTURE_QUESTIONS))
    phrasings = PICTURE_QUESTIONS[skill]
    template = rng.choice(phrasings.trained + phrasings.held_out)
    name = rng.choice((*NAMES, *SHAPES))
    return fill(
        template,
        name,
        other=rng.choice(NAMES),
        colour=rng.choice(tuple(COLOURS)),
        place=rng.choice(tuple(PLACES.values())),
        nth=rng.choice(("first", "second")),
    )
