"""Questions on drawn scenes with their true answers, in the words the pocket model is to use."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.captions import describe, with_colour
from training.pictures import Scene, Thing
from training.vocabulary import MASS, PLURAL_ONLY, plural, with_article
from training.world import COLOURS, NAMES_DRAWN, NUMBERS, PICTURE_QUESTIONS, PLACES, fill

SEVERAL_COLOURS = "several colours"


@dataclass(frozen=True)
class Exchange:
    """A question, its answer, and the words that a right answer must contain (lower case)."""

    question: str
    answer: str
    expected: tuple[str, ...]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def it_is(name: str, colour: str | None = None) -> str:
    """``It is an apple`` or ``These are scissors``."""
    return f"{'These are' if name in PLURAL_ONLY else 'It is'} {with_colour(name, colour)}"


def the_is(name: str) -> str:
    return f"The {name} {'are' if name in PLURAL_ONLY else 'is'}"


def there_is(name: str) -> str:
    return f"There {'are' if name in PLURAL_ONLY else 'is'} {with_article(name)}"


class Examiner:
    """Asks about scenes. With ``held_out`` it uses only the sentences that training never does."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def template(self, skill: str, *, naming: bool | None = None) -> str:
        """A question template; ``naming`` True wants the thing named in it, False wants it not named."""
        phrasings = PICTURE_QUESTIONS[skill]
        pool = phrasings.held_out if self.held_out else phrasings.trained
        if naming is not None:
            named = [t for t in pool if ("{x}" in t or "{xs}" in t) == naming]
            pool = tuple(named) or pool
        return self.rng.choice(pool)

    def ask(self, scene: Scene, skill: str) -> Exchange:
        """An exchange on ``scene``; KeyError for a skill that does not fit the scene's kind."""
        return self._on(scene)[skill](scene)

    def skills(self, scene: Scene) -> tuple[str, ...]:
        uncountable = any(thing.name in MASS | PLURAL_ONLY for thing in scene.things)
        return tuple(skill for skill in self._on(scene) if not (uncountable and skill == "count"))

    def _on(self, scene: Scene) -> dict[str, Callable[[Scene], Exchange]]:
        always: dict[str, Callable[[Scene], Exchange]] = {
            "name": self._name,
            "colour": self._colour,
            "count": self._count,
            "is_it": self._is_it,
            "describe": self._describe,
        }
        if len(scene.things) == 1:
            alone = {"is_colour": self._is_colour, "background": self._background}
            return {**always, **alone, "side": self._side, "beside": self._beside}
        if self._is_pair(scene):
            return {**always, "side": self._side, "beside": self._beside}
        return {**always, "background": self._background}

    def _subject(self, scene: Scene) -> Thing:
        return self.rng.choice(scene.things)

    def _name(self, scene: Scene) -> Exchange:
        question = self.template("name")
        first = scene.things[0]
        if len(scene.things) == 1:
            return Exchange(question, it_is(first.name) + ".", (first.name,))
        if scene.things[1].name == first.name:
            return Exchange(question, self._several(scene) + ".", (NUMBERS[len(scene.things)], plural(first.name)))
        second = scene.things[1]
        answer = f"{there_is(first.name)} and {with_article(second.name)}."
        return Exchange(question, answer, (first.name, second.name))

    def _several(self, scene: Scene) -> str:
        name = scene.things[0].name
        return f"There are {NUMBERS[len(scene.things)]} {plural(name)}"

    def _is_pair(self, scene: Scene) -> bool:
        return len({thing.name for thing in scene.things}) > 1

    def _colour(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        template = self.template("colour", naming=True if len(scene.things) > 1 else None)
        several = len(scene.things) > 1 and not self._is_pair(scene)
        if several:
            template = "What colour are the {xs}?"
        question = fill(template, thing.name)
        if several:
            start = f"The {plural(thing.name)} are"
        elif "{x}" in template:
            start = the_is(thing.name)
        else:
            start = "They are" if thing.name in PLURAL_ONLY else "It is"
        if thing.colour is None:
            start = start.removesuffix(" is").removesuffix(" are") + (" have" if start.endswith(" are") else " has")
        colour = thing.colour or SEVERAL_COLOURS
        return Exchange(question, f"{start} {colour}.", (colour,))

    def _side(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        template = self.template("side", naming=True if len(scene.things) > 1 else None)
        plural_only = thing.name in PLURAL_ONLY
        start = the_is(thing.name) if "{x}" in template else ("They are" if plural_only else "It is")
        return Exchange(fill(template, thing.name), f"{start} {PLACES[thing.cell]}.", (PLACES[thing.cell],))

    def _count(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        number = sum(other.name == thing.name for other in scene.things)
        template = self.template("count", naming=True if self._is_pair(scene) else None)
        question = fill(template, thing.name)
        if number > 1:
            return Exchange(question, self._several(scene) + ".", (NUMBERS[number],))
        return Exchange(question, f"There is one {thing.name}.", ("one",))

    def _other(self, scene: Scene) -> str:
        present = {thing.name for thing in scene.things}
        return self.rng.choice([name for name in self.rng.sample(NAMES_DRAWN, 4) if name not in present])

    def _is_it(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        true = self.rng.random() < 0.5
        asked = thing.name if true else self._other(scene)
        question = fill(self.template("is_it"), thing.name, other=asked)
        if len(scene.things) == 1:
            statement = it_is(thing.name)
        elif self._is_pair(scene):
            second = next(t for t in scene.things if t.name != thing.name)
            statement = f"{there_is(thing.name)} and {with_article(second.name)}"
        else:
            statement = self._several(scene)
        answer = f"{'Yes' if true else 'No'}, {statement[0].lower()}{statement[1:]}."
        return Exchange(question, answer, ("yes" if true else "no",))

    def _is_colour(self, scene: Scene) -> Exchange:
        thing = scene.things[0]
        if thing.colour is None:
            return self._name(scene)
        true = self.rng.random() < 0.5
        asked = thing.colour if true else self.rng.choice([c for c in COLOURS if c != thing.colour])
        question = fill(self.template("is_colour"), thing.name, colour=asked)
        verdict = "Yes" if true else "No"
        return Exchange(
            question, f"{verdict}, t{the_is(thing.name)[1:]} {thing.colour}.", (verdict.lower(), thing.colour)
        )

    def _background(self, scene: Scene) -> Exchange:
        question = fill(self.template("background"), scene.things[0].name)
        return Exchange(question, f"The background is {scene.background}.", (str(scene.background),))

    def _describe(self, scene: Scene) -> Exchange:
        question = self.template("describe")
        first = scene.things[0]
        text = describe(scene)
        article = "an" if scene.background == "orange" else "a"
        if len(scene.things) == 1:
            start = "These are" if first.name in PLURAL_ONLY else "It is"
            return Exchange(question, f"{start} {text}, on {article} {scene.background} background.", (first.name,))
        if not self._is_pair(scene):
            return Exchange(
                question, f"There are {text} on {article} {scene.background} background.", (plural(first.name),)
            )
        return Exchange(question, f"There is {text}.", tuple(thing.name for thing in scene.things))

    def _beside(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        cell = thing.cell
        if self.rng.random() < 0.2:
            cell = self.rng.choice([c for c in PLACES if c not in {t.cell for t in scene.things}])
            question = fill(self.template("beside"), "", place=PLACES[cell])
            return Exchange(question, f"There is nothing {PLACES[cell]}.", ("nothing",))
        question = fill(self.template("beside"), thing.name, place=PLACES[cell])
        return Exchange(question, f"{there_is(thing.name)} {PLACES[cell]}.", (thing.name,))

    def ask_two(self, first: Scene, second: Scene, skill: str) -> Exchange:
        """On two pictures of one thing each; skills which_picture, ordinal, both."""
        things = (first.things[0], second.things[0])
        if skill == "both":
            first_name, second_name = (with_article(thing.name) for thing in things)
            answer = f"The first picture shows {first_name} and the second picture {second_name}."
            return Exchange(self.template("both"), answer, (things[0].name, things[1].name))
        index = self.rng.randrange(2)
        nth = ("first", "second")[index]
        if skill == "ordinal":
            question = fill(self.template("ordinal"), things[index].name, nth=nth)
            return Exchange(
                question, f"The {nth} picture shows {with_article(things[index].name)}.", (things[index].name,)
            )
        if self.rng.random() < 0.1:
            absent = self.rng.choice(
                [n for n in self.rng.sample(NAMES_DRAWN, 4) if n not in (things[0].name, things[1].name)]
            )
            question = fill(self.template("which_picture"), "", other=absent)
            return Exchange(question, f"Neither picture shows {with_article(absent)}.", ("neither",))
        question = fill(self.template("which_picture"), "", other=things[index].name)
        return Exchange(question, _capital(f"the {nth} picture shows the {things[index].name}."), (nth,))
