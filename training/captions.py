"""Captions of scenes, for the contrast with captions and for searching pictures by text."""

from __future__ import annotations

import random

from training.scenes import Scene
from training.vocabulary import PLURAL_ONLY, plural, with_article
from training.world import NUMBERS, PLACES, as_spoken

PRODUCT_MASS = ("juice", "milk", "yoghurt", "oatghurt", "soyghurt", "sour cream", "asparagus", "garlic", "ginger")


def product_with_article(name: str) -> str:
    """``a Golden Delicious apple``, ``Arla sour milk``."""
    if name.endswith(PRODUCT_MASS):
        return name
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def with_colour(name: str, colour: str | None) -> str:
    """``a red apple``; without a dominant colour, ``an apple``."""
    if colour is None:
        return with_article(name)
    if with_article(name) == name:
        return f"{colour} {name}"
    return f"{'an' if colour == 'orange' else 'a'} {colour} {name}"


def numbered(name: str, count: int) -> str:
    """``three dogs``, ``one dog``."""
    return f"{NUMBERS[count]} {plural(name) if count > 1 else name}"


def describe(scene: Scene, *, colours: bool = True, places: bool = True) -> str:
    """What the picture shows, without a full stop: ``a red apple on the left``, ``two dogs``."""
    first = scene.things[0]
    if scene.kind == "photo":
        return product_with_article(first.name)
    if len(scene.things) == 1:
        text = with_colour(first.name, first.colour if colours else None)
        return f"{text} {PLACES[first.cell]}" if places else text
    second = scene.things[1]
    names = list(dict.fromkeys(thing.name for thing in scene.things))
    if len(names) == 2 and len(scene.things) > 2:
        return " and ".join(numbered(name, sum(t.name == name for t in scene.things)) for name in names)
    if first.name == second.name:
        several = plural(first.name) if first.name not in PLURAL_ONLY else first.name
        colour = f"{first.colour} " if colours and first.colour else ""
        return f"{NUMBERS[len(scene.things)]} {colour}{several}"
    parts = [with_colour(t.name, t.colour if colours else None) for t in (first, second)]
    if not places:
        return " and ".join(parts)
    return f"{parts[0]} {PLACES[first.cell]} and {parts[1]} {PLACES[second.cell]}"


ASKED_SHARE = 0.3  # of the captions: as people ask for a picture that they have
_ASKED = (
    "Where is my picture of {t}?",
    "Where is the picture with {t}?",
    "Where did I put the photo of {t}?",
    "Show me {t}.",
    "Show me the picture of {t}.",
    "Find the photo with {t}.",
    "Find {t}.",
    "Which picture shows {t}?",
    "Which photo has {t} in it?",
    "Do you remember {t}?",
    "Do I have a picture of {t}?",
    "I am looking for {t}.",
    "Have you seen {t}?",
    "Is there a photo of {t}?",
    "What was in the picture with {t}?",
    "When did I take the picture of {t}?",
)


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many captions that are true of the scene, or a question for a picture of it."""
    text = describe(scene, colours=rng.random() < 0.6, places=rng.random() < 0.4)
    if rng.random() < ASKED_SHARE:
        asked = rng.choice(_ASKED).replace("{t}", text)
        return asked if rng.random() < 0.6 else as_spoken(asked)
    if rng.random() < 0.25:
        text = rng.choice(("a picture of ", "a photo of ", "an image of ", "this is ")) + text
    if scene.kind == "photo":
        return text if rng.random() < 0.5 else as_spoken(text)
    if scene.background and rng.random() < 0.2:
        text += f" on {'an' if scene.background == 'orange' else 'a'} {scene.background} background"
    if rng.random() < 0.2:
        text = text.removeprefix("a ").removeprefix("an ")
    return as_spoken(text) if rng.random() < 0.5 else text[:1].upper() + text[1:]
