"""What an encoder file (mmproj) takes of memory, and how many tokens its largest picture becomes, without loading it.

llama.cpp plans an encoder for a picture of its choice: the largest one where all are scaled to one size, a small one
where they keep theirs. The latter is scaled up here: with flash attention, what a graph takes grows with its patches.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearth.models.gguf_header import GgufHeader, tensor_bytes

MAX_SIDE_PX = 4096  # of pictures as they reach an encoder
_MEMORY_USAGE = "_Z21mtmd_get_memory_usagePKc19mtmd_context_params"
# patches for which llama.cpp plans, and most tokens of a picture, by the projector; None: as the file says
_DYNAMIC: dict[str, tuple[int, int | None]] = {
    "qwen2vl_merger": (46 * 46, 4096),
    "qwen2.5vl_merger": (46 * 46, 4096),
    "qwen2.5o": (46 * 46, 4096),
    "qwen3vl_merger": (46 * 46, 4096),
    "ling3vl": (46 * 46, 4096),
    "glm4v": (46 * 46, 4096),
    "glm5v": (46 * 46, None),
    "exaone4_5": (46 * 46, None),
    "mimovl": (46 * 46, None),
    "dots_ocr": (46 * 46, None),
    "dots3note_v": (46 * 46, None),
    "pixtral": (256, 1024),
    "lightonocr": (256, None),
    "kimivl": (256, 1024),
    "phi4": (256, None),
    "gemma4v": (256, 1120),
    "gemma4uv": (256, 1120),
    "deepseek4v": (256, 384),
    "minimax_m3": (256, 576),
    "youtuvl": (256, 62_500),
    "paddleocr": (28 * 28, None),
    "hunyuanvl": (32 * 32, 16_384),
    "muse-glimmer": (32 * 32, 4096),
}  # fmt: skip
_MERGES = {"qwen2vl_merger": 2, "qwen2.5vl_merger": 2, "qwen2.5o": 2, "qwen3vl_merger": 2, "glm4v": 2, "gemma4v": 3}
_RESAMPLED = {"resampler": 96}  # tokens, whatever the size
_WITHOUT_PLAN_FACTOR = 28  # bytes for a patch and an element of its width: six rows of float32 and two of float16


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """Bytes of an encoder with its largest picture or sound. ``max_tokens`` of one picture; None if it sees none."""

    weights_bytes: int
    compute_bytes: int
    max_tokens: int | None
    on_gpu: bool
    picture_bytes: int = MAX_SIDE_PX**2 * 3  # of the largest picture as it comes, uint8

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.compute_bytes


def plan_encoder(path: Path, header: GgufHeader, *, on_gpu: bool) -> EncoderPlan:
    """``header`` is that of the file."""
    weights = sum(tensor_bytes(tensor) for tensor in header.tensors.values())
    sizes = _Sizes(header)
    planned = _native_bytes(path, on_gpu=on_gpu)
    if planned > weights:
        compute = (planned - weights) * sizes.growth
    else:
        compute = sizes.patches * sizes.width * _WITHOUT_PLAN_FACTOR
    compute += sizes.pixels * 3 * 4  # the picture itself, float32
    return EncoderPlan(weights, int(compute), sizes.max_tokens, on_gpu)


def largest_picture_tokens(header: GgufHeader) -> int | None:
    """Tokens of the largest picture, all its tiles together; None if the encoder sees none."""
    return _Sizes(header).max_tokens


class _Sizes:
    """What the header says of the largest picture: patches and tokens of one pass of the encoder, and of all."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        self._projector = str(
            header.metadata.get("clip.vision.projector_type", header.metadata.get("clip.projector_type", "mlp"))
        )
        self.sees = bool(header.metadata.get("clip.has_vision_encoder", False))
        patch, side = max(self._number("patch_size"), 1), self._number("image_size")
        self.width = self._number("embedding_length")
        merge = self._number("projector.scale_factor") or self._number("spatial_merge_size")
        self._merge = merge or _MERGES.get(self._projector, 1)
        fixed = (side // patch) ** 2
        self.patches, self.growth = fixed, 1.0
        if self._projector in _DYNAMIC:
            planned_tokens, limit = _DYNAMIC[self._projector]
            per_token = self._merge**2
            pixels = limit * per_token * patch**2 if limit is not None else self._pixels_of_the_file(patch)
            self.patches = min(pixels, MAX_SIDE_PX**2) // patch**2
            self.growth = max(1.0, self.patches / (planned_tokens * per_token))
        self.pixels = self.patches * patch**2 if self.sees else 0

    @property
    def max_tokens(self) -> int | None:
        if not self.sees:
            return None
        if self._projector in _RESAMPLED:
            return self._number("minicpmv_query_num") or _RESAMPLED[self._projector]
        return self.patches // self._merge**2 * self._n_tiles

    @property
    def _n_tiles(self) -> int:
        """Pieces of one picture, the whole included."""
        if self._projector == "internvl":
            return (self._number("preproc_max_tiles") or 12) + 1
        longest, side = self._number("preproc_image_size"), self._number("image_size")
        if self._projector == "idefics3" and side:
            return math.ceil((longest or MAX_SIDE_PX) / side) ** 2 + 1
        return 1

    def _pixels_of_the_file(self, patch: int) -> int:
        longest = self._number("preproc_image_size") or self._number("image_size")
        return self._number("image_max_pixels") or max(longest, patch) ** 2

    def _number(self, key: str) -> int:
        value = self._header.metadata.get(f"clip.vision.{key}", 0)
        return value if isinstance(value, int) and 0 <= value <= 1 << 30 else 0


def _native_bytes(path: Path, *, on_gpu: bool) -> int:
    """All that llama.cpp plans for the file; 0 if it cannot say."""
    from hearth.models.llama_plan import map_values
    from hearth.models.mtmd import mtmd

    library: Any = mtmd._libmtmd
    function = getattr(library, _MEMORY_USAGE, None)
    if function is None:
        return 0
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.print_timings = on_gpu, False
    entries = map_values(function, (ctypes.c_char_p, type(params)), str(path).encode(), params, n_words=1)
    return sum(size for _, size in entries or ())
