"""What an answer on pictures is about, word by word: by name, and one thing or character after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from training.exchanges import SPELL_CLOSE, SPELL_OPEN, plain
from training.scenes import Scene, marks_of_bar
from training.sights import BACKGROUND, NOTHING, Seen, mark_of
from training.vocabulary import plural
from training.world import COLOURS, NUMBERS, PLACES

CONCLUSION = re.compile(r", (?:so|but) |: (?:both|all|they)\b")
SEPARATOR = re.compile(r", and |, | and |\. ")
COUNTED = re.compile(rf"(\d) (?:{'|'.join(sorted(PLACES.values(), key=len, reverse=True))})(?![a-z])")
NUMBER_BEFORE = re.compile(rf"\b(?:{'|'.join(NUMBERS[1:])}) $", re.IGNORECASE)
ON_GROUND = re.compile(rf" on (?:an? )?(?:{'|'.join(COLOURS)})\b|background is (?:{'|'.join(COLOURS)})\b")
ORDINALS = {"first": 0, "second": 1, "third": 2}
ORDINAL = re.compile("|".join(ORDINALS))
COLOURED = re.compile(r"The \w+(?= bar says )")
CONCLUDED = re.compile(
    r", (?:so|but) (?:the (?P<name>.+) (?:is|are) \w+|more (?P<most>.+)|it is the (?P<nth>\w+) picture)\.$"
)
FEW = 2  # things in a picture
ARTICLE = 4  # characters of "the "
AFTER_ITEM = 2  # characters: a comma, and what stands before the next item's number or does not


@dataclass(frozen=True)
class Span:
    """Of an answer's text, by characters; what it is about is seen in the tiles, which tell small things by name, or in
    the view of the whole, which alone tells number and size. ``behind`` a word's last character is the space that
    is read there.
    """

    start: int
    end: int
    about: frozenset[Seen]
    in_tiles: bool = False
    behind: bool = False


def spans(answer: str, scenes: tuple[Scene, ...]) -> tuple[list[Span], list[Span]]:
    """What ``answer`` is about: by name, from each name to the next; and one by one, the first that fits counting."""
    text = plain(answer)
    if len(scenes) > 0 and scenes[-1].kind in ("words", "chart"):
        return _read(answer, scenes[-1], len(scenes) - 1)
    mentions = _mentions(text, scenes)
    named = [
        Span(end, mentions[at + 1][1] if at + 1 < len(mentions) else len(text) + 1, about)
        for at, (_, end, about) in enumerate(mentions)
    ]
    conclusion = CONCLUSION.search(text)
    until = conclusion.start() if conclusion else len(text)
    mentions = [mention for mention in mentions if mention[1] <= until]
    if not mentions:
        return named, [replace(span, in_tiles=_is_small(span, scenes)) for span in _unnamed(text, scenes, until)]
    one: list[Span] = []
    done = 0
    for at, (start, end, about) in enumerate(mentions):
        separators = [match.start() for match in SEPARATOR.finditer(text, done, start)]
        lead = separators[-1] if separators else max(done, start - ARTICLE) if at else 0
        one = [replace(span, end=min(span.end, lead)) for span in one]
        following = mentions[at + 1][0] if at + 1 < len(mentions) else until
        one += [Span(lead, end, about), *_from(text, end, following, about, scenes)]
        done = max(end, *(span.end for span in one if span.about == NOTHING), end)
    return named, [replace(span, in_tiles=_is_small(span, scenes)) for span in one if span.start < span.end]


def _is_small(span: Span, scenes: tuple[Scene, ...]) -> bool:
    """Whether it is counted, or about one of many things, which the view of the whole cannot tell by name."""
    return span.in_tiles or any(picture >= 0 and len(scenes[picture].things) > FEW for picture, _ in span.about)


def _mentions(text: str, scenes: tuple[Scene, ...]) -> list[tuple[int, int, frozenset[Seen]]]:
    """Start and end of every name that is not a number's, and what bears it."""
    by_name: dict[str, list[Seen]] = {}
    for picture, scene in enumerate(scenes):
        for thing, each in enumerate(scene.things if scene.kind == "things" else ()):
            by_name.setdefault(each.name, []).append((picture, thing))
    if not by_name:
        return []
    forms = {form.lower(): name for name in by_name for form in (name, plural(name))}
    pattern = re.compile(rf"\b({'|'.join(sorted(map(re.escape, forms), key=len, reverse=True))})\b", re.IGNORECASE)
    found: list[tuple[int, int, frozenset[Seen]]] = []
    told: dict[str, int] = {}
    done = 0
    for match in pattern.finditer(text):
        if NUMBER_BEFORE.search(text, 0, match.start()):
            continue
        name = forms[match[1].lower()]
        bearing = by_name[name]
        pictures = sorted({picture for picture, _ in bearing})
        clause = max((separator.end() for separator in SEPARATOR.finditer(text, done, match.start())), default=done)
        ordinals = ORDINAL.findall(text, clause, match.start())
        picture = ORDINALS[ordinals[-1]] if ordinals else pictures[min(told.get(name, 0), len(pictures) - 1)]
        told[name] = told.get(name, 0) + 1
        in_picture = frozenset(seen for seen in bearing if seen[0] == picture)
        found.append((match.start(), match.end(), in_picture or frozenset(bearing)))
        done = match.end()
    return found


