"""Invents values that no model can know by heart: people, places, codes, times, prices; some kept for evaluation."""

# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable

_ONSETS = [
    "b",
    "br",
    "c",
    "ch",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sc",
    "sh",
    "sk",
    "sl",
    "sm",
    "sn",
    "sp",
    "st",
    "str",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "y",
    "z",
]
_VOWELS = ["a", "a", "a", "e", "e", "e", "i", "i", "o", "o", "u", "ai", "ea", "ee", "ie", "oa", "ou", "y"]
_CODAS = [
    "",
    "",
    "",
    *["l", "n", "r", "s", "t", "m", "k", "d", "nd", "rt", "st", "ck", "ng", "ll", "x", "rn", "p", "b", "g", "ld"],
]
_SURNAME_ENDS = ["", "", "", "er", "son", "man", "ski", "ova", "etti", "berg", "ley", "wood", "ez", "ini", "ard"]
_FIRST_ENDS = ["", "", "a", "o", "ia", "us", "in", "el", "ette", "y", "an", "is"]
_PLACE_ENDS = [
    "",
    "ton",
    "ville",
    "burg",
    "ford",
    "field",
    "stadt",
    "dale",
    "mouth",
    "by",
    "land",
    "port",
    "a",
    "o",
    "haven",
]
_FIRST_NAMES = [
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ines",
    "James",
    "Karen",
    "Leo",
    "Maria",
    "Nina",
    "Oscar",
    "Paula",
    "Robert",
    "Sara",
    "Tom",
    "Vera",
    "Walter",
    "Yusuf",
    "Zoe",
    "Alice",
    "Boris",
    "Clara",
    "Dora",
    "Erik",
    "Fatima",
    "George",
    "Hanna",
    "Ivan",
    "Julia",
    "Kemal",
    "Lena",
    "Marco",
    "Nadia",
    "Omar",
    "Petra",
    "Quentin",
    "Rosa",
    "Samir",
    "Tara",
    "Ulrich",
    "Viktor",
    "Wanda",
    "Xenia",
    "Yara",
    "Amir",
    "Bella",
    "Chen",
    "Diego",
    "Elif",
    "Farid",
    "Gita",
    "Hugo",
    "Irene",
    "Jonas",
    "Kofi",
    "Lucia",
    "Mei",
    "Noah",
    "Olga",
    "Priya",
]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_ADJECTIVES = [
    "blue",
    "red",
    "green",
    "old",
    "new",
    "small",
    "big",
    "wooden",
    "black",
    "white",
    "brown",
    "grey",
    "yellow",
    "tall",
    "round",
    "heavy",
    "broken",
    "empty",
    "second",
    "left",
    "upper",
    "lower",
    "front",
    "back",
    "narrow",
    "metal",
    "plastic",
    "glass",
]
_CONTAINERS = (
    (
        "drawer cupboard box shelf cellar garage attic kitchen flower pot desk cabinet suitcase basket wardrobe shed hallway office "
        "safe bag jar tin bathroom folder locker bucket chest fridge car tent doormat bookcase"
    )
    .replace("flower pot", "flower_pot")
    .split()
)
_PREPOSITIONS = ("in", "under", "behind", "next to", "on top of", "inside", "beside", "in front of", "near", "above")
_THINGS = [
    "spare key",
    "ladder",
    "passport",
    "first aid kit",
    "drill",
    "charger",
    "toolbox",
    "projector",
    "red folder",
    "camera",
    "map",
    "umbrella",
    "flashlight",
    "contract",
    "invoice",
    "medicine",
    "vacuum cleaner",
    "printer paper",
    "coffee",
    "tea",
    "bicycle pump",
    "winter coat",
    "sleeping bag",
    "tent",
    "remote control",
    "lawn mower",
    "paint",
    "fire extinguisher",
    "master key",
    "visitor book",
    "screwdriver",
    "hammer",
    "tape",
    "glue",
    "soap",
]
_MATERIALS = [
    "oak",
    "steel",
    "copper",
    "glass",
    "wool",
    "cotton",
    "leather",
    "marble",
    "bronze",
    "clay",
    "silk",
    "granite",
    "pine",
    "bamboo",
    "brass",
    "linen",
]
_FOODS = [
    "rice",
    "soup",
    "apples",
    "bread",
    "fish",
    "lentils",
    "potatoes",
    "carrots",
    "honey",
    "cheese",
    "noodles",
    "mushrooms",
    "nuts",
    "berries",
    "beans",
    "plums",
    "yoghurt",
    "spinach",
    "pancakes",
    "dumplings",
    "olives",
    "seeds",
    "hay",
    "insects",
    "cabbage",
]
_JOBS = [
    "director",
    "treasurer",
    "caretaker",
    "nurse",
    "librarian",
    "engineer",
    "chairwoman",
    "secretary",
    "cook",
    "driver",
    "gardener",
    "teacher",
    "coach",
    "landlord",
    "plumber",
    "accountant",
    "editor",
    "doctor",
    "mayor",
    "trainer",
    "designer",
    "pilot",
    "guide",
    "inspector",
    "architect",
]


