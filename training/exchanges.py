"""A question with its right answer, and words that are to be spelled letter by letter."""

from __future__ import annotations

from dataclasses import dataclass

SPELL_OPEN, SPELL_CLOSE = "\x01", "\x02"  # around what is answered letter by letter, as it is read


@dataclass(frozen=True)
class Exchange:
    """A question, its answer, and the words that a right answer must contain."""

    question: str
    answer: str
    expected: tuple[str, ...]


def spelled(text: str) -> str:
    """``text`` marked to be tokenized character by character, as it is read."""
    return f"{SPELL_OPEN}{text}{SPELL_CLOSE}"


def plain(text: str) -> str:
    """``text`` without such marks, as people read it."""
    return text.replace(SPELL_OPEN, "").replace(SPELL_CLOSE, "")


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def listed(parts: list[str]) -> str:
    """``a, b and c``."""
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
