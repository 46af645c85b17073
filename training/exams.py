"""The questions of the evaluation: held-out sentences, names and compositions, with what a right answer must say."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from training.answers import Examiner
from training.chats import Chat
from training.dialogues import Composer
from training.pictures import Painter, load_sprites
from training.smalltalk import Talker
from training.texts import Writer

EXAM_SIDE_PX = 384  # drawn larger than the encoder sees, as people's pictures are
TARGETS = {
    "name": 0.7, "colour": 0.7, "side": 0.7, "count": 0.7, "which_picture": 0.7, "grounded": 0.6, "not in sources": 0.6,
    "about itself": 0.8, "beyond": 0.8, "no picture": 0.8, "small talk": 0.8, "told facts": 0.6,
}  # fmt: skip
PICTURE_SKILLS = ("name", "colour", "side", "count", "which_picture")


@dataclass(frozen=True)
class Exam:
    """The chat up to the question counts as said; its last message is the right answer."""

    chat: Chat

    @property
    def skill(self) -> str:
        return self.chat.skill

    def is_right(self, answer: str) -> bool:
        """Whether the answer holds every expected phrase as whole words. A name must be the whole answer's name."""
        said = answer.lower().strip()
        if self.skill == "name":
            return said == self.chat.messages[-1].text.lower()
        return all(_holds(said, phrase.lower()) for phrase in self.chat.expected)


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None


def exams(skill: str, number: int, data: Path, seed: int = 20_000) -> list[Exam]:
    """``number`` exams of one skill, the same for the same seed."""
    rng = random.Random(f"{skill} {seed}")
    talker = Talker(rng, held_out=True)
    if skill in PICTURE_SKILLS:
        painter = Painter(load_sprites(data), rng, held_out=True, side_px=EXAM_SIDE_PX)
        composer = Composer(painter, Examiner(rng, held_out=True), talker)
        return [Exam(composer.exam(skill)) for _ in range(number)]
    writer = Writer(rng, held_out=True)
    if skill == "grounded":
        drawn = (writer.grounded(max_words=120) for _ in range(20 * number))
        return [Exam(chat) for chat in drawn if len(chat.expected) == 2][:number]
    if skill == "not in sources":
        return [Exam(writer.unrelated()) for _ in range(number)]
    draw = {"beyond": talker.beyond, "no picture": talker.no_picture, "told facts": talker.told}.get(
        skill, talker.fixed
    )
    found = (draw() for _ in range(50 * number))
    return [Exam(chat) for chat in found if chat.skill == skill][:number]
