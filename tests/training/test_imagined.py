"""Scenes without pictures: laid out as drawn ones are, with visual tokens that say what they are to say."""

from __future__ import annotations

import random

import pytest
import torch
from tokenizers import Tokenizer

from hearth.multimodal.print_cells import BARS, CHARACTERS
from hearth.multimodal.print_order import PRINT_TOKENS
from hearth.multimodal.views import n_tokens
from training.answers import Examiner, counted_off, counts_of, the_is
from training.chats import IMAGE_ID, encode
from training.dialogues import Composer
from training.fonts import fonts
from training.imagined import N_WHOLE, SCENE_PX, ImaginedScenes, Imaginer, TokenMaker, as_read, told_by
from training.language import LanguageConfig, LanguageModel
from training.pictures import MAX_COUNT, Material, Painter
from training.printing import Printer
from training.scenes import Scene, Thing, marks_of_bar, read_marks
from training.smalltalk import Talker
from training.sprites import is_held_out
from training.view_batches import SIDE_PX
from training.world import PLACES, SIZES, size_word

N_SCENE = n_tokens(SCENE_PX, SCENE_PX)


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageConfig(n_layers=2)).eval()


def imaginer(seed: int = 0) -> Imaginer:
    return Imaginer(Material((), {}), random.Random(seed))


def printer(rng: random.Random) -> Printer:
    """Prints in the fonts that every machine with tests has: they are held out from training."""
    return Printer(fonts(), rng, held_out=True)


def square(*things: Thing, background: str | None = "white") -> Scene:
    return Scene(Imaginer.blank, things, background)


CIRCLE = Thing("circle", "red", (0, 1), (8, 72, 56, 120))
HEART = Thing("heart", "blue", (2, 1), (100, 40, 180, 120))
STAR = Thing("star", "blue", (2, 1), (136, 72, 184, 120))


@pytest.fixture
def maker(language: LanguageModel, tokenizer: Tokenizer) -> TokenMaker:
    """Fitted to tokens that are twice the mean vector of their words, and a hundredth of noise."""
    torch.manual_seed(1)
    fitted = TokenMaker(language, tokenizer)
    painter = imaginer(3)
    scenes = [painter.crowd() for _ in range(150)]
    visual = []
    for scene in scenes:
        told = told_by(scene, fitted.words)
        tokens = 0.01 * torch.randn(N_SCENE + PRINT_TOKENS, language.config.n_embd)
        said = language.embedding.weight.detach()[told.words[:, 1]] * told.shares[:, None]
        visual.append(tokens.index_add(0, told.words[:, 0], 2 * said))
    fitted.fit(scenes, visual)
    return fitted


def test_tokens_over_a_thing_are_told_its_words_and_no_number(language: LanguageModel, tokenizer: Tokenizer) -> None:
    maker = TokenMaker(language, tokenizer)
    told = told_by(square(CIRCLE, STAR), maker.words)
    assert told.kinds.shape == (N_SCENE,)
    assert torch.zeros(N_SCENE).index_add(0, told.words[:, 0], told.shares)[told.kinds > 0] == pytest.approx(1.0)
    over = int(told.words[told.words[:, 1] == maker.words.ids("circle")[0], 0][0])
    words = set(told.words[told.words[:, 0] == over, 1].tolist())
    assert words >= {maker.words.ids(word)[0] for word in ("circle", "red", "left", "medium")}
    assert maker.words.ids("one")[0] not in told.words[:, 1]
    assert (told.kinds[N_WHOLE:] == 2).any(), "tiles are told too"


def test_made_tokens_say_what_lies_under_them(maker: TokenMaker, language: LanguageModel) -> None:
    assert maker.explained > 0.5
    generator, told = torch.Generator().manual_seed(0), told_by(square(CIRCLE, STAR), maker.words)
    tokens = torch.stack([maker.make(told, generator) for _ in range(20)]).mean(0)  # without most of the noise
    assert tokens.shape == (N_SCENE + PRINT_TOKENS, language.config.n_embd)
    likeness = tokens @ language.embedding.weight.detach().T
    circle, star = (maker.words.ids(name)[0] for name in ("circle", "star"))
    cell = 4  # of the whole: the second row, leftmost
    rather_circle = likeness[:, circle] - likeness[:, star]
    assert rather_circle[cell] > rather_circle[cell + 3]


