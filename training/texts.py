"""Writes text to learn from: passages of documents with questions on them, and drills in copying."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from hearth.quoting import NOT_IN_SOURCES, OPENING
from hearth.sources import HEADING, mark_sentences
from training.chats import Chat, Message
from training.facts import FACT_KINDS, FactKind
from training.invented import Inventor
from training.world import as_spoken, varied

VAGUE_SHARE = 0.15  # of the questions: only their subject says what is meant
REWORDED_SHARE = 0.5  # of the others; of their words:
LEFT_OUT = 0.15
UNKNOWN = 0.12
ABSENT_SHARE = 0.25  # of the sources: one or two of the facts asked for are not in them
SAME_SUBJECT_SHARE = 0.15  # of what is asked for: the sources tell something else of its subject, too
_TIMES = {"day", "date", "time"}
_FILLERS = [
    "Please read this page with care.",
    "The weather was fine for most of the week.",
    "More details will follow soon.",
    "If you have questions, please ask at the front desk.",
    "This was decided at the last meeting.",
    "Nothing else has changed since then.",
    "We thank everybody who helped.",
    "Please keep this note in a safe place.",
    "The rest of the plan stays as it was.",
    "Some of it is still open.",
    "All of this was written down by {person}.",
    "{person} and {person} agreed to this.",
    "It was a long day in {place}, but everybody was happy.",
    "The old rules are no longer valid.",
    "In case of doubt, {person} can help.",
    "A copy of this page was sent to the {org}.",
    "Last year it was different.",
    "The {org} sent a letter about it in {year}.",
    "Many people from {place} came to see it.",
    "This took {duration} longer than planned.",
    "There was some discussion, and then everyone agreed.",
    "Please bring warm clothes and something to drink.",
    "Everything else is explained in the next chapter.",
    "The {thing} was replaced last month.",
    "{person} wrote a short report on the {product}.",
    "It has been raining in {place} since {day}.",
    "Nobody knows why the {product} is so popular.",
    "The team was small at first, but it grew quickly.",
    "You can find a list of all names at the end.",
    "Do not leave the windows open at night.",
    "The road to {place} is closed at the moment.",
    "Children and dogs are welcome.",
    "The first part was easier than the second.",
    "Remember to switch off the lights.",
]
_TITLES = [
    "notes.txt",
    "notes.md",
    "readme.txt",
    "minutes.docx",
    "plan.pdf",
    "todo.md",
    "Lease contract",
    "House rules",
    "Handbook",
    "Letter",
    "Minutes",
    "Newsletter",
    "Guide",
    "{org}",
    "{org} guide",
    "{product} manual",
    "Manual {product}",
    "letter from {person}",
    "{place}.txt",
    "Diary",
    "Travel plan",
    "manual.pdf",
    "History of {place}",
    "report {year}.pdf",
    "info.html",
    "Welcome to {place}",
    "Email from {person}",
    "list.txt",
    "recipes.md",
    "faq.txt",
]
_VAGUE_QUESTIONS = (
    "{s}?",
    "What about the {s}?",
    "What do you know about {s}?",
    "Tell me about the {s}.",
    "Please look up the {s}.",
    "What is written about {s}?",
)
_NO_SOURCE_QUESTIONS = (  # kind of what is asked about, and the question
    ("org", "What does it say about {s}?"),
    ("person", "Who is {s}?"),
    ("place", "Where is {s}?"),
    ("product", "How does the {s} work?"),
    ("place", "What is the capital of {s}?"),
)


@dataclass(frozen=True)
class Fact:
    """One drawn fact: ``subject`` has ``value`` in the sense of ``kind``."""

    kind: FactKind
    subject: str
    value: str


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def about(subject: str, question: str) -> str:
    """How an answer begins: with what the question is about, in its words. The sentence that is quoted then is looked
    up by these, one word after the other, and not by all of a question at once."""
    said = next((form for form in (subject, subject.lower(), as_spoken(subject)) if form in question), subject)
    return f"{OPENING}{'the ' if f'the {said}' in question.lower() or f'the {said}' in question else ''}{said}: "


class Writer:
    """Writes passages and questions. With ``held_out``: sentences, questions and names that training never sees."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = self.asks_held_out = self.states_held_out = held_out
        self.invent = Inventor(rng, held_out=held_out)

    def fill(self, pattern: str) -> str:
        """Replaces every ``{kind}`` by an invented value."""
        return re.sub(r"\{(\w+)\}", lambda match: self.invent(match[1]), pattern)

    def fact(self, kind: FactKind | None = None) -> Fact:
        kind = kind or self.rng.choice(FACT_KINDS)
        return Fact(kind, self.fill(self.rng.choice(kind.subject.split("|"))), self.invent(kind.value))

    def _another_about(self, fact: Fact) -> Fact | None:
        """Something else about the subject of ``fact``, which nobody takes for what is asked."""
        asked = _TIMES if fact.kind.value in _TIMES else {fact.kind.value}
        kinds = [kind for kind in FACT_KINDS if kind.subject == fact.kind.subject and kind.value not in asked]
        if not kinds:
            return None
        kind = self.rng.choice(kinds)
        return Fact(kind, fact.subject, self.invent(kind.value))

    def statement(self, fact: Fact) -> str:
        template = self.rng.choice(fact.kind.statements)
        if self.states_held_out and self.rng.random() < 0.5:
            template = fact.kind.held_out_statement
        return _capital(template.replace("{s}", fact.subject).replace("{v}", fact.value))

    def question(self, fact: Fact) -> str:
        if self.asks_held_out:
            template = fact.kind.held_out_question
        elif self.rng.random() < VAGUE_SHARE:
            template = self.rng.choice(_VAGUE_QUESTIONS)
        else:
            template = self.rng.choice(fact.kind.questions)
            if self.rng.random() < REWORDED_SHARE:
                template = self.reworded(template)
        return template.replace("{s}", fact.subject)

    def reworded(self, template: str) -> str:
        """A question with words left out or in place of which stands one that nobody knows: what is asked for must be
        told from the others and from the subject."""
        words = []
        for word in template.split(" "):
            draw = 1.0 if "{s}" in word else self.rng.random()
            if draw >= LEFT_OUT + UNKNOWN:
                words.append(word)
            elif draw >= LEFT_OUT:
                words.append(self.invent("place").lower())
        return " ".join(words)

    def filler(self) -> str:
        return _capital(self.fill(self.rng.choice(_FILLERS)))

    def spoken_or_typed(self, question: str) -> str:
        """Sometimes as a transcript or a hurried typist writes it."""
        if not self.held_out:
            question = varied(question, self.rng)
        draw = self.rng.random()
        if draw < 0.18:
            return as_spoken(question)
        if draw < 0.26:
            return question[:-1] if question[-1] in "?." else question
        return question

    def grounded(self, *, max_words: int = 190, passages_of: int = 0) -> Chat:
        """Sources (``passages_of`` of them, or some) with questions about them, in the contract's format."""
        rng = self.rng
        n_passages = passages_of or rng.choice((1, 2, 2, 3, 4, 5, 6, 8))
        targets = [self.fact() for _ in range(1 if self.held_out else rng.choice((2, 3, 4, 5, 6)))]
        asked = list(targets)
        absent: set[int] = set()
        if rng.random() < (0.0 if self.held_out else ABSENT_SHARE):
            absent.update(rng.sample(range(len(targets)), rng.randint(1, min(2, len(targets)))))
        found_in: list[list[str]] = [[] for _ in range(n_passages)]
        where = [rng.randrange(n_passages) for _ in targets]
        stated = [self.statement(fact) for fact in targets]
        for i, fact in enumerate(targets):
            if i not in absent:
                found_in[where[i]].append(stated[i])
                another = self._another_about(fact)
                if another and not self.held_out and rng.random() < SAME_SUBJECT_SHARE:
                    found_in[rng.randrange(n_passages)].append(self.statement(another))
            if rng.random() < (0.9 if i in absent else 0.55):  # another thing of the same kind
                other = self.fact(fact.kind)
                if other.subject != fact.subject:
                    found_in[rng.randrange(n_passages)].append(self.statement(other))
        for sentences in found_in:
            for _ in range(rng.randint(1, 5 if n_passages < 4 else 3)):
                sentences.append(self.statement(self.fact()) if rng.random() < 0.4 else self.filler())
            rng.shuffle(sentences)
        budget = max(14, max_words // n_passages)
        kept = [self._shorten(sentences, targets, budget) for sentences in found_in]
        lines = [f"[{i + 1}] {self.title()}: {mark_sentences(text, i + 1)}" for i, text in enumerate(kept)]
        messages = []
        order = list(range(len(asked)))
        rng.shuffle(order)
        for turn, i in enumerate(order):
            question = self.spoken_or_typed(self.question(asked[i]))
            text = HEADING + "\n".join(lines) + "\n\n" + question if turn == 0 else question
            found = NOT_IN_SOURCES if i in absent else f"{stated[i][:-1]} [{where[i] + 1}]."
            answer = about(asked[i].subject, question) + found
            messages += [Message("user", text), Message("assistant", answer)]
        last = order[-1]
        expected = (NOT_IN_SOURCES,) if last in absent else (asked[last].value, f"[{where[last] + 1}]")
        return Chat(tuple(messages), "grounded", expected)

    def unrelated(self, passages_of: int = 0) -> Chat:
        """Sources that do not hold the answer, though often something of the same kind."""
        rng = self.rng
        lines = []
        wanted = self.fact()
        n_passages = passages_of or rng.choice((1, 2, 3, 4, 5, 6))
        near = rng.randrange(n_passages)
        for i in range(n_passages):
            sentences = [
                self.filler() if rng.random() < 0.5 else self.statement(self.fact()) for _ in range(rng.randint(1, 3))
            ]
            if i == near and rng.random() < 0.6:
                other = self.fact(wanted.kind)
                if other.subject != wanted.subject:
                    sentences.append(self.statement(other))
                rng.shuffle(sentences)
            lines.append(f"[{i + 1}] {self.title()}: {mark_sentences(' '.join(sentences), i + 1)}")
        subject, asked = wanted.subject, self.question(wanted)
        if rng.random() < 0.3:
            kind, template = rng.choice(_NO_SOURCE_QUESTIONS)
            subject = self.invent(kind)
            asked = template.replace("{s}", subject)
        question = self.spoken_or_typed(asked)
        text = HEADING + "\n".join(lines) + "\n\n" + question
        messages = Message("user", text), Message("assistant", about(subject, question) + NOT_IN_SOURCES)
        return Chat(messages, "not in sources", (NOT_IN_SOURCES,))

    def stray_sources(self) -> str:
        """Sources that happen to come along with something they have nothing to do with."""
        sentences = [self.filler() if self.rng.random() < 0.5 else self.statement(self.fact()) for _ in range(2)]
        return f"{HEADING}[1] {self.title()}: {mark_sentences(' '.join(sentences), 1)}\n\n"

    def drill(self) -> tuple[str, str]:
        """Two halves; what the second says can only be known by looking back: this teaches copying fastest."""
        rng = self.rng
        keys = [
            self.invent(rng.choice(("person", "place", "product", "org", "thing"))) for _ in range(rng.randint(2, 6))
        ]
        values = [
            self.invent(rng.choice(("code", "room", "time", "person", "place", "price", "number", "spot")))
            for _ in keys
        ]
        pairs = list(zip(keys, values, strict=True))
        joiner = rng.choice((": ", " = ", " - ", " has ", " is "))
        once = [f"{key}{joiner}{value}" for key, value in pairs]
        if rng.random() < 0.5:
            rng.shuffle(pairs)
        again = [f"{key}{joiner}{value}" for key, value in pairs]
        separator = rng.choice((". ", "\n", "; "))
        return separator.join(once) + rng.choice((". ", "\n\n", " Again: ")), separator.join(again)

    def title(self) -> str:
        """What a source is called."""
        title = self.fill(self.rng.choice(_TITLES))
        return f"{title}, p. {self.rng.randint(1, 40)}" if self.rng.random() < 0.25 else title

    def _shorten(self, sentences: list[str], targets: list[Fact], budget_words: int) -> str:
        """Drops sentences that carry no asked value until the passage fits."""
        kept = list(sentences)
        while sum(len(s.split()) for s in kept) > budget_words:
            spare = [s for s in kept if not any(f.value in s or _capital(f.value) in s for f in targets)]
            if not spare:
                break
            kept.remove(self.rng.choice(spare))
        return " ".join(kept) or self.filler()
