"""What people ask an assistant that lies beyond a pocket model: knowledge, writing, translation, code, advice."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence

from training.invented import Inventor
from training.question_forms import FOLDER, Forms
from training.world import NAMES, fill

_STORED: dict[str, dict[str, list[str]]] = json.loads((FOLDER / "beyond.json").read_text(encoding="utf-8"))
FORMS = Forms(**{part: tuple(said) for part, said in _STORED["forms"].items()})
"""Its ``questions`` and ``held_out`` ones have blanks."""
FILLERS = {blank: tuple(said) for blank, said in _STORED["fillers"].items()}  # of training
HELD_OUT_FILLERS = {blank: tuple(said) for blank, said in _STORED["held_out_fillers"].items()}
_BLANK = re.compile(r"\{(\w+)\}")
PROSE_SHARE = 0.2
WHOLE_SHARE = 0.5  # of the rest: questions without a blank
_WHOLE = tuple(question for question in FORMS.questions if not _BLANK.search(question))
_WITH_BLANKS = tuple(question for question in FORMS.questions if _BLANK.search(question))
_WISHES = (
    "How do I {t}?",
    "How can I {t}?",
    "Can you {t}?",
    "{T}.",
    "{T}",
    "Please {t}.",
    "I want to {t}.",
    "Tell me how to {t}.",
    "Is there a way to {t}?",
    "Why would I {t}?",
    "What do I need to {t}?",
    "When should I {t}?",
    "Write a script to {t}.",
    "Explain this: {t}.",
)


def beyond_question(rng: random.Random, invent: Inventor, prose: Sequence[str] = (), *, held_out: bool = False) -> str:
    """One of them. ``prose`` are things that one can do, which are asked for too. With ``held_out`` it is in words that
    training never sees.
    """
    if prose and rng.random() < PROSE_SHARE:
        task = rng.choice(prose)
        return rng.choice(_WISHES).replace("{t}", task[:1].lower() + task[1:]).replace("{T}", task)
    if held_out:
        template, fillers = rng.choice(FORMS.held_out), HELD_OUT_FILLERS
    else:
        template, fillers = rng.choice(_WHOLE if rng.random() < WHOLE_SHARE else _WITH_BLANKS), FILLERS
    draws: dict[str, Callable[[], str]] = {
        "year": lambda: str(rng.randint(1850, 2030)),
        "person": invent.person,
        "large": lambda: str(rng.choice((rng.randint(200, 999), rng.randint(1000, 99999)))),
        "n": lambda: str(rng.choice((rng.randint(1, 20), rng.randint(10, 999)))),
    }

    def filled(blank: re.Match[str]) -> str:
        name = blank[1]
        if name in fillers:
            return rng.choice(fillers[name])
        return draws[name]() if name in draws else blank[0]

    return fill(_BLANK.sub(filled, template), rng.choice(NAMES))
