"""Documents for pre-training as MM1 has them: captions, pictures and text in any order, few-shot patterns."""

from __future__ import annotations

import random
from collections.abc import Callable

from tokenizers import Tokenizer

from training.answers import Examiner
from training.captions import describe
from training.chats import IMAGE_ID, n_visual, special_id, text_ids
from training.dialogues import KINDS
from training.exchanges import capital, spelled
from training.scene_pool import FreshScenes, ScenePool, Scenes
from training.scenes import Scene

MAX_PICTURES = 4
_OPENINGS = (
    "A few pictures.",
    "My album.",
    "Look at these.",
    "Some things I saw.",
    "Pictures of today.",
    "From the book.",
    "",
)
_BETWEEN = ("Then there is this.", "Here is another one.", "And this.", "Next:", "The next picture:", "", "", "")
Item = str | Scene


def full_caption(scene: Scene) -> str:
    """Everything that a picture says, as one sentence."""
    if scene.kind == "words":
        return f'It says "{spelled(scene.text)}".'
    if scene.kind == "chart":
        bars = [f"{bar.label} {bar.value}, {bar.colour}" for bar in scene.bars]
        return f"A bar chart: {'; '.join(bars)}."
    return capital(describe(scene)) + "."


class Documents:
    """Draws documents as lists of texts and scenes."""

    def __init__(self, scenes: ScenePool | FreshScenes, examiner: Examiner) -> None:
        self.scenes = scenes
        self.examiner = examiner
        self.rng: random.Random = scenes.rng

    def _scene(self) -> Scene:
        kinds = [kind for kind in KINDS if kind != "related"]
        return self.scenes.draw(self.rng.choices(kinds, [KINDS[kind] for kind in kinds])[0])[0]

    def captioned(self) -> list[Item]:
        """A picture and its caption."""
        scene = self._scene()
        return [scene, full_caption(scene)]

    def interleaved(self, shots: int | None = None) -> list[Item]:
        """Several pictures with text around them; one in two repeats a task from picture to picture.

        ``shots`` fixes the number of worked examples before the last one.
        """
        rng = self.rng
        if shots is not None or rng.random() < 0.5:
            return self._few_shot(rng.randint(1, MAX_PICTURES - 1) if shots is None else shots)
        items: list[Item] = [rng.choice(_OPENINGS)]
        for _ in range(rng.randint(2, MAX_PICTURES)):
            scene = self._scene()
            said = full_caption(scene)
            items += [scene, said] if rng.random() < 0.7 else [capital(said), scene]
            items.append(rng.choice(_BETWEEN))
        return items

    def _few_shot(self, shots: int) -> list[Item]:
        """The same question for several pictures of one kind, in the form ``picture label``."""
        kind = self.rng.choice(("single", "coloured", "photograph", "counted", "words"))
        skill = {"coloured": "colour", "words": "words", "counted": "count"}.get(kind, "name")
        items: list[Item] = []
        while len(items) < 2 * (shots + 1):
            scene = self.scenes.draw(kind)[0]
            if skill in self.examiner.skills(scene):
                items += [scene, label(scene, skill)]
        return items


def label(scene: Scene, skill: str) -> str:
    """The bare answer: a name, a colour, a number, a word."""
    thing = scene.things[0] if scene.things else None
    if thing is None or skill == "words":
        return spelled(scene.text)
    if skill == "colour":
        return thing.colour or "several colours"
    return str(len(scene.things)) if skill == "count" else thing.name


def encode_document(
    items: list[Item], tokenizer: Tokenizer, count: Callable[[Scene], int] | None = None
) -> tuple[list[int], list[float], Scenes]:
    """Ids, weights (0 at pictures and the beginning) and the scenes in order; ``<|end|>`` closes the document.

    ``count`` gives the visual tokens of a scene, if not those of the recipe's views.
    """
    ids = [special_id(tokenizer, "<|bos|>")]
    weights = [0.0]
    scenes: list[Scene] = []
    for item in items:
        if isinstance(item, Scene):
            scenes.append(item)
            ids += [IMAGE_ID] * (count(item) if count else n_visual(item.image))
            weights += [0.0] * (len(ids) - len(weights))
        elif item:
            ids += text_ids(" " + item, tokenizer)
            weights += [1.0] * (len(ids) - len(weights))
    return [*ids, special_id(tokenizer, "<|end|>")], [*weights, 1.0], tuple(scenes)
