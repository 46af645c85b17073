"""What the header of a model file says, as plain values. Loads nothing."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Final

from hearth.models.encoder_plan import largest_picture_tokens
from hearth.models.gguf_header import GgufHeader, array_items, check_gguf, read_gguf_header, tensor_bytes
from hearth.models.kv_size import KV_ELEMENT_BYTES, kv_bytes_per_token
from hearth.models.tasks import Report

MAX_TEMPLATE_CHARS: Final = 20_000
MAX_TEXT_CHARS: Final = 200
MAX_LAYERS_SHOWN: Final = 1024
_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "separator", "padding", "mask", "fim_pre", "fim_suf", "fim_mid")
_NEWER_TYPES = {40: "NVFP4", 41: "Q1_0", 42: "Q2_0"}  # than the gguf package may be
_TOKENS = "tokenizer.ggml.tokens"


def inspect(report: Report, path: Path) -> dict[str, Any]:
    """Raises ModelFileError naming what is wrong with the file."""
    report(0.0, "reading the header")
    header = read_gguf_header(path)
    kind = _kind(header)
    if kind == "model":
        header = check_gguf(path)
    found: dict[str, Any] = {
        "path": str(path),
        "kind": kind,
        "size_bytes": header.size_bytes,
        "parts": _number(header, "split.count") or 1,
        "gguf_version": header.version,
        "architecture": _text(header.architecture),
        "name": _text(header.metadata.get("general.name", "")),
        "license": _text(header.metadata.get("general.license", "")),
        "n_tensors": len(header.tensors),
        "n_params": sum(math.prod(tensor.shape) for tensor in header.tensors.values()),
        "file_type": _file_type(header),
        "types": _types(header),
    }
    return found | {"model": _model, "encoder": _encoder, "adapter": _adapter}.get(kind, _nothing)(header)


def _kind(header: GgufHeader) -> str:
    """ "model", "encoder", "adapter", "vocabulary", or what the file calls itself."""
    if header.architecture == "clip":
        return "encoder"
    said = header.metadata.get("general.type", "model")
    if said != "model":
        return _text(said) or "unnamed"
    if not header.tensors and _TOKENS in header.lengths and "split.count" not in header.metadata:
        return "vocabulary"
    return "model"


def _types(header: GgufHeader) -> list[dict[str, Any]]:
    """Tensors by their type, the largest share first."""
    counts: Counter[int] = Counter()
    n_params: Counter[int] = Counter()
    n_bytes: Counter[int] = Counter()
    for tensor in header.tensors.values():
        counts[tensor.kind] += 1
        n_params[tensor.kind] += math.prod(tensor.shape)
        n_bytes[tensor.kind] += tensor_bytes(tensor)
    total = max(sum(n_bytes.values()), 1)
    return [
        {
            "type": type_name(kind),
            "tensors": counts[kind],
            "params": n_params[kind],
            "bytes": size,
            "share": round(size / total, 4),
        }
        for kind, size in n_bytes.most_common()
    ]


def type_name(kind: int) -> str:
    """Of a ggml type."""
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        return _NEWER_TYPES.get(kind, f"type {kind}")


def _file_type(header: GgufHeader) -> str | None:
    from gguf import LlamaFileType

    said = header.metadata.get("general.file_type")
    try:
        return LlamaFileType(said).name.removeprefix("MOSTLY_") if isinstance(said, int) else None
    except ValueError:
        return f"{said}"


def _model(header: GgufHeader) -> dict[str, Any]:
    architecture = header.architecture
    template = header.metadata.get("tokenizer.chat_template")
    names = {
        "n_ctx_train": "context_length",
        "n_layers": "block_count",
        "n_embd": "embedding_length",
        "n_ff": "feed_forward_length",
        "n_heads": "attention.head_count",
        "n_heads_kv": "attention.head_count_kv",
        "sliding_window": "attention.sliding_window",
        "n_experts": "expert_count",
        "n_experts_used": "expert_used_count",
    }
    return {
        **{name: _per_layer(header, f"{architecture}.{key}") for name, key in names.items()},
        "vocabulary": {
            "model": _text(header.metadata.get("tokenizer.ggml.model", "")),
            "n_tokens": header.lengths.get(_TOKENS, 0),
            "n_merges": header.lengths.get("tokenizer.ggml.merges", 0),
        },
        "special_tokens": _special_tokens(header),
        "kv_bytes_per_token": {kv_type: kv_bytes_per_token(header, kv_type) for kv_type in KV_ELEMENT_BYTES},
        "chat_template": template[:MAX_TEMPLATE_CHARS] if isinstance(template, str) else None,
        "chat_template_chars": len(template) if isinstance(template, str) else 0,
    }


def _per_layer(header: GgufHeader, key: str) -> int | list[int] | None:
    """A number, or one for every layer where they differ."""
    value = header.metadata.get(key)
    if isinstance(value, int):
        return value
    n = header.lengths.get(key, 0)
    if not 0 < n <= MAX_LAYERS_SHOWN:
        return None
    items = [item for item in array_items(header, key, range(n)).values() if isinstance(item, int)]
    return items[0] if len(set(items)) == 1 else items or None


def _special_tokens(header: GgufHeader) -> dict[str, dict[str, Any]]:
    ids = {name: _number(header, f"tokenizer.ggml.{name}_token_id") for name in _SPECIAL}
    wanted = {name: token for name, token in ids.items() if token is not None}
    texts = array_items(header, _TOKENS, wanted.values())
    return {name: {"id": token, "text": _text(texts.get(token, ""))} for name, token in wanted.items()}


def _encoder(header: GgufHeader) -> dict[str, Any]:
    def has(kind: str) -> bool:
        return bool(header.metadata.get(f"clip.has_{kind}_encoder", False))

    kinds = [kind for kind in ("vision", "audio") if has(kind)]
    return {
        "sees": has("vision"),
        "hears": has("audio"),
        "projector": _text(
            header.metadata.get("clip.projector_type", header.metadata.get("clip.vision.projector_type", ""))
        ),
        "n_embd": next((_number(header, f"clip.{kind}.projection_dim") for kind in kinds), None),
        "image_size": _number(header, "clip.vision.image_size"),
        "patch_size": _number(header, "clip.vision.patch_size"),
        "n_layers": next((_number(header, f"clip.{kind}.block_count") for kind in kinds), None),
        "max_picture_tokens": largest_picture_tokens(header),
    }


def _adapter(header: GgufHeader) -> dict[str, Any]:
    ranks = {
        tensor.shape[1] for name, tensor in header.tensors.items() if name.endswith(".lora_a") and tensor.shape[1:]
    }
    alpha = header.metadata.get("adapter.lora.alpha")
    return {
        "adapter_type": _text(header.metadata.get("adapter.type", "")),
        "alpha": alpha if isinstance(alpha, float) and math.isfinite(alpha) else None,
        "ranks": sorted(ranks)[:16],
        "n_weights_changed": sum(name.endswith(".lora_a") for name in header.tensors),
    }


def _nothing(header: GgufHeader) -> dict[str, Any]:
    return {"n_tokens": header.lengths[_TOKENS]} if _TOKENS in header.lengths else {}


def _number(header: GgufHeader, key: str) -> int | None:
    value = header.metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
