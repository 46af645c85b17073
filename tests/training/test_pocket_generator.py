"""The pocket world's generator: pictures match what is said of them, and evaluation never meets what training saw."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
from PIL import Image

from training.answers import Examiner, it_is
from training.captions import caption, describe
from training.chats import IMAGE_ID, Chat, Message, encode
from training.dialogues import Composer
from training.exams import Exam
from training.facts import FACT_KINDS
from training.invented import Inventor, is_held_out_name
from training.pictures import Painter, Sprite, dominant_colour, is_held_out, nearest_colour, shape_mask
from training.smalltalk import BEYOND, NO_PICTURE, Talker
from training.texts import NOT_IN_SOURCES, Writer
from training.vocabulary import picture_names, plural, with_article
from training.world import COLOURS, NAMES, PICTURE_QUESTIONS, PLACES, SHAPES, as_spoken, fill, spoken_sentence


@pytest.fixture
def sprites() -> list[Sprite]:
    """Three things that need no data set."""

    def disc(rgb: tuple[int, int, int]) -> Image.Image:
        image = Image.new("RGBA", (128, 128), (*rgb, 255))
        image.putalpha(shape_mask("circle"))
        return image

    drawn = {"apple": COLOURS["red"], "frog": COLOURS["green"], "scissors": COLOURS["blue"]}
    return [Sprite(name, disc(rgb), dominant_colour(disc(rgb))) for name, rgb in drawn.items()]


def painter(sprites: list[Sprite], seed: int = 0, *, held_out: bool = False) -> Painter:
    return Painter(sprites, random.Random(seed), held_out=held_out)


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


def test_no_sentence_is_both_trained_and_held_out() -> None:
    for phrasings in PICTURE_QUESTIONS.values():
        assert not set(phrasings.trained) & set(phrasings.held_out)
        assert phrasings.held_out


def test_spoken_sentences_have_no_open_blanks() -> None:
    rng = random.Random(3)
    for _ in range(500):
        assert "{" not in spoken_sentence(rng)
    assert as_spoken("What's this, please?") == "what's this please"


@pytest.mark.parametrize("cell", sorted(PLACES))
def test_a_thing_is_drawn_where_the_scene_says(sprites: list[Sprite], cell: tuple[int, int]) -> None:
    source = painter(sprites, seed=cell[0] * 3 + cell[1])
    scene = source._scene([(sprites[0], cell, 0.3)], "white")
    pixels = np.asarray(scene.image).astype(int)
    red = (pixels[..., 0] - pixels[..., 2]) > 80
    rows, columns = np.nonzero(red)
    height, width = red.shape
    found = (int(3 * columns.mean() / width), int(3 * rows.mean() / height))
    assert found == cell


def test_training_and_evaluation_draw_different_compositions(sprites: list[Sprite]) -> None:
    for held_out in (False, True):
        source = painter(sprites, seed=5, held_out=held_out)
        for _ in range(60):
            scene = source.single()
            thing = scene.things[0]
            assert is_held_out(thing.name, scene.background, PLACES[thing.cell]) is held_out


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
        assert scene.background != scene.things[0].colour


def test_captions_and_descriptions_name_the_things(sprites: list[Sprite]) -> None:
    source = painter(sprites)
    for _ in range(50):
        scene = source.pair()
        text = caption(scene, source.rng).lower()
        assert all(thing.name in text for thing in scene.things)
    assert describe(source.counted(2)).startswith("two ")


def test_every_picture_answer_holds_what_is_expected_of_it(sprites: list[Sprite]) -> None:
    rng = random.Random(1)
    for held_out in (False, True):
        examiner = Examiner(rng, held_out=held_out)
        source = Painter(sprites, rng)
        for draw in (source.single, partial(source.counted, 2), source.pair):
            for _ in range(20):
                scene = draw()
                for skill in examiner.skills(scene):
                    exchange = examiner.ask(scene, skill)
                    assert "{" not in exchange.question + exchange.answer
                    chat = Chat(
                        (Message("user", exchange.question), Message("assistant", exchange.answer)),
                        skill,
                        exchange.expected,
                    )
                    assert Exam(chat).is_right(exchange.answer), exchange


def test_a_wrong_name_that_contains_the_right_one_is_wrong() -> None:
    chat = Chat((Message("user", "What is this?"), Message("assistant", "It is a fish.")), "name", ("fish",))
    assert not Exam(chat).is_right("It is a tropical fish.")
    assert Exam(chat).is_right(" It is a fish. ")


def test_grounded_answers_are_in_the_cited_passage_and_end_with_its_number() -> None:
    for held_out in (False, True):
        writer = Writer(random.Random(2), held_out=held_out)
        for _ in range(300):
            chat = writer.grounded()
            question, answer = chat.messages[-2:]
            sources = chat.messages[0].text
            assert sources.startswith("Sources:\n[1] ")
            if answer.text == NOT_IN_SOURCES:
                continue
            value, number = chat.expected
            assert answer.text.endswith(f" {number}.")
            line = next(line for line in sources.split("\n") if line.startswith(number))
            assert value.lower() in line.lower()
            assert question.text


def test_held_out_names_are_never_trained() -> None:
    trained, kept = Inventor(random.Random(0)), Inventor(random.Random(0), held_out=True)
    assert not any(is_held_out_name(trained("place")) for _ in range(200))
    assert all(is_held_out_name(kept("place")) for _ in range(200))


def test_every_fact_kind_has_sentences_to_train_on_and_one_to_keep() -> None:
    for kind in FACT_KINDS:
        assert len(kind.statements) >= 3
        assert len(kind.questions) >= 3
        assert "{v}" in kind.answer


def test_a_question_beyond_the_model_is_answered_with_what_it_is_and_what_to_do() -> None:
    for held_out in (False, True):
        talker = Talker(random.Random(4), held_out=held_out)
        assert talker.beyond().messages[-1].text == BEYOND
        assert talker.no_picture().messages[-1].text == NO_PICTURE
        for _ in range(100):
            assert all("{" not in message.text for message in talker.any().messages)
    assert "--model" in BEYOND
    assert "GGUF" in BEYOND


def test_chats_give_one_scene_per_picture(sprites: list[Sprite]) -> None:
    rng = random.Random(6)
    composer = Composer(Painter(sprites, rng), Examiner(rng), Talker(rng))
    for _ in range(100):
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
        self.ids = [self.token_to_id(word) for word in text.split()]
        return self


def test_only_the_assistants_words_are_learnt() -> None:
    image = Image.new("RGB", (8, 8))
    chat = Chat((Message("user", "what is this", (image,)), Message("assistant", "an apple")), "name")
    tokenizer = WordTokenizer()
    ids, learnt = encode(chat, tokenizer, n_visual_tokens=4)  # type: ignore[arg-type]
    words = {number: word for word, number in tokenizer.words.items()}
    assert [words[i] for i, own in zip(ids, learnt, strict=True) if own] == ["an", "apple", "<|end|>"]
    assert ids.count(IMAGE_ID) == 4
    assert words[ids[0]] == "<|bos|>"


def test_shapes_are_drawn_with_every_name() -> None:
    for shape in SHAPES:
        assert np.asarray(shape_mask(shape)).mean() > 20
