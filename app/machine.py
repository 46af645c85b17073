"""What this machine is: system, memory and disk, asked of the operating system alone."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM in bytes; ``available_bytes`` is what can be had without swapping, None where the system does not say."""

    total_bytes: int
    available_bytes: int | None


def system_name() -> str:
    """The operating system, its release and the processor's architecture."""
    release = platform.release()
    if platform.system() == "Linux":
        with contextlib.suppress(OSError):
            release = platform.freedesktop_os_release().get("PRETTY_NAME", release)
    return f"{platform.system()} ({release}), {platform.machine()}"


def memory() -> Memory | None:
    """The machine's RAM, or None where neither /proc nor sysconf tells."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
        return Memory(kib["MemTotal"] * 1024, kib.get("MemAvailable", 0) * 1024 or None)
    except (OSError, KeyError, ValueError):
        pass
    try:
        return Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None)
    except (AttributeError, OSError, ValueError):
        return None


def disk_free_bytes(path: Path) -> int:
    """Free bytes where ``path`` is or would be created. Raises OSError."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
