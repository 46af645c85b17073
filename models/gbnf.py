"""GBNF grammars, read before llama.cpp reads them.

llama.cpp's parser prints what it refuses to stderr, recurses as deep as a grammar nests, looks for left recursion in
exponential time and overlooks some of it, and counts ``x{3,1}`` down through zero: a bad grammar ends the process or
never comes back. So it is read here first by the same rules, and what passes has bounded depth, size and work.
Tokens named by id (``<[7]>``) are refused: llama.cpp offers some of them that it then cannot accept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hearth.models.errors import RequestError

MAX_REPETITIONS = 2000  # llama.cpp's MAX_REPETITION_THRESHOLD
MAX_NESTING = 1000  # open parentheses; llama.cpp takes up to 800 bytes of the stack for each
MAX_CHAIN = 1000  # rules that begin with one another; the stack again
MAX_ELEMENTS = 1_000_000  # of all rules, with repetitions written out; 8 bytes each
MAX_WAYS = 10_000  # rules that may be entered at one place; llama.cpp compares each with each
MAX_OPTIONAL = 200  # items in a row that may be empty; a token that fits each takes the cube of them in steps
MAX_STEPS = 5_000_000  # of llama.cpp's search for left recursion

_ESCAPE = r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[trn\\\"\[\]\-])"
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_LITERAL = re.compile(rf'"((?:[^"\\]|{_ESCAPE})*)"')
_CLASS = re.compile(rf"\[\^?((?:[^\]\\]|{_ESCAPE})*)\]")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_COUNT = re.compile(r"\{[ \t]*([0-9]+)[ \t]*(?:(,)[ \t]*([0-9]*)[ \t]*)?\}")
_CHARACTERS = -1  # what a sequence holds in place of a rule's number where it reads characters


def check_gbnf(text: str, name: str = "grammar") -> None:
    """Raises RequestError, which begins with ``name`` and the line, for a grammar that llama.cpp could not follow."""
    if "\0" in text:
        raise RequestError(f"{name} contains a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} contains half a character (a lone surrogate) at {error.start}") from error
    reader = _Reader(text, name)
    reader.read()
    _check_rules(reader)


@dataclass(slots=True)
class _Rule:
    """Alternatives, each a sequence of rule numbers and ``_CHARACTERS``. ``copies`` stand for one written out."""

    name: str
    alternatives: list[list[int]]
    copies: int = 1


@dataclass(slots=True)
class _Frame:
    """A rule's body, or the inside of a parenthesis, that is being read."""

    number: int
    n_symbols_before: int
    alternatives: list[list[int]] = field(default_factory=lambda: [[]])
    start: int = 0  # of the last symbol, which a repetition repeats
    n_elements: int = 0
    n_elements_before: int = 0  # of the last symbol
    n_repeated: int = 1  # rules that the last symbol stands for

    @property
    def sequence(self) -> list[int]:
        return self.alternatives[-1]

    def begin_alternative(self) -> None:
        self.alternatives.append([])
        self.start, self.n_repeated, self.n_elements_before = 0, 1, self.n_elements

    def add(self, symbol: int, n_elements: int, n_repeated: int = 1) -> None:
        """Appends a symbol; an empty literal or class (no elements) is nothing that could be repeated."""
        self.start, self.n_repeated, self.n_elements_before = len(self.sequence), n_repeated, self.n_elements
        if n_elements:
            self.sequence.append(symbol)
            self.n_elements += n_elements


