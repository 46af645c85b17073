"""The adapter to faster-whisper, with a module that has its interface."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hearth.models.errors import ModelError, ModelFileError
from hearth.multimodal.errors import PerceptionCancelled
from hearth.multimodal.faster_whisper_model import FasterWhisperModel
from hearth.multimodal.sound import SAMPLE_RATE, Sound
from hearth.multimodal.transcription import Transcriber
from hearth.multimodal.transcripts import SpeechOptions, Word

SECOND = np.full(SAMPLE_RATE, 0.1, np.float32)


def never() -> None:
    pass


def piece(start: float, end: float, text: str, words: list[Any] | None = None) -> Any:
    return SimpleNamespace(
        start=start, end=end, text=text, words=words, avg_logprob=-0.2, no_speech_prob=0.1, temperature=0.0
    )


class FakeModule:
    """What ``import faster_whisper`` gives; ``pieces`` are decoded as they are asked for, as there."""

    def __init__(self, *pieces: Any, wait_s: float = 0.0) -> None:
        self.pieces, self.wait_s = pieces, wait_s
        self.given: list[dict[str, Any]] = []
        self.decoded = threading.Event()
        self.n_decoded = 0

    def WhisperModel(self, folder: str, **options: Any) -> FakeModule:  # noqa: N802
        if "broken" in folder:
            raise RuntimeError("File model.bin is incomplete\nmore")
        assert options["local_files_only"] is True
        return self

    supported_languages = ("en", "de")

    def detect_language(self, audio: Any) -> tuple[str, float, list[tuple[str, float]]]:
        assert len(audio)
        return "de", 0.7, [("de", 0.7), ("en", 0.3)]

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterator[Any], Any]:
        assert audio.dtype == np.float32
        self.given.append(options)

        def decode() -> Iterator[Any]:
            for one in self.pieces:
                time.sleep(self.wait_s)
                self.n_decoded += 1
                yield one
            self.decoded.set()

        return decode(), None


def test_segments_and_words_come_in_order_and_within_the_window() -> None:
    words = [SimpleNamespace(start=-0.1, end=0.4, word=" One", probability=0.9)]
    module = FakeModule(piece(-0.1, 0.5, " One", words), piece(0.4, 9.0, " two."), piece(0.9, 1.0, "  "))
    model = FasterWhisperModel(Path("folder"), module)
    found = model.decode(SECOND, SpeechOptions("de", "translate", words=True), "Before.", never)
    assert [(one.start_s, one.end_s, one.text) for one in found.segments] == [(0.0, 0.5, "One"), (0.5, 1.0, "two.")]
    assert found.segments[0].words == (Word(0.0, 0.4, " One", 0.9),)
    given = module.given[0]
    assert (given["language"], given["task"], given["initial_prompt"]) == ("de", "translate", "Before.")
    assert given["word_timestamps"] is True
    assert given["condition_on_previous_text"] is False


def test_it_transcribes_a_recording_in_the_language_that_it_detects() -> None:
    transcriber = Transcriber(lambda: FasterWhisperModel(Path("folder"), FakeModule(piece(0.0, 1.0, " Hallo."))))
    transcript = transcriber.transcribe(Sound(SECOND, 1.0, "", "a.wav"))
    assert (transcript.text, transcript.language, transcript.language_prob) == ("Hallo.", "de", pytest.approx(0.7))


def test_a_cancel_returns_while_native_code_runs_and_the_next_window_works() -> None:
    module = FakeModule(*[piece(0.0, 0.1, " word")] * 20, wait_s=0.3)
    model = FasterWhisperModel(Path("folder"), module)
    started = time.monotonic()

    def check() -> None:
        if time.monotonic() - started > 0.4:
            raise PerceptionCancelled("stopped")

    with pytest.raises(PerceptionCancelled):
        model.decode(SECOND, SpeechOptions("en"), "", check)
    assert time.monotonic() - started < 4  # of six
    module.wait_s = 0.0
    assert model.language_probs(SECOND, never) == {"de": 0.7, "en": 0.3}
    assert module.n_decoded < 20


def test_bad_folders_and_a_missing_package_are_named() -> None:
    with pytest.raises(ModelFileError, match=r"broken is not a Whisper model of CTranslate2.*incomplete$"):
        FasterWhisperModel(Path("broken"), FakeModule())
    failing = FakeModule()
    failing.detect_language = lambda **_: [][0]  # type: ignore[method-assign,misc,assignment]
    with pytest.raises(ModelError, match="faster-whisper failed"):
        FasterWhisperModel(Path("folder"), failing).language_probs(SECOND, never)
    with pytest.raises(ModelFileError, match="uv sync --extra faster-whisper"):
        FasterWhisperModel(Path("folder"))
