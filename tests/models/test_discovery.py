"""What is found on a machine: other programs' folders as they lay files out, and folders that mean harm."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hearth.models import discovery
from hearth.models.describe import describe
from hearth.models.discovery import FoundModel, discover, named
from hearth.models.encoders import encoder_for
from hearth.models.places import Origin, Place, find_places
from hearth.models.pulled import PulledFile, PulledRecord, write_record
from tests.models import tiny_architectures, tiny_mmproj

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Contents of a tiny model and of an encoder that fits it."""
    folder = tmp_path_factory.mktemp("made")
    model = tiny_architectures.write_llama(folder / "tiny.gguf")
    encoder = tiny_mmproj.write_llava(folder / "mmproj.gguf")
    return {"model": model.read_bytes(), "encoder": encoder.read_bytes()}


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def look(origin: Origin, path: Path) -> dict[str, FoundModel]:
    return {model.name: model for model in discover([Place(origin, path)]).models}


def notes(origin: Origin, path: Path) -> str:
    return "\n".join(discover([Place(origin, path)]).notes)


def hugging_face(hub: Path, repository: str, commit: str, files: dict[str, bytes]) -> Path:
    """A repository in a cache, as huggingface_hub lays it out: snapshots of links into blobs."""
    root = hub / f"models--{repository.replace('/', '--')}"
    for number, (name, content) in enumerate(files.items()):
        blob = put(root / "blobs" / f"{commit[:4]}{number}", content)
        link = root / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return root


