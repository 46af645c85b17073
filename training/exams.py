"""The questions of the evaluation: held-out sentences, names and compositions, with what a right answer must say."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.answers import Examiner
from training.chats import Chat
from training.dialogues import Composer
from training.fonts import fonts
from training.material import load_material
from training.noto import noto_sprites
from training.pictures import Material, Painter
from training.printing import Printer
from training.products import Product
from training.scene_pool import FreshScenes
from training.smalltalk import Talker
from training.texts import Writer

EXAM_SIDE_PX = 384  # drawn larger than the encoder sees, as people's pictures are
PASSAGES = (4, 5, 6, 7, 8)
# skill -> kinds of scenes and skills of the examiner that it is asked by
PICTURE_SKILLS: dict[str, tuple[tuple[str, str], ...]] = {
    "name": (("single", "name"),),
    "name, Noto": (("single", "name"),),
    "product, kind": (("photograph", "name"),),
    "product, exact": (("photograph", "name"),),
    "colour": (("coloured", "colour"),),
    "shape": (("single", "shape"),),
    "count": (("counted", "count"),),
    "position": (("single", "side"), ("pair", "side")),
    "relation": (("pair", "relation"),),
    "comparison": (("pair", "bigger"), ("groups", "more")),
    "yes or no": (("single", "is_it"), ("counted", "statement"), ("pair", "is_relation"), ("coloured", "is_colour")),
    "printed word": (("words", "words"),),
    "several pictures": (("related", "which_picture"), ("related", "common"), ("related", "differ")),
    "bar chart": (("chart", "chart"), ("chart", "chart_colour")),
}
TARGETS: dict[str, float] = {
    "name": 0.92, "name, Noto": 0.55, "product, kind": 0.8, "product, exact": 0.65, "colour": 0.92, "shape": 0.92,
    "count": 0.92, "position": 0.92, "relation": 0.92, "comparison": 0.92, "yes or no": 0.92, "printed word": 0.8,
    "several pictures": 0.85, "bar chart": 0.8, "JSON": 0.9, "grounded": 0.85, "not in sources": 0.9,
    "told facts": 0.9, "sums": 0.9, "about Hearth": 0.9,
    "about itself": 0.9, "beyond": 0.95, "no picture": 0.9, "small talk": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Exam:
    """The chat up to the question counts as said; its last message is the right answer.

    ``schema`` is that of an answer in JSON, of which the share of right fields counts. ``products`` by name, for
    photographs.
    """

    skill: str
    chat: Chat
    schema: dict[str, Any] | None = None
    products: dict[str, Product] = field(default_factory=dict)

    def score(self, answer: str) -> float:
        """1 for a right answer, 0 for a wrong one. A name must be the whole answer's name."""
        said = answer.strip()
        if self.schema is not None:
            return _right_fields(said, json.loads(self.chat.expected[0]))
        if self.products:
            return float(self._right_product(said))
        if self.skill in ("name", "name, Noto"):
            return float(said.lower() == self.chat.messages[-1].text.lower())
        if self.skill == "printed word":
            return float(self.chat.expected[0] in said)
        return float(all(_holds(said.lower(), phrase.lower()) for phrase in self.chat.expected))

    def _right_product(self, said: str) -> bool:
        named = [name for name in self.products if _holds(said.lower(), name.lower())]
        if not named:
            return False
        answered, wanted = self.products[max(named, key=len)], self.products[self.chat.expected[0]]
        return answered == wanted if self.skill == "product, exact" else answered.kind == wanted.kind


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None


def _right_fields(said: str, wanted: dict[str, Any]) -> float:
    try:
        found = json.loads(said)
    except json.JSONDecodeError:
        return 0.0
    return float(sum(found.get(name) == value for name, value in wanted.items()) / len(wanted))


class ExamBoard:
    """Draws exams. The pictures' material is loaded once."""

    def __init__(self, data: Path, seed: int = 20_000) -> None:
        self._data = data
        self._seed = seed
        self._material: Material | None = None

    def material(self) -> Material:
        if self._material is None:
            self._material = load_material(self._data, 0, styled=False)
        return self._material

    def painter(self, rng: random.Random, material: Material | None = None) -> Painter:
        printer = Printer(fonts(), rng, held_out=True)
        return Painter(material or self.material(), rng, printer, held_out=True, side_px=EXAM_SIDE_PX)

    def exams(self, skill: str, number: int) -> list[Exam]:
        """``number`` exams of one skill, the same for the same seed. KeyError for an unknown skill."""
        # kind and exact name are asked for by the same questions
        rng = random.Random(f"{skill.partition(',')[0] if 'product' in skill else skill} {self._seed}")
        talker = Talker(rng, held_out=True)
        if skill in PICTURE_SKILLS or skill == "JSON":
            return self._picture_exams(skill, number, rng, talker)
        writer = Writer(rng, held_out=True)
        draws: dict[str, Callable[[], Chat]] = {
            "grounded": lambda: writer.grounded(max_words=260, passages_of=rng.choice(PASSAGES)),
            "not in sources": lambda: writer.unrelated(rng.choice(PASSAGES)),
            "told facts": talker.told,
            "sums": talker.sums,
            "about Hearth": talker.about_hearth,
            "beyond": talker.beyond,
            "no picture": talker.no_picture,
            "about itself": talker.fixed,
            "small talk": talker.fixed,
        }
        draw = draws[skill]
        found: list[Exam] = []
        while len(found) < number:
            chat = draw()
            if chat.skill == skill and (skill != "grounded" or len(chat.expected) == 2):
                found.append(Exam(skill, chat))
        return found

    def _picture_exams(self, skill: str, number: int, rng: random.Random, talker: Talker) -> list[Exam]:
        material = Material(tuple(noto_sprites()), {}) if skill == "name, Noto" else None
        composer = Composer(FreshScenes(self.painter(rng, material)), Examiner(rng, held_out=True), talker)
        if skill == "JSON":
            return [Exam(skill, *composer.json_exam()) for _ in range(number)]
        named = (
            {photo.product.name: photo.product for photo, _ in self.material().photographs}
            if "product" in skill
            else {}
        )
        kinds = PICTURE_SKILLS[skill]
        found: list[Exam] = []
        while len(found) < number:
            kind, asked = kinds[len(found) % len(kinds)]
            chat = composer.exam(asked, kind)
            is_shape = chat.messages[-1].text.removesuffix(".").split()[-1] in _SHAPES
            if skill not in ("name", "name, Noto") or not is_shape:  # shapes have a skill of their own
                found.append(Exam(skill, chat, products=named))
        return found


_SHAPES = frozenset(("circle", "square", "triangle", "rectangle", "cross", "diamond", "hexagon"))
