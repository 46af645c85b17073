"""Adapters and stretched contexts: the answers are those of a model whose weights or metadata say the same."""

from __future__ import annotations

import logging
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from hearth.models.engine import EngineOptions, LlamaEngine
from hearth.models.engine.options import LoraAdapter
from hearth.models.errors import HearthError, ModelFileError, RequestError
from hearth.models.types import Failed, Finished, GenerationRequest, SamplingParams, TextDelta, TextSegment
from tests.models.tiny_gguf import vocabulary, write_tiny_gguf
from tests.models.tiny_lora import Lora, random_lora, write_merged

LoadEngine = Callable[..., LlamaEngine]
PROMPT = tuple(np.random.default_rng(0).integers(32, 127, 60).tolist())
N_TOP = 20


def said(engine: LlamaEngine, prompt: tuple[int, ...] = PROMPT) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """The greedy answer, and the log-probabilities of the likeliest tokens by id, shape (n_tokens, N_TOP)."""
    sampling = SamplingParams(n_logprobs=N_TOP)
    events = list(engine.submit(GenerationRequest("r", (TextSegment(prompt),), sampling, max_tokens=12)).events())
    last = events[-1]
    if isinstance(last, Failed):
        raise last.error
    assert isinstance(last, Finished)
    engine.check_integrity()
    rows = [logprobs.top for event in events if isinstance(event, TextDelta) for logprobs in event.logprobs]
    return last.tokens, np.array([[p for _, p in row] for row in rows])


def same(one: LlamaEngine, other: LlamaEngine, tolerance: float = 5e-3) -> bool:
    (tokens, logprobs), (other_tokens, other_logprobs) = said(one), said(other)
    return tokens == other_tokens and np.allclose(logprobs, other_logprobs, atol=tolerance)


# LoRA


def test_scale_0_is_no_adapter(tmp_path: Path, load_engine: LoadEngine) -> None:
    path = random_lora(1).write(tmp_path / "a.gguf")
    plain, nothing = load_engine(), load_engine(lora=(LoraAdapter(path, 0.0),))
    assert same(plain, nothing, tolerance=0.0)
    assert plain.info.fingerprint == nothing.info.fingerprint, "what was saved without it is as good"


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_an_adapter_equals_merged_weights(tmp_path: Path, load_engine: LoadEngine, scale: float) -> None:
    lora = random_lora(1)
    adapted = load_engine(lora=(LoraAdapter(lora.write(tmp_path / "a.gguf"), scale),))
    assert same(adapted, load_engine(write_merged(tmp_path / "merged.gguf", (lora, scale))))
    assert not same(adapted, load_engine())


def test_without_alpha_the_rank_does_not_count(tmp_path: Path, load_engine: LoadEngine) -> None:
    lora = random_lora(1, rank=4)
    adapted = load_engine(lora=(LoraAdapter(replace(lora, alpha=0.0).write(tmp_path / "a.gguf")),))
    assert same(adapted, load_engine(write_merged(tmp_path / "merged.gguf", (replace(lora, alpha=4.0), 1.0))))


def test_two_adapters_add_up(tmp_path: Path, load_engine: LoadEngine) -> None:
    one, two = random_lora(1, rank=4), random_lora(2, rank=2)
    paths = one.write(tmp_path / "1.gguf"), two.write(tmp_path / "2.gguf")
    both = load_engine(lora=(LoraAdapter(paths[0], 0.7), LoraAdapter(paths[1], -0.4)))
    assert same(both, load_engine(write_merged(tmp_path / "merged.gguf", (one, 0.7), (two, -0.4))))
    assert not same(both, load_engine(lora=(LoraAdapter(paths[0], 0.7),)))


def test_an_adapter_of_the_embeddings(tmp_path: Path, load_engine: LoadEngine) -> None:
    n_vocab = len(random_lora(1).pairs["output.weight"][1])
    lora = random_lora(3, shapes={"token_embd.weight": (n_vocab, 64)})
    a, b = lora.pairs["token_embd.weight"]
    # looked up by rows, so the file has lora_a as what is tall there: one row a token
    written = Lora({"token_embd.weight": (np.ascontiguousarray(b), np.ascontiguousarray(a.T))}, lora.alpha)
    adapted = load_engine(lora=(LoraAdapter(written.write(tmp_path / "a.gguf")),))
    assert same(adapted, load_engine(write_merged(tmp_path / "merged.gguf", (lora, 1.0))))