def ollama(root: Path, name: str, layers: list[tuple[str, bytes]]) -> Path:
    """A model in Ollama's folder; ``name`` is HOST/OWNER/MODEL/TAG."""
    entries = []
    for kind, content in layers:
        digest = hashlib.sha256(content).hexdigest()
        put(root / "blobs" / f"sha256-{digest}", content)
        media_type = f"application/vnd.ollama.image.{kind}"
        entries.append({"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)})
    return put(root / "manifests" / name, json.dumps({"schemaVersion": 2, "layers": entries}).encode())


def test_the_hugging_face_cache_shows_the_newest_snapshot_with_its_encoder(
    tmp_path: Path, made: dict[str, bytes]
) -> None:
    files = {"tiny-Q8_0.gguf": made["model"], "mmproj-tiny-f16.gguf": made["encoder"], "README.md": b"#"}
    root = hugging_face(tmp_path, "ggml-org/tiny-GGUF", COMMIT, files)
    hugging_face(tmp_path, "ggml-org/tiny-GGUF", "d" * 40, {"tiny-Q8_0.gguf": made["model"], "old.gguf": made["model"]})
    put(root / "refs" / "main", COMMIT.encode())
    put(tmp_path / "models--x--y" / "blobs" / "big.incomplete", b"GGUF")
    found = look("huggingface", tmp_path)
    assert set(found) == {"hf:ggml-org/tiny-GGUF/tiny-Q8_0", "hf:ggml-org/tiny-GGUF/old"}
    model = found["hf:ggml-org/tiny-GGUF/tiny-Q8_0"]
    assert model.path == root / "snapshots" / COMMIT / "tiny-Q8_0.gguf"
    assert model.size_bytes == len(made["model"])
    encoder = model.encoder()
    assert encoder is not None
    assert encoder.name == "mmproj-tiny-f16.gguf"
    assert found["hf:ggml-org/tiny-GGUF/old"].encoder() is None


def test_ollama_is_read_by_its_manifests(tmp_path: Path, made: dict[str, bytes]) -> None:
    ollama(tmp_path, "registry.ollama.ai/library/tiny/3b", [("model", made["model"]), ("template", b"{{ .Prompt }}")])
    layers = [("model", made["model"] + b"\0"), ("projector", made["encoder"])]
    ollama(tmp_path, "registry.ollama.ai/someone/seeing/latest", layers)
    ollama(tmp_path, "hf.co/someone/other-GGUF/Q4_K_M", [("model", made["model"] + b"\0\0")])
    ollama(tmp_path, "registry.ollama.ai/library/cloud/latest", [("template", b"")])
    found = look("ollama", tmp_path)
    assert set(found) == {"ollama:tiny:3b", "ollama:someone/seeing:latest", "ollama:hf.co/someone/other-GGUF:Q4_K_M"}
    seeing = found["ollama:someone/seeing:latest"]
    assert seeing.encoder() == seeing.mmproj
    assert seeing.mmproj is not None
    assert seeing.mmproj.read_bytes() == made["encoder"]
    assert describe(seeing).architecture == "llama"
    models = list(found.values())
    for name in ("ollama:tiny:3b", "tiny:3b", "OLLAMA:Tiny:3b"):
        assert [model.name for model in named(models, name)] == ["ollama:tiny:3b"]
    assert [model.name for model in named(models, "ollama:someone/seeing")] == ["ollama:someone/seeing:latest"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"layers": 3}', b'{"layers": [1, null]}', b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "list", "number", "no tables", "not text", "deep"],
)
def test_a_damaged_manifest_is_noted_and_the_rest_is_found(
    tmp_path: Path, made: dict[str, bytes], content: bytes
) -> None:
    ollama(tmp_path, "registry.ollama.ai/library/good/1b", [("model", made["model"])])
    put(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "bad" / "1b", content)
    assert set(look("ollama", tmp_path)) == {"ollama:good:1b"}


def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    for digest in ("sha256:../../../etc/passwd", "../../x", "sha256:" + "g" * 64, ["a"], 5):
        layer: dict[str, Any] = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
        path = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "bad" / "1b"
        put(path, json.dumps({"layers": [layer]}).encode())
        assert look("ollama", tmp_path) == {}


def test_what_ollama_alone_can_run_is_said_so(tmp_path: Path, made: dict[str, bytes]) -> None:
    ollama(tmp_path, "registry.ollama.ai/library/lost/1b", [("model", made["model"])])
    next((tmp_path / "blobs").iterdir()).unlink()
    layers = [("model", made["model"] + b"\0"), ("adapter", b"GGUF")]
    ollama(tmp_path, "registry.ollama.ai/library/tuned/1b", layers)
    found = look("ollama", tmp_path)
    assert "missing" in found["ollama:lost:1b"].problem
    assert "adapter" in found["ollama:tuned:1b"].problem


def test_lm_studio_and_llama_cpp(tmp_path: Path, made: dict[str, bytes]) -> None:
    studio = tmp_path / "studio"
    put(studio / "someone" / "tiny-GGUF" / "tiny-Q4_K_M.gguf", made["model"])
    put(studio / "someone" / "tiny-GGUF" / "mmproj-model-f16.gguf", made["encoder"])
    put(studio / "someone" / "tiny-GGUF" / "mmproj-model-Q8_0.gguf", made["encoder"])  # the same in another precision
    found = look("lmstudio", studio)
    model = found["lmstudio:someone/tiny-GGUF/tiny-Q4_K_M"]
    encoder = model.encoder()
    assert encoder is not None
    assert encoder.name == "mmproj-model-f16.gguf"
    assert named(list(found.values()), "tiny-q4_k_m") == [model]
    cache = tmp_path / "llama.cpp"
    put(cache / "ggml-org_tiny-GGUF_tiny-Q8_0.gguf", made["model"])
    put(cache / "ggml-org_tiny-GGUF_half.gguf.downloadInProgress", made["model"][:100])
    assert set(look("llama.cpp", cache)) == {"llama.cpp:ggml-org_tiny-GGUF_tiny-Q8_0"}


def test_a_model_in_parts_is_one_and_a_gap_is_told(tmp_path: Path, made: dict[str, bytes]) -> None:
    for number in (1, 2, 3):
        put(tmp_path / f"big-0000{number}-of-00003.gguf", made["model"])
    put(tmp_path / "torn-00001-of-00002.gguf", made["model"])
    found = look("added", tmp_path)
    assert set(found) == {"big", "torn"}
    assert found["big"].path.name == "big-00001-of-00003.gguf"
    assert len(found["big"].parts) == 3
    assert found["big"].size_bytes == 3 * len(made["model"])
    assert found["torn"].problem == "part 2 of 2 is missing"


def test_an_added_file_brings_its_parts_and_its_encoder_and_nothing_else(
    tmp_path: Path, made: dict[str, bytes]
) -> None:
    first = put(tmp_path / "big-00001-of-00002.gguf", made["model"])
    put(tmp_path / "big-00002-of-00002.gguf", made["model"])
    put(tmp_path / "other.gguf", made["model"])
    put(tmp_path / "mmproj-big.gguf", made["encoder"])
    found = look("added", first)
    assert set(found) == {"big"}
    assert len(found["big"].parts) == 2
    assert found["big"].encoder() == tmp_path / "mmproj-big.gguf"


def test_the_same_file_reached_twice_counts_once(tmp_path: Path, made: dict[str, bytes]) -> None:
    put(tmp_path / "a" / "tiny.gguf", made["model"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "again.gguf").symlink_to(tmp_path / "a" / "tiny.gguf")
    found = discover([Place("added", tmp_path / "a"), Place("lmstudio", tmp_path / "b")]).models
    assert [model.name for model in found] == ["tiny"]


def test_loops_of_links_end_and_links_to_nothing_are_passed(tmp_path: Path, made: dict[str, bytes]) -> None:
    put(tmp_path / "a" / "tiny.gguf", made["model"])
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.gguf")
    assert set(look("added", tmp_path)) == {"tiny"}


def test_depth_number_and_what_is_not_permitted_are_bounded_and_noted(
    tmp_path: Path, made: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "deep" / Path(*"abcdefghijkl")
    put(deep / "tiny.gguf", made["model"])
    assert look("added", tmp_path / "deep") == {}
    assert "deeper than" in notes("added", tmp_path / "deep")
    many = tmp_path / "many"
    for number in range(60):
        put(many / f"{number:02d}.gguf", b"GGUF")
    monkeypatch.setattr(discovery, "MAX_MODELS", 20)
    assert len(look("added", many)) == 20
    assert "more than 20 models" in notes("added", many)
    monkeypatch.setattr(discovery, "MAX_ENTRIES", 30)
    scan = discovery._Scan(Place("added", many), [], entries_left=30)
    assert len(list(scan._files(many))) == 30
    assert "rest is not looked at" in scan.notes[0]
    monkeypatch.setattr(os, "scandir", _refused)
    assert "not looked at: Permission denied" in notes("added", many)


def _refused(path: object) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_what_is_no_model_is_described_by_its_problem(tmp_path: Path, made: dict[str, bytes]) -> None:
    put(tmp_path / "page.gguf", b"<!doctype html>")
    put(tmp_path / "empty.gguf", b"")
    put(tmp_path / "cut.gguf", made["model"][: len(made["model"]) // 2])
    put(tmp_path / "renamed-encoder.gguf", made["encoder"])
    put(tmp_path / "good.gguf", made["model"])
    problems = {name: describe(model).problem for name, model in look("added", tmp_path).items()}
    assert "an HTML page" in problems["page"]
    assert "0 bytes" in problems["empty"]
    assert "truncated" in problems["cut"]
    assert "an encoder (mmproj) alone" in problems["renamed-encoder"]
    assert problems["good"] == ""


def test_a_changed_file_is_described_anew(tmp_path: Path, made: dict[str, bytes]) -> None:
    path = put(tmp_path / "tiny.gguf", b"GGUF")
    assert describe(look("added", tmp_path)["tiny"]).problem
    path.write_bytes(made["model"])
    assert describe(look("added", tmp_path)["tiny"]).use == "chat"


def test_pulled_models_are_known_by_their_records(tmp_path: Path, made: dict[str, bytes]) -> None:
    folder = tmp_path / "tiny-1b"
    files = []
    for name, content, quant in (("a.gguf", made["model"], "Q8_0"), ("b.gguf", made["model"] + b"\0", "F16")):
        put(folder / name, content)
        files.append(PulledFile(name, name, COMMIT, len(content), "0" * 64, quant))
    put(folder / "mmproj.gguf", made["encoder"])
    files.append(PulledFile("mmproj.gguf", "mmproj.gguf", COMMIT, len(made["encoder"]), "0" * 64, "", True))
    write_record(folder / "pulled.json", PulledRecord("tiny-1b", "a/b", "main", COMMIT, tuple(files)))
    put(tmp_path / "broken" / "pulled.json", b"{")
    put(tmp_path / "by-hand" / "mine.gguf", made["model"] + b"\0\0")
    found = look("hearth", tmp_path)
    assert set(found) == {"tiny-1b", "tiny-1b:F16", "mine"}
    assert found["tiny-1b"].mmproj == folder / "mmproj.gguf"
    assert "pulled.json: not a record" in notes("hearth", tmp_path)
    put(folder / "b.gguf", b"short")
    assert "missing or changed: b.gguf" in look("hearth", tmp_path)["tiny-1b:F16"].problem


def test_where_each_program_keeps_its_models() -> None:
    home, models = Path("/home/x"), Path("/data/models")

    def of(origin: Origin, platform: str = "linux", **environ: str) -> list[str]:
        places = find_places(models, home=home, environ=environ, platform=platform, added=[Path("/mine")])
        return [str(place.path) for place in places if place.origin == origin]

    assert of("hearth") == ["/data/models"]
    assert of("added") == ["/mine"]
    assert of("huggingface") == ["/home/x/.cache/huggingface/hub"]
    assert of("huggingface", HF_HOME="/hf") == ["/hf/hub"]
    assert of("huggingface", HF_HOME="/hf", HF_HUB_CACHE="/cache") == ["/cache"]
    assert of("huggingface", XDG_CACHE_HOME="/c") == ["/c/huggingface/hub"]
    assert of("ollama") == ["/home/x/.ollama/models", "/usr/share/ollama/.ollama/models"]
    assert of("ollama", platform="darwin") == ["/home/x/.ollama/models"]
    assert of("ollama", OLLAMA_MODELS="/o") == ["/o"]
    assert of("lmstudio") == ["/home/x/.lmstudio/models", "/home/x/.cache/lm-studio/models"]
    assert of("llama.cpp") == ["/home/x/.cache/llama.cpp"]
    assert of("llama.cpp", platform="darwin") == ["/home/x/Library/Caches/llama.cpp"]
    assert of("llama.cpp", LLAMA_CACHE="/l") == ["/l"]


def test_a_moved_lm_studio_is_followed(tmp_path: Path) -> None:
    put(tmp_path / ".lmstudio-home-pointer", b"/elsewhere/studio\n")
    places = find_places(tmp_path / "m", home=tmp_path, environ={}, platform="linux")
    assert next(str(place.path) for place in places if place.origin == "lmstudio") == "/elsewhere/studio/models"


def test_of_several_encoders_the_one_with_the_models_name_is_taken(tmp_path: Path, made: dict[str, bytes]) -> None:
    model = put(tmp_path / "Qwen3VL-4B-Instruct-Q4_K_M.gguf", made["model"])
    names = ("mmproj-Qwen3VL-4B-Instruct-Q8_0.gguf", "mmproj-Qwen3VL-4B-Instruct-F16.gguf", "mmproj-other-f16.gguf")
    files = [put(tmp_path / name, made["encoder"]) for name in names]
    found = encoder_for(model, files)
    assert found is not None
    assert found.name == "mmproj-Qwen3VL-4B-Instruct-F16.gguf"
    assert encoder_for(put(tmp_path / "third.gguf", made["model"]), files) is None
