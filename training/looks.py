"""What an answer on pictures is about, word by word: which things, and which visual tokens lie over them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

from hearth.multimodal.views import TOKENS_A_SIDE, n_tokens, tile_frame, whole_frame
from training.asking import Part, ask
from training.chats import Chat, text_ids
from training.scenes import Scene
from training.view_batches import SIDE_PX
from training.vocabulary import plural
from training.world import COLOURS, NUMBERS, PLACES

BACKGROUND = -1  # in place of a thing
Seen = tuple[int, int]  # picture and thing, both by number
NOTHING = frozenset({(-1, -1)})
CONCLUSION = re.compile(r", so |: (?:both|all|they)\b")
SEPARATOR = re.compile(r", and |, | and |\. ")
COUNTED = re.compile(rf"(\d) (?:{'|'.join(sorted(PLACES.values(), key=len, reverse=True))})(?![a-z])")
NUMBER_BEFORE = re.compile(rf"\b(?:{'|'.join(NUMBERS[1:])}) $", re.IGNORECASE)
ON_GROUND = re.compile(rf" on (?:an? )?(?:{'|'.join(COLOURS)})\b|background is (?:{'|'.join(COLOURS)})\b")
ORDINALS = {"first": 0, "second": 1, "third": 2}
ORDINAL = re.compile("|".join(ORDINALS))
ARTICLE = 4  # characters of "the "
AFTER_ITEM = 2  # characters: a comma, and what stands before the next item's number or does not


@dataclass(frozen=True, order=True)
class Sight:
    """What lies under visual tokens of one picture, in the view of the whole or in its tiles."""

    seen: Seen
    whole: bool


@dataclass(frozen=True)
class Look:
    """``token`` is a place in a chat; what it goes on to say is about all things ``named``, and about ``one`` (or more
    that cannot be told apart), ``NOTHING`` where all have been counted.
    """

    token: int
    named: frozenset[Seen]
    one: frozenset[Seen]


@dataclass(frozen=True)
class _Span:
    """Of an answer's text, by characters."""

    start: int
    end: int
    about: frozenset[Seen]


def sights(scene: Scene, picture: int) -> list[Sight | None]:
    """For each visual token of a scene's views, the whole first, then the tiles; None where it is not asked."""
    found: list[Sight | None] = []
    for whole, make in ((True, whole_frame), (False, tile_frame)):
        frame = make(*scene.image.size, SIDE_PX)
        in_view: list[Sight | None] = [None] * (frame.canvas[0] * frame.canvas[1] * TOKENS_A_SIDE**2 // SIDE_PX**2)
        if scene.kind == "things":
            asked = ask(scene, Part(frame, (0, 0, *frame.canvas), tiles=not whole), SIDE_PX)
            for cell, thing in asked.things.items():
                in_view[cell] = Sight((picture, BACKGROUND if thing is None else thing), whole)
        found += in_view
    return found


def looks_of(chat: Chat, scenes: tuple[Scene, ...], tokenizer: Tokenizer) -> Iterator[Look]:
    """All looks of a chat's answers on the pictures that have come by then."""
    at, shown = 1, 0
    for message in chat.messages:
        shown += len(message.images)
        at += 1 + sum(n_tokens(image.width, image.height) for image in message.images)
        if message.role != "assistant":
            text = message.gap + message.text if message.images else message.text
            at += len(text_ids(text, tokenizer)) + 1
            continue
        offsets = tokenizer.encode(message.text, add_special_tokens=False).offsets
        named, one = spans(message.text, scenes[:shown])
        for token, end in enumerate((0, *(end for _, end in offsets)), at - 1):
            looked = tuple(next((s.about for s in of if s.start <= end < s.end), frozenset()) for of in (named, one))
            if any(looked):
                yield Look(token, *looked)
        at += len(offsets) + 1


def spans(text: str, scenes: tuple[Scene, ...]) -> tuple[list[_Span], list[_Span]]:
    """What ``text`` is about: by name, from each name to the next; and one by one, the first that fits counting."""
    mentions = _mentions(text, scenes)
    named = [
        _Span(end, mentions[at + 1][1] if at + 1 < len(mentions) else len(text) + 1, about)
        for at, (_, end, about) in enumerate(mentions)
    ]
    conclusion = CONCLUSION.search(text)
    until = conclusion.start() if conclusion else len(text)
    mentions = [mention for mention in mentions if mention[1] <= until]
    if not mentions:
        return named, _unnamed(text, scenes, until)
    one: list[_Span] = []
    done = 0
    for at, (start, end, about) in enumerate(mentions):
        separators = [match.start() for match in SEPARATOR.finditer(text, done, start)]
        lead = separators[-1] if separators else max(done, start - ARTICLE) if at else 0
        one = [_Span(span.start, min(span.end, lead), span.about) for span in one]
        following = mentions[at + 1][0] if at + 1 < len(mentions) else until
        one += [_Span(lead, end, about), *_from(text, end, following, about, scenes)]
        done = max(end, *(span.end for span in one if span.about == NOTHING), end)
    return named, [span for span in one if span.start < span.end]


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
        ordinals = ORDINAL.findall(text, done, match.start())
        picture = ORDINALS[ordinals[-1]] if ordinals else pictures[min(told.get(name, 0), len(pictures) - 1)]
        told[name] = told.get(name, 0) + 1
        in_picture = frozenset(seen for seen in bearing if seen[0] == picture)
        found.append((match.start(), match.end(), in_picture or frozenset(bearing)))
        done = match.end()
    return found


def _from(text: str, start: int, until: int, about: frozenset[Seen], scenes: tuple[Scene, ...]) -> Iterator[_Span]:
    """What follows a name: things counted off one by one, or what is said of it and of the ground it is on."""
    items = list(COUNTED.finditer(text, start, until))
    if items and text[start : items[0].start()] == ": ":
        in_order = sorted(about, key=lambda seen: scenes[seen[0]].things[seen[1]].cell[::-1])
        for item, seen in zip(items, in_order, strict=False):
            yield _Span(start, item.end(), frozenset({seen}))
            start = item.end()
        yield _Span(start, start + AFTER_ITEM, NOTHING)
        return
    ground = ON_GROUND.search(text, start, until)
    if ground:
        yield _Span(ground.start(), ground.end(), frozenset((picture, BACKGROUND) for picture, _ in about))
    yield _Span(start, until, about)


def _unnamed(text: str, scenes: tuple[Scene, ...], until: int) -> list[_Span]:
    """It is about the one picture's ground or, as in "It is red.", about the one kind of thing that there is."""
    if len(scenes) == 1 and scenes[0].background and ON_GROUND.search(text):
        return [_Span(0, until, frozenset({(0, BACKGROUND)}))]
    if len(scenes) != 1 or scenes[0].kind != "things" or len({thing.name for thing in scenes[0].things}) != 1:
        return []
    return [_Span(0, until, frozenset((0, thing) for thing in range(len(scenes[0].things))))]
