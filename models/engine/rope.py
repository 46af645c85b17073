"""How far a model reads and how its positions are turned for that: n_ctx, RoPE scaling, and what KV depends on."""

from __future__ import annotations

import logging
from dataclasses import astuple
from typing import TYPE_CHECKING

from hearth.models.engine.options import DEFAULT_N_CTX_LIMIT, YARN_OPTIONS, EngineOptions
from hearth.models.errors import RequestError

if TYPE_CHECKING:
    from hearth.models.gguf_header import GgufHeader
    from hearth.models.llama import LlamaModel
    from hearth.models.llama_context import RopeScaling

logger = logging.getLogger("hearth.engine")

CELLS_STEP = 256  # llama.cpp rounds n_ctx up to a multiple of it
_POSITION_TABLE = "position_embd.weight"
_LONG_FACTORS = "rope_factors_long.weight"


def choose_n_ctx(options: EngineOptions, model: LlamaModel) -> int:
    """The given one, or what the model was trained on, stretched as the options say, at most 8,192."""
    if options.n_ctx is not None:
        return options.n_ctx
    n_reach = model.n_ctx_train
    if options.rope_freq_scale is not None:
        n_reach = max(n_reach, round(_n_unscaled(options, model) / options.rope_freq_scale))
    return min(n_reach, DEFAULT_N_CTX_LIMIT)


def choose_rope(
    options: EngineOptions, model: LlamaModel, header: GgufHeader, n_ctx: int, *, quiet: bool = False
) -> RopeScaling:
    """The scaling for ``n_ctx`` tokens. Warns if the model was not made for so many, unless ``quiet``.

    Raises RequestError for a model that has no rotary positions to scale, or a table of positions that ends before.
    """
    from hearth.models.llama_context import RopeScaling

    scaling = options.rope_scaling
    warn = logger.debug if quiet else logger.warning
    if not model.has_rope and _is_set(options):
        raise RequestError(
            f"{model.path.name}: a model of architecture {header.architecture!r} has no rotary positions; "
            "leave rope_scaling and its options out"
        )
    limit = n_positions(model, header)
    if limit is not None and n_ctx > limit:
        raise RequestError(f"n_ctx is {n_ctx:,}, but {model.path.name} knows {limit:,} positions; lower n_ctx")
    freq_scale = options.rope_freq_scale
    if freq_scale is None and scaling in ("linear", "yarn"):
        # what the model was trained with, if that is enough
        freq_scale = min(_n_unscaled(options, model) / n_ctx, model.rope_freq_scale_train)
        if freq_scale == model.rope_freq_scale_train:
            warn("rope_scaling %s changes nothing up to n_ctx %s; raise n_ctx", scaling, f"{n_ctx:,}")
    elif n_ctx > model.n_ctx_train and freq_scale is None and model.has_rope:
        warn(
            "n_ctx %s is more than the %s tokens that %s was trained on: what it says behind them gets worse; "
            "set rope_scaling = 'yarn' for longer texts, or lower n_ctx",
            *(f"{n_ctx:,}", f"{model.n_ctx_train:,}", model.path.name),
        )
    return RopeScaling(
        scaling=scaling,
        freq_base=options.rope_freq_base or 0.0,
        freq_scale=freq_scale or 0.0,
        yarn_orig_ctx=options.yarn_orig_ctx or 0,
        **{name: -1.0 if (value := getattr(options, name)) is None else value for name in YARN_OPTIONS[1:]},
    )


def n_positions(model: LlamaModel, header: GgufHeader) -> int | None:
    """How many positions a model has learnt one by one; None if they are computed. llama.cpp ends the process behind
    the last one."""
    return model.n_ctx_train if _POSITION_TABLE in header.tensors else None


def fingerprint_of_rope(rope: RopeScaling, header: GgufHeader, n_ctx: int) -> str:
    """All that turns positions beside the model's own numbers: keys that were turned otherwise must not be mixed."""
    from hearth.models.llama_context import RopeScaling

    text = "rope=model" if rope == RopeScaling() else f"rope={astuple(rope)}"
    original = header.metadata.get(f"{header.architecture}.rope.scaling.original_context_length")
    if _LONG_FACTORS in header.tensors and isinstance(original, int):
        text += f",long={n_ctx > original}"  # llama.cpp chooses the factors by the size of the context
    return text


def _n_unscaled(options: EngineOptions, model: LlamaModel) -> float:
    """Tokens that the model reads without any scaling."""
    return options.yarn_orig_ctx or model.n_ctx_train * model.rope_freq_scale_train


def _is_set(options: EngineOptions) -> bool:
    names = ("rope_scaling", "rope_freq_base", "rope_freq_scale", *YARN_OPTIONS)
    return any(getattr(options, name) is not None for name in names)
