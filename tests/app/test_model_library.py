"""Names of models: catalogue, other programs, added files; what is chosen; what suits a machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import hearth
from hearth.model_choice import choose, choose_by
from hearth.model_library import ModelLibrary
from hearth.models.errors import ModelFileError
from hearth.models.pulled import PulledFile, PulledRecord, write_record
from hearth.models.pulling import PullPlace
from hearth.recommendation import GIB, Resources, recommend
from hearth.settings import Settings
from hearth.speech import speech_files
from tests.models import tiny_architectures, tiny_mmproj
from tests.models.test_discovery import ollama

COMMIT = "e" * 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.gguf and mmproj-tiny.gguf, which fits it."""
    folder = tmp_path_factory.mktemp("files")
    tiny_architectures.write_llama(folder / "tiny.gguf")
    tiny_mmproj.write_llava(folder / "mmproj-tiny.gguf")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary(tmp_path / "data")


def pulled(library: ModelLibrary, name: str, files: Path, *, with_encoder: bool = False) -> Path:
    """As `hearth models pull` would have left it, with a tiny model's content."""
    folder = library.models_dir / name
    folder.mkdir(parents=True)
    shutil.copy(files / "tiny.gguf", folder / "m.gguf")
    entries = [PulledFile("m.gguf", "m.gguf", COMMIT, (folder / "m.gguf").stat().st_size, "0" * 64, "Q4_K_M")]
    if with_encoder:
        shutil.copy(files / "mmproj-tiny.gguf", folder / "e.gguf")
        size_bytes = (folder / "e.gguf").stat().st_size
        entries.append(PulledFile("e.gguf", "e.gguf", COMMIT, size_bytes, "0" * 64, "", True))
    write_record(folder / "pulled.json", PulledRecord(name, "a/b", "main", COMMIT, tuple(entries)))
    return folder


def test_a_catalogue_name_means_what_was_pulled_with_its_encoder(library: ModelLibrary, files: Path) -> None:
    folder = pulled(library, "gemma-3-4b", files, with_encoder=True)
    choice = choose("gemma-3-4b", library=library)
    assert (choice.name, choice.path, choice.mmproj) == ("gemma-3-4b", folder / "m.gguf", folder / "e.gguf")
    assert choose("Gemma-3-4B", library=library).path == choice.path


