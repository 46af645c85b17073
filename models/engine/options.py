"""How an engine is made; conflicts between the options are found here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hearth.models.errors import RequestError

DEFAULT_N_CTX_LIMIT = 8192  # tokens, for models trained on more, when n_ctx is not set
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Sizes in tokens. Raises RequestError naming the option and its range.

    ``n_ctx`` None is what the model was trained on, at most 8,192. ``n_gpu_layers`` -1 puts all on the accelerator if
    llama.cpp was built for one. ``n_threads`` None is the number of physical cores, but one for
    the single tokens of a small model. ``n_sequences`` is how many conversations stay in the KV cache side by side;
    they share its ``n_ctx`` cells, and at most ``n_parallel`` of them are answered at a time. ``prompt_lookup`` guesses
    tokens from what stood before.
    """

    n_ctx: int | None = None
    n_gpu_layers: int = -1
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: bool = True
    n_batch: int = 512
    n_ubatch: int = 512
    n_threads: int | None = None
    n_sequences: int = 16
    n_parallel: int = 4
    prompt_lookup: bool = True

    def __post_init__(self) -> None:
        if self.kv_type not in ("f16", "q8_0", "q4_0"):
            raise RequestError(f"kv_type is {self.kv_type!r}; choose f16, q8_0 or q4_0")
        if self.kv_type != "f16" and not self.flash_attention:
            raise RequestError(f"kv_type {self.kv_type} needs flash_attention; turn it on or choose f16")
        for name, low, high in (
            ("n_ctx", 32, 1 << 24),
            ("n_gpu_layers", -1, 10_000),
            ("n_batch", 1, 65_536),
            ("n_ubatch", 1, 65_536),
            ("n_threads", 1, 1024),
            ("n_sequences", 1, MAX_SEQUENCES - 1),
            ("n_parallel", 1, MAX_SEQUENCES - 1),
        ):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not low <= value <= high):
                raise RequestError(f"{name} is {value!r}; it must be within {low}..{high}")
        if self.n_ubatch > self.n_batch:
            raise RequestError(f"n_ubatch {self.n_ubatch} is larger than n_batch {self.n_batch}; lower it")
