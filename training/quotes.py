"""Sentences of any words, and questions with a few of them: an answer is the whole sentence, from its first word on.

To quote a sentence its beginning must be found from words in its middle. The facts that the writer draws teach how
people ask; their few dozen sentences would be learnt by heart. Here nothing can be: what stands in a sentence is real
prose, random words or invented names.
"""

from __future__ import annotations

import re

from hearth.quoting import NOT_IN_SOURCES
from hearth.sources import HEADING, mark_sentences
from training.chats import Chat, Message
from training.facts import FACT_KINDS
from training.texts import Writer, about

MAX_SENTENCES = 3  # a source
TURNS = (2, 3, 4, 5, 6)
ABSENT_SHARE = 0.1  # of the questions
_KINDS = ("person", "place", "product", "org", "thing", "code", "number", "time", "day", "date", "price")
_WORD = re.compile(r"[A-Za-z][a-z]+")


class Quoter:
    """Draws chats on sources of such sentences. ``prose`` are some to take, and to take words from."""

    def __init__(self, writer: Writer, prose: list[str]) -> None:
        self.writer = writer
        self.rng = writer.rng
        self._prose = prose
        words = {word.lower() for line in self._prose for word in _WORD.findall(line)}
        patterns = [pattern for kind in FACT_KINDS for pattern in (*kind.statements, *kind.questions)]
        words |= {word.lower() for pattern in patterns for word in _WORD.findall(re.sub(r"\{\w+\}", "", pattern))}
        self._words: list[str] = sorted(words)
        self._questions = [question for kind in FACT_KINDS for question in kind.questions]

    def chat(self, max_words: int = 110) -> Chat:
        """Sources of at most about ``max_words`` words, and some questions."""
        rng = self.rng
        sources: list[list[str]] = [[]]
        for sentence in iter(self._sentence, ""):
            if len(sources[-1]) == MAX_SENTENCES or (sources[-1] and rng.random() < 0.4):
                sources.append([])
            sources[-1].append(sentence)
            if sum(len(s.split()) for source in sources for s in source) > max_words:
                break
        lines = [
            f"[{number}] {self.writer.title()}: {mark_sentences(' '.join(sentences), number)}"
            for number, sentences in enumerate(sources, 1)
        ]
        everything = " ".join(lines).lower()
        messages: list[Message] = []
        for _ in range(rng.choice(TURNS)):
            number = rng.randrange(len(sources))
            sentence = rng.choice(sources[number])
            words = self._some_of(sentence)
            if everything.count(words.lower()) > 1:
                continue
            found = f"{sentence[:-1]} [{number + 1}]."
            if rng.random() < ABSENT_SHARE:
                words, found = self.writer.invent(rng.choice(_KINDS[:4])), NOT_IN_SOURCES
            question = rng.choice(self._questions)
            if rng.random() < 0.5:
                question = self.writer.reworded(question)
            question = self.writer.spoken_or_typed(question.replace("{s}", words))
            answer = about(words, question) + found
            if not messages:
                question = HEADING + "\n".join(lines) + "\n\n" + question
            messages += [Message("user", question), Message("assistant", answer)]
        return Chat(tuple(messages), "quote") if messages else self.chat(max_words)

    def _sentence(self) -> str:
        rng = self.rng
        if self._prose and rng.random() < 0.3:
            text = rng.choice(self._prose)
        else:
            text = " ".join(self._word() for _ in range(rng.randint(3, 12)))
        sentence = text[:1].upper() + text[1:] + "."
        # "room 7." may as well be a number of a list
        ends_clearly = mark_sentences(sentence, 1) == f"{sentence[:-1]} [1]."
        return sentence if ends_clearly else self._sentence()

    def _word(self) -> str:
        if self.rng.random() < 0.25:
            return self.writer.invent(self.rng.choice(_KINDS)).rstrip(".")
        return self.rng.choice(self._words)

    def _some_of(self, sentence: str) -> str:
        """One to four neighbouring words of it, in its middle rather than at its ends."""
        words = sentence[:-1].split()
        length = min(self.rng.choice((1, 2, 2, 3, 4)), len(words))
        start = self.rng.randint(0, len(words) - length)
        return " ".join(words[start : start + length]).strip(",")
