"""What context an engine makes of its options for a model: the same for planning and for loading."""

from __future__ import annotations

from hearth.models.cpu import physical_cores
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.rope import choose_n_ctx, choose_rope
from hearth.models.engine.speculation import LOOKUP_LENGTHS
from hearth.models.errors import RequestError
from hearth.models.gguf_header import GgufHeader
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import ContextOptions

CTX_STEP = 256  # what llama.cpp rounds contexts up to
SMALL_MODEL_PARAMS = 64_000_000  # below this, waking a second thread costs more than its share of one token


def context_options(
    model: LlamaModel, options: EngineOptions, header: GgufHeader, *, quiet: bool = False
) -> ContextOptions:
    """Warns of a context that the model was not made for, unless ``quiet``.

    Raises RequestError for options that this model cannot have.
    """
    check_separable(model, options)
    n_ctx = choose_n_ctx(options, model)
    n_batch = min(options.n_batch, n_ctx)
    n_seq_max = options.n_kept + options.kv_unified  # blocks pass through the last one
    return ContextOptions(
        n_ctx=n_ctx if options.kv_unified else n_seq_max * -(-n_ctx // CTX_STEP) * CTX_STEP,
        n_batch=max(n_batch, n_seq_max),  # llama.cpp wants room for a row of every sequence
        n_ubatch=min(options.n_ubatch, n_batch),
        n_seq_max=n_seq_max,
        n_outputs_max=min(max(n_rows_wanted(options), n_seq_max), max(n_batch, n_seq_max)),
        n_threads=token_threads(model, options),
        n_threads_batch=options.n_threads or physical_cores(),
        kv_type=options.kv_type,
        flash_attention=options.flash_attention,
        kv_unified=options.kv_unified,
        rope=choose_rope(options, model, header, n_ctx, quiet=quiet),
    )


def check_separable(model: LlamaModel, options: EngineOptions) -> None:
    """Raises RequestError if sequences are to have cells of their own and the model cannot be cut then."""
    if options.kv_unified or not (model.is_recurrent or model.is_hybrid or model.n_swa):
        return
    kind = "a sliding window" if model.n_swa else "a state that cannot be cut"
    raise RequestError(f"kv_unified false is not for {model.path.name}, which has {kind}; leave it out")


def n_rows_wanted(options: EngineOptions) -> int:
    """Rows of one batch whose logits are wanted, at most: the last token of every request and guesses behind it.

    llama.cpp keeps room for that many rows as wide as the vocabulary, twice: for all of a batch that is 600 MB.
    """
    return min(options.n_parallel, options.n_kept) * (1 + LOOKUP_LENGTHS[-1])


def token_threads(model: LlamaModel, options: EngineOptions) -> int:
    """For one token at a time."""
    if options.n_threads is None and model.n_params < SMALL_MODEL_PARAMS:
        return 1
    return options.n_threads or physical_cores()
