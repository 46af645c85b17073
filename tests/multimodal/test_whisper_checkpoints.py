"""Random weights in the shapes of OpenAI's checkpoints: files, checksums, languages, times, no invented words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.errors import ModelFileError, RequestError
from hearth.multimodal import languages, whisper_model
from hearth.multimodal.sound import SAMPLE_RATE, Sound
from hearth.multimodal.speech_doubts import Attempt, best_attempt, decoding_failed
from hearth.multimodal.speech_files import SAME_AS, SIZES, find_speech_model
from hearth.multimodal.transcription import NoSpeechError, Transcriber, whisper_checkpoint
from hearth.multimodal.transcripts import SpeechOptions
from hearth.multimodal.whisper_model import WhisperModel

# n_mels, n_audio_ctx, n_audio_state, heads, layers, n_vocab, n_text_ctx, n_text_state, heads, layers
TINY = (80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4)
TINY_EN = (80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
SMALL_LARGE_V3 = (128, 1500, 64, 2, 2, 51866, 448, 64, 2, 2)


def never() -> None:
    pass


def hum(duration_s: float) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(5).standard_normal(int(duration_s * SAMPLE_RATE))).astype(np.float32)


def write_checkpoint(path: Path, shape: tuple[int, ...]) -> Path:
    """Random weights, as OpenAI's files hold them."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(1)
    dims = ModelDimensions(*shape)
    state = Whisper(dims).state_dict()
    state["decoder.positional_embedding"] = 0.3 * torch.randn(dims.n_text_ctx, dims.n_text_state)
    torch.save({"dims": vars(dims), "model_state_dict": {name: one.half() for name, one in state.items()}}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speech")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    return write_checkpoint(folder / "own-tiny.pt", TINY)


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random weights never come to an end by themselves."""
    monkeypatch.setattr(whisper_model, "SPARE_TOKENS", 6)
    monkeypatch.setattr(whisper_model, "MOST_TOKENS_PER_S_MULTILINGUAL", 2.0)
    monkeypatch.setattr(whisper_model, "MOST_TOKENS_PER_S", 2.0)
    monkeypatch.setattr(whisper_model, "FALLBACK_TEMPERATURES", (0.0, 0.6))
    return


def check_times(model: WhisperModel, language: str, duration_s: float) -> None:
    found = model.decode(hum(duration_s), SpeechOptions(language=language, words=True), "before", never)
    assert 0.0 <= found.finished_s <= duration_s
    for segment in found.segments:
        assert 0.0 <= segment.start_s <= segment.end_s <= duration_s
        times = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0.0 <= time_s <= duration_s for time_s in times)
        assert segment.temperature in (0.0, 0.6)
    assert all(before.end_s <= after.start_s for before, after in pairwise(found.segments))
    again = model.decode(hum(duration_s), SpeechOptions(language=language, words=True), "before", never)
    assert again == found  # also where it was sampled


@pytest.mark.usefixtures("short_answers")
def test_the_shape_of_tiny_detects_languages_and_tells_legal_times(tiny: Path) -> None:
    model = WhisperModel(tiny)
    assert model.tells_times
    assert model.window_s == 30.0
    probs = model.language_probs(hum(1.0), never)
    assert model.languages == tuple(languages.LANGUAGES)[:99]
    assert set(probs) == set(model.languages)
    assert sum(probs.values()) == pytest.approx(1.0, abs=1e-3)
    check_times(model, "de", 1.5)


@pytest.mark.usefixtures("short_answers")
def test_the_shapes_of_tiny_en_and_large_v3(folder: Path) -> None:
    english = WhisperModel(write_checkpoint(folder / "own-en.pt", TINY_EN))
    assert english.languages == ("en",)
    assert english.language_probs(hum(1.0), never) == {"en": 1.0}
    check_times(english, "en", 1.0)
    large = WhisperModel(write_checkpoint(folder / "own-large.pt", SMALL_LARGE_V3))
    assert large.languages[-1] == "yue"
    assert len(large.language_probs(hum(1.0), never)) == 100
    check_times(large, "yue", 2.5)


@pytest.mark.usefixtures("short_answers")
def test_random_weights_show_no_words_in_silence(tiny: Path) -> None:
    transcriber = Transcriber(whisper_checkpoint(tiny))
    transcriber.load()
    silent = np.zeros(3 * SAMPLE_RATE, np.float32)
    click = silent.copy()
    click[16_000:16_100] = 0.9
    for samples in (silent, click, 0.0003 * hum(3.0)):
        with pytest.raises(NoSpeechError):
            transcriber.transcribe(Sound(samples, len(samples) / SAMPLE_RATE, "", "silent.wav"))


def test_a_checkpoint_of_an_official_name_has_its_checksum(tiny: Path, tmp_path: Path) -> None:
    import whisper

    named = tmp_path / "models" / "tiny.pt"
    named.parent.mkdir()
    named.write_bytes(tiny.read_bytes())
    files = find_speech_model("tiny", named.parent)
    assert (files.checkpoint, files.size) == (named, "tiny")
    with pytest.raises(ModelFileError, match=r"tiny\.pt is not OpenAI's checkpoint of tiny.*SHA-256 begins"):
        WhisperModel(named, "tiny")
    WhisperModel(named)  # by its path it is the user's own
    digest = hashlib.sha256(named.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(whisper._MODELS, "tiny", f"https://example.invalid/models/{digest}/tiny.pt")
        model = WhisperModel(named, "tiny")
    assert model._model.alignment_heads.indices().shape[1] < 12  # the official ones, not half of all


def test_sizes_are_found_where_they_usually_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    ours = tmp_path / "ours"
    with pytest.raises(ModelFileError, match=r"'base' is not on this machine .*hearth models pull whisper-base"):
        find_speech_model("base", ours)
    cached = tmp_path / "cache" / "whisper" / "large-v3-turbo.pt"
    snapshot = tmp_path / "cache/huggingface/hub/models--Systran--faster-whisper-base/snapshots/abc"
    for path in (cached, snapshot / "model.bin", ours / "base.pt"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    assert find_speech_model("turbo", ours).checkpoint == cached
    base = find_speech_model("base", ours)
    assert (base.checkpoint, base.converted) == (ours / "base.pt", snapshot)
    assert find_speech_model(str(snapshot), ours).converted == snapshot
    assert find_speech_model(str(cached), ours).size is None
    for name, message in (
        ("bsae", "did you mean base"),
        ("a/b.pt", "does not exist"),
        (str(ours), "without model.bin"),
    ):
        with pytest.raises(ModelFileError, match=message):
            find_speech_model(name, ours)


def test_the_tables_are_whispers_own() -> None:
    import whisper
    from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    assert list(languages.LANGUAGES.items()) == list(LANGUAGES.items())
    named = {english: code for code, english in LANGUAGES.items()} | languages.ALIASES
    assert named == TO_LANGUAGE_CODE
    assert {*SIZES, *SAME_AS} == set(whisper.available_models())
    assert all(whisper._MODELS[name] == whisper._MODELS[size] for name, size in SAME_AS.items())


def test_languages_by_code_and_name() -> None:
    assert [languages.language_code(name) for name in ("de", "German", " GERMAN ", "Haitian  Creole", "mandarin")] == [
        *("de", "de", "de", "ht", "zh")
    ]
    for wrong, hint in (("germn", "german"), ("dee", "de \\(german\\)"), ("klingon", "code like en")):
        with pytest.raises(RequestError, match=hint):
            languages.language_code(wrong)


def test_what_failed_is_decoded_again_and_the_best_attempt_counts() -> None:
    good, loop = Attempt("good", -0.3, 0.1, 1.5), Attempt("loop", -0.1, 0.1, 5.0)
    unsure, silent = Attempt("unsure", -1.4, 0.1, 1.2), Attempt("silent", -1.4, 0.8, 1.2)
    assert [decoding_failed(one) for one in (good, loop, unsure, silent)] == [False, True, True, False]
    assert best_attempt([loop, unsure, Attempt("worse", -2.0, 0.1, 1.1)]).result == "unsure"
    assert best_attempt([loop, Attempt("loop2", -0.5, 0.1, 4.0)]).result == "loop"
