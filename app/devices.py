"""Which devices this build of llama.cpp can compute on."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

DeviceKind = Literal["cpu", "gpu", "integrated gpu", "accelerator"]
_KINDS: Final[tuple[DeviceKind, ...]] = ("cpu", "gpu", "integrated gpu", "accelerator")  # enum ggml_backend_dev_type


@dataclass(frozen=True, slots=True)
class Device:
    """A device as ggml names it; memory in bytes, 0 where it does not tell."""

    name: str
    description: str
    kind: DeviceKind
    free_bytes: int
    total_bytes: int


def devices() -> tuple[Device, ...]:
    """All devices of llama.cpp, the processor among them. Raises ImportError or OSError if it cannot be loaded."""
    from hearth.models import llama

    libggml: Any = llama.libggml  # type: ignore[attr-defined]
    for name, result, arguments in (
        ("count", ctypes.c_size_t, []),
        ("get", ctypes.c_void_p, [ctypes.c_size_t]),
        ("name", ctypes.c_char_p, [ctypes.c_void_p]),
        ("description", ctypes.c_char_p, [ctypes.c_void_p]),
        ("type", ctypes.c_int, [ctypes.c_void_p]),
        ("memory", None, [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)]),
    ):
        function = getattr(libggml, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = result, arguments
    count = libggml.ggml_backend_dev_count()
    return tuple(_device(libggml, libggml.ggml_backend_dev_get(index)) for index in range(count))


def _device(libggml: Any, handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    kind = libggml.ggml_backend_dev_type(handle)
    return Device(
        name=libggml.ggml_backend_dev_name(handle).decode("utf-8", "replace"),
        description=libggml.ggml_backend_dev_description(handle).decode("utf-8", "replace"),
        kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else "accelerator",
        free_bytes=free.value,
        total_bytes=total.value,
    )


def unused_accelerator() -> str | None:
    """The ``ACCEL`` whose driver this machine has, for a build that has no GPU; None if no driver shows itself."""
    if Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    if Path("/dev/kfd").exists():
        return "hip"
    return None
