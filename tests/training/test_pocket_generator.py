"""The pocket world's generator: pictures match what is said of them, and evaluation never meets what training saw."""

from __future__ import annotations

import json
import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.answers import Examiner, it_is
from training.answers_several import SeveralPictures, ask_json
from training.captions import caption, describe
from training.chats import IMAGE_ID, Chat, Message, encode, n_visual
from training.dialogues import KINDS, Composer, kinds_at
from training.distances import of_others
from training.exams import Exam
from training.exchanges import plain, spelled
from training.fonts import Font, families, fonts
from training.interleaved import Documents, encode_document
from training.pictures import Material, Painter
from training.printing import MAX_CHARACTERS, Printer
from training.products import held_out_run, said
from training.related import related
from training.scene_pool import FreshScenes
from training.scenes import Sprite
from training.smalltalk import Talker
from training.sprites import dominant_colour, is_held_out, nearest_colour, shape_mask, styles
from training.vocabulary import picture_names, plural, with_article
from training.world import COLOURS, NAMES, NUMBERS, PLACES, SHAPES, fill


@pytest.fixture
def sprites() -> list[Sprite]:
    """Four things that need no data set."""

    def disc(rgb: tuple[int, int, int]) -> Image.Image:
        image = Image.new("RGBA", (128, 128), (*rgb, 255))
        image.putalpha(shape_mask("circle"))
        return image

    drawn = {"apple": COLOURS["red"], "frog": COLOURS["green"], "scissors": COLOURS["blue"], "sun": COLOURS["yellow"]}
    return [Sprite(name, disc(rgb), dominant_colour(disc(rgb))) for name, rgb in drawn.items()]


def painter(sprites: list[Sprite], seed: int = 0, *, held_out: bool = False) -> Painter:
    rng = random.Random(seed)
    return Painter(Material(tuple(sprites), {}), rng, printer(rng, held_out=held_out), held_out=held_out)


def printer(rng: random.Random, *, held_out: bool) -> Printer:
    """Prints in the only fonts that every machine has: those of the evaluation."""
    pool = fonts()
    kept = families(pool, kept_for_evaluation=True)
    trained = families(pool, kept_for_evaluation=False)
    return Printer(pool, rng, held_out=held_out if (kept if held_out else trained) else bool(kept))


def test_training_prints_more_often_in_families_that_texts_are_set_in() -> None:
    path = Path("a.ttf")
    pool = (
        *(Font("Text", path) for _ in range(4)),
        *(Font(f"Ornament {i}", path) for i in range(9)),
        Font("Hack", path),
    )
    printer = Printer(pool, random.Random(1))
    drawn = [printer.font().family for _ in range(300)]
    assert 0.7 < drawn.count("Text") / len(drawn) < 0.95
    assert len(set(drawn)) == 10


def test_the_world_names_at_least_a_hundred_things() -> None:
    assert len(NAMES) >= 100
    assert set(picture_names().values()) == set(NAMES)


@pytest.mark.parametrize("colour", sorted(COLOURS))
def test_every_drawn_colour_is_recognised_as_itself(colour: str) -> None:
    assert nearest_colour(*COLOURS[colour]) == colour


@pytest.mark.parametrize(
    ("name", "article", "several"),
    [
        ("apple", "an apple", "apples"),
        ("unicorn", "a unicorn", "unicorns"),
        ("hourglass", "an hourglass", "hourglasses"),
        ("scissors", "scissors", "scissors"),
        ("bread", "bread", "bread"),
        ("cherry", "a cherry", "cherries"),
        ("mouse", "a mouse", "mice"),
        ("cup of tea", "a cup of tea", "cups of tea"),
    ],
)
def test_english_forms(name: str, article: str, several: str) -> None:
    assert with_article(name) == article
    assert plural(name) == several


def test_verbs_agree_with_things_that_come_in_pairs() -> None:
    assert fill("Where {is} the {x}?", "scissors") == "Where are the scissors?"
    assert fill("Where {is} the {x}?", "apple") == "Where is the apple?"
    assert it_is("scissors") == "These are scissors"


