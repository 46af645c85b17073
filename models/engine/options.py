"""How an engine is made; conflicts between the options are found here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hearth.models.errors import RequestError

DEFAULT_N_CTX_LIMIT = 8192  # tokens, for models trained on more, when n_ctx is not set
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ
MAX_LORA_SCALE = 100.0
MAX_ROPE_FREQ_BASE = 1e15
MIN_ROPE_FREQ_SCALE = 1e-6

RopeScalingType = Literal["none", "linear", "yarn"]
YARN_OPTIONS = ("yarn_orig_ctx", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A LoRA adapter and how much of it is added to the weights: 1 all, 0 nothing. Raises RequestError."""

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or abs(self.scale) > MAX_LORA_SCALE:
            limit = f"{MAX_LORA_SCALE:g}"
            raise RequestError(f"lora {self.path}: scale {self.scale} must be within -{limit}..{limit}; 1 is usual")

    @classmethod
    def parse(cls, text: str) -> LoraAdapter:
        """From ``PATH``, ``PATH:SCALE`` or ``PATH=SCALE``. The colon of ``C:\\…`` belongs to the path, and so does all
        of a text that is the name of a file."""
        place = max(text.rfind(":"), text.rfind("="))
        path, scale = text[:place], text[place + 1 :]
        is_drive = place == 1 and text[0].isalpha() and text[1] == ":"
        if place < 1 or is_drive or Path(text).expanduser().exists():
            path, scale = text, "1"
        elif "/" in scale or "\\" in scale or scale.endswith(".gguf"):
            path, scale = text, "1"  # the sign stands in the path
        if not path.strip():
            raise RequestError(f"lora {text!r} names no file; write PATH or PATH:SCALE")
        try:
            number = float(scale)
        except ValueError:
            raise RequestError(f"lora {text!r}: {scale!r} is not a number; write PATH or PATH:SCALE") from None
        return cls(Path(path).expanduser(), number)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Sizes in tokens. Raises RequestError naming the option and its range.

    ``n_ctx`` None is what the model was trained on, at most 8,192, and less if memory is short. ``n_gpu_layers`` -1
    puts as many on the accelerator as fit, if llama.cpp was built for one. ``check_fit`` False loads a model without
    looking whether memory suffices. ``n_threads`` None is the number of physical cores, but one for
    the single tokens of a small model. ``n_sequences`` is how many conversations stay in the KV cache side by side;
    they share its ``n_ctx`` cells, and at most ``n_parallel`` of them are answered at a time. Without ``kv_unified``
    each of ``n_parallel`` conversations has ``n_ctx`` cells of its own: it takes so many times the memory, answers to
    chats with nothing in common are quicker together, and idle chats come back from disk. ``prompt_lookup`` guesses
    tokens from what stood before, ``draft_model`` is a small model of the same vocabulary that guesses where it cannot.

    ``rope_scaling`` lets a model read more than it was trained on. Without ``rope_freq_scale``, the share to which
    positions shrink, it is what ``n_ctx`` needs. None is the model's own, here and in what follows it.
    """

    n_ctx: int | None = None
    n_gpu_layers: int = -1
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash_attention: bool = True
    kv_unified: bool = True
    n_batch: int = 512
    n_ubatch: int = 512
    n_threads: int | None = None
    n_sequences: int = 16
    n_parallel: int = 4
    kv_min_worth_s: float = 0.02  # a prefix that is computed in less is not saved on disk
    kv_resume: bool = False  # the chat used last is loaded from disk at the start, before it is asked for
    prompt_lookup: bool = True
    draft_model: Path | None = None
    mmproj: Path | None = None  # the model's encoder of pictures and sounds
    lora: tuple[LoraAdapter, ...] = ()
    rope_scaling: RopeScalingType | None = None
    rope_freq_base: float | None = None
    rope_freq_scale: float | None = None
    yarn_orig_ctx: int | None = None  # tokens the model was trained on before it was stretched
    yarn_ext_factor: float | None = None  # 1: positions are extrapolated as YaRN does, 0: all interpolated
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    check_fit: bool = True

    @property
    def n_kept(self) -> int:
        """Conversations in the KV cache."""
        return self.n_sequences if self.kv_unified else min(self.n_parallel, self.n_sequences)

    def __post_init__(self) -> None:
        if self.kv_type not in ("f16", "q8_0", "q4_0"):
            raise RequestError(f"kv_type is {self.kv_type!r}; choose f16, q8_0 or q4_0")
        if self.kv_type != "f16" and not self.flash_attention:
            raise RequestError(f"kv_type {self.kv_type} needs flash_attention; turn it on or choose f16")
        if not self.kv_unified and not self.flash_attention:
            raise RequestError("kv_unified false needs flash_attention; turn it on or leave kv_unified out")
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
        for first, adapter in enumerate(self.lora):
            if any(adapter.path == other.path for other in self.lora[:first]):
                raise RequestError(f"lora {adapter.path} is named twice; name it once with the sum of the scales")
        self._check_rope()

    def _check_rope(self) -> None:
        if self.rope_scaling not in (None, "none", "linear", "yarn"):
            raise RequestError(f"rope_scaling is {self.rope_scaling!r}; choose none, linear or yarn, or leave it out")
        for name, low, high in (
            ("rope_freq_base", 1.0, MAX_ROPE_FREQ_BASE),
            ("rope_freq_scale", MIN_ROPE_FREQ_SCALE, 1.0),
            ("yarn_orig_ctx", 32, 1 << 24),
            ("yarn_ext_factor", 0.0, 1.0),
            ("yarn_attn_factor", 0.01, 100.0),
            ("yarn_beta_fast", 0.01, 10_000.0),
            ("yarn_beta_slow", 0.01, 10_000.0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # nor is a NaN
                hint = "; 0.25 makes a context four times as long" if name == "rope_freq_scale" else ""
                raise RequestError(f"{name} is {value!r}; it must be within {low:g}..{high:g}{hint}")
        if self.rope_scaling == "none" and self.rope_freq_scale is not None:
            raise RequestError(
                f"rope_freq_scale {self.rope_freq_scale} does nothing with rope_scaling none; leave one of them out"
            )
        for name in YARN_OPTIONS:
            if getattr(self, name) is not None and self.rope_scaling != "yarn":
                raise RequestError(
                    f"{name} needs rope_scaling yarn, not {self.rope_scaling}; set it or leave {name} out"
                )
        if self.yarn_attn_factor is not None and self.yarn_ext_factor != 0:
            raise RequestError(
                f"yarn_attn_factor {self.yarn_attn_factor} does nothing unless yarn_ext_factor is 0: it follows from "
                "the scale; leave it out"
            )
