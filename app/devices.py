"""Which devices this build of llama.cpp can compute on, and which it leaves unused."""

from __future__ import annotations

from pathlib import Path

from hearth.models.machine_memory import Device as Device


def devices() -> tuple[Device, ...]:
    """All devices of llama.cpp, the processor among them. Raises ImportError or OSError if it cannot be loaded."""
    from hearth.models import llama_plan

    return llama_plan.devices()


def unused_accelerator() -> str | None:
    """The ``ACCEL`` whose driver this machine has, for a build that has no GPU; None if no driver shows itself."""
    if Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    if Path("/dev/kfd").exists():
        return "hip"
    return None
