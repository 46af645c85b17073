"""Kinds of facts that documents state, from ``forms/facts.json``: how they are written and asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass

from training.question_forms import FOLDER


@dataclass(frozen=True)
class FactKind:
    """``{s}`` is the subject, ``{v}`` the value asked for. A statement and a question are kept for evaluation."""

    subject: str  # a pattern with {kinds} of invented values, or several joined by |
    value: str  # the kind of the value
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    held_out_statement: str
    held_out_question: str


def _stored() -> tuple[FactKind, ...]:
    stored = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))
    return tuple(
        FactKind(of["subject"], of["value"], tuple(of["statements"]), tuple(of["questions"]), *of["held_out"])
        for of in stored
    )


FACT_KINDS = _stored()
