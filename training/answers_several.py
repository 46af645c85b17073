"""Questions on two or three pictures, and answers in JSON about one."""

from __future__ import annotations

import json
from typing import Any

from training.answers import Examiner, counts_of
from training.captions import with_colour
from training.exchanges import Exchange
from training.scenes import Scene
from training.vocabulary import with_article
from training.world import PLACES, fill

NTH = ("first", "second", "third")
FIELDS = ("name", "colour", "count", "place")
_TYPES: dict[str, dict[str, Any]] = {
    "name": {"type": "string"},
    "colour": {"type": "string"},
    "count": {"type": "integer"},
    "place": {"type": "string"},
}


def shown(scene: Scene) -> str:
    """What one of several pictures shows, in few words: ``a dog``."""
    return with_article(scene.things[0].name)


class SeveralPictures:
    """Asks about pictures of one thing each, through the sentences of an examiner."""

    def __init__(self, examiner: Examiner) -> None:
        self.examiner = examiner
        self.rng = examiner.rng

    def ask(self, scenes: tuple[Scene, ...], skill: str) -> Exchange:
        """Skills: which_picture, ordinal, both (what they show), common, differ."""
        asked: Exchange = getattr(self, f"_{skill}")(scenes)
        return asked

    def _template(self, skill: str, scenes: tuple[Scene, ...]) -> str:
        """A sentence that does not speak of two pictures where there are three."""
        while True:
            template = self.examiner.template(skill)
            words = set(template.lower().replace(",", "").rstrip("?.").split())
            if len(scenes) == 2 or not words & {"two", "both", "first", "second"}:
                return template

    def _both(self, scenes: tuple[Scene, ...]) -> Exchange:
        parts = [f"the {nth}{' picture' if i < 2 else ''} shows {shown(s)}" if i == 0 else f"the {nth} {shown(s)}"
                 for i, (nth, s) in enumerate(zip(NTH, scenes, strict=False))]  # fmt: skip
        answer = f"{', '.join(parts[:-1])} and {parts[-1]}."
        return Exchange(self._template("both", scenes), "T" + answer[1:], tuple(s.things[0].name for s in scenes))

    def _ordinal(self, scenes: tuple[Scene, ...]) -> Exchange:
        index = self.rng.randrange(len(scenes))
        question = fill(self.examiner.template("ordinal"), scenes[index].things[0].name, nth=NTH[index])
        return Exchange(
            question, f"The {NTH[index]} picture shows {shown(scenes[index])}.", (scenes[index].things[0].name,)
        )

    def _which_picture(self, scenes: tuple[Scene, ...]) -> Exchange:
        names = [scene.things[0].name for scene in scenes]
        if self.rng.random() < 0.12:
            absent = self.examiner.other(*names)
            question = fill(self._template("which_picture", scenes), "", other=absent)
            return Exchange(question, f"None of the pictures shows {with_article(absent)}.", ("none",))
        index = self.rng.randrange(len(scenes))
        question = fill(self._template("which_picture", scenes), "", other=names[index])
        return Exchange(question, f"The {NTH[index]} picture shows the {names[index]}.", (NTH[index],))

    def _common(self, scenes: tuple[Scene, ...]) -> Exchange:
        question = self._template("common", scenes)
        all_of = "Both" if len(scenes) == 2 else "All"
        things = [scene.things[0] for scene in scenes]
        if len({thing.name for thing in things}) == 1:
            return Exchange(question, f"{all_of} pictures show {with_article(things[0].name)}.", (things[0].name,))
        colours = {thing.colour for thing in things}
        if len(colours) == 1 and None not in colours:
            return Exchange(question, f"{all_of} things are {things[0].colour}.", (str(things[0].colour),))
        backgrounds = {scene.background for scene in scenes}
        if len(backgrounds) == 1 and None not in backgrounds:
            ground = str(scenes[0].background)
            return Exchange(
                question,
                f"{all_of} pictures have {'an' if ground == 'orange' else 'a'} {ground} background.",
                (ground,),
            )
        return Exchange(question, "They have nothing in common.", ("nothing",))

    def _differ(self, scenes: tuple[Scene, ...]) -> Exchange:
        question = self.examiner.template("differ")
        first, second = (scene.things[0] for scene in scenes[:2])
        if first.name != second.name:
            answer = f"The first picture shows {with_article(first.name)} and the second {with_article(second.name)}."
            return Exchange(question, answer, (first.name, second.name))
        if first.colour != second.colour and first.colour and second.colour:
            return Exchange(
                question,
                f"The first picture shows {with_colour(first.name, first.colour)} and the second "
                f"{with_colour(second.name, second.colour)}.",
                (first.colour, second.colour),
            )
        return Exchange(
            question,
            f"The {first.name} is {PLACES[first.cell]} in the first picture and {PLACES[second.cell]} in the second.",
            (PLACES[first.cell], PLACES[second.cell]),
        )


def fields_of(scene: Scene) -> dict[str, str | int]:
    """What JSON about a scene of one kind of thing can hold."""
    thing = scene.things[0]
    found: dict[str, str | int] = {"name": thing.name}
    if thing.colour:
        found["colour"] = thing.colour
    found["count"] = counts_of(scene)[thing.name]
    if len(scene.things) == 1:
        found["place"] = PLACES[thing.cell]
    return found


def ask_json(examiner: Examiner, scene: Scene) -> tuple[Exchange, dict[str, Any]]:
    """A question for one to four fields as JSON, with its answer and the schema that the answer keeps to."""
    found = fields_of(scene)
    wanted = [field for field in FIELDS if field in found]
    wanted = [field for field in wanted if examiner.rng.random() < 0.7] or wanted[:1]
    said = wanted[0] if len(wanted) == 1 else f"{', '.join(wanted[:-1])} and {wanted[-1]}"
    answer = json.dumps({field: found[field] for field in wanted})
    schema = {
        "type": "object",
        "properties": {field: _TYPES[field] for field in wanted},
        "required": wanted,
        "additionalProperties": False,
    }
    return Exchange(examiner.template("json").replace("{f}", said), answer, (answer,)), schema
