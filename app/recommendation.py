"""Which models of the catalogue suit this machine, and why: by memory, disk, accelerator and cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hearth import machine
from hearth.devices import devices
from hearth.models.catalogue import CHAT_KINDS, Catalogue, CatalogueEntry, memory_need_bytes
from hearth.models.cpu import physical_cores
from hearth.models.engine.options import DEFAULT_N_CTX_LIMIT
from hearth.models.pulling import DISK_RESERVE_BYTES

GIB: Final = 2**30
APP_BYTES: Final = int(1.5 * GIB)  # the page, speech and memory beside the model
RAM_SHARE: Final = 0.75  # what of the RAM a model may take; the rest is the system's
GPU_SHARE: Final = 0.9  # the screen and the driver have some of it
# On a processor each token reads all active weights once. Beyond this, answers come slower than people read.
ACTIVE_B_PER_CORE: Final = 2.5
MOST_ACTIVE_B_ON_PROCESSOR: Final = 9.0
SPEECH_B_PER_CORE: Final = 0.13  # Whisper small writes about as fast as people speak on two cores
MOST_SPEECH_B: Final = 1.0  # large-v3 is hardly better than its turbo, and several times as slow


@dataclass(frozen=True, slots=True)
class Resources:
    """What a model may take. ``ram_bytes`` and ``disk_bytes`` None: the system does not tell."""

    ram_bytes: int | None
    disk_bytes: int | None
    n_cores: int
    gpu_name: str = ""
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The best of the catalogue for a purpose, or, without a ``name``, why there is none."""

    purpose: str
    reason: str
    name: str = ""
    download_bytes: int = 0
    need_bytes: int = 0
    on_gpu: bool = False  # all of it fits the accelerator


def this_machine(data_dir: Path) -> Resources:
    """What this machine has. Asks the system and llama.cpp, nobody else."""
    ram = machine.memory()
    try:
        disk_bytes = machine.disk_free_bytes(data_dir)
    except OSError:
        disk_bytes = None
    try:
        gpus = [device for device in devices() if device.kind == "gpu"]
    except (ImportError, OSError, RuntimeError):  # `hearth doctor` says why
        gpus = []
    gpu = max(gpus, key=lambda device: device.total_bytes, default=None)
    return Resources(
        ram_bytes=ram.total_bytes if ram is not None else None,
        disk_bytes=disk_bytes,
        n_cores=physical_cores(),
        gpu_name=gpu.description if gpu is not None else "",
        gpu_bytes=gpu.total_bytes if gpu is not None else 0,
    )


_PURPOSES: Final[tuple[tuple[str, Callable[[CatalogueEntry], bool]], ...]] = (
    ("to answer from documents and to write", lambda entry: entry.kind in CHAT_KINDS),
    ("to see pictures", lambda entry: entry.sees),
    ("to hear recordings as they are", lambda entry: entry.hears),
    ("to write down speech", lambda entry: entry.kind == "speech" and not entry.name.endswith(".en")),
)


def recommend(catalogue: Catalogue, resources: Resources) -> tuple[Recommendation, ...]:
    """For each purpose the largest that fits the accelerator, else the largest that fits and is not too slow.

    Of equals it is the first of the catalogue. Models that may not be used for work are left out.
    """
    return tuple(_best(purpose, filter(suits, catalogue.values()), resources) for purpose, suits in _PURPOSES)


def _best(purpose: str, entries: Iterable[CatalogueEntry], resources: Resources) -> Recommendation:
    fitting: list[tuple[tuple[bool, float], Recommendation]] = []
    refused = "nothing in the catalogue"
    for entry in entries:
        if "not for commercial use" in entry.licence:
            continue
        found = _fit(entry, purpose, resources)
        if isinstance(found, str):
            refused = f"{entry.name}: {found}"
        else:
            fitting.append(((found.on_gpu, entry.parameters_b or 0.0), found))
    if not fitting:
        return Recommendation(purpose, f"nothing fits ({refused})")
    return max(fitting, key=lambda pair: pair[0])[1]


def _fit(entry: CatalogueEntry, purpose: str, resources: Resources) -> Recommendation | str:
    """The recommendation of ``entry``, or why it does not suit this machine."""
    need_bytes = memory_need_bytes(entry, min(entry.n_ctx or DEFAULT_N_CTX_LIMIT, DEFAULT_N_CTX_LIMIT))
    download_bytes = entry.download_bytes()
    if resources.disk_bytes is not None and download_bytes + DISK_RESERVE_BYTES > resources.disk_bytes:
        return f"{_gib(download_bytes)} to fetch, {_gib(resources.disk_bytes)} of disk free"
    about = "roughly" if entry.kind in CHAT_KINDS and entry.kv_bytes_per_token is None else "about"
    active_b = entry.active_b or entry.parameters_b or 0.0
    if need_bytes <= resources.gpu_bytes * GPU_SHARE and not (entry.kind == "speech" and active_b > MOST_SPEECH_B):
        where = f"{about} {_gib(need_bytes)} of the {_gib(resources.gpu_bytes)} of {resources.gpu_name}"
        return Recommendation(purpose, where, entry.name, download_bytes, need_bytes, on_gpu=True)
    most_b = _most_active_b(entry, resources.n_cores)
    if active_b > most_b:
        return f"{active_b:g} billion parameters a token are too slow for {resources.n_cores} cores"
    if resources.ram_bytes is not None and need_bytes + APP_BYTES > resources.ram_bytes * RAM_SHARE:
        return f"needs {about} {_gib(need_bytes)}, memory is {_gib(resources.ram_bytes)}"
    ram = "" if resources.ram_bytes is None else f" of {_gib(resources.ram_bytes)}"
    count = f"{active_b:g} billion" if active_b >= 1 else f"{active_b * 1000:.0f} million"
    speed = f"{count} parameters a token" if entry.active_b else f"{count} parameters"
    cores = f"{resources.n_cores} core{'' if resources.n_cores == 1 else 's'}"
    return Recommendation(
        purpose,
        f"{about} {_gib(need_bytes)} of memory{ram}; {speed} for {cores}",
        entry.name,
        download_bytes,
        need_bytes,
    )


def _most_active_b(entry: CatalogueEntry, n_cores: int) -> float:
    if entry.kind == "speech":
        return min(SPEECH_B_PER_CORE * n_cores, MOST_SPEECH_B)
    return min(ACTIVE_B_PER_CORE * n_cores, MOST_ACTIVE_B_ON_PROCESSOR)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB"
