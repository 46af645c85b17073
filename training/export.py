"""Writes the files that ship: a quantized GGUF, the vision encoder in half precision, tokenizer and manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors.torch
import torch
from tokenizers import Tokenizer

from hearth.multimodal.clip import VisionNetwork
from hearth.multimodal.print_order import PRINT_TOKENS
from hearth.multimodal.views import TILES, TOKENS_A_SIDE
from training.chats import SPECIAL_TOKENS, special_id
from training.language import LanguageModel

VERSION = 1
RETRIEVAL_BUDGET_TOKENS = 600
MAX_VISUAL_TOKENS = (1 + TILES) * TOKENS_A_SIDE**2 + PRINT_TOKENS  # of a picture: the whole, its tiles, what is read
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def export_language(
    model: LanguageModel,
    tokenizer: Tokenizer,
    path: Path,
    matrix_type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q5_1,
) -> None:
    """Writes ``model`` as GGUF: feed-forward matrices as ``matrix_type``, the other matrices 16 bits, norms 32.

    Q5_1 has no AMX kernel in llama.cpp, and so avoids those of Q8_0, Q4_0 and the K-quants, which crash on some
    processors with batches of more than one token. The attention matrices hold a few values far larger than their
    neighbours (see ``training.copying``), which blocks of 5 bits would drown.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Hearth pocket")
    writer.add_description("A small model for Hearth, trained from scratch on drawn pictures and invented texts")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q5_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.n_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_heads)
    writer.add_rope_dimension_count(config.n_embd // config.n_heads)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.n_vocab)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in _tensors(model):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        elif ".ffn_" in name:
            writer.add_tensor(name, gguf.quants.quantize(tensor, matrix_type), raw_dtype=matrix_type)
        else:
            writer.add_tensor(name, tensor.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    by_id = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token, _ in by_id]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in by_id])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(special_id(tokenizer, "<|bos|>"))
    writer.add_eos_token_id(special_id(tokenizer, "<|end|>"))
    writer.add_eot_token_id(special_id(tokenizer, "<|end|>"))
    writer.add_pad_token_id(special_id(tokenizer, "<|end|>"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(model: LanguageModel) -> list[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    named: list[tuple[str, torch.Tensor]] = [
        ("token_embd.weight", model.embedding.weight),
        ("output_norm.weight", model.norm.weight),
    ]
    for i, block in enumerate(model.layers):
        q, k, v = block.attention.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        named += [
            (f"blk.{i}.attn_norm.weight", block.attention_norm.weight),
            (f"blk.{i}.attn_q.weight", q),
            (f"blk.{i}.attn_k.weight", k),
            (f"blk.{i}.attn_v.weight", v),
            (f"blk.{i}.attn_output.weight", block.attention.output.weight),
            (f"blk.{i}.ffn_norm.weight", block.ffn_norm.weight),
            (f"blk.{i}.ffn_gate.weight", gate),
            (f"blk.{i}.ffn_up.weight", up),
            (f"blk.{i}.ffn_down.weight", block.down.weight),
        ]
    return [(name, tensor.detach().float().contiguous().cpu().numpy()) for name, tensor in named]


def export_vision(network: VisionNetwork, config: dict[str, Any], folder: Path) -> None:
    """Writes ``vision.safetensors`` (16-bit floats) and ``vision.json``."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    safetensors.torch.save_file(halves, folder / "vision.safetensors")
    (folder / "vision.safetensors").chmod(0o644)  # safetensors makes it readable for its owner only
    (folder / "vision.json").write_text(json.dumps(config, indent=2) + "\n")


def export_manifest(config: dict[str, Any], n_ctx: int, folder: Path) -> None:
    """Writes ``pocket.toml``."""
    lines = (
        f"version = {VERSION}",
        f"n_ctx = {n_ctx}",
        f"retrieval_budget_tokens = {RETRIEVAL_BUDGET_TOKENS}",
        "quotes_sources = true",
        f"max_visual_tokens = {MAX_VISUAL_TOKENS}",
        f"image_size = {config['vision_cfg']['image_size']}",
        'language = "language.gguf"',
        'vision = "vision.safetensors"',
        'vision_config = "vision.json"',
        'tokenizer = "tokenizer.json"',
        'speech = "speech.pt"',
    )
    (folder / "pocket.toml").write_text("\n".join(lines) + "\n")


def export_all(
    vision: VisionNetwork,
    config: dict[str, Any],
    language: LanguageModel,
    tokenizer: Tokenizer,
    folder: Path,
    matrix_type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q5_1,
) -> None:
    """Writes every file of ``folder`` that this recipe makes."""
    folder.mkdir(parents=True, exist_ok=True)
    export_language(language, tokenizer, folder / "language.gguf", matrix_type)
    export_vision(vision, config, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    export_manifest(config, language.config.n_ctx, folder)
