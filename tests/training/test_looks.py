"""What an answer is about, word by word, and what lies under each visual token."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from PIL import Image
from tokenizers import Tokenizer

from hearth.multimodal.print_order import PRINT_TOKENS
from hearth.multimodal.views import n_tokens
from training.answers import Examiner
from training.answers_several import SeveralPictures
from training.chats import Chat, Message, encode
from training.exchanges import plain
from training.fonts import fonts
from training.imagined import Imaginer, as_read
from training.looks import looks_of
from training.pictures import Material, Painter
from training.printing import Printer
from training.scenes import Scene, Thing, marks_of_bar, read_marks
from training.sights import BACKGROUND, MARKS, NOTHING, Sight, mark_of, sights
from training.spans import spans


def thing(name: str, colour: str, column: int, row: int) -> Thing:
    return Thing(name, colour, (column, row), (64 * column + 8, 64 * row + 8, 64 * column + 56, 64 * row + 56))


def scene(*things: Thing, background: str | None = "white") -> Scene:
    return Scene(Imaginer.blank, things, background)


STARS = scene(thing("star", "red", 1, 0), thing("circle", "blue", 0, 1), thing("star", "red", 2, 1))


def read(text: str, *scenes: Scene) -> list[tuple[str, frozenset[tuple[int, int]]]]:
    """The parts of ``text`` and what each is about, one by one."""
    return [(text[span.start : span.end], span.about) for span in spans(text, scenes)[1]]


def of(*seen: int, picture: int = 0) -> frozenset[tuple[int, int]]:
    return frozenset((picture, one) for one in seen)


def test_things_counted_off_are_looked_at_one_by_one() -> None:
    assert read("Counting the stars: 1 at the top, 2 on the right, so there are two.", STARS) == [
        ("Counting the stars", of(0, 2)),
        (": 1 at the top", of(0)),
        (", 2 on the right", of(2)),
        (", ", NOTHING),
    ]


def test_of_two_groups_the_second_follows_the_first() -> None:
    text = "The stars: 1 at the top, 2 on the right, two stars. The circles: 1 on the left, one circle, so more stars."
    assert read(text, STARS)[3:] == [
        (", ", NOTHING),
        (". The circles", of(1)),
        (": 1 on the left", of(1)),
        (", ", NOTHING),
    ]


def test_every_thing_is_looked_at_before_its_name_and_after_it() -> None:
    two = scene(thing("star", "red", 0, 1), thing("heart", "blue", 2, 1))
    assert read("A small star and a very large heart, so the heart is bigger.", two) == [
        ("A small star", of(0)),
        (" and a very large heart", of(1)),
    ]
    assert read("The heart is above the star.", two)[:3] == [
        ("The heart", of(1)),
        (" is above ", of(1)),
        ("the star", of(0)),
    ]


def test_each_of_several_pictures_shows_its_own() -> None:
    pictures = scene(thing("star", "red", 0, 1), background="grey"), scene(thing("star", "blue", 2, 1))
    found = read("A red star on grey and a blue star on white: both show a star.", *pictures)
    about = dict(found[::-1])
    assert about["A red star"] == of(0)
    assert about[" on grey"] == of(BACKGROUND)
    assert about[" and a blue star"] == of(0, picture=1)
    assert about[" on white"] == of(BACKGROUND, picture=1)
    assert not any("both" in text for text, _ in found)


def test_ordinals_say_which_picture() -> None:
    pictures = scene(thing("star", "red", 0, 1)), scene(thing("star", "blue", 2, 1))
    assert read("The second picture shows a star.", *pictures)[0] == (
        "The second picture shows a star",
        of(0, picture=1),
    )


def test_without_a_name_it_is_about_the_one_thing_or_its_ground() -> None:
    alone = scene(thing("star", "red", 0, 1))
    assert read("It is red.", alone) == [("It is red.", of(0))]
    assert read("The background is white.", alone) == [("The background is white.", of(BACKGROUND))]
    assert read("It is red.", STARS) == []
    assert read("I cannot see that.", Scene(Imaginer.blank, (), None, "words", (), "hello")) == []


def test_by_name_a_token_is_about_all_that_bear_the_name_said_last() -> None:
    text = "There are two stars, and the circle is on the left."
    named = [(text[span.start : span.end], span.about) for span in spans(text, (STARS,))[0]]
    assert named == [(" is on the left.", of(1))], "a number's name is none that is looked up"


@pytest.mark.parametrize("kind", ["counted", "groups", "crowd", "pair", "single"])
def test_counting_ends_where_nothing_is_left(kind: str) -> None:
    painter = Imaginer(Material((), {}), random.Random(3))
    examiner = Examiner(random.Random(5))
    counted = 0
    for _ in range(30):
        drawn = painter.counted(4) if kind == "counted" else getattr(painter, kind)()
        if "count" in examiner.skills(drawn):
            exchange = examiner.ask(drawn, "count")
            one = spans(exchange.answer, (drawn,))[1]
            assert one[-1].about == NOTHING
            number = sum(span.about != NOTHING for span in one) - 1
            assert f" {number} " in exchange.answer
            assert f" {number + 1} " not in exchange.answer
            counted += 1
    assert counted > 10


def test_looks_lie_at_the_tokens_that_go_on_to_say_it(tokenizer: Tokenizer) -> None:
    answer = "Counting the stars: 1 at the top, 2 on the right, so there are two."
    chat = Chat((Message("user", "How many stars?", (STARS.image,)), Message("assistant", answer)), "count")
    ids, learnt = encode(chat, tokenizer)
    looks = list(looks_of(chat, (STARS,), tokenizer))
    assert looks[0].token == learnt.index(True) - 1, "the role's token goes on to say the first word"
    going_on = {tokenizer.decode([ids[look.token + 1]]).strip(): look.one for look in looks if look.one}
    assert going_on["top"] == of(0)
    assert going_on["right"] == of(2)
    assert going_on["so"] == NOTHING


def test_a_sight_for_every_visual_token_of_any_picture() -> None:
    star = Thing("star", "red", (0, 1), (0, 20, 40, 60))
    for size in ((96, 96), (192, 96), (60, 110)):
        under = sights(Scene(Image.new("RGB", size), (star,), "white"), 3)
        assert len(under) == n_tokens(*size) + PRINT_TOKENS
        assert {one.seen for one in under if one} == {(3, 0), (3, BACKGROUND)}
        assert Sight((3, 0), whole=True) in under
    assert set(sights(Scene(Image.new("RGB", (96, 96)), (), None, "words", (), "hello"), 0)) == {None}


def test_what_two_pictures_share_is_concluded_without_looking() -> None:
    pictures = scene(thing("star", "red", 0, 1), background="grey"), scene(thing("heart", "red", 2, 1))
    exchange = SeveralPictures(Examiner(random.Random(1))).ask(pictures, "common")
    seen = [text for text, _ in read(exchange.answer, *pictures)]
    assert not any("both" in text for text in seen)


def test_what_was_said_before_is_found_whether_one_or_many(tokenizer: Tokenizer) -> None:
    answer = "Counting the stars: 1 at the top, two stars, so no."
    question = Message("user", "There are three stars. Right?", (STARS.image,))
    chat = Chat(
        (Message("user", "Are there two hearts?"), Message("assistant", "No."), question, Message("assistant", answer)),
        "x",
    )
    ids, _ = encode(chat, tokenizer)
    before = {
        tokenizer.decode(ids[look.token - 1 : look.token + 1]).strip(): look.before
        for look in looks_of(chat, (STARS,), tokenizer)
        if look.before is not None
    }
    said = {
        word: places for text, places in before.items() for word in ("two", "stars", "top") if word in text.split()[-1]
    }
    assert said["two"] == (), "asked for in another question"
    assert said["top"] == ()
    assert len(said["stars"]) == 2, "in the question, and ahead in the answer"
    assert all("star" in tokenizer.decode([ids[place - 1], ids[place]]) for place in said["stars"])


def test_the_colour_of_a_ground_is_another_word_than_that_of_a_thing(tokenizer: Tokenizer) -> None:
    pictures = (
        scene(thing("star", "red", 0, 1), background="grey"),
        scene(thing("heart", "grey", 2, 1), background="red"),
    )
    answer = "A red star on grey and a grey heart on red: they have nothing in common."
    asked = Message("user", "What do they share?", tuple(one.image for one in pictures))
    looks = looks_of(Chat((asked, Message("assistant", answer)), "common"), pictures, tokenizer)
    assert [look.before for look in looks if look.before is not None] == [()] * 6


def test_letters_are_looked_at_one_by_one(tokenizer: Tokenizer) -> None:
    rng = random.Random(4)
    painter = Painter(Material((), {}), rng, Printer(fonts(), rng, held_out=True), side_px=192)
    for _ in range(8):
        drawn = painter.words()
        answer = Examiner(rng).ask(drawn, "words").answer
        *found, behind = spans(answer, (drawn,))[1]
        seen = [next(iter(span.about)) for span in found]
        assert seen == [mark_of(0, at) for at in range(len(drawn.marks))]
        assert (behind.about, behind.behind) == (found[-1].about, True), "the space behind the last one"
        assert [one.seen for one in sights(drawn, 0, as_read(drawn)) if one] == seen
        missed = [replace(one, character="?") if at == 0 else one for at, one in enumerate(as_read(drawn))]
        assert [one.seen for one in sights(drawn, 0, missed) if one] == seen[1:], "what is misread is not looked at"
        chat = Chat((Message("user", "Read it.", (drawn.image,)), Message("assistant", answer)), "words")
        ids, _ = encode(chat, tokenizer)
        read = "".join(
            tokenizer.decode([ids[look.token + 1]]) for look in looks_of(chat, (drawn,), tokenizer) if look.one
        )
        assert read == "".join(mark.character for mark in drawn.marks) + '"'


@pytest.mark.parametrize("skill", ["chart", "highest", "chart_colour"])
def test_what_is_printed_of_a_bar_is_looked_at_one_by_one(skill: str) -> None:
    rng = random.Random(4)
    painter = Painter(Material((), {}), rng, Printer(fonts(), rng, held_out=True), side_px=192)
    printed = asked = 0
    for _ in range(32):
        drawn = painter.chart()
        examiner = Examiner(rng)
        touching = sum(len(bar.label) for bar in drawn.bars) > 16  # long labels: nothing tells where one ends
        if touching or skill not in examiner.skills(drawn):
            continue
        asked += 1
        answered = examiner.ask(drawn, skill).answer
        named, found = spans(answered, (drawn,))
        answer = plain(answered)
        bar = next(bar for bar in drawn.bars if f'"{bar.text}"' in answer)
        printed += bar.printed
        looked = ""
        for span in found:
            (mark,) = (at - MARKS for _, at in span.about)
            looked += " " if span.behind else read_marks(drawn)[mark].character
        assert looked == f"{bar.text} "
        assert [span.end for span in found] == [answer.index('"') + 2 + at for at in range(len(looked))]
        if skill == "chart_colour":
            (colour,) = named
            assert answer[: colour.start] == f"The {bar.colour}"
            end_of_bar, _ = marks_of_bar(drawn, drawn.bars.index(bar))
            assert read_marks(drawn)[end_of_bar].character == bar.colour
            assert colour.about == {mark_of(0, end_of_bar)}
        else:
            assert not named
        seen = [one.seen[1] - MARKS for one in sights(drawn, 0, as_read(drawn)) if one and one.seen[1] >= MARKS]
        end_of_bar, marks = marks_of_bar(drawn, drawn.bars.index(bar))
        assert seen[seen.index(end_of_bar) :][: 1 + len(marks)] == [end_of_bar, *marks], "also where an axis tells it"
    assert asked > printed > 2


@pytest.mark.parametrize(
    ("answer", "concluding", "reason"),
    [
        ("A small star and a very large heart, so the heart is bigger.", "the", "heart"),
        (
            "The hearts: 1 on the left, one heart. The stars: 1 on the left, 2 on the right, two stars, so more stars.",
            "more",
            "stars",
        ),
        ("A heart in the first and a star in the second picture, so it is the second picture.", "the", "second"),
        ("A small ear and a very large bear, so the ear is smaller.", "the", "ear"),
        ("A red star and a blue heart.", "", ""),
    ],
)
def test_what_is_concluded_is_looked_at_beside_its_reason(
    answer: str, concluding: str, reason: str, tokenizer: Tokenizer
) -> None:
    chat = Chat((Message("user", "Which?", (STARS.image,)), Message("assistant", answer)), "bigger")
    ids, _ = encode(chat, tokenizer)
    found = [
        (tokenizer.decode([ids[look.token]]).strip(), tokenizer.decode(ids[look.reason : look.reason + 2]).strip())
        for look in looks_of(chat, (STARS,), tokenizer)
        if look.reason is not None
    ]
    if not reason:
        assert found == []
        return
    ((word, said),) = found
    assert word == concluding
    assert said.startswith(reason)


def test_a_name_ahead_of_its_ordinal_is_in_its_own_picture() -> None:
    pictures = scene(thing("star", "red", 0, 1)), scene(thing("heart", "blue", 2, 1))
    text = "A star in the first and a heart in the second picture, so it is the second picture."
    assert read(text, *pictures) == [
        ("A star", of(0)),
        (" in the first", of(0)),
        (" and a heart", of(0, picture=1)),
        (" in the second picture", of(0, picture=1)),
    ]


def test_one_of_many_is_looked_at_in_the_tiles_one_of_few_in_the_whole() -> None:
    few = scene(thing("star", "red", 0, 1), thing("heart", "blue", 2, 1))
    assert not any(
        span.in_tiles for span in spans("A small star and a very large heart, so the heart is bigger.", (few,))[1]
    )
    counted = spans("Counting the stars: 1 at the top, 2 on the right, so there are two.", (STARS,))[1]
    assert [span.in_tiles for span in counted] == [True, True, True, False], "nothing is seen nowhere"
    counted = spans("Counting the stars: 1 on the left, so there is one.", (few,))[1]
    assert [span.in_tiles for span in counted] == [False, True, False], "counted alike, however many there are"