@pytest.mark.parametrize("cell", sorted(PLACES))
def test_a_thing_is_drawn_where_the_scene_says(sprites: list[Sprite], cell: tuple[int, int]) -> None:
    source = painter(sprites, seed=cell[0] * 3 + cell[1])
    scene = source._scene([(sprites[0], cell, 0.3)], "white", plain=True)
    pixels = np.asarray(scene.image).astype(int)
    red = (pixels[..., 0] - pixels[..., 2]) > 60
    rows, columns = np.nonzero(red)
    height, width = red.shape
    found = (int(3 * columns.mean() / width), int(3 * rows.mean() / height))
    assert found == cell == scene.things[0].cell
    x, y = scene.things[0].centre
    assert abs(x - columns.mean()) < 4
    assert abs(y - rows.mean()) < 4


def test_training_and_evaluation_draw_different_compositions(sprites: list[Sprite]) -> None:
    for held_out in (False, True):
        source = painter(sprites, seed=5, held_out=held_out)
        for _ in range(60):
            scene = source.single()
            thing = scene.things[0]
            if scene.background:  # a ground without one colour is drawn in training only
                assert is_held_out(thing.name, scene.background, PLACES[thing.cell]) is held_out
            assert scene.background or not held_out


def test_counted_scenes_hold_that_many_countable_things(sprites: list[Sprite]) -> None:
    source = painter(sprites)
    for number in (1, 2, 3):
        scene = source.counted(number)
        assert len(scene.things) == number
        assert scene.things[0].name != "scissors"


def test_a_thing_is_never_lost_on_a_background_of_its_colour(sprites: list[Sprite]) -> None:
    source = painter(sprites)
    for _ in range(100):
        scene = source.single()
        assert scene.background is None or scene.background != scene.things[0].colour


def test_captions_and_descriptions_name_the_things(sprites: list[Sprite]) -> None:
    source = painter(sprites)
    for _ in range(50):
        scene = source.pair()
        text = caption(scene, source.rng).lower()
        assert all(thing.name in text for thing in scene.things)
    assert describe(source.counted(2)).startswith("two ")


def exam(skill: str, question: str, answer: str, expected: tuple[str, ...]) -> Exam:
    return Exam(skill, Chat((Message("user", question), Message("assistant", answer)), skill, expected))


def test_every_picture_answer_holds_what_is_expected_of_it(sprites: list[Sprite]) -> None:
    rng = random.Random(1)
    for held_out in (False, True):
        examiner = Examiner(rng, held_out=held_out)
        source = painter(sprites)
        for draw in (source.single, partial(source.counted, 6), source.pair, source.groups, source.words, source.chart):
            for _ in range(15):
                scene = draw()
                for skill in examiner.skills(scene):
                    exchange = examiner.ask(scene, skill)
                    assert "{" not in exchange.question + exchange.answer
                    answer = plain(exchange.answer)
                    right = exam(
                        "printed word" if skill == "words" else skill, exchange.question, answer, exchange.expected
                    )
                    assert right.score(answer) == 1, exchange


def test_answers_on_several_pictures_fit_them(sprites: list[Sprite]) -> None:
    source = painter(sprites, seed=3)
    several = SeveralPictures(Examiner(source.rng))
    numbers = set()
    for _ in range(60):
        scenes = related(source)
        numbers.add(len(scenes))
        for skill in ("common", "ordinal", "both", *(["differ"] if len(scenes) == 2 else [])):
            exchange = several.ask(scenes, skill)
            assert exam(skill, exchange.question, exchange.answer, exchange.expected).score(exchange.answer) == 1, (
                exchange
            )
            assert len(scenes) == 2 or "two" not in exchange.question
    assert numbers == {2, 3}


