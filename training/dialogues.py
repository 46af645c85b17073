"""Composes whole chats with pictures: about one, about two or three, and mixtures over many turns."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from training.answers import Examiner, counts_of
from training.answers_several import SeveralPictures, ask_json
from training.chats import Chat, Message
from training.exchanges import Exchange
from training.imagined import ImaginedScenes
from training.scene_pool import FreshScenes, ScenePool, Scenes
from training.scenes import Scene
from training.smalltalk import SYSTEM_PROMPTS, Talker
from training.world import as_spoken, varied

KINDS = {
    "single": 0.09, "coloured": 0.06, "counted": 0.14, "pair": 0.13, "groups": 0.1, "crowd": 0.05, "photograph": 0.07,
    "words": 0.09, "chart": 0.1, "related": 0.17,
}  # fmt: skip
IMAGINED_KINDS = {
    "pair": 0.17, "crowd": 0.16, "counted": 0.16, "groups": 0.14, "single": 0.04, "related": 0.04,
    "words": 0.1, "chart": 0.19,
}  # fmt: skip
_FIRST_KINDS = {"single": 0.38, "coloured": 0.16, "counted": 0.16, "pair": 0.16, "photograph": 0.14}
_FIRST_UNTIL, _ALL_FROM = 0.25, 0.6  # progress
_SKILL_WEIGHTS = {
    "name": 4.0, "colour": 2.0, "side": 3.0, "count": 4.0, "statement": 6.0, "is_it": 2.0, "chart": 4.0,
    "chart_colour": 4.0, "more": 6.0, "relation": 5.0, "is_relation": 5.0, "bigger": 6.0, "is_colour": 2.0,
    "shape": 3.0,
}  # fmt: skip
MAX_TURNS = 6
JSON_SHARE = 0.1


def kinds_at(progress: float) -> dict[str, float]:
    """Kinds of scenes and their weights: pictures of one or two names first, since all else is asked by name."""
    share = min(max((_ALL_FROM - progress) / (_ALL_FROM - _FIRST_UNTIL), 0.0), 1.0)
    return {kind: share * _FIRST_KINDS.get(kind, 0.0) + (1 - share) * weight for kind, weight in KINDS.items()}


@dataclass(frozen=True)
class PictureChat:
    """A chat and the scenes of its pictures in order."""

    chat: Chat
    scenes: Scenes


class Composer:
    """Draws chats that hold pictures. ``scenes``, ``examiner`` and ``talker`` decide what is kept for evaluation."""

    def __init__(self, scenes: ScenePool | FreshScenes | ImaginedScenes, examiner: Examiner, talker: Talker) -> None:
        self.scenes = scenes
        self.examiner = examiner
        self.several = SeveralPictures(examiner)
        self.talker = talker
        self.rng: random.Random = scenes.rng

    def picture_chat(self, progress: float = 1.0) -> PictureChat:
        """One to ``MAX_TURNS`` questions on one picture or several, now and then with small talk or another picture."""
        rng = self.rng
        kinds = kinds_at(progress)
        kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
        drawn = self.scenes.draw(kind)
        messages = self._on_several(drawn) if kind == "related" else self._on_one(drawn[0])
        if rng.random() < 0.04:
            first = messages[0]
            messages[0] = Message(first.role, self.talker.writer.stray_sources() + first.text, first.images, first.gap)
        if kind != "related" and rng.random() < 0.08:
            other = self.scenes.draw(rng.choice(("single", "coloured", "photograph", "words")))
            drawn += other
            messages += self._on_one(other[0])[:4]
        draw = rng.random()
        if draw < 0.03:
            messages = [*self.talker.fixed().messages, *messages]
        elif draw < 0.06:
            messages += (self.talker.fixed() if rng.random() < 0.5 else self.talker.beyond()).messages
        elif draw < 0.09:
            messages = [Message("system", rng.choice(SYSTEM_PROMPTS)), *messages]
        return PictureChat(Chat(tuple(messages), "picture"), drawn)

    def imagined_chat(self) -> PictureChat:
        """Many questions on a scene that is only imagined: it costs little, and so do they."""
        kind = self.rng.choices(tuple(IMAGINED_KINDS), tuple(IMAGINED_KINDS.values()))[0]
        drawn = self.scenes.draw(kind)
        messages = self._on_several(drawn) if kind == "related" else self._on_one(drawn[0], MAX_TURNS)
        return PictureChat(Chat(tuple(messages), "picture"), drawn)

    def _on_one(self, scene: Scene, wanted: int = 0) -> list[Message]:
        skills = list(self.examiner.skills(scene))
        wanted = wanted or self.rng.choice((1, 2, 3, 4, 5, MAX_TURNS))
        if scene.kind == "chart":
            wanted = MAX_TURNS
        again = scene.kind == "chart" or len(counts_of(scene)) > 1
        messages: list[Message] = []
        asked: set[str] = set()
        for _ in range(wanted):
            if self._fits_json(scene) and self.rng.random() < JSON_SHARE:
                messages += self.turn(ask_json(self.examiner, scene)[0], () if messages else (scene,))
                continue
            skill = self.rng.choices(skills, [_SKILL_WEIGHTS.get(s, 1.0) for s in skills])[0]
            if skill not in asked or again:
                asked.add(skill)
                messages += self.turn(self.examiner.ask(scene, skill), () if messages else (scene,))
        return messages

    def skills(self, scenes: Scenes) -> list[str]:
        """What can be asked about these scenes: about the one picture, or about what two or three show."""
        if len(scenes) == 1:
            return list(self.examiner.skills(scenes[0]))
        skills = ["common", "ordinal", "both"]
        if len({scene.things[0].name for scene in scenes}) == len(scenes):
            skills.append("which_picture")
        return [*skills, "differ"] if len(scenes) == 2 else skills

    def ask(self, scenes: Scenes, skill: str) -> Exchange:
        if len(scenes) == 1:
            return self.examiner.ask(scenes[0], skill)
        return self.several.ask(scenes, skill)

    def _on_several(self, scenes: Scenes) -> list[Message]:
        skills = self.skills(scenes)
        messages: list[Message] = []
        for skill in self.rng.sample(skills, self.rng.randint(1, min(3, len(skills)))):
            messages += self.turn(self.ask(scenes, skill), () if messages else scenes)
        return messages

    def _fits_json(self, scene: Scene) -> bool:
        return scene.kind == "things" and len({thing.name for thing in scene.things}) == 1

    def turn(self, exchange: Exchange, scenes: Scenes) -> list[Message]:
        """The messages of a question, worn as people type, and its answer."""
        draw = self.rng.random()
        question = exchange.question if self.examiner.held_out else varied(exchange.question, self.rng)
        if draw < 0.2:
            question = as_spoken(question)
        elif draw < 0.28:
            question = question.rstrip("?.")
        gap = self.rng.choices(("", " ", "\n"), (0.7, 0.15, 0.15))[0]
        return [
            Message("user", question, tuple(scene.image for scene in scenes), gap),
            Message("assistant", exchange.answer),
        ]

    def exam(self, skill: str, kind: str) -> Chat:
        """One question of a skill on a new scene of ``kind``, with its answer and the words that matter."""
        for _ in range(500):
            scenes = self.scenes.draw(kind)
            if skill not in self.skills(scenes):
                continue
            exchange = self.ask(scenes, skill)
            return Chat(tuple(self.turn(exchange, scenes)), skill, exchange.expected)
        raise ValueError(f"no scene of kind {kind!r} can be asked for {skill!r}")

    def json_exam(self) -> tuple[Chat, dict[str, Any]]:
        """A question for JSON about a scene, and its schema."""
        scenes = self.scenes.draw(self.rng.choice(("single", "coloured", "counted")))
        exchange, schema = ask_json(self.examiner, scenes[0])
        return Chat(tuple(self.turn(exchange, scenes)), "JSON", exchange.expected), schema
