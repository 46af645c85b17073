"""Question sentences about pictures by skill, from ``forms/pictures.json``.

Blanks are those of ``training.world.fill``, and {l} a bar's label, {s} a statement, {r} a relation, {f} names of JSON
fields.
"""

from __future__ import annotations

from training.question_forms import Forms, question_forms

EVERYDAY_SKILLS = (
    *("name", "colour", "side", "count", "is_it", "is_colour", "background", "describe", "beside", "which_picture"),
    *("ordinal", "both"),
)
QUESTIONS: dict[str, Forms] = question_forms("pictures")