def _from(text: str, start: int, until: int, about: frozenset[Seen], scenes: tuple[Scene, ...]) -> Iterator[Span]:
    """What follows a name: things counted off one by one, or what is said of it and of the ground it is on."""
    items = list(COUNTED.finditer(text, start, until))
    if items and text[start : items[0].start()] == ": ":
        in_order = sorted(about, key=lambda seen: scenes[seen[0]].things[seen[1]].cell[::-1])
        for item, seen in zip(items, in_order, strict=False):
            yield Span(start, item.end(), frozenset({seen}), in_tiles=True)
            start = item.end()
        yield Span(start, start + AFTER_ITEM, NOTHING)
        return
    ground = ON_GROUND.search(text, start, until)
    if ground:
        yield Span(ground.start(), ground.end(), frozenset((picture, BACKGROUND) for picture, _ in about))
    yield Span(start, until, about)


def _unnamed(text: str, scenes: tuple[Scene, ...], until: int) -> list[Span]:
    """It is about the one picture's ground or, as in "It is red.", about the one kind of thing that there is."""
    if len(scenes) == 1 and scenes[0].background and ON_GROUND.search(text):
        return [Span(0, until, frozenset({(0, BACKGROUND)}))]
    if len(scenes) != 1 or scenes[0].kind != "things" or len({thing.name for thing in scenes[0].things}) != 1:
        return []
    return [Span(0, until, frozenset((0, thing) for thing in range(len(scenes[0].things))))]


def _read(answer: str, scene: Scene, picture: int) -> tuple[list[Span], list[Span]]:
    """Characters and spaces that are spelled, one by one; and the bar that bears a colour, ahead of them."""
    start, end = answer.find(SPELL_OPEN), answer.find(SPELL_CLOSE) - 1
    if start < 0:
        return [], []
    text = plain(answer)
    said = text[start:end]
    marks, named, ahead = list(range(len(scene.marks))), list[Span](), start
    if scene.kind == "chart":
        at = next(at for at, bar in enumerate(scene.bars) if bar.text == said)
        end_of_bar, marks = marks_of_bar(scene, at)
        colour = COLOURED.match(text)
        if colour:
            ahead = colour.end()
            named = [Span(ahead, start + 1, frozenset({mark_of(picture, end_of_bar)}))]
    if len(said.replace(" ", "")) != len(marks):
        return [], []
    found: list[Span] = []
    coming = iter(marks)
    for place, letter in enumerate(f"{said} ", start):
        if letter == " ":
            found.append(Span(place, place + 1, found[-1].about, in_tiles=True, behind=True))
        else:
            found.append(Span(ahead, place + 1, frozenset({mark_of(picture, next(coming))}), in_tiles=True))
        ahead = place + 1
    return named, found


def conclusion(text: str) -> tuple[int, int] | None:
    """Where a name or ordinal is concluded, and where it was said ahead with what it is concluded from."""
    found = CONCLUDED.search(text)
    if not found:
        return None
    group = next(name for name, said in found.groupdict().items() if said)
    said = [match.start() for match in re.finditer(rf"\b{re.escape(found[group])}\b", text[: found.start()])]
    return (found.start(group), said[-1]) if said else None
