"""The models' card gets its scores from the evaluation, row by row."""

from __future__ import annotations

from training.card import CARD, LABELS, filled, line
from training.exams import TARGETS

NAMED = {"skill": "name", "n": 200, "score": 0.925, "interval": [0.87, 0.95], "target": "≥ 92%", "unit": ""}
SIZE = {
    "skill": "size of the pocket models",
    "n": 1,
    "score": 53.5,
    "interval": [53.5, 53.5],
    "target": "≤ 64",
    "unit": "MB",
}


def test_every_skill_of_the_exam_has_a_row_in_the_card() -> None:
    card = CARD.read_text()
    assert [skill for skill in TARGETS if f"| {LABELS.get(skill, skill)} |" not in card] == []


def test_scores_take_the_place_of_older_ones_and_nothing_else_changes() -> None:
    card = CARD.read_text()
    new, missing = filled(card, [NAMED, SIZE])
    assert not missing
    assert "| name the one thing, of 421, in its own style | 200 | 92.5 % [87, 95] | ≥ 92 % |" in new.splitlines()
    assert "| size of everything | 1 | 53.50 MB | ≤ 64 |" in new.splitlines()
    changed = [pair for pair in zip(card.splitlines(), new.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) <= 2


def test_a_row_that_the_card_lacks_is_told() -> None:
    card = "| skill |\n| --- |\n"
    new, missing = filled(card, [NAMED])
    assert new == card
    assert missing == ["| name the one thing, of 421, in its own style"]
    assert line(SIZE).startswith("| size of everything |")
