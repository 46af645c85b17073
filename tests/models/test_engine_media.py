"""Pictures that are placed in rows and columns (M-RoPE) or see both ways (Gemma): as llama.cpp alone reads them, and
restored exactly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.engine.process import ProcessEngine
from hearth.models.errors import EngineError, RequestError
from hearth.models.types import (
    Finished,
    GenerationRequest,
    MediaEmbeddings,
    MediaSegment,
    SamplingParams,
    Segment,
    TextSegment,
)
from hearth.store.kv_blocks import KvBlockStore
from tests.models import tiny_architectures, tiny_gguf
from tests.models.answers import result
from tests.models.tiny_architectures import N_EMBD

ENDLESS = SamplingParams(logit_bias={tiny_gguf.special_id("<|end|>"): float("-inf")})
WRITERS = {
    "qwen2vl": tiny_architectures.write_qwen2vl,
    "qwen35": tiny_architectures.write_qwen35,
    "gemma3": tiny_architectures.write_gemma3,
}
COLUMNS, ROWS = 6, 4
Parts = Sequence[tuple[int, ...] | MediaSegment]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    return {name: write(folder / f"{name}.gguf") for name, write in WRITERS.items()}


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], KvBlockStore]:
    """Opens stores on one folder; engines close them."""
    return lambda: KvBlockStore(tmp_path / "kv", budget_bytes=1 << 30)


def load(path: Path, **arguments: Any) -> LlamaEngine:
    options = EngineOptions(n_threads=1, n_ctx=1024, prompt_lookup=False, kv_min_worth_s=0.0)
    return LlamaEngine.load(path, options, **arguments)


def tokens(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(0, 250, n))


def picture(name: str, seed: int = 0) -> MediaSegment:
    """Of COLUMNS x ROWS tokens: in a grid for models with M-RoPE, seen both ways for Gemma."""
    n = COLUMNS * ROWS
    rows = np.random.default_rng(seed).standard_normal((n, N_EMBD)).astype(np.float32)
    index = np.arange(n, dtype=np.int32)
    grid = np.stack([np.zeros_like(index), index // COLUMNS, index % COLUMNS], axis=1)
    if name == "gemma3":
        embeddings, n_pos = MediaEmbeddings(rows, causal=False), n
    else:
        embeddings, n_pos = MediaEmbeddings(rows, grid), max(COLUMNS, ROWS)
    return MediaSegment(f"{name} {seed}", n, n_pos, lambda: embeddings)


def answer(engine: LlamaEngine | ProcessEngine, parts: Parts, n: int = 16) -> Finished:
    segments: tuple[Segment, ...] = tuple(TextSegment(part) if isinstance(part, tuple) else part for part in parts)
    return result(engine.submit(GenerationRequest("r", segments, ENDLESS, max_tokens=n)))


def reference(path: Path, parts: Parts, n: int = 16) -> tuple[int, ...]:
    """What llama.cpp says greedily when it is told all by hand."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 1024, 1, 1
    params.flash_attn_type, params.swa_full = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, True
    context = llama_cpp.llama_init_from_model(model, params)
    is_grid = llama_cpp.llama_model_rope_type(model) in (
        llama_cpp.LLAMA_ROPE_TYPE_MROPE,
        llama_cpp.LLAMA_ROPE_TYPE_IMROPE,
    )
    position = 0

    def decode(ids: Sequence[int] | None, media: MediaEmbeddings | None) -> None:
        size = len(ids) if ids is not None else len(media.rows)  # type: ignore[union-attr]
        n_sections = 4 if media is not None and is_grid else 1
        places = (ctypes.c_int32 * (n_sections * size))()
        for i in range(size):
            placed = (i, i, i) if media is None or media.places is None else [int(p) for p in media.places[i]]
            for section in range(n_sections):
                places[section * size + i] = position + placed[section] if section < 3 else 0
        batch = llama_cpp.llama_batch_init(size, N_EMBD if media is not None else 0, 1)
        kept = ctypes.cast(batch.pos, ctypes.c_void_p).value  # a pointer would follow what is assigned
        batch.n_tokens, batch.pos = size, ctypes.cast(places, type(batch.pos))
        for i in range(size):
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, i + 1 == size
            if ids is not None:
                batch.token[i] = ids[i]
        if media is not None:
            ctypes.memmove(batch.embd, np.ascontiguousarray(media.rows).ctypes.data, media.rows.nbytes)
            llama_cpp.llama_set_causal_attn(context, media.causal)
        assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_set_causal_attn(context, True)
        batch.pos = ctypes.cast(kept, type(batch.pos))
        llama_cpp.llama_batch_free(batch)

    for part in parts:
        if isinstance(part, MediaSegment):
            given = part.embed()
            assert isinstance(given, MediaEmbeddings)
            decode(None, given)
            position += part.n_pos
        elif part:
            decode(part, None)
            position += len(part)
    said: list[int] = []
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    while len(said) < n:
        logits: NDArray[np.float32] = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(context, -1), shape=(n_vocab,)
        ).copy()
        logits[tiny_gguf.special_id("<|end|>")] = -np.inf
        said.append(int(logits.argmax()))
        decode(said[-1:], None)
        position += 1
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return tuple(said)