def is_held_out_name(text: str) -> bool:
    """Whether an invented name is kept for evaluation (one in six, by hash)."""
    return zlib.crc32(text.encode()) % 6 == 0


class Inventor:
    """Draws values by kind. With ``held_out`` only names kept for evaluation, otherwise only trained ones."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out
        self._kinds: dict[str, Callable[[], str]] = {
            "person": self.person,
            "place": lambda: self._name(_PLACE_ENDS),
            "org": self.organisation,
            "product": self.product,
            "code": self.code,
            "room": self.room,
            "day": self.day,
            "date": self.date,
            "time": self.time,
            "price": self.price,
            "phone": lambda: " ".join(str(rng.randint(10, 9999)) for _ in range(rng.randint(2, 3))),
            "number": lambda: str(rng.choice((rng.randint(2, 30), rng.randint(30, 999), rng.randint(1000, 99999)))),
            "duration": lambda: (
                f"{rng.randint(2, 60)} {rng.choice(('minutes', 'hours', 'days', 'weeks', 'months', 'years'))}"
            ),
            "measure": self.measure,
            "spot": lambda: (
                f"{rng.choice(_PREPOSITIONS)} the {rng.choice(_ADJECTIVES)} "
                + rng.choice(_CONTAINERS).replace("_", " ")
            ),
            "thing": lambda: rng.choice(_THINGS),
            "material": lambda: rng.choice(_MATERIALS),
            "food": lambda: " and ".join(rng.sample(_FOODS, rng.randint(1, 2))),
            "job": lambda: rng.choice(_JOBS),
            "colour": lambda: rng.choice(
                ("red", "blue", "green", "yellow", "black", "white", "brown", "orange", "grey", "purple")
            ),
            "year": lambda: str(rng.randint(1500, 2039)),
            "email": self.email,
        }

    def __call__(self, kind: str) -> str:
        """A value of ``kind``; KeyError for an unknown kind."""
        return self._kinds[kind]()

    def _name(self, ends: list[str]) -> str:
        rng = self.rng
        while True:
            stem = "".join(
                rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 1, 2, 2)))
            )
            name = (stem + rng.choice(ends)).capitalize()
            if 3 <= len(name) <= 12 and is_held_out_name(name) == self.held_out:
                return name

    def person(self) -> str:
        rng = self.rng
        first = rng.choice(_FIRST_NAMES) if rng.random() < 0.4 else self._name(_FIRST_ENDS)
        if rng.random() < 0.35:
            return first if self.held_out is False or is_held_out_name(first) else self._name(_FIRST_ENDS)
        title = rng.choice(("Dr ", "Mr ", "Mrs ", "Ms ")) if rng.random() < 0.12 else ""
        return f"{title}{first} {self._name(_SURNAME_ENDS)}" if not title else title + self._name(_SURNAME_ENDS)

    def organisation(self) -> str:
        kind = self.rng.choice(
            [
                "Museum",
                "Library",
                "School",
                "Hotel",
                "Bakery",
                "Clinic",
                "Club",
                "Company",
                "Institute",
                "Garden",
                "Theatre",
                "Station",
                "Market",
                "Café",
                "Bridge",
                "Tower",
            ]
        )
        return f"{self._name(_PLACE_ENDS)} {kind}"

    def product(self) -> str:
        rng = self.rng
        name = self._name(["", "on", "ex", "ix", "ium", "ra", "tec", "o"])
        if rng.random() < 0.5:
            name += f" {rng.choice(string.ascii_uppercase)}{rng.randint(1, 999)}"
        return name

    def code(self) -> str:
        rng = self.rng
        pattern = rng.choice(
            ("####", "AA-###", "A##-A#", "aaa###", "#####", "AAA-##", "word-##", "A####", "##-##-##", "word##")
        )
        word = self._name([""]).lower()
        letters = {"#": string.digits, "A": string.ascii_uppercase, "a": string.ascii_lowercase}
        head, _, tail = pattern.partition("word")
        drawn = "".join(rng.choice(letters[c]) if c in letters else c for c in (tail if "word" in pattern else head))
        return word + drawn if "word" in pattern else drawn

    def room(self) -> str:
        rng = self.rng
        return rng.choice(
            (
                f"room {rng.randint(1, 499)}",
                f"hall {rng.choice(string.ascii_uppercase)}",
                f"building {rng.randint(1, 40)}",
                f"the {rng.choice(_ADJECTIVES)} {rng.choice(('room', 'hall', 'house', 'tent', 'office', 'building'))}",
                f"room {rng.choice(string.ascii_uppercase)}{rng.randint(1, 60)}",
                f"the {self._name(_PLACE_ENDS)} room",
            )
        )

    def day(self) -> str:
        rng = self.rng
        return rng.choice((rng.choice(_DAYS), f"{rng.choice(_DAYS)} {rng.choice(('morning', 'afternoon', 'evening'))}"))

    def date(self) -> str:
        rng = self.rng
        day, month = rng.randint(1, 28), rng.choice(_MONTHS)
        year = f" {rng.randint(1900, 2039)}" if rng.random() < 0.5 else ""
        return f"{day} {month}{year}" if rng.random() < 0.6 else f"{month} {day}{',' if year else ''}{year}"

    def time(self) -> str:
        rng = self.rng
        return rng.choice(
            (
                f"{rng.randint(1, 12)} o'clock",
                f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}",
                f"{rng.randint(6, 20)}:{rng.choice(('00', '15', '30', '45'))}",
                f"{rng.randint(1, 12)} {rng.choice(('am', 'pm'))}",
                f"half past {rng.choice(('two', 'three', 'four', 'six', 'seven', 'eight', 'nine', 'ten'))}",
                "noon",
                "midnight",
            )
        )

    def price(self) -> str:
        rng = self.rng
        return rng.choice(
            (
                f"{rng.randint(2, 990)} euros",
                f"{rng.randint(1, 90)}.{rng.randint(0, 99):02d} euros",
                f"${rng.randint(2, 5000)}",
                f"£{rng.randint(1, 400)}.{rng.randint(0, 99):02d}",
                f"{rng.randint(1, 99)},{rng.randint(0, 999):03d} dollars",
            )
        )

    def measure(self) -> str:
        rng = self.rng
        return f"{rng.choice((rng.randint(2, 99), rng.randint(100, 4000)))} " + rng.choice(
            (
                "metres",
                "kilometres",
                "kilograms",
                "litres",
                "degrees",
                "watts",
                "centimetres",
                "grams",
                "miles",
                "pages",
            )
        )

    def email(self) -> str:
        return (
            f"{self._name(['']).lower()}@{self._name(['']).lower()}.{self.rng.choice(('org', 'com', 'net', 'example'))}"
        )
