"""Reads source code: a section for each class and function, by rules for lines; indentation is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from hearth.multimodal.documents_plain import clean
from hearth.multimodal.documents_types import SECTION_SEPARATOR, Page

MAX_LINE_CHARS = 300  # a longer line declares nothing
_MAX_DEPTH = 3  # of declarations within declarations that are sections of their own
_TAB = 4

_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|unsafe|extern|pub|override|"
    r"virtual|inline|constexpr|sealed|open|data|partial|suspend|local|declare|readonly|const|mutating|fileprivate|"
    r"typedef|template|case|pub\([a-z ]{1,20}\))[ \t]+){0,6}"
)
_KEYWORDS = {
    "python": "class|def",
    "javascript": "class|function[*]?",
    "typescript": "class|function[*]?|interface|enum|namespace|module|type",
    "java": "class|interface|enum|record",
    "groovy": "class|interface|enum|trait|def",
    "kotlin": "class|interface|object|fun",
    "scala": "class|trait|object|def|enum",
    "csharp": "class|interface|enum|record|struct|namespace",
    "dart": "class|mixin|enum|extension",
    "c": "struct|union|enum",
    "cpp": "class|struct|union|enum|namespace",
    "objectivec": "@interface|@implementation|@protocol|struct",
    "swift": "class|struct|enum|protocol|extension|actor|func",
    "go": "func|type",
    "rust": "fn|struct|enum|trait|impl|mod|union|macro_rules!",
    "php": "class|interface|trait|enum|namespace|function",
    "ruby": "class|module|def",
    "perl": "sub|package",
    "lua": "function",
    "shell": "function",
    "powershell": "function|class|enum",
    "julia": "function|struct|module|macro",
    "elixir": "defmodule|defprotocol|defimpl|defmacro|defp|def",
    "haskell": "class|instance|data|newtype|type|module",
}
_NAME = r"[\w$.:~?!@-]{1,100}"
_BY_KEYWORD = {
    language: re.compile(
        rf"{_MODIFIERS}(?:enum (?=class|struct))?(?:{keywords})(?![\w$])[ \t]*"
        rf"(?:<[^<>]{{1,80}}>[ \t]*|\([^()]{{1,80}}\)[ \t]*)?[*&]?({_NAME})"
    )
    for language, keywords in _KEYWORDS.items()
}
_SQL = re.compile(
    r"create(?:[ ]or[ ]replace)?(?:[ ]temp(?:orary)?)?[ ](?:table|view|function|procedure|trigger|index|type)"
    rf"(?:[ ]if[ ]not[ ]exists)?[ ][\"`\[]?({_NAME})",
    re.IGNORECASE,
)
_ARROW = re.compile(rf"{_MODIFIERS}(?:let|var)?[ \t]*([\w$]{{1,100}})[ \t]*[:=][^=;]{{0,160}}(?:=>|function\b)")
_ASSIGNED = re.compile(rf"({_NAME})[ \t]*(?:<-|=)[ \t]*function\b")
_CALL_LIKE = re.compile(r"(?:[\w$<>\[\],.:*&@~]{1,60}[ \t]+){0,5}[*&]{0,2}([\w$:~]{1,100})[ \t]*\(")
_SHELL = re.compile(rf"({_NAME})[ \t]*\(\)[ \t]*[{{(]?[ \t]*$")
_WORDS_OF_CONTROL = (
    "if for while switch catch return else do sizeof throw new delete await yield assert with elif until using match "
    "when guard defer lock synchronized foreach unless case typeof not and or in super this"
)
_OWN_RULES = {"sql": _SQL, "shell": _SHELL, "r": _ASSIGNED, "javascript": _ARROW, "typescript": _ARROW}
_CONTROL = frozenset(_WORDS_OF_CONTROL.split())
_ABOVE = re.compile(r"[ \t]*(?:@|#(?!!|include|define|if|endif)|//|/\*|\*|--|\[\w|template\s*<)")
_CALLED_FIRST = {"c", "cpp", "objectivec"}  # "struct point *middle(int n) {" is a function
_BRACES = {"c", "cpp", "java", "csharp", "javascript", "typescript", "dart", "objectivec", "groovy", "php"}


def read_code(text: str, language: str) -> tuple[Page, ...]:
    """A page for each class and function, with "Class › method" as section; comments above one belong to it."""
    lines = clean(text).split("\n")
    starts = list(_declarations(lines, language))
    pages: list[Page] = []
    path: dict[int, str] = {}
    borders = [(0, -1, ""), *starts, (len(lines), 0, "")]
    for (first, indent, name), (end, _, _) in pairwise(borders):
        if name:
            path = {above: title for above, title in path.items() if above < indent} | {indent: name}
        body = "\n".join(lines[first:end]).strip("\n")
        if body.strip():
            pages.append(Page(None, body, SECTION_SEPARATOR.join(path.values())))
    return tuple(pages)


def _declarations(lines: list[str], language: str) -> Iterator[tuple[int, int, str]]:
    """(first line, indentation, name) of each class and function, its comments and decorators included."""
    open_indents: list[int] = []
    end = 0
    for number, line in enumerate(lines):
        name = _declared(line, language) if len(line) <= MAX_LINE_CHARS else None
        if name is None:
            continue
        indent = len(line.expandtabs(_TAB)) - len(line.expandtabs(_TAB).lstrip())
        open_indents = [above for above in open_indents if above < indent]
        if len(open_indents) >= _MAX_DEPTH:
            continue
        open_indents.append(indent)
        first = number
        while first > end and _ABOVE.match(lines[first - 1]):
            first -= 1
        end = number + 1
        yield first, indent, name


def _declared(line: str, language: str) -> str | None:
    """The name that a line declares."""
    code = line.strip()
    if not code or code[0] in "#/*\"'":
        return None
    by_keyword = _BY_KEYWORD.get(language)
    rules: list[Callable[[str], re.Match[str] | None]] = []
    if by_keyword is not None and not (language in _CALLED_FIRST and code.endswith(";")):
        rules.append(by_keyword.match)
    if language in _BRACES:
        rules.insert(0 if language in _CALLED_FIRST else len(rules), _called)
    if language in _OWN_RULES:
        rules.append(_OWN_RULES[language].match)
    found = next((match for rule in rules if (match := rule(code))), None)
    return found[1].rstrip(":.") if found and found[1].rstrip(":.") else None


def _called(code: str) -> re.Match[str] | None:
    """A function as C writes it: words, a name, its parameters, and no semicolon."""
    found = _CALL_LIKE.match(code)
    if found is None or found[1] in _CONTROL or found[0].split()[0].rstrip("(") in _CONTROL:
        return None
    ends = code.endswith(("{", ")", ",", "(", "const", "override", "noexcept")) and "=" not in found[0]
    is_plain_call = found[0].rstrip("( \t") == found[1] and not code.endswith("{")
    return found if ends and not is_plain_call else None