def test_pictures_are_read_as_llama_cpp_reads_them(models: dict[str, Path], name: str) -> None:
    chat = (tokens(20), picture(name), tokens(10, 1), picture(name, 1), picture(name, 2), tokens(5, 2))
    with load(models[name]) as engine:
        first = answer(engine, chat)
        assert first.usage.prompt_tokens == 35 + 3 * COLUMNS * ROWS
        assert first.tokens == reference(models[name], chat)
        engine.check_integrity()
        going_on = (*chat, first.tokens, picture(name, 3), tokens(5, 3))
        second = answer(engine, going_on)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens
        assert second.tokens == reference(models[name], going_on)
        engine.check_integrity()


def test_pictures_come_back_from_disk(models: dict[str, Path], name: str, store: Callable[[], KvBlockStore]) -> None:
    chat = (tokens(300), picture(name), tokens(10, 1), picture(name, 1))
    with load(models[name], store=store()) as engine:
        first = answer(engine, chat)
    going_on = (*chat, first.tokens, tokens(5, 3))
    expected = reference(models[name], going_on)
    with load(models[name], store=store()) as engine:
        restored = answer(engine, going_on)
        assert restored.cache.disk_tokens >= 310 + 2 * COLUMNS * ROWS
        assert restored.tokens == expected
        engine.check_integrity()
    if name != "qwen35":  # its state cannot be cut
        branch = (*chat[:3], picture(name, 5), tokens(5, 3))
        with load(models[name], store=store()) as engine:
            assert answer(engine, branch).cache.disk_tokens == 310 + COLUMNS * ROWS
            engine.check_integrity()


def test_a_prompt_that_ends_with_a_picture(models: dict[str, Path], name: str) -> None:
    chat = (tokens(20), picture(name))
    with load(models[name]) as engine:
        for _ in range(2):  # the second time all but the picture is there
            assert answer(engine, chat).tokens == reference(models[name], chat)
            engine.check_integrity()


def test_in_a_process_of_its_own(models: dict[str, Path], name: str) -> None:
    chat = (tokens(20), picture(name), tokens(10, 1))
    with ProcessEngine.load(models[name], EngineOptions(n_threads=1, n_ctx=1024, prompt_lookup=False)) as engine:
        assert answer(engine, chat).tokens == reference(models[name], chat)


@pytest.mark.parametrize(
    ("name", "embeddings", "n_pos", "message"),
    [
        ("gemma3", MediaEmbeddings(np.zeros((9, N_EMBD), np.float32)), 3, "no M-RoPE"),
        ("qwen2vl", MediaEmbeddings(np.zeros((9, N_EMBD), np.float32)), 3, "places none of its tokens"),
        ("qwen2vl", MediaEmbeddings(np.zeros((9, N_EMBD), np.float32), np.full((9, 3), 3, np.int32)), 3, "up to 3"),
        ("qwen2vl", MediaEmbeddings(np.zeros((9, N_EMBD), np.float32), np.zeros((8, 3), np.int32)), 3, r"\(8, 3\)"),
        ("gemma3", MediaEmbeddings(np.zeros((600, N_EMBD), np.float32), causal=False), 600, "n_ubatch to 600"),
    ],
)
def test_what_does_not_fit_is_refused(
    models: dict[str, Path], name: str, embeddings: MediaEmbeddings, n_pos: int, message: str
) -> None:
    segment = MediaSegment("odd", len(embeddings.rows), n_pos, lambda: embeddings)
    with load(models[name]) as engine:
        with pytest.raises((EngineError, RequestError), match=message):
            answer(engine, (tokens(5), segment, tokens(5, 1)))
        assert answer(engine, (tokens(5), tokens(5, 1)), n=2).tokens
        engine.check_integrity()
