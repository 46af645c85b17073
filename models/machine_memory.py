"""How much memory this machine has left for a model: RAM as the system and its containers allow, and every GPU."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNKNOWN_FREE_SHARE = 0.7  # of the RAM, where the system does not say what is free
_UNLIMITED = 1 << 60  # cgroup version 1 writes a number for "no limit"


DeviceKind = Literal["cpu", "gpu", "integrated gpu", "accelerator"]


@dataclass(frozen=True, slots=True)
class Device:
    """A device as ggml names it; memory in bytes, 0 where it does not tell."""

    name: str
    description: str
    kind: DeviceKind
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of one device, or the RAM. ``in_ram``: a device that has none of its own and takes the machine's."""

    name: str
    free_bytes: int
    total_bytes: int
    in_ram: bool = False


def ram(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Room | None:
    """What can be had without swapping, within the limits of the container; None where the system does not tell."""
    room = _meminfo(proc / "meminfo") or _sysconf()
    if room is None:
        return None
    free, total = room.free_bytes, room.total_bytes
    for limit, left in _cgroup_limits(proc, cgroups):
        total, free = min(total, limit), min(free, left)
    return Room("RAM", max(free, 0), total)


def rooms() -> tuple[Room, ...]:
    """The RAM, if the system tells, and every GPU of llama.cpp. Raises ImportError or OSError without llama.cpp."""
    from hearth.models.llama_plan import devices

    found, of_ram = devices(), ram()
    if of_ram is None:
        cpu = next((device for device in found if device.kind == "cpu" and device.total_bytes), None)
        of_ram = Room("RAM", cpu.free_bytes, cpu.total_bytes) if cpu is not None else None
    gpus = tuple(
        Room(device.name, device.free_bytes, device.total_bytes, device.kind == "integrated gpu" or _is_apple())
        for device in found
        if device.kind in ("gpu", "integrated gpu") and device.total_bytes
    )
    return (of_ram, *gpus) if of_ram is not None else gpus


def _is_apple() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _meminfo(path: Path) -> Room | None:
    try:
        lines = path.read_text("ascii").splitlines()
        kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
        return Room("RAM", 1024 * kib["MemAvailable"], 1024 * kib["MemTotal"])
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _sysconf() -> Room | None:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return Room("RAM", int(UNKNOWN_FREE_SHARE * total), total)


def _cgroup_limits(proc: Path, cgroups: Path) -> list[tuple[int, int]]:
    """(limit, what is left of it) of every group this process is in that has one. Pages of files that were not used
    lately count as left: they go when memory is wanted."""
    limits: list[tuple[int, int]] = []
    for folder, limit_name, usage_name, file_pages in _groups(proc, cgroups):
        try:
            limit = int((folder / limit_name).read_text())
            usage = int((folder / usage_name).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cold = int(stat.get(file_pages, 0))
        except (OSError, ValueError):
            continue  # "max", or no such group
        if limit < _UNLIMITED:
            limits.append((limit, limit - max(usage - cold, 0)))
    return limits


def _groups(proc: Path, cgroups: Path) -> list[tuple[Path, str, str, str]]:
    """Folders of this process's groups and their parents, with the names of the files in them."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found: list[tuple[Path, str, str, str]] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.strip("/")
        folders = [folder, *folder.parents] if ".." not in folder.parts else [root]
        found += [(one, *names) for one in folders if one == root or root in one.parents]
        found.append((root, *names))  # inside a container, its own group is the root
    return list(dict.fromkeys(found))