def test_the_fingerprint_covers_the_set_of_adapters(tmp_path: Path, load_engine: LoadEngine) -> None:
    a, b = (random_lora(seed).write(tmp_path / f"{seed}.gguf") for seed in (1, 2))
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(a.read_bytes())

    def fingerprint(*adapters: LoraAdapter) -> str:
        return load_engine(lora=adapters).info.fingerprint

    both = fingerprint(LoraAdapter(a), LoraAdapter(b))
    assert fingerprint(LoraAdapter(b), LoraAdapter(a)) == both, "the order does not matter"
    assert fingerprint(LoraAdapter(copy), LoraAdapter(b)) == both, "nor does the name"
    others = [(), (LoraAdapter(a),), (LoraAdapter(b),), (LoraAdapter(a, 0.5),), (LoraAdapter(a), LoraAdapter(b, 0.5))]
    assert len({both, *(fingerprint(*adapters) for adapters in others)}) == 1 + len(others)


def _refused(load_engine: LoadEngine, path: Path, *said: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_engine(lora=(LoraAdapter(path),))
    for text in (str(path), *said):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path, load_engine: LoadEngine) -> None:
    lora = random_lora(1)
    path = tmp_path / "a.gguf"
    _refused(load_engine, lora.write(path, architecture="qwen2"), "'qwen2'", "'llama'")
    narrow = random_lora(1, shapes={"blk.0.attn_q.weight": (64, 32)})
    _refused(load_engine, narrow.write(path), "blk.0.attn_q.weight", "(32, 4)", "(64, 64)")
    deep = random_lora(1, shapes={"blk.7.attn_q.weight": (64, 64)})
    _refused(load_engine, deep.write(path), "no tensor blk.7.attn_q.weight")


def test_what_would_end_the_process_is_refused_before(tmp_path: Path, load_engine: LoadEngine) -> None:
    """Each of these passes llama.cpp's own checks or fails in an assertion of it."""
    a, b = random_lora(1).pairs["blk.0.attn_q.weight"]
    path = tmp_path / "a.gguf"
    stacked = Lora({"blk.0.attn_q.weight": (np.stack([a, a, a]), b)})
    _refused(load_engine, stacked.write(path), "do not fit")
    whole = Lora({"blk.0.attn_q.weight": (a, b)})
    _refused(load_engine, replace(whole, alpha=float("nan")).write(path), "adapter.lora.alpha is nan")
    content = random_lora(1).write(path).read_bytes()
    key = b"adapter.lora.alpha"
    place = content.index(key) + len(key)
    path.write_bytes(content[:place] + struct.pack("<I", 4) + content[place + 4 :])  # the number as an integer
    _refused(load_engine, path, "not a 32-bit float")


def test_an_adapter_of_tied_embeddings_is_refused(tmp_path: Path, load_engine: LoadEngine) -> None:
    model = write_tiny_gguf(tmp_path / "tied.gguf", tied=True)
    n_vocab = len(random_lora(1).pairs["output.weight"][1])
    a, b = random_lora(3, shapes={"token_embd.weight": (n_vocab, 64)}).pairs["token_embd.weight"]
    path = Lora({"token_embd.weight": (b, a.T)}).write(tmp_path / "a.gguf")
    with pytest.raises(ModelFileError, match="merge the adapter into the model"):
        load_engine(model, lora=(LoraAdapter(path),))


def test_what_is_no_adapter_is_refused(tmp_path: Path, tiny_model: Path, load_engine: LoadEngine) -> None:
    path = tmp_path / "a.gguf"
    _refused(load_engine, tmp_path / "absent.gguf", "no such file")
    _refused(load_engine, tiny_model, "not a LoRA adapter")
    _refused(load_engine, random_lora(1).write(path, **{"adapter.type": "dora"}), "'dora'")
    _refused(load_engine, Lora({}).write(path), "no LoRA tensors")
    path.write_bytes(random_lora(1).write(path).read_bytes()[:-1000])
    _refused(load_engine, path, "truncated")
    path.write_bytes(b"not a model")
    _refused(load_engine, path, "a text file")


