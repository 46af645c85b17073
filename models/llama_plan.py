"""What llama.cpp would take of which device's memory for a model and a context, by its own planning without loading.

A model loaded with ``no_alloc`` has its tensors laid out and no weights; a context of it has its graph planned. What
came out is asked of llama.cpp by a function that is exported but has no C interface: it returns a ``std::map``, whose
nodes are read here. Where that function is missing, the header and the log tell less exactly.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hearth.models.gguf_header import GgufHeader, tensor_bytes
from hearth.models.llama import capture_log, libggml, native
from hearth.models.llama_context import LlamaContext
from hearth.models.machine_memory import Device, DeviceKind

_KINDS: tuple[DeviceKind, ...] = ("cpu", "gpu", "integrated gpu", "accelerator")  # enum ggml_backend_dev_type
_BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"
MAX_BUFFERS = 64  # types of buffers; a machine has a handful
_MIB = 1 << 20
_COMPUTE_LINE = re.compile(r"sched_reserve:\s+(\S+) compute buffer size =\s*([\d.]+) MiB")
_KV_LINE = re.compile(r": size =\s*([\d.]+) MiB \(")


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Bytes of one type of buffer. ``device`` is None in the machine's RAM; ``is_mapped``: the weights in it are pages
    of the file, which the system may take back and read again."""

    name: str
    device: str | None
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    is_mapped: bool = False

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


def devices() -> tuple[Device, ...]:
    """All devices of llama.cpp, the processor among them. Raises ImportError or OSError if it cannot be loaded."""
    ggml = _ggml()
    return tuple(_device(ggml, ggml.ggml_backend_dev_get(index)) for index in range(ggml.ggml_backend_dev_count()))


def planned_buffers(context: LlamaContext, header: GgufHeader, n_gpu_layers: int) -> tuple[BufferPlan, ...]:
    """Of a context whose model was loaded with ``no_alloc``. ``header`` is that of all parts of the file."""
    function = getattr(native._lib, _BREAKDOWN, None)
    entries = None
    if function is not None:
        entries = map_values(function, (ctypes.c_void_p,), context.handle, n_words=3)
    if entries is None:
        return _from_log(context, header, n_gpu_layers)
    ggml = _ggml()
    return tuple(_buffer(ggml, *entry) for entry in entries)  # weights, KV, compute


def output_bytes(context: LlamaContext) -> int:
    """Of the logits that a context keeps for the host, which the plan leaves out."""
    rows = context.options.n_outputs_max or context.n_batch
    return 4 * context.model.n_vocab * max(rows, context.options.n_seq_max)


class _MapReturn(ctypes.Structure):
    """Room for a ``std::map`` of any implementation. More than 16 bytes are returned in memory, as the map is."""

    _fields_ = (("words", ctypes.c_size_t * 8),)


def map_values(
    function: Any, argument_types: tuple[Any, ...], *arguments: Any, n_words: int
) -> list[tuple[int, ...]] | None:
    """(key, then ``n_words`` of the value) of every entry of the ``std::map`` that a native function returns; None if
    it is laid out in a way that is not known. Its nodes are not freed: a few hundred bytes a call."""
    function.restype, function.argtypes = _MapReturn, argument_types
    words = tuple(function(*arguments).words)
    # libstdc++: comparator, colour, root, first, last, size; nodes are colour, parent, left, right, value
    if 0 < words[5] <= MAX_BUFFERS and all(words[2:5]):
        found = list(_nodes(words[2], 2, 3, n_words))
        return found if len(found) == words[5] else None
    # libc++: first, root, size; nodes are left, right, parent, colour, value
    if 0 < words[2] <= MAX_BUFFERS and words[0] and words[1] and not any(words[3:]):
        found = list(_nodes(words[1], 0, 1, n_words))
        return found if len(found) == words[2] else None
    return None


def _nodes(address: int, left: int, right: int, n_words: int) -> Iterator[tuple[int, ...]]:
    """In both implementations the value begins behind four words."""
    pending, seen = [address], 0
    while pending and seen <= MAX_BUFFERS:
        node = (ctypes.c_size_t * (5 + n_words)).from_address(pending.pop())
        seen += 1
        pending.extend(child for child in (node[left], node[right]) if child)
        yield tuple(node[4:])


def _buffer(ggml: Any, buffer_type: int, weights: int, kv: int, compute: int) -> BufferPlan:
    name = ggml.ggml_backend_buft_name(buffer_type).decode("utf-8", "replace")
    on_host = ggml.ggml_backend_buft_is_host(buffer_type)
    device = None if on_host else ggml.ggml_backend_buft_get_device(buffer_type)
    if device and ggml.ggml_backend_dev_type(device) == _KINDS.index("cpu"):
        device = None  # repacked weights are not read by others, but lie in RAM
    device_name = ggml.ggml_backend_dev_name(device).decode("utf-8", "replace") if device else None
    return BufferPlan(name, device_name, weights, kv, compute, is_mapped=name == "CPU")


def _from_log(context: LlamaContext, header: GgufHeader, n_gpu_layers: int) -> tuple[BufferPlan, ...]:
    """Weights from the header, the rest from what llama.cpp says while it plans a second time; the share of the first
    GPU is that of its layers."""
    with capture_log() as lines:
        LlamaContext(context.model, context.options).close()
    kv = sum(float(match[1]) for line in lines if (match := _KV_LINE.search(line))) * _MIB
    compute = {match[1]: float(match[2]) * _MIB for line in lines if (match := _COMPUTE_LINE.search(line))}
    weights = sum(tensor_bytes(tensor) for tensor in header.tensors.values())
    gpu = next((device for device in devices() if device.kind in ("gpu", "integrated gpu")), None)
    n_layers = context.model.n_layer + 1
    share = 0.0 if gpu is None else (n_layers if n_gpu_layers < 0 else min(n_gpu_layers, n_layers)) / n_layers
    on_gpu = sum(size for name, size in compute.items() if name != "CPU")
    host = BufferPlan(
        "CPU", None, int(weights * (1 - share)), int(kv * (1 - share)), int(compute.get("CPU", 0)), is_mapped=True
    )
    if gpu is None or not share:
        return (host,)
    return (BufferPlan(gpu.name, gpu.name, int(weights * share), int(kv * share), int(on_gpu)), host)


def _ggml() -> Any:
    ggml: Any = libggml
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    for name, result, arguments in (
        ("dev_count", size, []),
        ("dev_get", pointer, [size]),
        ("dev_name", text, [pointer]),
        ("dev_description", text, [pointer]),
        ("dev_type", ctypes.c_int, [pointer]),
        ("dev_memory", None, [pointer, ctypes.POINTER(size), ctypes.POINTER(size)]),
        ("buft_name", text, [pointer]),
        ("buft_is_host", ctypes.c_bool, [pointer]),
        ("buft_get_device", pointer, [pointer]),
    ):
        function = getattr(ggml, f"ggml_backend_{name}")
        function.restype, function.argtypes = result, arguments
    return ggml


def _device(ggml: Any, handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    kind = ggml.ggml_backend_dev_type(handle)
    return Device(
        name=ggml.ggml_backend_dev_name(handle).decode("utf-8", "replace"),
        description=ggml.ggml_backend_dev_description(handle).decode("utf-8", "replace"),
        kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else "accelerator",
        free_bytes=free.value,
        total_bytes=total.value,
    )
