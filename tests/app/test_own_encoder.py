"""A model with an encoder of its own (mmproj), tiny and random: pictures in chats, across restarts, encoded once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import hearth
from hearth.model_choice import find_mmproj
from hearth.models.engine.engine import LlamaEngine
from hearth.models.errors import HearthError, ModelFileError
from tests.models import tiny_architectures, tiny_mmproj

FAMILIES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Path]]] = {
    "llava": (tiny_architectures.write_llama, tiny_mmproj.write_llava),
    "qwen2vl": (tiny_architectures.write_qwen2vl, tiny_mmproj.write_qwen2vl),
    "gemma3": (tiny_architectures.write_gemma3, tiny_mmproj.write_gemma3),
    "idefics3": (tiny_mmproj.write_idefics3_text, tiny_mmproj.write_idefics3),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its encoder beside it."""
    folder = tmp_path_factory.mktemp(str(request.param))
    write_text, write_encoder = FAMILIES[request.param]
    write_encoder(folder / "mmproj-tiny.gguf")
    return write_text(folder / "tiny.gguf")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what encoders were given."""
    shapes: list[tuple[int, ...]] = []
    encode = LlamaEngine.encode_media

    def counting(engine: LlamaEngine, media: Any) -> Any:
        shapes.append(media.shape)
        return encode(engine, media)

    monkeypatch.setattr(LlamaEngine, "encode_media", counting)
    return shapes


def picture(seed: int, width: int = 90, height: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def open_assistant(model: Path, data_dir: Path, **settings: Any) -> hearth.Assistant:
    return hearth.Assistant(model=str(model), data_dir=data_dir, temperature=0.0, system=" ", max_tokens=6, **settings)


def ask(assistant: hearth.Assistant, text: str, images: list[bytes], conversation: str | None = None) -> hearth.Reply:
    return assistant.ask(text, images=images, conversation=conversation, use_memory=False)


def test_pictures_are_encoded_once_and_found_again(model: Path, tmp_path: Path, encoded: list[tuple[int, ...]]) -> None:
    with open_assistant(model, tmp_path) as assistant:
        first = ask(assistant, "what is it", [picture(1), picture(2)])
        assert encoded == [(60, 90, 3)] * 2
        second = ask(assistant, "and this", [picture(3)], first.conversation_id)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens
        third = ask(assistant, "again", [], first.conversation_id)
        assert third.usage.cached_tokens >= second.usage.prompt_tokens
        assert len(encoded) == 3
    with open_assistant(model, tmp_path, kv_disk_gib=0) as assistant:
        again = ask(assistant, "and now", [], first.conversation_id)
        assert again.usage.cached_tokens == 0  # computed again, from the embeddings on disk
        assert len(encoded) == 3
        ask(assistant, "in another chat", [picture(2)])
        assert len(encoded) == 3
        assistant.conversations.delete(first.conversation_id)
    kept = list((tmp_path / "derived").iterdir())
    assert len(kept) == 1  # of the picture that another chat still shows


def test_answers_are_the_same_after_a_restart_and_in_a_process_of_its_own(model: Path, tmp_path: Path) -> None:
    texts = []
    for name, isolate in (("here", None), ("apart", True)):
        settings = {"isolate_engine": isolate, "kv_daily_write_gib": 64}
        with open_assistant(model, tmp_path / name, **settings) as assistant:
            first = ask(assistant, "what is it", [picture(1, 300, 200)])
            second = ask(assistant, "and this", [picture(2)], first.conversation_id)
        with open_assistant(model, tmp_path / name, **settings) as assistant:
            third = ask(assistant, "both", [], first.conversation_id)
        texts.append((first.text, second.text, third.text))
    assert texts[0] == texts[1]
    with open_assistant(model, tmp_path / "going on") as assistant:
        first = ask(assistant, "what is it", [picture(1, 300, 200)])
        second = ask(assistant, "and this", [picture(2)], first.conversation_id)
        third = ask(assistant, "both", [], first.conversation_id)
    assert texts[0] == (first.text, second.text, third.text)


def wav(seed: int, seconds: float = 1.5) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, int(16_000 * seconds)).astype(np.float32)
    out = io.BytesIO()
    soundfile.write(out, samples, 16_000, format="WAV")
    return out.getvalue()


def test_a_model_that_hears_gets_the_sound_itself(tmp_path: Path, encoded: list[tuple[int, ...]]) -> None:
    model = tiny_architectures.write_llama(tmp_path / "tiny.gguf")
    tiny_mmproj.write_ultravox(tmp_path / "mmproj-tiny.gguf")
    texts = []
    for name in ("first", "again"):
        with open_assistant(model, tmp_path / name) as assistant:
            first = assistant.ask("", audio=[wav(1)], use_memory=False)
            assert first.transcripts == ()
            second = assistant.ask("and", audio=[wav(2)], conversation=first.conversation_id, use_memory=False)
            assert second.usage.cached_tokens >= first.usage.prompt_tokens
        with open_assistant(model, tmp_path / name) as assistant:
            third = assistant.ask("both", conversation=first.conversation_id, use_memory=False)
            assert third.usage.cached_tokens >= second.usage.prompt_tokens
            with pytest.raises(HearthError, match="cannot see pictures"):
                ask(assistant, "what is it", [picture(1)])
        texts.append((first.text, second.text, third.text))
    assert texts[0] == texts[1]
    assert encoded == [(24_000,)] * 4


def test_without_its_encoder_a_model_sees_nothing(model: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(model.read_bytes())
    with open_assistant(alone, tmp_path / "data") as assistant:
        with pytest.raises(HearthError, match="cannot see pictures"):
            ask(assistant, "what is it", [picture(1)])
        assert ask(assistant, "hello", []).text
    with open_assistant(alone, tmp_path / "data", mmproj=model.with_name("mmproj-tiny.gguf")) as assistant:
        assert ask(assistant, "what is it", [picture(1)]).text


def test_which_encoder_goes_with_a_model(tmp_path: Path) -> None:
    model = tiny_architectures.write_llama(tmp_path / "tiny.gguf")
    assert find_mmproj(model) is None
    tiny_mmproj.write_llava(tmp_path / "mmproj-wide.gguf", n_embd=32)
    assert find_mmproj(model) is None
    fitting = tiny_mmproj.write_llava(tmp_path / "mmproj-f16.gguf")
    assert find_mmproj(model) == fitting
    (tmp_path / "mmproj-broken.gguf").write_bytes(b"GGUF")
    assert find_mmproj(model) == fitting
    tiny_mmproj.write_llava(tmp_path / "other-mmproj.gguf")
    assert find_mmproj(model) is None  # two would fit


def test_an_encoder_of_another_model_is_refused(tmp_path: Path) -> None:
    model = tiny_architectures.write_llama(tmp_path / "tiny.gguf")
    wide = tiny_mmproj.write_llava(tmp_path / "mmproj-wide.gguf", n_embd=32)
    for mmproj, reason in ((wide, "mismatch"), (model, "not an encoder"), (tmp_path / "none.gguf", "no such file")):
        with (
            open_assistant(model, tmp_path / "data", mmproj=mmproj) as assistant,
            pytest.raises(ModelFileError, match=reason),
        ):
            ask(assistant, "what is it", [picture(1)])
