"""The pocket recipe: torch and llama.cpp agree on tokens and logits, copying works from the start, training resumes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from training.aligning import word_ids, word_loss, words_by_cell, words_of
from training.batches import Rows, next_token_loss, pack, pack_chats
from training.chats import IMAGE_ID, SPECIAL_TOKENS, Chat, Message
from training.copying import start_with_copying
from training.export import export_language
from training.language import LanguageConfig, LanguageModel
from training.loop import StagePlan, learning_rate_factor, run_stage
from training.pictures import Scene, Thing
from training.tokenizer import N_TOKENS, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(Path("no data at all"), seed=1)


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
    visual = model.embedding(torch.tensor([[7], [8]]))  # two pictures of one visual token
    rows = Rows(ids, torch.arange(6)[None], torch.tensor([[0, 0, 0, 0, 0, 1.0]]))
    plain = Rows(torch.tensor([[5, 7, 8, 9, 10, 11]]), rows.positions, rows.weights)
    with torch.inference_mode():
        assert next_token_loss(model, rows, visual) == pytest.approx(float(next_token_loss(model, plain)), rel=1e-5)


def test_joined_chats_keep_their_words_and_begin_once(tokenizer: Tokenizer) -> None:
    chats = [Chat((Message("user", f"question {i}"), Message("assistant", f"answer {i}")), "x") for i in range(4)]
    apart = pack_chats(chats, tokenizer, random.Random(0), 0)
    joined = pack_chats(chats, tokenizer, random.Random(0), 0, row_tokens=64)
    assert len(apart.ids) == 4
    assert len(joined.ids) < 4
    assert joined.weights.sum() == apart.weights.sum()
    assert int((joined.ids == tokenizer.token_to_id("<|bos|>")).sum()) == len(joined.ids)


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

    def losses(self, _progress: float) -> dict[str, torch.Tensor]:
        return {"distance": (self.number - 3).square().sum()}


def test_a_stage_learns_writes_its_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    network = Quadratic()
    plan = StagePlan("stage", 0.3, 0.3, tmp_path, weight_decay=0.0)
    run_stage(plan, network, network.losses)
    assert abs(float(network.number.detach()) - 3) < 1
    state = torch.load(tmp_path / "stage.pt", weights_only=True)
    assert state["elapsed"] >= 0.3
    again = Quadratic()
    run_stage(plan, again, again.losses)  # its budget is used up: nothing but loading
    assert torch.equal(again.number, network.number)
    assert torch.load(tmp_path / "stage.pt", weights_only=True)["step"] == state["step"]


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [learning_rate_factor(progress / 100) for progress in range(101)]
    assert max(factors) <= 1.02
    assert factors.index(max(factors)) < 5
    assert factors[-1] == pytest.approx(0.02)
    assert json.dumps(factors)


def test_the_words_of_a_thing_are_those_its_answers_need() -> None:
    thing = Thing("apple", "red", (0, 2))
    words = dict(words_of(Scene(Image.new("RGB", (8, 8)), (thing, Thing("apple", "red", (1, 1))), "white"), thing))
    assert set(words) == {"apple", "red", "bottom", "left", "two"}
    assert max(words, key=lambda word: words[word]) == "apple"


def test_the_word_loss_looks_at_the_visual_token_over_the_thing(model: LanguageModel, tokenizer: Tokenizer) -> None:
    scene = Scene(Image.new("RGB", (8, 8)), (Thing("apple", None, (2, 0), centre=(0.9, 0.1)),), None)
    visual = torch.zeros(1, 16, model.config.n_embd)
    with torch.inference_mode():
        before = word_loss([scene], visual, model, tokenizer)
        visual[0, 3] = model.embedding(torch.tensor(word_ids("apple", tokenizer)[0]))  # first row, last column
        after = word_loss([scene], visual, model, tokenizer)
        visual[0, 12] = 7.0  # another corner: of no matter
        assert word_loss([scene], visual, model, tokenizer) == after
    assert after != before


def test_every_visual_token_of_the_picture_has_words_and_the_padding_none() -> None:
    thing = Thing("apple", "red", (1, 1), centre=(0.5, 0.5), size=(0.4, 0.4))
    asked = words_by_cell(Scene(Image.new("RGB", (8, 4)), (thing,), "white"))  # the outer rows of tokens are padding
    assert set(asked) <= set(range(4, 12))
    assert dict(asked[10][0])["apple"] == 1.0
    assert asked[10][1] == 1.0
    assert asked[5][1] < 1.0
    assert dict(asked[4][0]) == {"background": 0.5, "white": 1.0}
