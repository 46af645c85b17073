"""The pocket recipe: torch and llama.cpp agree on tokens and logits, copying works from the start, training resumes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.loss import ClipLoss
from PIL import Image
from tokenizers import Tokenizer

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.print_order import PRINT_TOKENS
from hearth.multimodal.views import N_PLACES, TOKENS_A_SIDE, places_of, tile_frame, whole_frame
from training.aligning import Aligning, Saying, stray_loss, vision_config, word_loss
from training.answers import Examiner
from training.asking import Part, ask, words_of
from training.batches import Rows, next_token_loss, pack, pack_chats
from training.breakdown import Breakdown
from training.chats import IMAGE_ID, SPECIAL_TOKENS, Chat, Message
from training.checkpoints import TOKENIZER, saved_network
from training.conversing import CYCLE, Conversing
from training.copying import start_with_copying
from training.dialogues import Composer
from training.export import export_language
from training.language import QUERIES, LanguageConfig, LanguageModel, causal_attention
from training.loop import StagePlan, learning_rate_factor, run_stage
from training.passages import answered, judged, writer_of
from training.pictures import Material, Painter
from training.pocket import Recipe, tokenizer_of
from training.pocket_network import PocketNetwork
from training.quotes import Quoter
from training.reading import FIRST_WEIGHTS, grounded_rows
from training.scene_pool import FreshScenes, encode_scenes
from training.scenes import Mark, Scene, Thing
from training.smalltalk import Talker
from training.texts import Writer
from training.tokenizer import N_TOKENS
from training.view_batches import SIDE_PX, ViewBatch


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    language = LanguageModel(LanguageConfig(n_layers=2))
    start_with_copying(language, seed=0)
    return language.eval()


@pytest.fixture(scope="module")
def llama(model: LanguageModel, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> llama_cpp.Llama:
    path = tmp_path_factory.mktemp("gguf") / "language.gguf"
    export_language(model, tokenizer, path)
    return llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1)


def test_special_tokens_come_last_and_the_end_is_the_highest(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == N_TOKENS
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(N_TOKENS - 5, N_TOKENS))
    assert tokenizer.token_to_id("<|end|>") == N_TOKENS - 1


def test_llama_cpp_splits_any_text_as_training_does(tokenizer: Tokenizer, llama: llama_cpp.Llama) -> None:
    rng = random.Random(0)
    ranges = ((32, 127), (0xA0, 0x600), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0x1F300, 0x1F700), (48, 58), (9, 14))
    for _ in range(500):
        text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 40)))
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == ours, repr(text)
        assert tokenizer.decode(ours) == text


def test_control_tokens_are_what_the_contract_says(tokenizer: Tokenizer, llama: llama_cpp.Llama) -> None:
    ids = llama.tokenize(b"<|user|>hi<|end|><|assistant|>", add_bos=True, special=True)
    names = [token for token in ids if token >= N_TOKENS - 5]
    assert names == [tokenizer.token_to_id(f"<|{name}|>") for name in ("bos", "user", "end", "assistant")]
    assert llama.token_eos() == tokenizer.token_to_id("<|end|>")
    assert llama.token_bos() == tokenizer.token_to_id("<|bos|>")
    template = llama.metadata["tokenizer.chat_template"]
    assert template.startswith("{% for message in messages %}")


def both_logits(model: LanguageModel, llama: llama_cpp.Llama) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of torch and of llama.cpp for the same 60 random tokens."""
    ids = torch.randint(0, N_TOKENS - 5, (1, 60), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ours = model.logits(model(model.embedding(ids), torch.arange(60)[None]))[0].numpy()
    llama.reset()
    llama.eval(ids[0].tolist())
    return ours, np.array(llama.scores[:60], dtype=np.float32)


def test_llama_cpp_computes_what_torch_does(model: LanguageModel, llama: llama_cpp.Llama) -> None:
    ours, theirs = both_logits(model, llama)
    assert np.abs(theirs - ours).max() < 0.1 * np.abs(ours).max()  # some matrices have 5 bits
    assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.85


def test_without_quantization_they_agree_closely(model: LanguageModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    export_language(model, tokenizer, tmp_path / "f16.gguf", gguf.GGMLQuantizationType.F16)
    llama = llama_cpp.Llama(str(tmp_path / "f16.gguf"), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    ours, theirs = both_logits(model, llama)
    assert np.abs(theirs - ours).max() < 0.02 * np.abs(ours).max()


def test_a_fresh_model_copies_what_it_saw_before(model: LanguageModel) -> None:
    half = torch.randint(0, 4000, (4, 50), generator=torch.Generator().manual_seed(2))
    ids = torch.cat((half, half), dim=1)
    with torch.inference_mode():
        hidden = model(model.embedding(ids), torch.arange(100).repeat(4, 1))
        said = model.logits(hidden[:, 50:-1]).argmax(-1)
    assert (said == ids[:, 51:]).float().mean() > 0.7


def test_only_weighted_tokens_count(model: LanguageModel) -> None:
    ids = torch.randint(0, 4000, (2, 12), generator=torch.Generator().manual_seed(4))
    weights = torch.zeros(2, 12)
    weights[:, 5] = 1.0
    positions = torch.arange(12).repeat(2, 1)
    changed = ids.clone()
    changed[:, 8] = 17  # behind the only learnt token
    with torch.inference_mode():
        loss = next_token_loss(model, Rows(ids, positions, weights))
        assert next_token_loss(model, Rows(changed, positions, weights)) == pytest.approx(float(loss))


def test_visual_tokens_fill_the_places_of_pictures_in_order(model: LanguageModel) -> None:
    ids = torch.tensor([[5, IMAGE_ID, IMAGE_ID, 9, 10, 11]])
    visual = model.embedding(torch.tensor([7, 8]))  # two pictures of one visual token
    rows = Rows(ids, torch.arange(6)[None], torch.tensor([[0, 0, 0, 0, 0, 1.0]]))
    plain = Rows(torch.tensor([[5, 7, 8, 9, 10, 11]]), rows.positions, rows.weights)
    with torch.inference_mode():
        assert next_token_loss(model, rows, visual) == pytest.approx(float(next_token_loss(model, plain)), rel=1e-5)


def test_joined_chats_keep_their_words_and_begin_once(tokenizer: Tokenizer) -> None:
    chats = [Chat((Message("user", f"question {i}"), Message("assistant", f"answer {i}")), "x") for i in range(4)]
    apart = pack_chats(chats, tokenizer, random.Random(0))
    joined = pack_chats(chats, tokenizer, random.Random(0), row_tokens=64)
    assert len(apart.ids) == 4
    assert len(joined.ids) < 4
    assert joined.weights.sum() == apart.weights.sum()
    assert int((joined.ids == tokenizer.token_to_id("<|bos|>")).sum()) == len(joined.ids)


def test_chats_are_joined_so_that_rows_are_full_and_their_order_is_told(tokenizer: Tokenizer) -> None:
    lengths = (40, 3, 25, 3, 12, 30)
    chats = [
        Chat((Message("user", "word " * n), Message("assistant", f"answer {i}")), "x") for i, n in enumerate(lengths)
    ]
    rows = pack_chats(chats, tokenizer, random.Random(0), row_tokens=64)
    assert sorted(rows.order) == list(range(len(chats)))
    assert len(rows.ids) == 3
    ends = [tokenizer.encode(f"answer {i}", add_special_tokens=False).ids[-1] for i in rows.order]
    said = rows.ids[rows.weights > 0].tolist()
    assert [token for token in said if token in ends] == ends


def test_attention_by_parts_is_causal_attention() -> None:
    q, k, v = torch.randn(3, 2, 2, QUERIES + 70, 8)
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(causal_attention(q, k, v), whole, atol=1e-5, rtol=1e-4)


def test_positions_jump_only_in_front_of_a_role() -> None:
    rows = pack([([1, 2, 50, 3, 4], [1.0] * 5)] * 200, random.Random(0), {50})
    jumps = (rows.positions[:, 1:5] - rows.positions[:, :4]) > 1
    assert jumps.any()
    assert not jumps[:, [0, 2, 3]].any()


class Quadratic(torch.nn.Module):
    """One number that training moves towards 3."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(1, 1))

    def prepare(self, _step: int) -> Callable[[float], dict[str, torch.Tensor]]:
        return lambda _progress: {"distance": (self.number - 3).square().sum()}


def test_a_stage_learns_writes_its_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    network = Quadratic()
    plan = StagePlan("stage", 0.3, 0.3, tmp_path, weight_decay=0.0)
    run_stage(plan, network, network.prepare)
    assert abs(float(network.number.detach()) - 3) < 1
    state = torch.load(tmp_path / "stage.pt", weights_only=True)
    assert state["elapsed"] >= 0.3
    again = Quadratic()
    run_stage(plan, again, again.prepare)  # its budget is used up: nothing but loading
    assert torch.equal(again.number, network.number)
    assert torch.load(tmp_path / "stage.pt", weights_only=True)["step"] == state["step"]


def test_a_checkpoint_of_other_optimizers_is_refused(tmp_path: Path) -> None:
    network = Quadratic()
    state = {"network": network.state_dict(), "optimizer": {}, "elapsed": 0.1, "step": 3}
    torch.save(state, tmp_path / "stage.pt")
    with pytest.raises(ValueError, match=r"stage\.pt holds no state for 1 optimizers"):
        run_stage(StagePlan("stage", 0.3, 0.3, tmp_path), network, network.prepare)


def test_a_run_that_lost_its_tokenizer_does_not_get_another(tmp_path: Path, tokenizer: Tokenizer) -> None:
    recipe = Recipe(
        tmp_path / "data", tmp_path, tmp_path / "out", 1.0, 7, ("text",), None, gguf.GGMLQuantizationType.F16
    )
    (tmp_path / "text.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"text\.pt were trained with one"):
        tokenizer_of(recipe)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist: put back the one of text\.pt"):
        saved_network(tmp_path, "text")
    tokenizer.save(str(tmp_path / TOKENIZER))
    assert tokenizer_of(recipe).get_vocab_size() == tokenizer.get_vocab_size()


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [learning_rate_factor(progress / 100) for progress in range(101)]
    assert max(factors) <= 1.02
    assert factors.index(max(factors)) < 5
    assert factors[-1] == pytest.approx(0.02)
    assert json.dumps(factors)


def scene_of(*things: Thing, background: str | None = "white", size: tuple[int, int] = (96, 96)) -> Scene:
    return Scene(Image.new("RGB", size), things, background)


def whole(scene: Scene) -> Part:
    return Part(whole_frame(*scene.image.size, SIDE_PX), (0, 0, SIDE_PX, SIDE_PX), tiles=False)


def test_the_words_of_a_thing_are_those_its_answers_need() -> None:
    thing = Thing("apple", "red", (0, 2), (4, 70, 30, 94))
    words = dict(words_of(scene_of(thing, Thing("apple", "red", (1, 1), (40, 40, 60, 60))), thing))
    assert set(words) == {"apple", "red", "bottom", "left", "two", "medium"}
    assert max(words, key=lambda word: words[word]) == "apple"


def test_every_visual_token_of_the_picture_has_words_and_the_padding_none() -> None:
    scene = scene_of(
        Thing("apple", "red", (1, 1), (56, 16, 88, 80)), size=(192, 96)
    )  # the outer rows of tokens are padding
    asked = ask(scene, whole(scene), SIDE_PX).words
    assert set(asked) <= set(range(4, 12))
    centre = next(cell for cell, (_, weight) in asked.items() if weight == 1.0)
    assert dict(asked[centre][0])["apple"] == 1.0
    assert dict(asked[7][0]) == {"background": 0.5, "white": 1.0}


def test_tokens_over_print_say_that_it_is_there() -> None:
    marks = (Mark("b", 40, 10), Mark("a", 30, 10), Mark("z", 90, 90))
    scene = Scene(Image.new("RGB", (96, 96)), (), "white", "words", marks, "ab")
    assert set(ask(scene, whole(scene), SIDE_PX).words) == {1, 15}
    tile = ask(scene, Part(tile_frame(96, 96, SIDE_PX), (96, 96, 192, 192), tiles=True), SIDE_PX)
    assert {words[0][0] for words, _ in tile.words.values()} == {"text"}
    assert len(tile.words) == 1


def batch_of(rows: list[tuple[int, int]], entries: list[tuple[int, int]]) -> ViewBatch:
    return ViewBatch(
        pixels=torch.zeros(1, 3, SIDE_PX, SIDE_PX, dtype=torch.uint8),
        places=torch.zeros(1, TOKENS_A_SIDE**2, N_PLACES),
        rows=torch.tensor(rows),
        row_weights=torch.ones(len(rows)),
        entries=torch.tensor(entries),
        shares=torch.ones(len(entries)),
        captioned=torch.zeros(0, dtype=torch.long),
        captions=torch.zeros(0, 32, dtype=torch.long),
        strays=torch.zeros(0, 32, dtype=torch.long),
    )


def test_the_loss_looks_at_the_visual_token_that_is_asked(model: LanguageModel) -> None:
    saying = Saying(N_TOKENS)
    batch = batch_of([(0, 3)], [(0, 77)])
    saying.count(batch)
    assert int(saying.prior.argmax()) == 77
    visual = torch.zeros(1, 16, model.config.n_embd)
    with torch.inference_mode():
        before = word_loss(batch, visual, model, saying)
        visual[0, 12] = 7.0  # another corner: of no matter
        assert word_loss(batch, visual, model, saying) == before
        visual[0, 3] = model.embedding(torch.tensor(77))
        assert word_loss(batch, visual, model, saying) < before


def test_the_first_token_of_a_quoted_sentence_weighs_more(tokenizer: Tokenizer) -> None:
    writer = Writer(random.Random(3))
    rows = grounded_rows(writer, Quoter(writer, []), tokenizer, 6, 1.0)
    colon = tokenizer.token_to_id(":")
    heavy = (rows.weights == FIRST_WEIGHTS[0]).nonzero().tolist()
    assert heavy
    for row, at in heavy:
        assert rows.ids[row, at - 1] == colon
        before = rows.weights[row, :at].flip(0)
        begun = at - int((before == 0).nonzero()[0])  # of the answer
        assert tokenizer.decode(rows.ids[row, begun:at].tolist()).startswith("About ")


def test_answers_from_passages_are_judged_part_by_part(model: LanguageModel, tokenizer: Tokenizer) -> None:
    colon = tokenizer.token_to_id(":")
    wanted = [5, 6, colon, 7, 8]
    assert judged(wanted, wanted, colon) == {"taken up": True, "first": True, "rest": True, "all": True}
    assert judged(wanted, [5, 6, colon, 9, 8], colon) == {"taken up": True, "first": False, "rest": True, "all": False}
    writer = writer_of(random.Random(1), names=False, questions=False, statements=True)
    chat = writer.grounded(passages_of=4)
    said, found = answered(model, tokenizer, chat)
    assert tokenizer.decode(said).startswith("About ")
    assert len(said) == len(found)


def test_only_stray_texts_near_a_picture_cost() -> None:
    picture = torch.tensor([[1.0, 0.0]])
    assert stray_loss(picture, torch.tensor([[0.0, 1.0], [-1.0, 0.0]])) == 0
    assert stray_loss(picture, torch.tensor([[0.0, 1.0], [1.0, 0.0]])) > 0.4


@pytest.fixture(scope="module")
def network(model: LanguageModel) -> PocketNetwork:
    torch.manual_seed(0)
    config = vision_config(model.config.n_embd, N_TOKENS)
    config["vision_cfg"]["layers"], config["vision_cfg"]["width"] = [1, 1, 1, 1], 8
    config["vision_cfg"]["head_width"] = 32
    config["connector"]["channels"] = 32
    return PocketNetwork(VisionNetwork(config), model, Saying(N_TOKENS)).eval()


def test_a_scene_becomes_the_tokens_of_its_whole_and_then_of_its_tiles(network: PocketNetwork) -> None:
    rng = random.Random(0)
    fresh = FreshScenes(Painter(Material((), {}), rng))
    scenes = [fresh.draw(kind)[0] for kind in ("single", "pair", "counted")]
    with torch.inference_mode():
        encoded = encode_scenes(scenes, network.vision, torch.device("cpu"))
    for scene, one in zip(scenes, encoded, strict=True):
        frame = tile_frame(*scene.image.size, SIDE_PX)
        assert len(one.tokens) == 16 + len(places_of(frame, SIDE_PX, tiles=True)) + PRINT_TOKENS
    alone = encode_scenes(scenes[1:2], network.vision, torch.device("cpu"))[0].tokens
    assert torch.allclose(alone, encoded[1].tokens, atol=0.05 * float(alone.detach().abs().max()))


def test_the_vision_stage_has_gradients_for_all_its_parts(network: PocketNetwork) -> None:
    aligning = Aligning.__new__(Aligning)
    aligning.network, aligning.device, aligning.clip_weight = network, torch.device("cpu"), 0.5
    aligning._clip_loss = ClipLoss()
    batch = batch_of([(0, 3)], [(0, 77)])
    batch.captioned = torch.tensor([0])
    batch.captions = batch.strays = torch.full((1, 32), 5)
    terms = aligning.of(batch)
    assert set(terms) == {"words", "clip", "stray"}
    torch.stack(list(terms.values())).sum().backward()
    vision = network.vision
    for learnt in (vision.connector.output.weight, vision.clip.visual.conv1.weight, network.saying.sharpness):
        assert learnt.grad is not None
        assert learnt.grad.abs().sum() > 0


def test_the_chat_stage_has_pictures_in_every_step_and_texts_beside_some() -> None:
    conversing = Conversing.__new__(Conversing)
    conversing._step, conversing.device = 0, torch.device("cpu")
    zero = torch.zeros(())
    conversing._pictures = lambda _progress: {"picture": zero}  # type: ignore[method-assign]
    conversing._text = lambda kind: {kind: zero}  # type: ignore[method-assign]
    conversing._imagined = lambda: {"imagined": zero}  # type: ignore[method-assign]
    conversing.composer = object()  # type: ignore[assignment]
    steps = [tuple(conversing.losses(0.5)) for _ in range(2 * CYCLE)]
    assert steps[:CYCLE] == steps[CYCLE:]
    assert all("picture" in terms for terms in steps)
    counts = {text: sum(text in terms for terms in steps) for text in ("grounded", "imagined", "talk", "drill", "sums")}
    assert counts == {"grounded": 4, "imagined": 6, "talk": 12, "drill": 2, "sums": 8}
    conversing.composer, conversing._step = None, 0
    without_drawing = [tuple(conversing.losses(0.5)) for _ in range(CYCLE)]
    assert without_drawing.count(("imagined",)) == CYCLE - 4


def test_the_breakdown_counts_answers_by_skill_and_kind(network: PocketNetwork, tokenizer: Tokenizer) -> None:
    rng = random.Random(2)
    composer = Composer(FreshScenes(Painter(Material((), {}), rng)), Examiner(rng), Talker(rng))
    breakdown = Breakdown(network, tokenizer, composer)
    breakdown.ask("single")
    breakdown.ask("related")
    assert breakdown.tallies[("name", "single")].asked == 1
    assert breakdown.tallies[("common", "related")].asked == 1
    assert all(tally.right <= tally.asked and tally.loss > 0 for tally in breakdown.tallies.values())


def test_a_checkpoint_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"chat\.pt does not exist: run python -m training\.pocket --stage chat"
    ):
        saved_network(tmp_path, "chat")


def test_a_saved_network_is_the_one_that_was_trained(tmp_path: Path, tokenizer: Tokenizer) -> None:
    torch.manual_seed(3)
    language = LanguageModel(LanguageConfig(n_vocab=N_TOKENS))
    trained = PocketNetwork(
        VisionNetwork(vision_config(language.config.n_embd, N_TOKENS)),
        language,
        Saying(N_TOKENS),
    )
    torch.save({"network": trained.state_dict(), "step": 1, "elapsed": 2.0}, tmp_path / "look.pt")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    saved, same = saved_network(tmp_path, "look")
    assert same.get_vocab_size() == N_TOKENS
    assert torch.equal(saved.language.embedding.weight, language.embedding.weight)
