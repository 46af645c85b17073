"""Encoders (mmproj) of several families on their text models: what they plan, what they encode, and that the engine
goes on from it as llama.cpp alone does."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.errors import EngineError, ModelFileError
from hearth.models.llama import LlamaModel
from hearth.models.mtmd import MediaEncoder, shape_of
from hearth.models.types import (
    Finished,
    GenerationRequest,
    MediaPiece,
    MediaSegment,
    MediaShape,
    SamplingParams,
    Segment,
    TextSegment,
)
from tests.models import tiny_architectures, tiny_gguf, tiny_mmproj
from tests.models.tiny_architectures import N_EMBD
from tests.models.tiny_mmproj import FAMILIES, SAMPLE_RATE, Family

ENDLESS = SamplingParams(logit_bias={tiny_gguf.special_id("<|end|>"): float("-inf")})
PICTURES = ((56, 84), (28, 28), (200, 100), (20, 150), (1, 1))  # height, width
SOUNDS = (1600, 5 * SAMPLE_RATE, 31 * SAMPLE_RATE)  # samples


@dataclass(frozen=True)
class Loaded:
    family: Family
    model: LlamaModel
    encoder: MediaEncoder


@contextmanager
def text_model(path: Path) -> Iterator[LlamaModel]:
    model = LlamaModel.load(path)
    yield model
    model.close()


def load(path: Path, model: LlamaModel) -> MediaEncoder:
    return MediaEncoder.load(path, model, n_threads=1, on_gpu=False)


@contextmanager
def loaded_family(family: Family, folder: Path) -> Iterator[Loaded]:
    with text_model(family.write_text(folder / f"{family.name}.gguf")) as model:
        encoder = load(family.write_encoder(folder / f"mmproj-{family.name}.gguf"), model)
        yield Loaded(family, model, encoder)
        encoder.close()


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    with loaded_family(request.param, tmp_path_factory.mktemp("mtmd")) as one:
        yield one


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    with text_model(tiny_architectures.write_llama(tmp_path_factory.mktemp("llama") / "llama.gguf")) as model:
        yield model


def picture(height: int = 56, width: int = 84, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def sound(n_samples: int = 5 * SAMPLE_RATE, seed: int = 0) -> NDArray[np.float32]:
    """Four tones that wander."""
    rng, times = np.random.default_rng(seed), np.arange(n_samples) / SAMPLE_RATE
    phases = [times * rng.uniform(100, 6000) + np.sin(times * rng.uniform(1, 9)) * rng.uniform(1, 99) for _ in range(4)]
    return np.asarray(sum(0.2 * np.sin(2 * np.pi * phase) for phase in phases), np.float32)


def media_of(family: Family, seed: int = 0) -> NDArray[Any]:
    return picture(seed=seed) if family.sees else sound(seed=seed)


def pieces_of(plan: Sequence[TextSegment | MediaPiece]) -> list[MediaPiece]:
    return [part for part in plan if isinstance(part, MediaPiece)]


def test_info(loaded: Loaded) -> None:
    info = loaded.encoder.info
    assert (info.sees, info.hears) == (loaded.family.sees, loaded.family.hears)
    assert info.sample_rate == (SAMPLE_RATE if loaded.family.hears else 0)


def test_plan_is_what_encode_gives(loaded: Loaded) -> None:
    family, encoder = loaded.family, loaded.encoder
    everything = [picture(*size) for size in PICTURES] if family.sees else [sound(n) for n in SOUNDS]
    for media in everything:
        pieces, encoded = pieces_of(encoder.plan(shape_of(media))), encoder.encode(media)
        assert [piece.n_tokens for piece in pieces] == [len(one.rows) for one in encoded]
        for piece, one in zip(pieces, encoded, strict=True):
            assert one.rows.shape == (piece.n_tokens, N_EMBD)
            assert one.rows.dtype == np.float32
            assert one.causal == (family.name != "gemma3")
            if family.name == "qwen2vl":
                assert one.places is not None
                assert one.places.shape == (piece.n_tokens, 3)
                assert one.places.min() == 0
                assert one.places.max() == piece.n_pos - 1
            else:
                assert one.places is None
                assert piece.n_pos == piece.n_tokens


def test_embeddings_depend_on_the_media_alone(loaded: Loaded) -> None:
    once, again, other = (loaded.encoder.encode(media_of(loaded.family, seed)) for seed in (0, 0, 1))
    for one, same, different in zip(once, again, other, strict=True):
        assert np.array_equal(one.rows, same.rows)
        size = np.abs(one.rows).mean()
        assert 0.1 < size < 10
        assert np.abs(one.rows - different.rows).mean() > 0.05 * size


def test_several_threads_at_once(loaded: Loaded) -> None:
    everything = [media_of(loaded.family, seed) for seed in range(2)]
    alone = [loaded.encoder.encode(media) for media in everything]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(loaded.encoder.encode, everything))
    for one, same in zip(alone, together, strict=True):
        assert all(np.array_equal(a.rows, b.rows) for a, b in zip(one, same, strict=True))


def test_media_of_the_other_kind_is_refused(loaded: Loaded) -> None:
    media, message = (sound(), "does not hear") if loaded.family.sees else (picture(), "does not see")
    with pytest.raises(EngineError, match=message):
        loaded.encoder.plan(shape_of(media))
    with pytest.raises(EngineError, match=message):
        loaded.encoder.encode(media)


def test_the_engine_goes_on_as_llama_cpp_does(loaded: Loaded) -> None:
    media = media_of(loaded.family)
    before, after = "the cat sat on", "and the dog"
    plan, encoded = loaded.encoder.plan(shape_of(media)), list(loaded.encoder.encode(media))
    segments: list[Segment] = [TextSegment(tuple(loaded.model.tokenize(before)))]
    for part in plan:
        if isinstance(part, TextSegment):
            segments.append(part)
        else:
            embeddings = encoded.pop(0)
            embed = lambda given=embeddings: given  # noqa: E731
            segments.append(MediaSegment(f"piece {len(encoded)}", part.n_tokens, part.n_pos, embed))
    segments.append(TextSegment(tuple(loaded.model.tokenize(after))))
    options = EngineOptions(n_threads=1, n_ctx=1024, prompt_lookup=False)
    with LlamaEngine.load(loaded.model.path, options) as engine:
        *_, last = engine.submit(GenerationRequest("r", tuple(segments), ENDLESS, max_tokens=16)).events()
        engine.check_integrity()
    assert isinstance(last, Finished)
    assert last.tokens == _said_by_mtmd_helper(loaded, before, media, after, 16)


def _said_by_mtmd_helper(loaded: Loaded, before: str, media: NDArray[Any], after: str, n: int) -> tuple[int, ...]:
    """What llama.cpp answers greedily when its own helper reads the prompt."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 1024, 1, 1
    params.flash_attn_type, params.swa_full = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, True
    context = llama_cpp.llama_init_from_model(loaded.model.handle, params)
    handle = loaded.encoder._handle
    if loaded.family.sees:
        pixels = media.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(media.shape[1], media.shape[0], pixels)
    else:
        bitmap = mtmd.mtmd_bitmap_init_from_audio(len(media), media.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
    prompt = before.encode() + mtmd.mtmd_get_marker(handle) + after.encode()
    chunks, bitmaps = mtmd.mtmd_input_chunks_init(), (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    text = mtmd.mtmd_input_text(prompt, len(prompt), False, True)
    assert mtmd.mtmd_tokenize(handle, chunks, ctypes.byref(text), bitmaps, 1) == 0
    position = llama_cpp.llama_pos()
    assert mtmd.mtmd_helper_eval_chunks(handle, context, chunks, 0, 0, 512, True, ctypes.byref(position)) == 0
    said: list[int] = []
    batch = llama_cpp.llama_batch_init(1, 0, 1)
    while len(said) < n:
        logits: NDArray[np.float32] = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(context, -1), shape=(loaded.model.n_vocab,)
        ).copy()
        logits[tiny_gguf.special_id("<|end|>")] = -np.inf
        said.append(int(logits.argmax()))
        batch.n_tokens, batch.token[0], batch.pos[0] = 1, said[-1], position.value + len(said) - 1
        batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = 1, 0, 1
        assert llama_cpp.llama_decode(context, batch) == 0
    llama_cpp.llama_batch_free(batch)
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    llama_cpp.llama_free(context)
    return tuple(said)


def test_m_rope_places_rows_and_columns(tmp_path: Path) -> None:
    with loaded_family(_family("qwen2vl"), tmp_path) as one:
        height, width = 40, 24  # 5 x 3 tokens
        (piece,) = pieces_of(one.encoder.plan(MediaShape(width=width, height=height)))
        assert (piece.n_tokens, piece.n_pos) == (15, 5)
        (encoded,) = one.encoder.encode(picture(height, width))
        assert encoded.places is not None
        assert encoded.places.tolist() == [[0, row, column] for row in range(5) for column in range(3)]


def test_a_sound_has_no_places_with_m_rope(tmp_path: Path) -> None:
    with text_model(tiny_architectures.write_qwen2vl(tmp_path / "text.gguf")) as model:
        encoder = load(tiny_mmproj.write_ultravox(tmp_path / "mmproj.gguf"), model)
        (piece,) = pieces_of(encoder.plan(MediaShape(n_samples=SAMPLE_RATE)))
        assert piece.n_pos == piece.n_tokens
        (encoded,) = encoder.encode(sound(SAMPLE_RATE))
        assert encoded.places is None
        assert encoded.causal
        encoder.close()


@pytest.mark.parametrize(
    ("longest_edge", "size", "n_tiles"),
    [
        (56, (200, 200), (2, 2)),
        (56, (20, 20), (2, 2)),  # scaled up
        (56, (50, 120), (1, 2)),
        (None, (28, 28), (1, 1)),
        (None, (84, 112), (3, 4)),
    ],
)
def test_tiles(tmp_path: Path, longest_edge: int | None, size: tuple[int, int], n_tiles: tuple[int, int]) -> None:
    with text_model(tiny_mmproj.write_idefics3_text(tmp_path / "text.gguf")) as model:
        encoder = load(tiny_mmproj.write_idefics3(tmp_path / "mmproj.gguf", longest_edge=longest_edge), model)
        plan = encoder.plan(MediaShape(height=size[0], width=size[1]))
        texts = [model.detokenize(part.tokens, special=True) for part in plan if isinstance(part, TextSegment)]
        encoded = encoder.encode(picture(*size))
        encoder.close()
    rows, columns = n_tiles
    tiles = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
    around = "<fake_token_around_image>"
    before = ["\n" * (column == 1 and row > 1) + f"{around}<row_{row}_col_{column}>" for row, column in tiles]
    assert texts == [*before, f"\n\n{around}<global-img>", around]
    assert pieces_of(plan) == [MediaPiece(4, 4)] * (rows * columns + 1)
    assert len(encoded) == rows * columns + 1
    assert len({one.rows.tobytes() for one in encoded[:-1]}) == rows * columns


def test_a_sound_of_over_30_s_is_cut_into_pieces(tmp_path: Path) -> None:
    with loaded_family(_family("ultravox"), tmp_path) as one:
        assert one.encoder.plan(MediaShape(n_samples=SAMPLE_RATE)) == (MediaPiece(375, 375),)
        assert one.encoder.plan(MediaShape(n_samples=70 * SAMPLE_RATE)) == (MediaPiece(375, 375),) * 3


def test_fingerprints(tmp_path: Path, llama: LlamaModel) -> None:
    found = []
    for write in (tiny_mmproj.write_llava, tiny_mmproj.write_llava, tiny_mmproj.write_ultravox):
        encoder = load(write(tmp_path / "mmproj.gguf"), llama)
        found.append(encoder.info.fingerprint)
        encoder.close()
    assert found[0] == found[1] != found[2]


def test_closed(tmp_path: Path, llama: LlamaModel) -> None:
    encoder = load(tiny_mmproj.write_llava(tmp_path / "mmproj.gguf"), llama)
    encoder.close()
    encoder.close()
    with pytest.raises(EngineError, match="closed"):
        encoder.plan(MediaShape(width=9, height=9))
    with pytest.raises(EngineError, match="closed"):
        encoder.encode(picture())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_encoder_of_another_width_is_refused(tmp_path: Path, family: Family) -> None:
    narrow = family.write_encoder(tmp_path / "mmproj.gguf", n_embd=32)  # type: ignore[call-arg]
    with (
        text_model(family.write_text(tmp_path / "text.gguf")) as model,
        pytest.raises(ModelFileError, match=r"n_embd = 64\).*n_embd = 32\)") as raised,
    ):
        load(narrow, model)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_encoder(tmp_path: Path, llama: LlamaModel) -> None:
    with pytest.raises(ModelFileError, match="a llama model, not an encoder"):
        load(llama.path, llama)
    with pytest.raises(ModelFileError, match="no such file"):
        load(tmp_path / "missing.gguf", llama)
    path = tiny_mmproj.write_llava(tmp_path / "mmproj.gguf")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"clip.vision.block_count", b"clip.vision.block_kount"))
    with pytest.raises(ModelFileError, match=r"Key not found: clip\.vision\.block_count"):
        load(path, llama)
    for size, message in ((0, "0 bytes"), (500, "truncated"), (len(content) // 2, "truncated"), (-1, "truncated")):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError, match=message):
            load(path, llama)


def test_a_vocabulary_without_the_tokens_around_tiles(tmp_path: Path, llama: LlamaModel) -> None:
    encoder = load(tiny_mmproj.write_idefics3(tmp_path / "mmproj.gguf"), llama)
    with pytest.raises(EngineError, match="no token that its encoder puts around pictures"):
        encoder.plan(MediaShape(width=9, height=9))
    encoder.close()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros(1600, np.float64),
        np.zeros((2, 1600), np.float32),
        np.zeros(1600, np.int16),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_that_are_no_media(tmp_path: Path, llama: LlamaModel, array: NDArray[Any]) -> None:
    encoder = load(tiny_mmproj.write_llava(tmp_path / "mmproj.gguf"), llama)
    with pytest.raises(EngineError, match="no media"):
        encoder.encode(array)
    encoder.close()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MediaShape(width=5), "within 1..16,384"),
        (MediaShape(width=5, height=-5), "within 1..16,384"),
        (MediaShape(width=16_385, height=9000), "within 1..16,384"),
        (MediaShape(width=3, height=601), "over 200 times"),
        (MediaShape(width=601, height=3), "over 200 times"),
    ],
)
def test_sizes_of_pictures_that_are_refused(tmp_path: Path, llama: LlamaModel, shape: MediaShape, message: str) -> None:
    encoder = load(tiny_mmproj.write_llava(tmp_path / "mmproj.gguf"), llama)
    with pytest.raises(EngineError, match=message):
        encoder.plan(shape)
    encoder.close()


def test_lengths_of_sounds_that_are_refused(tmp_path: Path, llama: LlamaModel) -> None:
    encoder = load(tiny_mmproj.write_ultravox(tmp_path / "mmproj.gguf"), llama)
    for n_samples in (0, 1, 1599, 30 * 60 * SAMPLE_RATE + 1):
        with pytest.raises(EngineError, match=r"it must last 0.1..1,800 s"):
            encoder.plan(MediaShape(n_samples=n_samples))
    with pytest.raises(EngineError, match="it must last"):  # one sample would end the process
        encoder.encode(np.zeros(1, np.float32))
    encoder.close()


def test_a_sound_of_no_numbers_is_refused(tmp_path: Path, llama: LlamaModel) -> None:
    encoder = load(tiny_mmproj.write_ultravox(tmp_path / "mmproj.gguf"), llama)
    with pytest.raises(EngineError, match="not finite"):
        encoder.encode(np.full(1600, np.nan, np.float32))
    encoder.close()


def _family(name: str) -> Family:
    (found,) = (family for family in FAMILIES if family.name == name)
    return found
