"""Loads what an engine runs on, in the order that llama.cpp needs: model, adapters, context, draft model."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import c_float
from dataclasses import dataclass, field, replace
from pathlib import Path

from hearth.models.cpu import physical_cores
from hearth.models.engine.draft import DraftModel
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.rope import fingerprint_of_rope, n_positions
from hearth.models.engine.settling import settle
from hearth.models.engine.sizes import context_options, token_threads
from hearth.models.errors import EngineError, ModelFileError, WontFitError
from hearth.models.fingerprint import model_fingerprint
from hearth.models.gguf_header import GgufHeader, check_gguf
from hearth.models.llama import LlamaModel, build_id
from hearth.models.llama_adapters import LlamaAdapter
from hearth.models.llama_context import LlamaContext
from hearth.models.mtmd import MediaEncoder
from hearth.models.types import ModelInfo

# what llama.cpp and its backends say when they get no memory
_OUT_OF_MEMORY = re.compile(r"alloc|out of memory|not enough memory|insufficient memory", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an engine owns of native code. ``close()`` frees it in the right order."""

    model: LlamaModel
    context: LlamaContext
    info: ModelInfo
    draft: DraftModel | None = None
    media: MediaEncoder | None = None
    _owned: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        self._owned.close()


def load_parts(path: Path, options: EngineOptions, progress: Callable[[float], bool] | None = None) -> EngineParts:
    """``progress`` gets 0..1 while the model is read and returns False to stop.

    Raises ModelFileError (what is wrong with which file), RequestError (an option that this model cannot have) and
    EngineError (stopped), which is WontFitError where memory does not suffice.
    """
    header = check_gguf(path)
    options, note = settle(path, header, options)
    try:
        return _load(path, header, options, note, progress)
    except (ModelFileError, EngineError) as error:
        if not _OUT_OF_MEMORY.search(str(error)):
            raise
        layers = "" if options.n_gpu_layers == 0 else "fewer n_gpu_layers (0 for none), "
        raise WontFitError(
            f"memory ran out while {path.name} was loaded ({error}); try {layers}a smaller n_ctx, kv_type q8_0, or "
            "another quantization of the model"
        ) from error


def _load(
    path: Path,
    header: GgufHeader,
    options: EngineOptions,
    note: str,
    progress: Callable[[float], bool] | None,
) -> EngineParts:
    """As ``load_parts``, with settled options."""
    with ExitStack() as owned:
        model = LlamaModel.load(path, n_gpu_layers=options.n_gpu_layers, progress=progress)
        owned.callback(model.close)
        adapters: list[tuple[LlamaAdapter, float]] = []
        for lora in options.lora:
            adapter = LlamaAdapter.load(model, lora.path, header)
            owned.callback(adapter.close)
            adapters.append((adapter, c_float(lora.scale).value))
        context = LlamaContext(model, context_options(model, options, header))
        owned.callback(context.close)
        if adapters:
            context.set_adapters([(adapter.handle, scale) for adapter, scale in adapters])
        draft = _load_draft(context, options, progress) if options.draft_model is not None else None
        if draft is not None:
            owned.callback(draft.close)
        media = _load_encoder(model, options) if options.mmproj is not None else None
        if media is not None:
            owned.callback(media.close)
        settings = (
            build_id(),
            options.kv_type,
            f"flash_attention={options.flash_attention}",
            fingerprint_of_rope(context.options.rope, header, context.n_ctx_seq),
            # one that is added zero times changes nothing; the others' order does not matter
            *sorted(f"lora={adapter.sha256}*{scale!r}" for adapter, scale in adapters if scale),
        )
        info = _model_info(model, context, model_fingerprint(header, *settings))
        n_ctx = min(context.n_ctx_seq, n_positions(model, header) or context.n_ctx_seq)
        info = replace(info, n_ctx=n_ctx, media=media.info if media is not None else None, fit_note=note)
        return EngineParts(model, context, info, draft, media, owned.pop_all())


def _load_draft(target: LlamaContext, options: EngineOptions, progress: Callable[[float], bool] | None) -> DraftModel:
    assert options.draft_model is not None
    # the second time over the same progress would run backwards
    goes_on = None if progress is None else lambda _: progress(1.0)
    model = LlamaModel.load(options.draft_model, n_gpu_layers=options.n_gpu_layers, progress=goes_on)
    try:
        return DraftModel(model, target, token_threads(model, options))
    except BaseException:
        model.close()
        raise


def _load_encoder(model: LlamaModel, options: EngineOptions) -> MediaEncoder:
    assert options.mmproj is not None
    n_threads = options.n_threads or physical_cores()
    return MediaEncoder.load(options.mmproj, model, n_threads=n_threads, on_gpu=options.n_gpu_layers != 0)


def _model_info(model: LlamaModel, context: LlamaContext, fingerprint: str) -> ModelInfo:
    return ModelInfo(
        name=model.metadata("general.name") or model.path.stem,
        path=model.path,
        fingerprint=fingerprint,
        n_ctx=context.n_ctx_seq,
        n_ctx_train=model.n_ctx_train,
        n_embd=model.n_embd_inp,  # the width of what embed() gives; wider than the model's own in a few architectures
        n_vocab=model.n_vocab,
        n_params=model.n_params,
        size_bytes=model.size_bytes,
        chat_template=model.chat_template,
        bos_token=model.special_token("bos"),
        eos_token=model.special_token("eos"),
        add_bos=model.add_bos,
    )