class _Reader:
    """Reads GBNF as llama_grammar_parser does, without recursion, and keeps what the checks need."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.position = 0
        self.numbers: dict[str, int] = {}  # of named rules
        self.rules: dict[int, _Rule] = {}
        self.first_uses: dict[str, int] = {}  # of names: positions in the text
        self._n_symbols = 0  # as llama.cpp counts them: names and the rules it makes itself
        self._n_elements = 0
        self._rule_name = ""

    def error(self, what: str, position: int | None = None) -> RequestError:
        line = self.text.count("\n", 0, self.position if position is None else position) + 1
        return RequestError(f"{self.name}: line {line}: {what}")

    def error_in(self, rule: _Rule, what: str) -> RequestError:
        return RequestError(f"{self.name}: rule '{rule.name}': {what}")

    def read(self) -> None:
        self._skip(_SPACE_AND_LINES)
        while self.position < len(self.text):
            self._read_rule()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.position)
        assert found is not None
        self.position = found.end()

    def _take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise self.error(f"{what}, not {self._ahead()}")
        self.position = found.end()
        return found

    def _ahead(self) -> str:
        return repr(self.text[self.position : self.position + 12]) if self.position < len(self.text) else "the end"

    def _number_of(self, name: str) -> int:
        if name not in self.numbers:
            self.first_uses[name] = self.position - 1
            self.numbers[name] = self._new_number()
        return self.numbers[name]

    def _new_number(self, n_symbols: int = 1) -> int:
        self._n_symbols += n_symbols
        return self._n_symbols

    def _grow(self, n_elements: int) -> None:
        self._n_elements += n_elements
        if self._n_elements > MAX_ELEMENTS:
            raise self.error(
                f"more than {MAX_ELEMENTS:,} elements, written out; repeat less or shorten what is repeated"
            )

    def _read_rule(self) -> None:
        self._rule_name = self._take(_NAME, "the name of a rule (letters, digits, -) was expected").group()
        number = self._number_of(self._rule_name)
        self._skip(_SPACE)
        if not self.text.startswith("::=", self.position):
            raise self.error(f"'::=' was expected after '{self._rule_name}', not {self._ahead()}")
        self.position += 3
        self._skip(_SPACE_AND_LINES)
        self._read_body(_Frame(number, self._n_symbols))
        if self.text[self.position : self.position + 1] not in ("", "\r", "\n"):
            raise self.error(f"the end of the rule was expected, not {self._ahead()}")
        self._skip(_SPACE_AND_LINES)

    def _read_body(self, frame: _Frame) -> None:
        outer: list[_Frame] = []
        while True:
            ahead = self.text[self.position : self.position + 1]
            if ahead == "(":
                if len(outer) == MAX_NESTING:
                    raise self.error(f"more than {MAX_NESTING:,} parentheses in one another; name parts as rules")
                outer.append(frame)
                n_before = self._n_symbols
                frame = _Frame(self._new_number(), n_before)
                self._advance(nested=True)
            elif ahead == ")" and outer:
                inner, frame = frame, outer.pop()
                self._finish(inner)
                frame.add(inner.number, 1, max(1, self._n_symbols - inner.n_symbols_before))
                self._advance(nested=bool(outer))
            elif ahead == "|":
                frame.begin_alternative()
                self._advance(nested=True)
            elif not self._read_symbol(frame, ahead, nested=bool(outer)):
                break
        if outer:
            raise self.error(f"')' was expected, not {self._ahead()}")
        self._finish(frame)

    def _advance(self, *, nested: bool, n_characters: int = 1) -> None:
        self.position += n_characters
        self._skip(_SPACE_AND_LINES if nested else _SPACE)

    def _finish(self, frame: _Frame) -> None:
        self._grow(frame.n_elements + len(frame.alternatives))
        self.rules[frame.number] = _Rule(self._rule_name, frame.alternatives)

    def _read_symbol(self, frame: _Frame, ahead: str, *, nested: bool) -> bool:
        """Reads a literal, a class, a name, a dot or a repetition. False if there is none."""
        if ahead == '"':
            frame.add(_CHARACTERS, len(self._take(_LITERAL, "a string with known escapes was expected")[1]))
        elif ahead == "[":
            frame.add(_CHARACTERS, len(self._take(_CLASS, "a [class] with known escapes was expected")[1]))
        elif ahead and ahead in "<!":
            raise self.error("tokens (<...>) are not supported; write their text in quotation marks")
        elif ahead == ".":
            self.position += 1
            frame.add(_CHARACTERS, 1)
        elif ahead and ahead in "*+?":
            self._advance(nested=nested)
            self._repeat(frame, *{"*": (0, None), "+": (1, None), "?": (0, 1)}[ahead])
            return True
        elif ahead == "{":
            self._repeat(frame, *self._read_counts())
        elif _NAME.match(ahead):
            frame.add(self._number_of(self._take(_NAME, "a name was expected").group()), 1)
        else:
            return False
        self._advance(nested=nested, n_characters=0)
        return True

    def _read_counts(self) -> tuple[int, int | None]:
        found = self._take(_COUNT, "{m}, {m,} or {m,n} was expected")
        if max(len(found[1]), len(found[3] or "")) > len(str(MAX_REPETITIONS)):
            raise self.error(f"{found[0]} repeats more than {MAX_REPETITIONS:,} times")
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if max(least, most or 0) > MAX_REPETITIONS:
            raise self.error(f"{found[0]} repeats more than {MAX_REPETITIONS:,} times")
        if most is not None and most < least:
            raise self.error(f"{found[0]}: the second number is smaller than the first")
        return least, most

    def _repeat(self, frame: _Frame, least: int, most: int | None) -> None:
        """Rewrites the last symbol S: S{m,n} is S m times, then n - m times the rule S' ::= S S' | nothing."""
        sequence = frame.sequence
        if frame.start == len(sequence):
            raise self.error("nothing to repeat stands before '*', '+', '?' or '{'")
        times = most or least or 1
        if frame.n_repeated * times > MAX_REPETITIONS:
            raise self.error(f"repetitions of repetitions come to more than {MAX_REPETITIONS:,}; name parts as rules")
        frame.n_repeated *= times
        repeated = sequence[frame.start :]
        n_elements = frame.n_elements - frame.n_elements_before
        self._grow(n_elements * least)
        sequence[frame.start :] = repeated * least
        frame.n_elements = frame.n_elements_before + n_elements * least
        n_optional = 1 if most is None else most - least
        if n_optional:
            self._grow(n_optional * (n_elements + 3))
            number = self._new_number(n_optional)
            again = [number] if most is None else []
            self.rules[number] = _Rule(self._rule_name, [[*repeated, *again], []], n_optional)
            sequence.append(number)
            frame.n_elements += 1


def _check_rules(reader: _Reader) -> None:
    for name, number in reader.numbers.items():
        if number not in reader.rules:
            raise reader.error(f"rule '{name}' is not defined; define it or correct its name", reader.first_uses[name])
    if "root" not in reader.numbers:
        raise RequestError(f"{reader.name} has no rule 'root', with which every grammar begins")
    nullable = _nullable(reader.rules)
    edges = {number: _first_rules(rule, nullable) for number, rule in reader.rules.items()}
    chains: dict[int, int] = {}  # rules that are entered one in the other before a character is read, at most
    ways: dict[int, int] = {}  # rules that are entered in all
    n_steps = 0
    for number in _bottom_up(reader, edges):
        rule = reader.rules[number]
        # copies of an optional symbol are entered one after another only if the symbol itself may be empty
        copies = rule.copies if all(item in nullable for item in rule.alternatives[0]) else 1
        chains[number] = copies + max((chains[first] for first in edges[number]), default=0)
        ways[number] = copies * (1 + sum(ways[first] for first in edges[number]))
        n_steps += rule.copies * ways[number]
        if chains[number] > MAX_CHAIN:
            raise reader.error_in(rule, f"more than {MAX_CHAIN:,} rules begin with one another; shorten the chain")
        if ways[number] > MAX_WAYS or n_steps > MAX_STEPS:
            raise reader.error_in(rule, "too many alternatives begin with the same rules; write what they share once")
    for rule in reader.rules.values():
        for alternative in rule.alternatives:
            _check_optional(reader, rule, alternative, nullable, ways)


def _check_optional(
    reader: _Reader, rule: _Rule, alternative: list[int], nullable: set[int], ways: dict[int, int]
) -> None:
    n_optional = n_ways = 0
    for item in alternative:
        n_ways += ways.get(item, 1)
        n_optional = n_optional + 1 if item in nullable else 0
        if n_optional > MAX_OPTIONAL or n_ways > MAX_WAYS:
            raise reader.error_in(
                rule, f"more than {MAX_OPTIONAL} items in a row may be empty; write x{{0,9}} instead of x?{{9}}"
            )
        if not n_optional:
            n_ways = 0


def _nullable(rules: dict[int, _Rule]) -> set[int]:
    """Rules that may read nothing."""
    nullable: set[int] = set()
    missing: list[tuple[int, int]] = []  # rule; items of one of its alternatives that are not known to be nullable
    waiting: dict[int, list[int]] = {}  # item → indices of ``missing``
    ready: list[int] = []
    for number, rule in rules.items():
        for alternative in rule.alternatives:
            if not alternative:
                ready.append(number)
            elif _CHARACTERS not in alternative:
                for item in alternative:
                    waiting.setdefault(item, []).append(len(missing))
                missing.append((number, len(alternative)))
    while ready:
        number = ready.pop()
        if number in nullable:
            continue
        nullable.add(number)
        for index in waiting.get(number, ()):
            rule_number, n_missing = missing[index]
            missing[index] = (rule_number, n_missing - 1)
            if n_missing == 1:
                ready.append(rule_number)
    return nullable


def _first_rules(rule: _Rule, nullable: set[int]) -> list[int]:
    """The rules that ``rule`` may enter before it reads a character, once for each place."""
    first: list[int] = []
    for alternative in rule.alternatives:
        for item in alternative:
            if item == _CHARACTERS:
                break
            first.append(item)
            if item not in nullable:
                break
    return first


def _bottom_up(reader: _Reader, edges: dict[int, list[int]]) -> list[int]:
    """All rules, each after those it may begin with. Raises RequestError if one begins with itself."""
    order: list[int] = []
    state: dict[int, bool] = {}  # False: being visited, True: done
    for root in edges:
        path = [(root, iter(edges[root]))] if root not in state else []
        state.setdefault(root, False)
        while path:
            number, rest = path[-1]
            following = next(rest, None)
            if following is None:
                state[number] = True
                order.append(number)
                path.pop()
            elif following not in state:
                state[following] = False
                path.append((following, iter(edges[following])))
            elif not state[following]:
                raise reader.error_in(
                    reader.rules[following],
                    "left recursion: it may come back to its beginning without reading a character; put what it "
                    "repeats behind something, and repeat nothing that may be empty",
                )
    return order
