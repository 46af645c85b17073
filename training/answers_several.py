"""Questions on two or three pictures, and answers in JSON about one.

As in ``training.answers``, what each picture shows comes first in an answer.
"""

from __future__ import annotations

import json
from typing import Any

from training.answers import Examiner, counts_of
from training.captions import with_colour
from training.exchanges import Exchange, capital, listed
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
        absent = self.rng.random() < 0.12
        index = self.rng.randrange(len(scenes))
        asked = self.examiner.other(*names) if absent else names[index]
        verdict = "so it is none of them" if absent else f"so it is the {NTH[index]} picture"
        question = fill(self._template("which_picture", scenes), "", other=asked)
        seen = listed([f"{with_article(name)} in the {nth}" for name, nth in zip(names, NTH, strict=False)])
        return Exchange(question, f"{capital(seen)} picture, {verdict}.", (verdict,))

    def _common(self, scenes: tuple[Scene, ...]) -> Exchange:
        question = self._template("common", scenes)
        seen = capital(listed([_on_ground(scene) for scene in scenes]))
        shared = _shared(scenes)
        return Exchange(question, f"{seen}: {shared}.", (shared,))

    def _differ(self, scenes: tuple[Scene, ...]) -> Exchange:
        """Thing, colour and place of each, whatever it is that differs: which of them does is known only at the end."""
        first, second = (scene.things[0] for scene in scenes[:2])
        seen = [f"{with_colour(thing.name, thing.colour)} {PLACES[thing.cell]}" for thing in (first, second)]
        answer = f"The first picture shows {seen[0]} and the second {seen[1]}."
        if first.name != second.name:
            expected = (first.name, second.name)
        elif first.colour != second.colour and first.colour and second.colour:
            expected = (first.colour, second.colour)
        else:
            expected = (PLACES[first.cell], PLACES[second.cell])
        return Exchange(self.examiner.template("differ"), answer, expected)


def _shared(scenes: tuple[Scene, ...]) -> str:
    """What pictures have in common: the thing, else its colour, else the background."""
    all_of = "both" if len(scenes) == 2 else "all"
    first, ground = scenes[0].things[0], scenes[0].background
    if all(scene.things[0].name == first.name for scene in scenes):
        return f"{all_of} show {with_article(first.name)}"
    if first.colour and all(scene.things[0].colour == first.colour for scene in scenes):
        return f"{all_of} things are {first.colour}"
    if ground and all(scene.background == ground for scene in scenes):
        return f"{all_of} have {with_article(f'{ground} background')}"
    return "they have nothing in common"


def _on_ground(scene: Scene) -> str:
    """What a picture shows with its colours: ``a red heart on white``."""
    thing = scene.things[0]
    return with_colour(thing.name, thing.colour) + (f" on {scene.background}" if scene.background else "")


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
