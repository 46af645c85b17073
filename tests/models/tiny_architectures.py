"""Writes tiny GGUFs of several architectures with random weights; the vocabulary is that of ``tiny_gguf``.

Which keys and tensors each needs is said by ``src/models/*.cpp`` of the llama.cpp that llama-cpp-python brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.models import tiny_gguf

N_EMBD = 64
N_FF = 96
N_HEAD = 4
N_HEAD_KV = 2
HEAD_SIZE = N_EMBD // N_HEAD
N_LAYER = 3
N_CTX_TRAIN = 4096
SLIDING_WINDOW = 32  # tokens; shorter than the prompts of the tests
N_CONV, N_STATE, N_RANK = 4, 16, 8  # of Mamba layers


@dataclass(frozen=True)
class Architecture:
    """``kind`` says what its cache holds: "attention" can be cut anywhere, the state of the others cannot."""

    name: str
    kind: str
    write: Callable[[Path], Path]

    @property
    def sliceable(self) -> bool:
        return self.kind == "attention"


class _Writer:
    """A GGUF with the tokenizer in it; tensors are given as (rows, columns), columns being the input's width."""

    def __init__(self, path: Path, architecture: str, *, n_layer: int = N_LAYER, n_head: int = N_HEAD) -> None:
        self.path = path
        self._architecture = architecture
        self._gguf = gguf.GGUFWriter(path, architecture)
        self._rng = np.random.default_rng(len(architecture))
        tokens, merges = tiny_gguf.vocabulary()
        self.n_vocab = len(tokens)
        self._gguf.add_name(f"tiny-{architecture}")
        self.integer("context_length", N_CTX_TRAIN)
        self.integer("embedding_length", N_EMBD)
        self.integer("block_count", n_layer)
        self.integer("feed_forward_length", N_FF)
        self.integer("attention.head_count", n_head)
        n_special = len(tiny_gguf.SPECIAL_TOKENS)
        kinds = [gguf.TokenType.NORMAL] * (len(tokens) - n_special) + [gguf.TokenType.CONTROL] * n_special
        self._gguf.add_tokenizer_model("gpt2")
        self._gguf.add_tokenizer_pre("gpt-2")
        self._gguf.add_token_list(tokens)
        self._gguf.add_token_types(kinds)
        self._gguf.add_token_merges(merges)
        self._gguf.add_bos_token_id(tokens.index("<|bos|>"))
        self._gguf.add_eos_token_id(tokens.index("<|end|>"))
        self._gguf.add_add_bos_token(True)
        self._gguf.add_chat_template(tiny_gguf.CHAT_TEMPLATE)

    def integer(self, key: str, value: int) -> None:
        self._gguf.add_uint32(f"{self._architecture}.{key}", value)

    def number(self, key: str, value: float) -> None:
        self._gguf.add_float32(f"{self._architecture}.{key}", value)

    def array(self, key: str, values: list[int] | list[bool]) -> None:
        self._gguf.add_array(f"{self._architecture}.{key}", values)

    def tensor(self, name: str, values: NDArray[np.float32]) -> None:
        self._gguf.add_tensor(name, np.ascontiguousarray(values, np.float32))

    def random(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """A matrix that keeps the size of what it is given, times ``gain``."""
        self.tensor(name, self._rng.standard_normal(shape) * gain / np.sqrt(shape[-1]))

    def spread(self, name: str, *shape: int, low: float, high: float) -> None:
        self.tensor(name, self._rng.uniform(low, high, shape))

    def ones(self, *names: str, n: int = N_EMBD) -> None:
        for name in names:
            self.tensor(name, np.ones(n, np.float32))

    def vocabulary(self, *, tied: bool, output_norm: str = "output_norm", gain: float = 4.0) -> None:
        self.random("token_embd.weight", self.n_vocab, N_EMBD, gain=gain)
        self.ones(f"{output_norm}.weight")
        if not tied:
            self.random("output.weight", self.n_vocab, N_EMBD, gain=4)

    def attention(self, layer: int, *, q_gates: bool = False, head_norms: bool = False, biases: bool = False) -> None:
        block, n_kv = f"blk.{layer}", HEAD_SIZE * N_HEAD_KV
        n_q = N_EMBD * 2 if q_gates else N_EMBD
        for name, n in (("q", n_q), ("k", n_kv), ("v", n_kv)):
            self.random(f"{block}.attn_{name}.weight", n, N_EMBD, gain=1.5)
            if biases:
                self.spread(f"{block}.attn_{name}.bias", n, low=-0.5, high=0.5)
        self.random(f"{block}.attn_output.weight", N_EMBD, N_EMBD, gain=4)
        if head_norms:
            self.ones(f"{block}.attn_q_norm.weight", f"{block}.attn_k_norm.weight", n=HEAD_SIZE)

    def feed_forward(self, layer: int, suffix: str = "", *, n_ff: int = N_FF) -> None:
        block = f"blk.{layer}"
        self.random(f"{block}.ffn_gate{suffix}.weight", n_ff, N_EMBD, gain=2)
        self.random(f"{block}.ffn_up{suffix}.weight", n_ff, N_EMBD, gain=2)
        self.random(f"{block}.ffn_down{suffix}.weight", N_EMBD, n_ff, gain=2)

    def experts(self, layer: int, n_experts: int, n_ff: int) -> None:
        block = f"blk.{layer}"
        self.random(f"{block}.ffn_gate_inp.weight", n_experts, N_EMBD, gain=2)
        self.random(f"{block}.ffn_gate_exps.weight", n_experts, n_ff, N_EMBD, gain=2)
        self.random(f"{block}.ffn_up_exps.weight", n_experts, n_ff, N_EMBD, gain=2)
        # little, because which ones are asked turns on the last bit here and there
        self.random(f"{block}.ffn_down_exps.weight", n_experts, N_EMBD, n_ff, gain=0.5)

    def close(self) -> Path:
        self._gguf.write_header_to_file()
        self._gguf.write_kv_data_to_file()
        self._gguf.write_tensors_to_file()
        self._gguf.close()
        return self.path


def _heads(model: _Writer) -> None:
    model.integer("attention.head_count_kv", N_HEAD_KV)
    model.integer("rope.dimension_count", HEAD_SIZE)
    model.number("attention.layer_norm_rms_epsilon", 1e-5)


def write_llama(path: Path) -> Path:
    return tiny_gguf.write_tiny_gguf(path, n_ctx_train=N_CTX_TRAIN, n_layer=N_LAYER, seed=3)  # type: ignore[no-any-return]


def write_qwen2(path: Path) -> Path:
    """Biases on queries, keys and values; no output matrix: the embeddings serve for it."""
    return _write_qwen2(_Writer(path, "qwen2"))


def write_qwen2vl(path: Path) -> Path:
    """The same with positions in several dimensions (M-RoPE)."""
    model = _Writer(path, "qwen2vl")
    model.array("rope.dimension_sections", [2, 3, 3, 0])
    return _write_qwen2(model)


def _write_qwen2(model: _Writer) -> Path:
    _heads(model)
    model.vocabulary(tied=True, gain=1)
    for layer in range(N_LAYER):
        model.ones(f"blk.{layer}.attn_norm.weight", f"blk.{layer}.ffn_norm.weight")
        model.attention(layer, biases=True)
        model.feed_forward(layer)
    return model.close()


def write_gemma3(path: Path) -> Path:
    """Every layer but the last sees ``SLIDING_WINDOW`` tokens only."""
    model = _Writer(path, "gemma3")
    _heads(model)
    model.integer("attention.key_length", HEAD_SIZE)
    model.integer("attention.value_length", HEAD_SIZE)
    model.integer("attention.sliding_window", SLIDING_WINDOW)
    model.array("attention.sliding_window_pattern", [layer + 1 < N_LAYER for layer in range(N_LAYER)])
    model.vocabulary(tied=False, gain=0.5)
    for layer in range(N_LAYER):
        names = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
        model.ones(*(f"blk.{layer}.{name}.weight" for name in names))
        model.attention(layer, head_norms=True)
        model.feed_forward(layer)
    return model.close()


def write_mixtral(path: Path) -> Path:
    """Architecture llama with four experts, of which two answer."""
    model = _Writer(path, "llama")
    _heads(model)
    model.integer("expert_count", 4)
    model.integer("expert_used_count", 2)
    model.vocabulary(tied=False)
    for layer in range(N_LAYER):
        model.ones(f"blk.{layer}.attn_norm.weight", f"blk.{layer}.ffn_norm.weight")
        model.attention(layer)
        model.experts(layer, 4, N_FF)
    return model.close()


def write_qwen2moe(path: Path) -> Path:
    """Six small experts, of which two answer, beside one that always does."""
    model = _Writer(path, "qwen2moe")
    _heads(model)
    model.integer("expert_count", 6)
    model.integer("expert_used_count", 2)
    model.integer("expert_feed_forward_length", 32)
    model.integer("expert_shared_feed_forward_length", 48)
    model.vocabulary(tied=False)
    for layer in range(N_LAYER):
        model.ones(f"blk.{layer}.attn_norm.weight", f"blk.{layer}.ffn_norm.weight")
        model.attention(layer, biases=True)
        model.experts(layer, 6, 32)
        model.spread(f"blk.{layer}.ffn_gate_inp_shexp.weight", N_EMBD, low=-0.2, high=0.2)
        model.feed_forward(layer, "_shexp", n_ff=48)
    return model.close()


def write_mamba(path: Path) -> Path:
    model = _Writer(path, "mamba", n_head=0)
    model.number("attention.layer_norm_rms_epsilon", 1e-5)
    n_inner = 2 * N_EMBD
    model.integer("ssm.conv_kernel", N_CONV)
    model.integer("ssm.inner_size", n_inner)
    model.integer("ssm.state_size", N_STATE)
    model.integer("ssm.time_step_rank", N_RANK)
    model.vocabulary(tied=False)
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        model.ones(f"{block}.attn_norm.weight")
        model.random(f"{block}.ssm_in.weight", 2 * n_inner, N_EMBD, gain=2)
        model.random(f"{block}.ssm_conv1d.weight", n_inner, N_CONV)
        model.spread(f"{block}.ssm_conv1d.bias", n_inner, low=-0.2, high=0.2)
        model.random(f"{block}.ssm_x.weight", N_RANK + 2 * N_STATE, n_inner)
        model.random(f"{block}.ssm_dt.weight", n_inner, N_RANK)
        model.spread(f"{block}.ssm_dt.bias", n_inner, low=-4, high=-1)  # behind softplus: steps of 0.02..0.3
        model.spread(f"{block}.ssm_a", n_inner, N_STATE, low=-2, high=-0.02)
        model.ones(f"{block}.ssm_d", n=n_inner)
        model.random(f"{block}.ssm_out.weight", N_EMBD, n_inner, gain=6)
    return model.close()


def write_rwkv7(path: Path) -> Path:
    model = _Writer(path, "rwkv7", n_head=0)
    model.number("attention.layer_norm_epsilon", 1e-5)
    model.integer("wkv.head_size", 64)  # the kernels for AVX-512 read 64 at a time, whatever is said here
    for kind in ("decay", "iclr", "value_residual_mix", "gate"):
        model.integer(f"attention.{kind}_lora_rank", N_RANK)
    model.integer("token_shift_count", 2)
    _layer_norms(model, "output_norm", "token_embd_norm")
    model.random("token_embd.weight", model.n_vocab, N_EMBD)
    model.random("output.weight", model.n_vocab, N_EMBD, gain=4)
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        _layer_norms(model, *(f"{block}.{name}" for name in ("attn_norm", "attn_norm_2", "time_mix_ln")))
        for name, low, high in (("w", -6, 0), ("a", -1, 1), ("v", -1, 1)):
            model.spread(f"{block}.time_mix_{name}0.weight", N_EMBD, low=low, high=high)
        for name in "wavg":
            model.random(f"{block}.time_mix_{name}1.weight", N_RANK, N_EMBD)
            model.random(f"{block}.time_mix_{name}2.weight", N_EMBD, N_RANK)
        model.spread(f"{block}.time_mix_lerp_fused.weight", 6, 1, 1, N_EMBD, low=0, high=1)
        model.spread(f"{block}.time_mix_k_k.weight", N_EMBD, low=0.5, high=1)
        model.spread(f"{block}.time_mix_k_a.weight", N_EMBD, low=0.5, high=1)
        model.spread(f"{block}.time_mix_r_k.weight", N_EMBD, low=-0.2, high=0.2)
        for name in ("key", "value", "receptance"):
            model.random(f"{block}.time_mix_{name}.weight", N_EMBD, N_EMBD)
        model.random(f"{block}.time_mix_output.weight", N_EMBD, N_EMBD, gain=3)
        model.spread(f"{block}.channel_mix_lerp_k.weight", 1, 1, N_EMBD, low=0, high=1)
        model.random(f"{block}.channel_mix_key.weight", N_FF, N_EMBD)
        model.random(f"{block}.channel_mix_value.weight", N_EMBD, N_FF)
    return model.close()


def _layer_norms(model: _Writer, *names: str) -> None:
    for name in names:
        model.ones(f"{name}.weight")
        model.tensor(f"{name}.bias", np.zeros(N_EMBD, np.float32))


def write_lfm2(path: Path) -> Path:
    """Short convolutions around one layer of attention."""
    model = _Writer(path, "lfm2")
    attends = [layer == 1 for layer in range(N_LAYER)]
    model.array("attention.head_count_kv", [N_HEAD_KV if yes else 0 for yes in attends])
    model.integer("rope.dimension_count", HEAD_SIZE)
    model.number("attention.layer_norm_rms_epsilon", 1e-5)
    model.integer("shortconv.l_cache", 3)
    model.vocabulary(tied=True, output_norm="token_embd_norm", gain=1)
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        model.ones(f"{block}.attn_norm.weight", f"{block}.ffn_norm.weight")
        if attends[layer]:
            model.attention(layer, head_norms=True)
        else:
            model.random(f"{block}.shortconv.conv.weight", N_EMBD, 3)
            model.random(f"{block}.shortconv.in_proj.weight", 3 * N_EMBD, N_EMBD)
            model.random(f"{block}.shortconv.out_proj.weight", N_EMBD, N_EMBD, gain=3)
        model.feed_forward(layer)
    return model.close()


def write_qwen35(path: Path) -> Path:
    """Gated delta nets and, last, one layer of attention; its positions have several dimensions (M-RoPE)."""
    model = _Writer(path, "qwen35")
    _heads(model)
    model.integer("attention.key_length", HEAD_SIZE)
    model.integer("attention.value_length", HEAD_SIZE)
    model.array("rope.dimension_sections", [4, 2, 2, 0])
    n_heads, n_state = 2, 32
    n_value = n_heads * n_state
    n_mixed = 3 * n_value
    model.integer("ssm.conv_kernel", N_CONV)
    model.integer("ssm.inner_size", n_value)
    model.integer("ssm.state_size", n_state)
    model.integer("ssm.time_step_rank", n_heads)
    model.integer("ssm.group_count", n_heads)
    model.integer("full_attention_interval", N_LAYER)
    model.vocabulary(tied=False)
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        model.ones(f"{block}.attn_norm.weight", f"{block}.post_attention_norm.weight")
        if layer == N_LAYER - 1:
            model.attention(layer, q_gates=True, head_norms=True)
        else:
            model.random(f"{block}.attn_qkv.weight", n_mixed, N_EMBD, gain=2)
            model.random(f"{block}.attn_gate.weight", n_value, N_EMBD, gain=2)
            model.random(f"{block}.ssm_conv1d.weight", n_mixed, N_CONV, gain=2)
            model.spread(f"{block}.ssm_dt.bias", n_heads, low=-4, high=-1)
            model.spread(f"{block}.ssm_a", n_heads, low=-2, high=-0.02)
            model.random(f"{block}.ssm_beta.weight", n_heads, N_EMBD)
            model.random(f"{block}.ssm_alpha.weight", n_heads, N_EMBD)
            model.ones(f"{block}.ssm_norm.weight", n=n_state)
            model.random(f"{block}.ssm_out.weight", N_EMBD, n_value, gain=3)
        model.feed_forward(layer)
    return model.close()


ARCHITECTURES = (
    Architecture("llama", "attention", write_llama),
    Architecture("qwen2-tied", "attention", write_qwen2),
    Architecture("qwen2vl", "attention", write_qwen2vl),
    Architecture("gemma3-swa", "attention", write_gemma3),
    Architecture("mixtral", "attention", write_mixtral),
    Architecture("qwen2moe", "attention", write_qwen2moe),
    Architecture("mamba", "recurrent", write_mamba),
    Architecture("rwkv7", "recurrent", write_rwkv7),
    Architecture("lfm2", "hybrid", write_lfm2),
    Architecture("qwen35", "hybrid", write_qwen35),
)
