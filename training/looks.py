"""Where the answers of a chat are to look: at the visual tokens of what they go on to say, and at what was said before.

Names, places, numbers and what else is said of things are looked up at the visual tokens over them; letters and values
at those over their characters. Whether a word has been said before, in the question or further ahead, is what a verdict
follows from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

from training.chats import Chat, n_visual, text_tokens
from training.exchanges import plain
from training.scenes import Scene
from training.sights import Seen
from training.spans import Span, conclusion, spans
from training.vocabulary import plural
from training.world import COLOURS, NAMES_DRAWN, NUMBERS, SHAPES

_LAST_WORDS = {form.split()[-1]: name.split()[-1] for name in (*NAMES_DRAWN, *SHAPES) for form in (name, plural(name))}
_TELLING = {*COLOURS, *NUMBERS[1:], "left", "right", "top", "bottom", "middle", "above", "below"}
NOWHERE = Span(0, 0, frozenset())
WORD = re.compile(r"(?P<ground> on (?:an? )?)?\b(?P<word>[\w'-]+)")


@dataclass(frozen=True)
class Look:
    """``token`` is a place in a chat. What it goes on to say is about all things ``named``, and about ``one`` (or more
    that cannot be told apart), ``NOTHING`` where all have been counted, in tiles or in the whole, or about the space
    that is read ``behind`` it. The word that
    it ends was said at the places ``before``, None if it is none that tells anything. What it concludes was said at the
    place ``reason``.
    """

    token: int
    named: frozenset[Seen] = frozenset()
    one: frozenset[Seen] = frozenset()
    in_tiles: bool = False
    behind: bool = False
    before: tuple[int, ...] | None = None
    reason: int | None = None


def looks_of(chat: Chat, scenes: tuple[Scene, ...], tokenizer: Tokenizer) -> Iterator[Look]:
    """All looks of a chat's answers on the pictures that have come by then."""
    at, shown = 1, 0
    said: dict[str, list[int]] = {}  # word → places, in the question and the answer to it
    for message in chat.messages:
        shown += len(message.images)
        at += 1 + sum(map(n_visual, message.images))
        text = plain(message.text)
        marked = message.gap + message.text if message.images else message.text
        ahead = len(message.gap) if message.images else 0
        ends = [end - ahead for _, end in text_tokens(marked, tokenizer)]
        words = {end: word for word, end in _telling(text)}
        if message.role != "assistant":
            said = {}
            for token, end in enumerate(ends, at):
                if end in words:
                    said.setdefault(words[end], []).append(token)
        else:
            named, single = spans(message.text, scenes[:shown])
            concluding, reason = _reason(text, ends, at) if shown else (-1, None)
            for token, end in enumerate((0, *ends), at - 1):
                by_name, one_by_one = (
                    next((span for span in of if span.start <= end < span.end), NOWHERE) for of in (named, single)
                )
                word = words.get(end) if token >= at else None
                before = tuple(said.setdefault(word, [])) if word else None
                if word:
                    said[word].append(token)
                if by_name.about or one_by_one.about or before is not None or token == concluding:
                    reason_here = reason if token == concluding else None
                    one = one_by_one
                    yield Look(token, by_name.about, one.about, one.in_tiles, one.behind, before, reason_here)
        at += len(ends) + 1


def _reason(text: str, ends: list[int], at: int) -> tuple[int, int | None]:
    """Place of the token that goes on to conclude, and of the one that begins what it concludes; -1 if none does."""
    found = conclusion(text)
    if not found:
        return -1, None
    concluded, ahead = found
    concluding = max(token for token, end in enumerate(ends) if end <= concluded)
    return at + concluding, at + next(token for token, end in enumerate(ends) if end > ahead)


def _telling(text: str) -> Iterator[tuple[str, int]]:
    """Words that tell what there is, alike for one and for many, and where they end. A ground's colour is another word
    than a thing's.
    """
    for match in WORD.finditer(text):
        word = match["word"].lower()
        word = _LAST_WORDS.get(word, word if word in _TELLING else "")
        if word:
            yield f"on {word}" if match["ground"] and word in COLOURS else word, match.end()
