"""Composes whole chats: about one picture, about two, and mixtures over many turns."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.answers import Examiner, Exchange
from training.chats import Chat, Message
from training.pictures import Painter, Scene
from training.scene_pool import ScenePool
from training.smalltalk import SYSTEM_PROMPTS, Talker
from training.world import as_spoken, varied

_SKILL_WEIGHTS = {
    "name": 5, "colour": 4, "side": 4, "count": 4, "is_it": 1.5, "is_colour": 1, "background": 1, "describe": 1.5,
    "beside": 1,
}  # fmt: skip
MAX_TURNS = 4
TWO_PICTURES_SHARE = 0.22


@dataclass(frozen=True)
class PictureChat:
    """A chat and the scenes of its pictures in order (what a caption can be made from)."""

    chat: Chat
    scenes: tuple[Scene, ...]


class Composer:
    """Draws chats that hold pictures. ``painter``, ``examiner`` and ``talker`` decide what is kept for evaluation."""

    def __init__(self, painter: Painter | ScenePool, examiner: Examiner, talker: Talker) -> None:
        self.painter = painter
        self.examiner = examiner
        self.talker = talker
        self.rng: random.Random = painter.rng

    def scene(self) -> Scene:
        draw = self.rng.random()
        if draw < 0.55:
            return self.painter.single()
        if draw < 0.68:
            return self.painter.single(sprite=self.painter.sprite(coloured=True, shape_share=0.3))
        return self.painter.counted(self.rng.choice((2, 2, 3, 3, 3))) if draw < 0.86 else self.painter.pair()

    def picture_chat(self) -> PictureChat:
        """One to ``MAX_TURNS`` questions on one picture, now and then small talk around them or a second picture."""
        if self.rng.random() < TWO_PICTURES_SHARE:
            return self._two_pictures()
        scene = self.scene()
        messages = self._questions(scene, self.rng.choice((1, 2, 3, 3, MAX_TURNS)))
        if self.rng.random() < 0.04:
            first = messages[0]
            messages[0] = Message(first.role, self.talker.writer.stray_sources() + first.text, first.images, first.gap)
        scenes = [scene]
        if self.rng.random() < 0.08:
            other = self.scene()
            scenes.append(other)
            messages += self._questions(other, self.rng.randint(1, 2))
        if self.rng.random() < 0.03:
            messages = [*self.talker.fixed().messages, *messages]
        if self.rng.random() < 0.03:
            messages += (self.talker.fixed() if self.rng.random() < 0.5 else self.talker.beyond()).messages
        if self.rng.random() < 0.03:
            messages = [Message("system", self.rng.choice(SYSTEM_PROMPTS)), *messages]
        return PictureChat(Chat(tuple(messages), "picture"), tuple(scenes))

    def _questions(self, scene: Scene, number: int) -> list[Message]:
        skills = list(self.examiner.skills(scene))
        messages: list[Message] = []
        asked: set[str] = set()
        for _ in range(number):
            skill = self.rng.choices(skills, [_SKILL_WEIGHTS[s] for s in skills])[0]
            if skill in asked:
                continue
            asked.add(skill)
            messages += self._turn(self.examiner.ask(scene, skill), () if messages else (scene,))
        return messages

    def _two_pictures(self) -> PictureChat:
        first = self.painter.single()
        second = self.painter.single()
        while second.things[0].name == first.things[0].name:
            second = self.painter.single()
        messages: list[Message] = []
        for skill in self.rng.sample(("which_picture", "ordinal", "both", "which_picture"), self.rng.randint(1, 2)):
            messages += self._turn(self.examiner.ask_two(first, second, skill), () if messages else (first, second))
        return PictureChat(Chat(tuple(messages), "two pictures"), (first, second))

    def _turn(self, exchange: Exchange, scenes: tuple[Scene, ...]) -> list[Message]:
        draw = self.rng.random()
        question = exchange.question if self.examiner.held_out else varied(exchange.question, self.rng)
        if draw < 0.22:
            question = as_spoken(question)
        elif draw < 0.3:
            question = question.rstrip("?.")
        gap = self.rng.choices(("", " ", "\n"), (0.7, 0.15, 0.15))[0]
        return [
            Message("user", question, tuple(scene.image for scene in scenes), gap),
            Message("assistant", exchange.answer),
        ]

    def exam(self, skill: str) -> Chat:
        """One question of a skill and its right answer; ``expected`` holds the words that matter."""
        if skill in ("which_picture", "ordinal", "both"):
            first, second = self.painter.single(), self.painter.single()
            while second.things[0].name == first.things[0].name:
                second = self.painter.single()
            exchange = self.examiner.ask_two(first, second, skill)
            return Chat(tuple(self._turn(exchange, (first, second))), skill, exchange.expected)
        if skill == "count":
            scene = self.painter.counted(self.rng.randint(1, 3))
        elif skill == "colour":
            scene = self.painter.single(sprite=self.painter.sprite(coloured=True, shape_share=0.3))
        else:
            scene = self.painter.single()
        exchange = self.examiner.ask(scene, skill)
        return Chat(tuple(self._turn(exchange, (scene,))), skill, exchange.expected)