def test_two_makings_differ_in_noise_only(maker: TokenMaker) -> None:
    generator = torch.Generator().manual_seed(0)
    told = told_by(square(CIRCLE, STAR), maker.words)
    first, second = (maker.make(told, generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert (first - second).norm() < first.norm()


def test_layouts_are_those_of_trained_compositions() -> None:
    painter = imaginer(5)
    for _ in range(100):
        scene = painter.pair()
        first, second = scene.things
        width, height = scene.image.size
        assert all(0 <= t.box[0] < t.box[2] <= width and 0 <= t.box[1] < t.box[3] <= height for t in scene.things)
        if scene.background:
            assert not is_held_out(first.name, scene.background, second.name)


@pytest.mark.parametrize("draw", [imaginer(7).crowd, Painter(Material((), {}), random.Random(7)).crowd])
def test_a_crowd_has_three_names_at_least_and_a_cell_for_each_thing(draw: type[Scene]) -> None:
    for _ in range(20):
        scene = draw()
        assert 3 <= len(counts_of(scene)) <= len(scene.things) <= MAX_COUNT
        assert len({thing.cell for thing in scene.things}) == len(scene.things)
        assert {thing.cell for thing in scene.things} <= set(PLACES)


def test_what_is_asked_of_a_crowd_has_one_answer() -> None:
    examiner = Examiner(random.Random(1))
    painter = imaginer(9)
    asked = 0
    for _ in range(60):
        scene = painter.crowd()
        alone = {thing.name: thing for thing in scene.things if counts_of(scene)[thing.name] == 1}
        if alone:
            exchange = examiner.ask(scene, "side")
            (name,) = (name for name in alone if the_is(name) in exchange.answer)
            assert exchange.answer == f"{the_is(name)} {PLACES[alone[name].cell]}."
            asked += 1
    assert asked > 20


def test_imagined_chats_fit_their_tokens(maker: TokenMaker, tokenizer: Tokenizer) -> None:
    rng = random.Random(2)
    painter = Imaginer(Material((), {}), rng, printer(rng))
    scenes = ImaginedScenes(painter, painter, maker)
    composer = Composer(scenes, Examiner(rng), Talker(rng))
    for _ in range(20):
        drawn = composer.imagined_chat()
        ids, _ = encode(drawn.chat, tokenizer)
        assert ids.count(IMAGE_ID) == sum(len(scenes.visual(scene)) for scene in drawn.scenes)


def test_imagined_words_are_read_as_they_are_written() -> None:
    rng = random.Random(6)
    painter = Imaginer(Material((), {}), rng, printer(rng))
    for _ in range(40):
        scene = painter.words()
        readable = "".join(character for character in scene.text if character in CHARACTERS)
        assert "".join(one.character for one in as_read(scene)) == f"{readable} "
        assert [one.begins for one in as_read(scene)].count(True) == 1
        assert all(0 <= one.x < 2 * SIDE_PX and 0 <= one.y < 2 * SIDE_PX for one in as_read(scene))


def test_an_imagined_chart_is_read_as_a_drawn_one() -> None:
    rng = random.Random(6)
    for painter in (Imaginer(Material((), {}), rng, printer(rng)), Painter(Material((), {}), rng, printer(rng))):
        printed: list[bool] = []
        for _ in range(30):
            scene = painter.chart()
            told = [one.character for one in as_read(scene)]
            wanted = [one for bar in scene.bars for one in (bar.colour, *f"{bar.text} ")]
            assert told[: len(wanted)] == wanted, "bar by bar"
            assert not set(BARS) & set(told[len(wanted) :])
            assert [thing.colour for thing in scene.things] == [bar.colour for bar in scene.bars]
            for at, bar in enumerate(scene.bars):
                end_of_bar, marks = marks_of_bar(scene, at)
                read = [read_marks(scene)[mark].character for mark in (end_of_bar, *marks)]
                assert read == [bar.colour, *bar.label, *str(bar.value)]
                printed.append(bar.printed)
        assert 0 < printed.count(False) < printed.count(True)


def test_labels_are_misread_at_times_and_always_in_the_same_way() -> None:
    rng = random.Random(6)
    painter = Imaginer(Material((), {}), rng, printer(rng))
    right, colours, values = [], 0, 0
    for _ in range(60):
        scene = painter.chart()
        read = as_read(scene, 0.3)
        assert read == as_read(scene, 0.3)
        text = "".join(f" {one.character} " if one.character in BARS else one.character for one in read).split()
        right += [bar.label in text for bar in scene.bars]
        colours += all(bar.colour in text for bar in scene.bars)
        values += all(str(bar.value) in text for bar in scene.bars)
    assert 0.1 < sum(right) / len(right) < 0.7
    assert colours == 60
    assert values > 50, "but where a label is missed altogether"


def test_alike_things_are_listed_and_now_and_then_wrongly() -> None:
    painter = imaginer(3)
    wrong, differing = 0, 0
    for _ in range(300):
        scene = painter.counted(3)
        told = "".join(one.character for one in as_read(scene))
        assert told == f" {counted_off(scene, scene.things[0].name).partition(': ')[2]}, three"
        unsure = "".join(one.character for one in as_read(scene, 0.5))
        assert unsure == "".join(one.character for one in as_read(scene, 0.5))
        wrong += unsure != told
        pair = painter.pair()
        assert as_read(pair) == ()
        differing += as_read(pair, 0.5) != ()
    assert 0.02 < wrong / 300 < 0.25
    assert 0.02 < differing / 300 < 0.25


def test_the_bigger_of_two_is_concluded_from_their_sizes() -> None:
    small, large = Thing("star", "red", (0, 1), (10, 80, 40, 110)), Thing("heart", "blue", (2, 1), (110, 60, 180, 130))
    exchange = Examiner(random.Random(4)).ask(square(small, large), "bigger")
    assert "a very small star" in exchange.answer.lower()
    assert "a large heart" in exchange.answer.lower()
    assert exchange.answer.endswith(f"so {exchange.expected[0]}.")


def test_of_two_things_that_one_word_calls_alike_the_bigger_is_said_all_the_same() -> None:
    alike = Thing("star", "red", (0, 1), (4, 60, 90, 146)), Thing("heart", "blue", (2, 1), (50, 30, 190, 170))
    exchange = Examiner(random.Random(4)).ask(square(*alike), "bigger")
    assert exchange.answer == f"A very large star and a very large heart, but {exchange.expected[0]}."


def test_two_things_that_a_question_does_not_name_are_compared_row_by_row() -> None:
    examiner = Examiner(random.Random(4))
    unnamed = 0
    for _ in range(60):
        exchange = examiner.ask(square(CIRCLE, HEART), "bigger")
        if "circle" not in exchange.question:
            assert exchange.answer.index("circle") < exchange.answer.index("heart")
            unnamed += 1
    assert unnamed > 10


def test_sizes_are_shares_of_the_side() -> None:
    assert [size_word(share**2) for share in (0.1, 0.2, 0.3, 0.4, 0.9)] == list(SIZES)