@pytest.mark.parametrize(
    ("kind", "skill", "form"),
    [
        ("single", "is_it", r"(It is|These are) .+, so (yes|no)\."),
        (
            "groups",
            "statement",
            r"There (is|are) .+ and .+, so (yes|no)\.|Counting the .+: 1 .+, \w+ .+, so (yes|no)\.",
        ),
        ("groups", "count", r"Counting the .+: 1 .+, so there (is|are) \w+\."),
        ("groups", "more", r"The .+: 1 .+, \w+ .+\. The .+: 1 .+, \w+ .+, so more .+\."),
        (
            "related",
            "which_picture",
            r".+ in the first.* and .+ in the \w+ picture, so it is (the \w+ picture|none of them)\.",
        ),
        ("related", "common", r".+ and .+: (both|all|they) .+\."),
    ],
)
def test_what_is_seen_comes_before_what_follows_from_it(
    sprites: list[Sprite], kind: str, skill: str, form: str
) -> None:
    source = painter(sprites, seed=6)
    composer = Composer(FreshScenes(source), Examiner(source.rng), Talker(source.rng))
    for _ in range(12):
        chat = composer.exam(skill, kind)
        assert re.fullmatch(form, chat.messages[-1].text)
        assert chat.expected[0] in chat.messages[-1].text.lower()


def test_things_are_counted_by_their_places(sprites: list[Sprite]) -> None:
    source = painter(sprites, seed=2)
    composer = Composer(FreshScenes(source), Examiner(source.rng), Talker(source.rng))
    places = "|".join(PLACES.values())
    for _ in range(20):
        answer = composer.exam("count", "counted").messages[-1].text
        listed = re.findall(rf"(\d) ({places})(?=,)", answer)
        assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
        assert len({place for _, place in listed}) == len(listed)
        assert answer.endswith(f"so there are {NUMBERS[len(listed)]}.")


def test_a_verdict_that_does_not_follow_is_wrong() -> None:
    said = exam("yes or no", "Are there two dice?", "There are three dice, so no.", ("so no",))
    assert said.score("There are three dice, so no.") == 1
    assert said.score("There are three dice, so yes.") == 0


def test_json_answers_keep_to_their_schema_and_count_by_field(sprites: list[Sprite]) -> None:
    source = painter(sprites)
    for _ in range(30):
        exchange, schema = ask_json(Examiner(source.rng), source.single())
        fields = json.loads(exchange.answer)
        assert list(fields) == schema["required"] == list(schema["properties"])
        chat = Chat(
            (Message("user", exchange.question), Message("assistant", exchange.answer)), "JSON", exchange.expected
        )
        asked = Exam("JSON", chat, schema)
        assert asked.score(exchange.answer) == 1
        assert asked.score(json.dumps({**fields, "name": "?"})) <= 1 - ("name" in fields) / len(fields)
        assert asked.score("{") == 0


def test_a_wrong_name_that_contains_the_right_one_is_wrong() -> None:
    fish = exam("name", "What is this?", "It is a fish.", ("fish",))
    assert fish.score("It is a tropical fish.") == 0
    assert fish.score(" It is a fish. ") == 1


def test_print_is_where_its_characters_are_said_to_be(sprites: list[Sprite]) -> None:
    source = painter(sprites, seed=8)
    for _ in range(12):
        scene = source.words()
        assert 0 < len(scene.text) <= MAX_CHARACTERS
        assert "".join(mark.character for mark in sorted(scene.marks, key=lambda mark: mark.x)) == scene.text
        assert all(0 <= mark.x < scene.image.width and 0 <= mark.y < scene.image.height for mark in scene.marks)


def test_charts_say_their_values_and_a_collage_its_things(sprites: list[Sprite]) -> None:
    source = painter(sprites, seed=9)
    for _ in range(8):
        chart = source.chart()
        assert 2 <= len(chart.bars) <= 5
        assert len(chart.things) == len(chart.bars)
        tallest = min(range(len(chart.things)), key=lambda i: chart.things[i].box[1])
        assert chart.bars[tallest].value == max(bar.value for bar in chart.bars)
        names = [thing.name for thing in source.collage().things]
        assert len(set(names)) == len(names) > 0


def test_documents_hold_pictures_between_their_words(sprites: list[Sprite]) -> None:
    source = painter(sprites)
    documents = Documents(FreshScenes(_no_photographs(source)), Examiner(source.rng))
    tokenizer = WordTokenizer()
    for _ in range(20):
        for items in (documents.captioned(), documents.interleaved(), documents.interleaved(shots=2)):
            ids, weights, scenes = encode_document(items, tokenizer)  # type: ignore[arg-type]
            assert len(ids) == len(weights)
            assert ids.count(IMAGE_ID) == sum(n_visual(scene.image) for scene in scenes)
            assert all(weight == 0 for number, weight in zip(ids, weights, strict=True) if number == IMAGE_ID)


