"""A grammar for a model that answers from sources by quoting them: it holds the answer to words that stand there.

The embedded model says what a question is about and repeats the sentence of a source that tells it, with the source's
number: "About the ferry: The next ferry leaves at 19:15 [2]." A small model may find that sentence and yet misspell it
or slip into another one. So it chooses between words of the questions, and then between those sentences of the
sources, as ``hearth.sources`` marks them, that share a word with what was asked. What does not begin as such an answer
does is free.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hearth.multimodal.passages import stems
from hearth.sources import HEADING

NOT_IN_SOURCES = "That is not in these sources."
OPENING = "About "
RECENT_QUESTIONS = 4
MAX_QUESTION_WORDS = 60
LONG_CHARS = 200  # what has no end up to here, a table perhaps, may be left after any word,
MAX_MORE_WORDS = 400  # and must be after so many
LONGEST_ENDING = 3
_NUMBER = re.compile(r"\[(\d{1,3})\] ")
_WORD = re.compile(r"\w+")
_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]')


@dataclass(frozen=True, slots=True)
class _Quotable:
    """A sentence of the source ``number``."""

    number: int
    title: str
    sentence: str


def quoting_grammar(messages: Sequence[str]) -> str | None:
    """GBNF for the answer to the last of the user's ``messages``; None if none of them brings sources.

    Of the sentences those that share a word with the question are offered, themselves or by their source's title: the
    model looks for such a word.
    """
    sources, questions = zip(*map(_parted, messages), strict=True)
    rules = _Rules()
    sentences = [
        (stems(quoted.title + " " + quoted.sentence), rules.sentence(quoted))
        for quoted in dict.fromkeys(quoted for lines in sources for quoted in _quotable(lines))
    ]
    if not sentences:
        return None
    answers = [*_other_beginnings(OPENING)]
    for question in questions[-RECENT_QUESTIONS:]:
        if topics := list(rules.spans(question)):
            asked = stems(question) | stems(questions[-1])
            offered = [rule for words, rule in sentences if _share(words, asked)]
            quoted = rules.of([_literal(NOT_IN_SOURCES), *offered])
            answers.append(f'{_literal(OPENING)} "the "? {rules.of(topics)} ": " {quoted}')
    rules.add("root", answers)
    return rules.text()


def _parted(message: str) -> tuple[str, str]:
    """The lines of sources ahead of a question, and the question."""
    if not message.startswith(HEADING):
        return "", message
    lines, _, question = message.removeprefix(HEADING).partition("\n\n")
    return lines, question


def _quotable(lines: str) -> Iterator[_Quotable]:
    """Sentences of sources. The first one of a source may stand behind any colon: there are some in titles, too."""
    for line in lines.splitlines():
        if (head := _NUMBER.match(line)) is None:
            continue
        number = int(head[1])
        marked = re.split(rf" \[{number}\](?:[.!?]\s+|[.!?]?$)", line[head.end() :])
        title = marked[0].partition(": ")[0]
        first = (marked[0][colon.end() :] for colon in re.finditer(": ", marked[0]))
        yield from (_Quotable(number, title, sentence) for sentence in (*first, *marked[1:]) if sentence)


def _share(words: Iterable[str], others: Collection[str]) -> bool:
    """Whether a word stands in both, or two that differ in an ending only, as "opens" and "opening" do."""
    return any(word == other or _alike(word, other) for word in words for other in others)


def _alike(word: str, other: str) -> bool:
    shared = max(4, len(word) - LONGEST_ENDING, len(other) - LONGEST_ENDING)
    return min(len(word), len(other)) >= shared and word[:shared] == other[:shared]


def _other_beginnings(text: str) -> Iterator[str]:
    """Sequences for all texts that do not begin with ``text``."""
    for at, character in enumerate(text):
        yield f"{_literal(text[:at])} ([^{character}] .*)?"


def _literal(text: str) -> str:
    escaped = _SPECIAL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return f'"{escaped}"'


class _Rules:
    """The rules of a grammar, while they are written."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def text(self) -> str:
        return "\n".join(self._lines)

    def add(self, name: str, alternatives: Iterable[str]) -> str:
        self._lines.append(f"{name} ::= {' | '.join(alternatives)}")
        return name

    def of(self, alternatives: Iterable[str]) -> str:
        """The name of a new rule."""
        return self.add(f"r{len(self._lines)}", alternatives)

    def sentence(self, quoted: _Quotable) -> str:
        """The rule for one sentence with its number; what is long may end early."""
        end = quoted.sentence.find(" ", LONG_CHARS)
        sure, further = (quoted.sentence[:end], quoted.sentence[end:]) if end > 0 else (quoted.sentence, "")
        optional = self._as_far_as_wanted(re.findall(" [^ ]*", further)[:MAX_MORE_WORDS])[0]
        return self.of([f"{_literal(sure)} {optional} {_literal(f' [{quoted.number}]')} [.!?]?"])

    def spans(self, question: str) -> Iterator[str]:
        """A sequence for each word of ``question`` and what follows it there."""
        words = list(_WORD.finditer(question))[:MAX_QUESTION_WORDS]
        joined = [question[a.end() : b.end()] for a, b in pairwise(words)]
        for word, further in zip(words, self._as_far_as_wanted(joined), strict=False):
            yield f"{_literal(word[0])} {further}"

    def _as_far_as_wanted(self, parts: Sequence[str]) -> list[str]:
        """For each of ``parts`` what reads it and as many behind it as wanted, or nothing; for none of them, at the
        end, an empty sequence."""
        further = [""]
        for part in reversed(parts):
            further.insert(0, f"{self.of([f'{_literal(part)} {further[0]}'])}?")
        return further
