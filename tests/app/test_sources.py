"""How retrieved passages are put before a model."""

from __future__ import annotations

import pytest

from hearth.sources import mark_sentences


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("It is red. It costs 3.50 euros!", "It is red [2]. It costs 3.50 euros [2]!"),
        ("Mr. Renner has the key.", "Mr. Renner has the key [2]."),
        ("A. B. Smith came.\nHe left?", "A. B. Smith came [2]. He left [2]?"),
        ("a list, without an end", "a list, without an end [2]"),
        ("One. two, e.g. this", "One. two, e.g. this [2]"),
        ("Room 12. see below", "Room 12. see below [2]"),
        ("We meet in hall 7. Bring a pen.", "We meet in hall 7 [2]. Bring a pen [2]."),
        ("There are 9.\n1. Wash it.\n2. Dry it.", "There are 9 [2]. 1. Wash it [2]. 2. Dry it [2]."),
    ],
)
def test_every_sentence_carries_its_source(text: str, marked: str) -> None:
    assert mark_sentences(text, 2) == marked
