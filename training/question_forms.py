"""Ways to ask, from the files in ``training/forms``: those of training, and those held out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "forms"


@dataclass(frozen=True)
class Forms:
    """Whole ``questions``, and ``rarer`` ones that are only typed; ``tasks`` ("start Hearth") and ``things`` ("the
    address of the page") to be put into sentences; ``held_out`` questions are never trained.
    """

    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    things: tuple[str, ...] = ()
    rarer: tuple[str, ...] = ()

    @property
    def typed(self) -> tuple[str, ...]:
        """All whole questions to train on."""
        return self.questions + self.rarer

    def may_be_trained(self, question: str) -> bool:
        """Whether it is no held-out one, whatever its signs and capitals."""
        return _letters(question) not in map(_letters, self.held_out)


def question_forms(name: str) -> dict[str, Forms]:
    """Fixed answer or skill → forms, from ``forms/<name>.json``."""
    stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return {answer: Forms(**{part: tuple(said) for part, said in of.items()}) for answer, of in stored.items()}


def _letters(question: str) -> str:
    return re.sub(r"[^\w ]", "", question).casefold().strip()
