"""The catalogue that ships, and what is said of mistakes in one."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from hearth import assets
from hearth.models.catalogue import (
    COMPUTE_BYTES,
    ENCODER_COMPUTE_BYTES,
    UNKNOWN_KV_BYTES_PER_TOKEN,
    memory_need_bytes,
    read_catalogue,
)
from hearth.models.errors import ModelFileError

FILE = '{ quant = "Q8_0", path = "a.gguf", size_bytes = 1000 }'
GOOD = f'name = "a"\nkind = "chat"\nrepository = "x/y"\nfiles = [{FILE}]\n'


def write(folder: Path, model: str, head: str = "schema = 1\n") -> Path:
    path = folder / "catalogue.toml"
    path.write_text(f"{head}[[model]]\n{model}")
    return path


def test_the_catalogue_that_ships_is_whole() -> None:
    catalogue = read_catalogue(assets.catalogue_file())
    kinds = {entry.kind for entry in catalogue.values()}
    assert kinds == {"chat", "vision", "hearing", "embedding", "speech", "pictures"}
    for entry in catalogue.values():
        assert entry.parameters_b, entry.name
        assert (entry.sees or entry.hears) == (entry.kind in ("vision", "hearing")), entry.name
        if entry.kind in ("chat", "vision", "hearing"):
            assert entry.n_ctx, entry.name
            share = entry.file().size_bytes / (entry.parameters_b * 1e9)
            assert 0.3 < share < 1.4, f"{entry.name}: {share} bytes a parameter"
        assert memory_need_bytes(entry, 4096) > entry.file().size_bytes


def test_whisper_checkpoints_are_those_of_the_package() -> None:
    spec = importlib.util.find_spec("whisper")  # importing it would load torch
    assert spec is not None
    assert spec.origin is not None
    urls = dict(re.findall(r'"([\w.-]+)": "(https://openaipublic\S+)"', Path(spec.origin).read_text("utf-8")))
    assert len(urls) > 10
    for entry in read_catalogue(assets.catalogue_file()).values():
        if entry.kind == "speech":
            url = urls[entry.name.removeprefix("whisper-")]
            assert entry.files[0].url == url
            assert entry.files[0].sha256 == url.split("/")[-2]


def test_what_a_model_needs_is_reckoned_from_what_is_known() -> None:
    catalogue = read_catalogue(assets.catalogue_file())
    plain, seeing, vague = (catalogue[name] for name in ("qwen3-4b", "gemma-3-4b", "gemma-4-e4b"))
    # keys and values of 36 layers, 8 heads of 128 values, 2 bytes each
    assert plain.kv_bytes_per_token == 2 * 36 * 8 * 128 * 2
    assert memory_need_bytes(plain, 8192) == plain.files[0].size_bytes + 8192 * 147_456 + COMPUTE_BYTES
    assert memory_need_bytes(plain, 8192, "q8_0") > memory_need_bytes(plain, 8192)
    assert seeing.mmproj is not None
    encoder_bytes = seeing.mmproj.size_bytes + ENCODER_COMPUTE_BYTES
    assert memory_need_bytes(seeing, 1) == seeing.files[0].size_bytes + encoder_bytes + 139_264 + COMPUTE_BYTES
    assert vague.kv_bytes_per_token is None
    assert memory_need_bytes(vague, 101) - memory_need_bytes(vague, 1) == 100 * UNKNOWN_KV_BYTES_PER_TOKEN


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (GOOD.replace('"a"', '"A b"'), "name: 'A b' is not lower case"),
        (GOOD.replace('"chat"', '"chatty"'), "kind: 'chatty' is not one of chat, vision"),
        (GOOD.replace('"x/y"', '"../y"'), "repository: '../y' is not owner/name"),
        (GOOD.replace("a.gguf", "../a.gguf"), "path: '../a.gguf' is not a plain relative path"),
        (GOOD.replace("a.gguf", "/a.gguf"), "path: '/a.gguf' is not a plain relative path"),
        (GOOD.replace("a.gguf", "a.exe"), "path: 'a.exe' does not end in"),
        (GOOD.replace("1000", "-5"), "size_bytes: -5 is not a positive whole number"),
        (GOOD.replace("1000", "true"), "size_bytes: True is not a positive whole number"),
        (GOOD.replace(f"[{FILE}]", "[]"), "files: none"),
        (GOOD.replace(f"[{FILE}]", f"[{FILE}, {FILE}]"), "files: a quantization is there twice"),
        (GOOD.replace(f"[{FILE}]", "7"), "files: 7 is not a list of tables"),
        (GOOD + 'default_quant = "Q2_K"', "default_quant: 'Q2_K' is not among Q8_0"),
        (GOOD + "sees = true", "mmproj: a model that sees or hears needs its encoder"),
        (GOOD + "n_layers = 3", "give n_layers, n_kv_heads and head_dim, or none"),
        (GOOD + "n_ctx = 2.5", "n_ctx: 2.5 is not a positive whole number"),
        (GOOD + "parameters_b = nan", "parameters_b: nan is not a positive number"),
        (GOOD + 'licence = "a\\u001b[2J"', "is not a line of text"),
        (GOOD + "colour = 1", "colour: unknown; known are active_b"),
        (GOOD.replace('repository = "x/y"\n', ""), "files: give a repository, or a url for each file"),
        (GOOD + f"[[model]]\n{GOOD}", "the name is there twice"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, model: str, reason: str) -> None:
    assert "a" in read_catalogue(write(tmp_path, GOOD))
    with pytest.raises(ModelFileError) as caught:
        read_catalogue(write(tmp_path, model))
    assert reason in str(caught.value)
    assert "model '" in str(caught.value)


def test_a_url_needs_a_checksum_and_https(tmp_path: Path) -> None:
    sha256 = "0" * 64
    good = f'name = "a"\nkind = "speech"\nfiles = [{{ url = "https://h/a.pt", sha256 = "{sha256}", size_bytes = 1 }}]'
    assert read_catalogue(write(tmp_path, good))["a"].files[0].paths == ("a.pt",)
    for wrong, reason in ((good.replace("https", "http"), "url"), (good.replace(sha256, "0"), "sha256")):
        with pytest.raises(ModelFileError, match=reason):
            read_catalogue(write(tmp_path, wrong))


def test_another_schema_or_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="schema 2; this Hearth reads 1"):
        read_catalogue(write(tmp_path, GOOD, head="schema = 2\n"))
    with pytest.raises(ModelFileError, match="not a valid catalogue"):
        read_catalogue(write(tmp_path, GOOD, head="schema =\n"))
    with pytest.raises(ModelFileError, match="No such file"):
        read_catalogue(tmp_path / "none.toml")
