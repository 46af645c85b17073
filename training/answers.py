"""Questions on drawn scenes with their true answers, in the words the pocket model is to use.

What is seen comes first in an answer, and what follows from it last ("There are three dice, so no."): a small model
looks up each word by those before it, and a verdict given first would be a guess. Things are counted by their places.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from training.captions import describe, numbered, product_with_article, with_colour
from training.exchanges import Exchange, capital, listed, spelled
from training.questions import QUESTIONS
from training.scenes import Scene, Thing
from training.vocabulary import MASS, PLURAL_ONLY, plural, with_article
from training.world import COLOURS, NAMES_DRAWN, NUMBERS, PLACES, SHAPES, fill, size_word

SEVERAL_COLOURS = "several colours"
BIGGER_BY = 1.7  # times the area, for one thing to be called bigger
# how the place of the second thing is said from the first: (columns, rows) from one to the other
RELATIONS = {(-1, 0): "to the left of", (1, 0): "to the right of", (0, -1): "above", (0, 1): "below"}
Questions = dict[str, Callable[[Scene], Exchange]]  # by skill


def it_is(name: str, colour: str | None = None) -> str:
    """``It is an apple`` or ``These are scissors``."""
    return f"{'These are' if name in PLURAL_ONLY else 'It is'} {with_colour(name, colour)}"


def the_is(name: str) -> str:
    return f"The {name} {'are' if name in PLURAL_ONLY else 'is'}"


def there_is(name: str) -> str:
    return f"There {'are' if name in PLURAL_ONLY else 'is'} {with_article(name)}"


def counted_off(scene: Scene, name: str) -> str:
    """``the dice: 1 at the top left, 2 in the middle``: things of one name row by row, counted on the way.

    It begins alike whether there is one or more, and goes on alike whether there are more or not.
    """
    cells = sorted((thing.cell for thing in scene.things if thing.name == name), key=lambda cell: cell[::-1])
    return f"the {plural(name)}: {', '.join(f'{at} {PLACES[cell]}' for at, cell in enumerate(cells, 1))}"


def what_there_is(scene: Scene) -> str:
    """Names without numbers: ``It is a die``, ``These are dice``, ``There are dice and a medal``."""
    counts = counts_of(scene)
    first = next(iter(counts))
    if len(counts) == 1:
        return it_is(first) if counts[first] == 1 else f"These are {plural(first)}"
    said = [with_article(name) if number == 1 else plural(name) for name, number in counts.items()]
    return f"There {'are' if counts[first] > 1 or first in PLURAL_ONLY else 'is'} {listed(said)}"


def counts_of(scene: Scene) -> dict[str, int]:
    """Name → how many there are, in the order of the scene."""
    counts: dict[str, int] = {}
    for thing in scene.things:
        counts[thing.name] = counts.get(thing.name, 0) + 1
    return counts


class Examiner:
    """Asks about one picture. With ``held_out`` it uses only the sentences that training never does."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def template(self, skill: str, *, naming: bool | None = None) -> str:
        """A question template; ``naming`` True wants the thing named in it, False wants it not named."""
        pool = QUESTIONS[skill].held_out if self.held_out else QUESTIONS[skill].typed
        if naming is not None:
            named = [t for t in pool if ("{x}" in t or "{xs}" in t) == naming]
            pool = tuple(named) or pool
        return self.rng.choice(pool)

    def ask(self, scene: Scene, skill: str) -> Exchange:
        """An exchange on ``scene``; KeyError for a skill that does not fit the scene's kind."""
        return self._on(scene)[skill](scene)

    def skills(self, scene: Scene) -> tuple[str, ...]:
        return tuple(self._on(scene))

    def _on(self, scene: Scene) -> Questions:
        if scene.kind == "photo":
            return {"name": self._product}
        if scene.kind == "words":
            return {"words": self._words}
        if scene.kind == "chart":
            found: Questions = {"chart": self._chart, "highest": self._highest, "bars": self._bars}
            colours = [bar.colour for bar in scene.bars]
            return {**found, "chart_colour": self._chart_colour} if len(set(colours)) == len(colours) else found
        asked: Questions = {
            "name": self._name, "is_it": self._is_it, "statement": self._statement,
        }  # fmt: skip
        counts = counts_of(scene)
        if not set(counts) & (MASS | PLURAL_ONLY):
            asked["count"] = self._count
        if scene.background:
            asked["background"] = self._background
        if len(scene.things) == 1:
            asked |= {"colour": self._colour, "side": self._side, "beside": self._beside, "describe": self._describe}
            asked["is_colour"] = self._is_colour
            if scene.things[0].name in SHAPES:
                asked["shape"] = self._shape
        elif len(counts) == 1:
            asked |= {"colour": self._colour, "describe": self._describe}
        elif len(scene.things) == 2:
            asked |= {"colour": self._colour, "side": self._side, "beside": self._beside, "describe": self._describe}
            asked |= {"relation": self._relation, "is_relation": self._is_relation}
            areas = sorted(thing.area for thing in scene.things)
            if areas[1] > BIGGER_BY * areas[0]:
                asked["bigger"] = self._bigger
        elif len(counts) == 2 and len(set(counts.values())) == 2:
            asked["more"] = self._more
        elif len(counts) > 2:
            asked |= {"colour": self._colour, "side": self._side, "beside": self._beside}
        return asked

    def _subject(self, scene: Scene) -> Thing:
        """A thing that is the only one of its name, if there is one."""
        counts = counts_of(scene)
        return self.rng.choice([thing for thing in scene.things if counts[thing.name] == 1] or scene.things)

    def _name(self, scene: Scene) -> Exchange:
        question = self.template("name")
        counts = counts_of(scene)
        names = tuple(counts)
        several = len(names) == 1 and len(scene.things) > 1
        return Exchange(question, what_there_is(scene) + ".", (plural(names[0]),) if several else names)

    def _product(self, scene: Scene) -> Exchange:
        name = scene.things[0].name
        return Exchange(self.template("name"), f"It is {product_with_article(name)}.", (name,))

    def _shape(self, scene: Scene) -> Exchange:
        name = scene.things[0].name
        return Exchange(self.template("shape"), f"It is {with_article(name)}.", (name,))

    def _colour(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        several = len(scene.things) > 1 and len(counts_of(scene)) == 1
        template = self.template("colour", naming=True if len(scene.things) > 1 else None)
        if several:
            template = self.rng.choice(
                ("What colour are the {xs}?", "What color are the {xs}?", "Which colour are the {xs}?")
            )
        if several:
            start = f"The {plural(thing.name)} are"
        elif "{x}" in template:
            start = the_is(thing.name)
        else:
            start = "They are" if thing.name in PLURAL_ONLY else "It is"
        if thing.colour is None:
            start = start.removesuffix(" is").removesuffix(" are") + (" have" if start.endswith(" are") else " has")
        colour = thing.colour or SEVERAL_COLOURS
        return Exchange(fill(template, thing.name), f"{start} {colour}.", (colour,))

    def _side(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        template = self.template("side", naming=True if len(scene.things) > 1 else None)
        start = the_is(thing.name) if "{x}" in template else ("They are" if thing.name in PLURAL_ONLY else "It is")
        return Exchange(fill(template, thing.name), f"{start} {PLACES[thing.cell]}.", (PLACES[thing.cell],))

    def _count(self, scene: Scene) -> Exchange:
        name, number = self.rng.choice(tuple(counts_of(scene).items()))
        template = self.template("count", naming=True if len(counts_of(scene)) > 1 else None)
        conclusion = f"so there {'is' if number == 1 else 'are'} {NUMBERS[number]}"
        return Exchange(fill(template, name), f"Counting {counted_off(scene, name)}, {conclusion}.", (conclusion,))

    def other(self, *present: str) -> str:
        """A name that is not among ``present``."""
        return self.rng.choice([name for name in self.rng.sample(NAMES_DRAWN, 5) if name not in present])

    def _is_it(self, scene: Scene) -> Exchange:
        thing = self._subject(scene)
        true = self.rng.random() < 0.5
        asked = thing.name if true else self.other(*counts_of(scene))
        question = fill(self.template("is_it"), thing.name, other=asked)
        return self._judged(question, what_there_is(scene), true)

    @staticmethod
    def _judged(question: str, seen: str, true: bool, *expected: str) -> Exchange:
        """What is seen, and whether it is as asked."""
        verdict = "so yes" if true else "so no"
        return Exchange(question, f"{seen}, {verdict}.", (verdict, *expected))

    def _statement(self, scene: Scene) -> Exchange:
        """A statement about what there is, right or wrong in one thing."""
        counts = counts_of(scene)
        name = self.rng.choice(tuple(counts))
        true = self.rng.random() < 0.5
        asked = name if true or self.rng.random() < 0.5 else self.other(*counts)
        number, seen = counts[name], what_there_is(scene)
        if name in MASS | PLURAL_ONLY or asked in MASS | PLURAL_ONLY:
            said = there_is(name if true else self.other(*counts))
        else:
            if not true and asked == name:
                number = self.rng.choice([n for n in range(1, 7) if n != number])
            said = f"There {'is' if number == 1 else 'are'} {numbered(asked, number)}"
            if asked == name:
                seen = f"Counting {counted_off(scene, name)}, {numbered(name, counts[name])}"
        return self._judged(self.template("statement").replace("{s}", said + "."), seen, true)

    def _is_colour(self, scene: Scene) -> Exchange:
        thing = scene.things[0]
        if thing.colour is None:
            return self._name(scene)
        true = self.rng.random() < 0.5
        asked = thing.colour if true else self.rng.choice([c for c in COLOURS if c != thing.colour])
        question = fill(self.template("is_colour"), thing.name, colour=asked)
        return self._judged(question, f"{the_is(thing.name)} {thing.colour}", true, thing.colour)

    def _background(self, scene: Scene) -> Exchange:
        question = fill(self.template("background"), scene.things[0].name)
        return Exchange(question, f"The background is {scene.background}.", (str(scene.background),))

    def _describe(self, scene: Scene) -> Exchange:
        question = self.template("describe")
        first = scene.things[0]
        ground = (
            f" on {'an' if scene.background == 'orange' else 'a'} {scene.background} background"
            if scene.background
            else ""
        )
        text = describe(scene)
        if len(scene.things) == 1:
            start = "These are" if first.name in PLURAL_ONLY else "It is"
            return Exchange(question, f"{start} {text}{',' if ground else ''}{ground}.", (first.name,))
        if len(counts_of(scene)) == 1:
            return Exchange(question, f"There are {text}{ground}.", (plural(first.name),))
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

    def _related(self, scene: Scene) -> tuple[Thing, Thing, str]:
        """Two things and where the second one is from the first."""
        first, second = self.rng.sample(scene.things, 2)
        across, down = ((second.cell[i] > first.cell[i]) - (second.cell[i] < first.cell[i]) for i in (0, 1))
        return first, second, RELATIONS[(across, down)]

    def _relation(self, scene: Scene) -> Exchange:
        first, second, relation = self._related(scene)
        question = fill(self.template("relation"), first.name).replace("{r}", relation)
        return Exchange(question, f"{the_is(second.name)} {relation} the {first.name}.", (f"the {second.name}",))

    def _is_relation(self, scene: Scene) -> Exchange:
        first, second, relation = self._related(scene)
        true = self.rng.random() < 0.5
        opposite = {"above": "below", "below": "above"}
        asked = (
            relation
            if true
            else opposite.get(relation) or relation.replace("left", "R").replace("right", "left").replace("R", "right")
        )
        question = fill(self.template("is_relation"), first.name, other=second.name).replace("{r}", asked)
        return self._judged(question, f"{the_is(second.name)} {relation} the {first.name}", true)

    def _bigger(self, scene: Scene) -> Exchange:
        smaller, bigger = sorted(scene.things, key=lambda thing: thing.area)
        word, right = self.rng.choice((("bigger", bigger), ("larger", bigger), ("smaller", smaller)))
        asked = self.rng.sample((smaller.name, bigger.name), 2)
        question = fill(self.template("bigger"), asked[0], other=asked[1], colour=word)
        whole = scene.image.width * scene.image.height
        sizes = [size_word(thing.area / whole) for thing in scene.things]
        conclusion = f"{the_is(right.name).replace('The', 'the', 1)} {word}"
        seen = " and ".join(with_colour(thing.name, size) for thing, size in zip(scene.things, sizes, strict=True))
        link = "but" if sizes[0] == sizes[1] else "so"
        return Exchange(question, f"{capital(seen)}, {link} {conclusion}.", (conclusion,))

    def _more(self, scene: Scene) -> Exchange:
        counts = counts_of(scene)
        most, fewest = sorted(counts, key=counts.__getitem__, reverse=True)
        template = self.template("more")
        first, second = self.rng.sample((most, fewest), 2)
        question = fill(template, first).replace("{ys}", plural(second))
        if "{xs}" not in template:
            first, second = counts  # as they come row by row
        seen = [f"{counted_off(scene, name)}, {numbered(name, counts[name])}" for name in (first, second)]
        answer = f"{capital(seen[0])}. {capital(seen[1])}, so more {plural(most)}."
        return Exchange(question, answer, (f"so more {plural(most)}",))

    def _words(self, scene: Scene) -> Exchange:
        return Exchange(self.template("words"), f'It says "{spelled(scene.text)}".', (f'"{scene.text}"',))

    def _chart(self, scene: Scene) -> Exchange:
        bar = self.rng.choice(scene.bars)
        question = self.template("chart").replace("{l}", bar.label)
        return Exchange(question, f'It says "{spelled(bar.text)}", so the value is {bar.value}.', (f"is {bar.value}",))

    def _chart_colour(self, scene: Scene) -> Exchange:
        bar = self.rng.choice(scene.bars)
        question = self.template("chart_colour").replace("{c}", bar.colour)
        answer = f'The {bar.colour} bar says "{spelled(bar.text)}", so its value is {bar.value}.'
        return Exchange(question, answer, (f"is {bar.value}",))

    def _highest(self, scene: Scene) -> Exchange:
        top = max(scene.bars, key=lambda bar: bar.value)
        if sum(bar.value == top.value for bar in scene.bars) > 1:
            return self._chart(scene)
        answer = f'It says "{spelled(top.text)}", so {top.label} is the highest.'
        return Exchange(self.template("highest"), answer, (f"so {top.label}",))

    def _bars(self, scene: Scene) -> Exchange:
        number = NUMBERS[len(scene.bars)]
        return Exchange(self.template("bars"), f"There are {number} bars.", (number,))