def test_a_name_of_another_program_means_its_file(
    library: ModelLibrary, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    layers = [("model", (files / "tiny.gguf").read_bytes()), ("projector", (files / "mmproj-tiny.gguf").read_bytes())]
    ollama(tmp_path / "ollama", "registry.ollama.ai/library/llama3.2/3b", layers)
    choice = choose("ollama:llama3.2:3b", library=library)
    assert choice.path.read_bytes() == (files / "tiny.gguf").read_bytes()
    assert choice.mmproj is not None
    assert choose("llama3.2:3b", library=library).path == choice.path
    with pytest.raises(ModelFileError, match=r"did you mean .*ollama:llama3\.2:3b"):
        choose("ollama:llama3.2:1b", library=library)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("qwen3-4b", "`hearth models pull qwen3-4b` fetches it (2.3 GiB)"),
        ("qwen3-4b:q8_0", "`hearth models pull qwen3-4b --quant Q8_0` fetches it"),
        ("qwen3-4", "unknown model 'qwen3-4' (did you mean qwen3-4b"),
        ("pockt", "did you mean pocket"),
        ("whisper-base", "a model for transcription, it does not answer questions"),
        ("zzzz", "unknown model 'zzzz': give 'pocket', a name of `hearth models list`, or a path"),
        ("bad\0name", "unknown model"),
    ],
)
def test_a_name_that_means_nothing_here_says_what_to_do(library: ModelLibrary, name: str, reason: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        choose(name, library=library)
    assert reason in str(caught.value)


def test_an_added_file_or_folder_is_used_in_place(library: ModelLibrary, files: Path) -> None:
    assert [model.name for model in library.add(files)] == ["tiny"]
    library.add(files)
    assert library.added() == [files]
    choice = choose("tiny", library=library)
    assert (choice.path, choice.mmproj) == (files / "tiny.gguf", files / "mmproj-tiny.gguf")
    assert not list(library.models_dir.glob("**/*.gguf"))


def test_what_cannot_be_added_is_named(library: ModelLibrary, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for path, reason in (("none", "no such file or folder"), ("empty", "no .gguf file in it"), ("notes.txt", "not a")):
        with pytest.raises(ModelFileError, match=reason):
            library.add(tmp_path / path)
    assert library.added() == []


def test_two_models_of_one_name_have_to_be_told_apart(library: ModelLibrary, files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "tiny.gguf", tmp_path / "tiny.gguf")
    library.add(files)
    library.add(tmp_path / "tiny.gguf")
    with pytest.raises(ModelFileError, match="means 2 models"):
        choose("tiny", library=library)


def test_a_chosen_model_answers_where_no_setting_names_one(
    library: ModelLibrary, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    assert choose_by(settings).name == "pocket"
    library.add(files)
    library.choose("tiny")
    assert choose_by(settings).path == files / "tiny.gguf"
    assert choose_by(Settings(data_dir=tmp_path / "data", model="pocket")).name == "pocket"
    monkeypatch.setenv("HEARTH_MODEL", "pocket")
    assert choose_by(Settings(data_dir=tmp_path / "data")).name == "pocket"
    monkeypatch.delenv("HEARTH_MODEL")
    with pytest.raises(ModelFileError, match="unknown model"):
        library.choose("nothing")
    assert library.chosen() == "tiny"
    with hearth.Assistant(data_dir=tmp_path / "data") as assistant:
        assert assistant.status()["model"] == "tiny"
        assert assistant.ask("hello", max_tokens=4, use_memory=False).model == "tiny"


def test_a_chosen_model_that_is_gone_stops_answers_but_not_the_start(library: ModelLibrary, tmp_path: Path) -> None:
    library.models_dir.mkdir(parents=True)
    (library.models_dir / "choice.json").write_text(json.dumps({"model": "gone-7b"}))
    with hearth.Assistant(data_dir=tmp_path / "data") as assistant:
        assistant.load()
        assert assistant.status()["model"] == "gone-7b"
        with pytest.raises(
            ModelFileError, match=r"the chosen model: unknown model 'gone-7b'.*hearth models use pocket"
        ):
            assistant.ask("hello", use_memory=False)
    (library.models_dir / "choice.json").write_text("[" * 100_000)
    assert library.chosen() is None


def test_a_speech_checkpoint_is_found_once_pulled(library: ModelLibrary) -> None:
    place = PullPlace.of(library.models_dir, library.catalogue["whisper-base"])
    place.folder.mkdir(parents=True)
    pulled = place.folder / "whisper-base.pt"
    pulled.write_bytes(b"weights")
    record = PulledRecord("whisper-base", "", "main", "", (PulledFile("whisper-base.pt", "u", "", 7, "0" * 64, "F16"),))
    write_record(place.record, record)
    settings = Settings(data_dir=library.models_dir.parent)
    for name in ("base", "whisper-base"):
        assert speech_files(settings.model_copy(update={"speech_model": name})).checkpoint == pulled
    assert [model.name for model in library.discover().models] == ["whisper-base"]


LAPTOP = Resources(8 * GIB, 100 * GIB, 4)


def test_recommendations_follow_memory_disk_cores_and_accelerator(library: ModelLibrary) -> None:
    def names(resources: Resources) -> list[str]:
        return [pick.name for pick in recommend(library.catalogue, resources)]

    assert names(LAPTOP) == ["qwen3-4b", "smolvlm2-2.2b", "ultravox-1b", "whisper-small"]
    assert names(Resources(64 * GIB, 100 * GIB, 8, "GPU", 24 * GIB))[0] == "gemma-3-27b"
    for pick in recommend(library.catalogue, Resources(64 * GIB, 100 * GIB, 2, "GPU", 8 * GIB)):
        assert pick.name
        assert "of GPU" in pick.reason
        assert pick.need_bytes < 0.9 * 8 * GIB
    small = recommend(library.catalogue, Resources(1 * GIB, 10 * GIB, 1))
    assert [pick.name for pick in small] == ["", "", "", ""]
    assert "needs about" in small[0].reason or "too slow" in small[0].reason
    assert "of disk free" in recommend(library.catalogue, Resources(8 * GIB, GIB // 10, 4))[0].reason
    assert all("commercial" not in library.catalogue[name].licence for name in names(LAPTOP))