def _no_photographs(source: Painter) -> Painter:
    source.photograph = source.single  # type: ignore[method-assign]
    return source


def test_held_out_photographs_are_one_run_at_an_end_cut_where_neighbours_differ() -> None:
    shots = [np.full((8, 8, 3), 10.0 if i < 16 else 200.0, dtype=np.float32) for i in range(20)]
    assert held_out_run(shots) == (16, 20)
    assert held_out_run(shots[::-1]) == (0, 4)
    assert said("Arla-Ecological-Medium-Fat-Milk") == "Arla ecological medium fat milk"
    assert said("Granny-Smith") == "Granny Smith apple"


def test_other_styles_keep_the_outline_of_a_thing(sprites: list[Sprite]) -> None:
    for styled in styles(sprites[0], random.Random(0)):
        assert styled.name == "apple"
        assert styled.image.size == sprites[0].image.size
        assert np.asarray(styled.image)[64, 64, 3] == 255


def test_chats_give_one_scene_per_picture(sprites: list[Sprite]) -> None:
    rng = random.Random(6)
    composer = Composer(FreshScenes(_no_photographs(painter(sprites))), Examiner(rng), Talker(rng))
    assert set(KINDS) >= {"words", "chart", "related"}
    for _ in range(60):
        drawn = composer.picture_chat()
        assert sum(len(message.images) for message in drawn.chat.messages) == len(drawn.scenes)


class WordTokenizer:
    """A stand-in that numbers words; the special tokens come first."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def token_to_id(self, token: str) -> int:
        return self.words.setdefault(token, len(self.words))

    def encode(self, text: str, *, add_special_tokens: bool) -> WordTokenizer:
        assert not add_special_tokens
        found = list(re.finditer(r"\S+", text))
        self.ids = [self.token_to_id(word[0]) for word in found]
        self.offsets = [word.span() for word in found]
        return self


def test_only_the_assistants_words_are_learnt() -> None:
    image = Image.new("RGB", (8, 8))
    chat = Chat((Message("user", "what is this", (image,)), Message("assistant", "an apple")), "name")
    tokenizer = WordTokenizer()
    ids, learnt = encode(chat, tokenizer)  # type: ignore[arg-type]
    words = {number: word for word, number in tokenizer.words.items()}
    assert [words[i] for i, own in zip(ids, learnt, strict=True) if own] == ["an", "apple", "<|end|>"]
    assert ids.count(IMAGE_ID) == n_visual(Image.new("RGB", (8, 8)))
    assert words[ids[0]] == "<|bos|>"


def test_spelled_words_become_one_token_a_character() -> None:
    tokenizer = WordTokenizer()
    chat = Chat((Message("user", "read it"), Message("assistant", f"It says {spelled('cab')} .")), "words")
    ids, _ = encode(chat, tokenizer)  # type: ignore[arg-type]
    words = {number: word for word, number in tokenizer.words.items()}
    assert [words[i] for i in ids][-7:] == ["It", "says", "c", "a", "b", ".", "<|end|>"]


def test_shapes_are_drawn_with_every_name() -> None:
    for shape in SHAPES:
        assert np.asarray(shape_mask(shape)).mean() > 20


def test_pictures_of_many_things_come_later() -> None:
    assert kinds_at(0.0)["words"] == kinds_at(0.2)["related"] == 0
    assert kinds_at(1.0) == KINDS
    assert 0 < kinds_at(0.4)["chart"] < KINDS["chart"]
    assert all(sum(kinds_at(progress).values()) == pytest.approx(1) for progress in (0, 0.4, 1))


def test_pictures_of_the_same_thing_are_no_others() -> None:
    distances = np.array([[0.1, 0.2, 0.5], [0.3, 0.1, 0.6], [0.4, 0.9, 0.0]], dtype=np.float32)
    others = of_others(distances, ["apple", "apple", "frog"])
    assert np.isnan(others).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert others[~np.isnan(others)].tolist() == pytest.approx([0.5, 0.6, 0.4, 0.9])
