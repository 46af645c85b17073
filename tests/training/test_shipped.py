"""Training goes on from shipped files: what they hold comes back, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer

from hearth import assets
from hearth.multimodal.print_order import WRITTEN
from training.aligning import vision_config
from training.checkpoints import NAMES, TOKENIZER, load_stage, new_network, saved_names
from training.export import export_all
from training.language import LanguageConfig, LanguageModel
from training.lettering import start_with_print
from training.pocket import Recipe, check_parts
from training.shipped import WITHOUT_LISTS, load_language, load_shipped, start_from
from training.tokenizer import N_TOKENS


def test_exported_weights_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = new_network(N_TOKENS)
    config = vision_config(network.language.config.n_embd, N_TOKENS)
    export_all(network.vision, config, network.language, tokenizer, tmp_path, gguf.GGMLQuantizationType.F16)
    again = new_network(N_TOKENS)
    load_shipped(tmp_path, again)
    for part, other in ((network.language, again.language), (network.vision, again.vision)):
        for name, value in part.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, atol=1e-3, rtol=1e-3, msg=name)


def test_files_from_before_the_vectors_of_print_told_two_characters_begin_with_new_ones(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = new_network(N_TOKENS)
    config = vision_config(network.language.config.n_embd, N_TOKENS)
    export_all(network.vision, config, network.language, tokenizer, tmp_path, gguf.GGMLQuantizationType.F16)
    weights = safetensors.torch.load_file(tmp_path / "vision.safetensors")
    del weights["print.before"]
    weights["print.characters"] = torch.ones_like(weights["print.characters"])[:-1]
    safetensors.torch.save_file(weights, tmp_path / "vision.safetensors")
    again = new_network(N_TOKENS)
    assert load_shipped(tmp_path, again) == {"print."}
    assert again.vision.print is not None
    assert not again.vision.print.characters.any(), "start_with_print gives them theirs"
    stem = "letters.stem.0.0.weight"
    torch.testing.assert_close(again.vision.state_dict()[stem], network.vision.state_dict()[stem], atol=1e-3, rtol=1e-3)


def test_files_from_before_there_were_lists_keep_their_vectors_of_print(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = new_network(N_TOKENS)
    config = vision_config(network.language.config.n_embd, N_TOKENS)
    export_all(network.vision, config, network.language, tokenizer, tmp_path, gguf.GGMLQuantizationType.F16)
    weights = safetensors.torch.load_file(tmp_path / "vision.safetensors")
    for name in ("print.characters", "print.before"):
        weights[name] = torch.ones_like(weights[name])[:WITHOUT_LISTS].contiguous()
    weights["print.places"] = torch.ones_like(weights["print.places"])
    weights = {name: weight for name, weight in weights.items() if not name.startswith("locator.")}
    safetensors.torch.save_file(weights, tmp_path / "vision.safetensors")
    again = new_network(N_TOKENS)
    new = load_shipped(tmp_path, again)
    assert new == {"locator."}
    vectors = again.vision.print
    assert vectors is not None
    start_with_print(again.vision, again.language, tokenizer)
    assert (vectors.characters[1:WITHOUT_LISTS] == 1).all()
    assert (vectors.places == 1).all()
    of_two = again.language.embedding.weight[tokenizer.encode(" two", add_special_tokens=False).ids].mean(0)
    assert torch.equal(vectors.characters[1 + WRITTEN.index(" two")], of_two)
    recipe = Recipe(tmp_path, tmp_path, tmp_path, 1.0, 1, ("chat",), tmp_path, gguf.GGMLQuantizationType.F16)
    with pytest.raises(ValueError, match=r"has no locator: train it by --stage places"):
        check_parts(recipe, new)
    check_parts(replace(recipe, stages=("places", "chat")), new)


def test_the_models_that_ship_can_be_gone_on_with(tmp_path: Path) -> None:
    tokenizer = start_from(assets.pocket_dir(), tmp_path)
    network = new_network(tokenizer.get_vocab_size(), saved_names(tmp_path))
    assert not load_shipped(assets.pocket_dir(), network)
    copied = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    assert copied.get_vocab() == tokenizer.get_vocab()
    start_from(assets.pocket_dir(), tmp_path)  # a run that is gone on with


@pytest.mark.parametrize("n_layers", [2, 8])
def test_files_of_another_number_of_layers_are_refused(n_layers: int) -> None:
    tokenizer = Tokenizer.from_file(str(assets.pocket_dir() / TOKENIZER))
    model = LanguageModel(LanguageConfig(n_vocab=tokenizer.get_vocab_size(), n_layers=n_layers))
    with pytest.raises(ValueError, match=f"has 6 layers, but the recipe's language model has {n_layers}: name files"):
        load_language(assets.pocket_dir() / "language.gguf", model)


def test_a_run_with_another_tokenizer_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / TOKENIZER))
    with pytest.raises(ValueError, match="name an empty folder by --runs"):
        start_from(assets.pocket_dir(), tmp_path)
    with pytest.raises(FileNotFoundError, match="by --start"):
        start_from(tmp_path / "nothing", tmp_path)


def test_the_names_that_are_told_come_along_and_others_are_refused(tmp_path: Path) -> None:
    shipped, runs = tmp_path / "shipped", tmp_path / "runs"
    shipped.mkdir()
    runs.mkdir()
    shutil.copyfile(assets.pocket_dir() / TOKENIZER, shipped / TOKENIZER)
    names = [[" fox"], [" fire", " engine"]]
    (shipped / "vision.json").write_text(json.dumps({"namer": {"channels": 8, "names": names}}))
    for _ in range(2):  # a new run, and one that is gone on with
        start_from(shipped, runs)
        assert saved_names(runs) == names
    (runs / NAMES).write_text(json.dumps(names[:1]))
    with pytest.raises(ValueError, match=r"are not the names of .*: name an empty folder by --runs"):
        start_from(shipped, runs)


def test_a_checkpoint_from_before_lines_were_read_still_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, again = new_network(300), new_network(300)
    kept = {name: value for name, value in old.state_dict().items() if ".lines." not in name}
    torch.save({"network": kept, "step": 1, "elapsed": 1.0}, tmp_path / "chat.pt")
    own = {name: value.clone() for name, value in again.state_dict().items() if ".lines." in name}
    assert load_stage(tmp_path / "chat.pt", again)
    for name, value in again.state_dict().items():
        assert torch.equal(value, own[name] if name in own else kept[name]), name
    del kept["vision.letters.stem.0.0.weight"]
    torch.save({"network": kept, "step": 1, "elapsed": 1.0}, tmp_path / "chat.pt")
    with pytest.raises(RuntimeError, match=r"letters\.stem"):
        load_stage(tmp_path / "chat.pt", again)