def test_half_a_pair_and_integers_are_refused(tmp_path: Path, load_engine: LoadEngine) -> None:
    a, b = random_lora(1).pairs["blk.0.attn_q.weight"]
    path = tmp_path / "a.gguf"
    for tensors, told in (
        ({"lora_a": a}, "blk.0.attn_q.weight.lora_b is missing"),
        ({"lora_b": b}, "blk.0.attn_q.weight.lora_a is missing"),
        ({"lora_a": a.astype(np.int32), "lora_b": b}, "lora_a is of ggml type 26"),
    ):
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        for part, values in tensors.items():
            writer.add_tensor(f"blk.0.attn_q.weight.{part}", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _refused(load_engine, path, told)


def test_a_refused_adapter_leaves_nothing_behind(tmp_path: Path, load_engine: LoadEngine) -> None:
    good, bad = random_lora(1).write(tmp_path / "a.gguf"), tmp_path / "absent.gguf"
    for _ in range(3):
        with pytest.raises(ModelFileError, match="absent"):
            load_engine(lora=(LoraAdapter(good), LoraAdapter(bad)))
    with load_engine(lora=(LoraAdapter(good),)) as engine:
        assert said(engine)[0]


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.gguf", "a.gguf", 1.0),
        ("a.gguf:0.5", "a.gguf", 0.5),
        ("a.gguf=-2", "a.gguf", -2.0),
        ("dir=1/a.gguf", "dir=1/a.gguf", 1.0),
        ("dir=1/a.gguf:0", "dir=1/a.gguf", 0.0),
        (r"C:\models\a.gguf", r"C:\models\a.gguf", 1.0),
        (r"C:\models\a.gguf:0.25", r"C:\models\a.gguf", 0.25),
        ("C:/models/a.gguf=3", "C:/models/a.gguf", 3.0),
        ("C:5", "C:5", 1.0),
    ],
)
def test_adapters_are_read_from_text(text: str, path: str, scale: float) -> None:
    assert LoraAdapter.parse(text) == LoraAdapter(Path(path), scale)


def test_a_file_of_that_very_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run=2").touch()
    assert LoraAdapter.parse("run=2") == LoraAdapter(Path("run=2"))
    assert LoraAdapter.parse("run=3") == LoraAdapter(Path("run"), 3.0)


@pytest.mark.parametrize("text", ["a.gguf:lots", "", " =1", "a.gguf:nan", "a.gguf:inf", "a.gguf:1000", "a.gguf:"])
def test_texts_that_name_no_adapter(text: str) -> None:
    with pytest.raises(RequestError, match="lora"):
        LoraAdapter.parse(text)


def test_the_same_adapter_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="twice"):
        EngineOptions(lora=(LoraAdapter(Path("a"), 1.0), LoraAdapter(Path("a"), 0.5)))


# RoPE


def test_linear_scaling_equals_a_model_that_says_so(tmp_path: Path, load_engine: LoadEngine) -> None:
    stretched = write_tiny_gguf(
        tmp_path / "linear.gguf",
        metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    )
    told = load_engine(rope_scaling="linear", rope_freq_scale=0.25)
    assert same(told, load_engine(stretched), tolerance=0.0)
    assert same(load_engine(rope_freq_scale=0.25), told, tolerance=0.0), "linear is what models are without a type"
    assert same(load_engine(stretched, rope_scaling="none"), load_engine(), tolerance=0.0)
    assert not same(told, load_engine())


def test_the_base_of_the_frequencies_equals_a_model_that_says_so(tmp_path: Path, load_engine: LoadEngine) -> None:
    other = write_tiny_gguf(tmp_path / "base.gguf", metadata={"llama.rope.freq_base": 500_000.0})
    assert same(load_engine(rope_freq_base=500_000.0), load_engine(other), tolerance=0.0)


def test_yarn_equals_a_model_that_says_so(tmp_path: Path, load_engine: LoadEngine) -> None:
    keys: dict[str, float | str] = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    model = write_tiny_gguf(tmp_path / "yarn.gguf", metadata=keys)
    assert same(load_engine(rope_scaling="yarn", rope_freq_scale=0.25), load_engine(model), tolerance=0.0)


def test_every_rope_option_changes_the_answer_and_the_fingerprint(load_engine: LoadEngine) -> None:
    yarn = {"rope_scaling": "yarn", "rope_freq_scale": 0.25}
    options: list[dict[str, object]] = [
        {},
        {"rope_freq_base": 20_000.0},
        {"rope_freq_scale": 0.25},
        {"rope_freq_scale": 0.5},
        yarn,
        {**yarn, "yarn_orig_ctx": 2048},
        {**yarn, "yarn_ext_factor": 0.5},
        {**yarn, "yarn_ext_factor": 0.0, "yarn_attn_factor": 1.5},
        {**yarn, "yarn_beta_fast": 4.0},
        {**yarn, "yarn_beta_slow": 3.0},
    ]
    engines = [load_engine(**given) for given in options]
    assert len({engine.info.fingerprint for engine in engines}) == len(options)
    assert len({said(engine)[1].tobytes() for engine in engines}) == len(options)


def test_yarn_alone_reaches_n_ctx(load_engine: LoadEngine) -> None:
    reaching = load_engine(n_ctx=2048, rope_scaling="yarn")
    assert same(reaching, load_engine(n_ctx=2048, rope_scaling="yarn", rope_freq_scale=512 / 2048), tolerance=0.0)
    assert reaching.info.fingerprint != load_engine(n_ctx=1024, rope_scaling="yarn").info.fingerprint
    assert len(said(reaching, tuple(PROMPT * 30))[0]) == 12


def test_without_n_ctx_the_scale_gives_it(load_engine: LoadEngine) -> None:
    assert load_engine(rope_scaling="yarn", rope_freq_scale=0.25).info.n_ctx == 2048
    assert load_engine(rope_scaling="yarn", rope_freq_scale=0.25, yarn_orig_ctx=256).info.n_ctx == 1024


def test_more_context_than_trained_on_is_warned_of(load_engine: LoadEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hearth"):
        load_engine(n_ctx=512)
        load_engine(n_ctx=2048, rope_scaling="yarn")
        assert not caplog.records
        load_engine(n_ctx=2048)
    (record,) = caplog.records
    for text in ("2,048", "512", "tiny.gguf", "rope_scaling = 'yarn'", "lower n_ctx"):
        assert text in record.getMessage()


def test_learnt_positions_end(tmp_path: Path, load_engine: LoadEngine) -> None:
    """llama.cpp would end the process at the first position behind the table."""
    model = write_gpt2(tmp_path / "gpt2.gguf", n_positions=100)
    engine = load_engine(model)
    assert engine.info.n_ctx == 100
    assert len(said(engine, PROMPT)[0]) == 12
    with pytest.raises(HearthError, match="100"):
        said(engine, PROMPT * 2)
    with pytest.raises(RequestError, match=r"knows 100 positions; lower n_ctx"):
        load_engine(model, n_ctx=128)
    with pytest.raises(RequestError, match="no rotary positions"):
        load_engine(model, rope_scaling="yarn")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rope_scaling": "dynamic"}, "choose none, linear or yarn"),
        ({"rope_freq_scale": 4.0}, "0.25 makes a context four times as long"),
        ({"rope_freq_scale": 0.0}, "rope_freq_scale is 0.0"),
        ({"rope_freq_base": float("nan")}, "rope_freq_base is nan"),
        ({"rope_scaling": "none", "rope_freq_scale": 0.5}, "leave one of them out"),
        ({"yarn_orig_ctx": 4096}, "needs rope_scaling yarn"),
        ({"rope_scaling": "linear", "yarn_beta_fast": 16.0}, "needs rope_scaling yarn"),
        ({"rope_scaling": "yarn", "yarn_attn_factor": 2.0}, "yarn_ext_factor is 0"),
        ({"rope_scaling": "yarn", "yarn_ext_factor": -1.0}, "yarn_ext_factor is -1.0"),
    ],
)
def test_rope_options_that_say_nothing_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        EngineOptions(**options)  # type: ignore[arg-type]
    assert told in str(caught.value)


def write_gpt2(path: Path, n_positions: int, n_embd: int = 64) -> Path:
    """A model that has learnt its positions one by one."""
    rng = np.random.default_rng(0)
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(n_positions)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(1)
    writer.add_feed_forward_length(n_embd)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(merges)
    for name, shape in {
        "token_embd.weight": (len(tokens), n_embd),
        "position_embd.weight": (n_positions, n_embd),
        "blk.0.attn_qkv.weight": (3 * n_embd, n_embd),
        "blk.0.attn_qkv.bias": (3 * n_embd,),
        "blk.0.attn_output.weight": (n_embd, n_embd),
        "blk.0.ffn_up.weight": (n_embd, n_embd),
        "blk.0.ffn_down.weight": (n_embd, n_embd),
        **dict.fromkeys((f"blk.0.{part}.bias" for part in ("attn_output", "ffn_up", "ffn_down")), (n_embd,)),
    }.items():
        writer.add_tensor(name, np.asarray(rng.standard_normal(shape), np.float32))
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{norm}.weight", np.ones(n_embd, np.float32))
        writer.add_tensor(f"{norm}.bias", np.zeros(n_embd, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_options_pass_to_an_engine_process() -> None:
    options = EngineOptions(lora=(LoraAdapter(Path("a"), 0.5),), draft_model=Path("d"), rope_scaling="yarn")
    assert pickle.loads(pickle.dumps(options)) == options
