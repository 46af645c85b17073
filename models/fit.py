"""Whether a model fits this machine, before it is loaded, and what to change if it does not.

A policy over plans: it asks what given options would take (``models/engine/planning.py``), compares that with what is
free, and lowers what it was left to choose: first the context, then the layers on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from hearth.models.engine.options import EngineOptions
from hearth.models.errors import EngineError, WontFitError
from hearth.models.machine_memory import Room

logger = logging.getLogger("hearth.fit")

State = Literal["fits", "tight", "won't fit"]
GIB: Final = 1 << 30
RESERVE_SHARE: Final = 0.05  # of a device, which other programs will want
MIN_RESERVE_BYTES: Final = 512 << 20
MIN_GPU_RESERVE_BYTES: Final = 256 << 20
ROOMY_CTX: Final = 4096  # tokens: a smaller context is chosen only if the model would not fit otherwise
SMALLEST_CTX: Final = 512


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model, its context, and what goes with them take at most. ``other_bytes`` are the vocabulary,
    logits, adapters and work space. All but what ``gpu_bytes`` says by device is RAM, of which ``mapped_bytes`` are
    pages of the file that the system may take back and read again.
    """

    n_ctx: int
    n_gpu_layers: int
    n_layers: int  # that can be on a GPU
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    encoder_bytes: int
    draft_bytes: int
    other_bytes: int
    mapped_bytes: int
    gpu_bytes: tuple[tuple[str, int], ...] = ()
    media_tokens: int | None = None  # of the largest picture

    @property
    def total_bytes(self) -> int:
        parts = (self.weights_bytes, self.kv_bytes, self.compute_bytes, self.encoder_bytes, self.draft_bytes)
        return sum(parts) + self.other_bytes

    @property
    def ram_bytes(self) -> int:
        return self.total_bytes - sum(n_bytes for _, n_bytes in self.gpu_bytes)

    @property
    def must_bytes(self) -> int:
        """RAM that cannot be taken back."""
        return self.ram_bytes - self.mapped_bytes


_SMALLER_KV: Final[dict[str, tuple[Literal["q8_0", "q4_0"], ...]]] = {
    "f16": ("q8_0", "q4_0"),
    "q8_0": ("q4_0",),
    "q4_0": (),
}
Plan = Callable[[EngineOptions], MemoryPlan]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a plan comes to on this machine: ``reason`` names needs and limits, ``remedy`` is "" if all is well."""

    state: State
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Options that were settled, what they take and whether that fits. ``note``: what was lowered, "" if nothing."""

    options: EngineOptions
    plan: MemoryPlan
    verdict: Verdict
    note: str = ""


def judge(plan: MemoryPlan, rooms: Sequence[Room]) -> Verdict:
    """Compares a plan with what is free, RAM first. Devices that nobody knows the memory of are not judged."""
    found = [verdict for verdict in _verdicts(plan, rooms) if verdict is not None]
    order: tuple[State, ...] = ("won't fit", "tight", "fits")
    worst = min(found, key=lambda verdict: order.index(verdict.state), default=None)
    return worst or Verdict("fits", f"needs {gib(plan.total_bytes)}; the system does not say what is free")


def choose(name: str, options: EngineOptions, plan: Plan, rooms: Sequence[Room]) -> Fitted:
    """Settles ``n_ctx`` None and ``n_gpu_layers`` -1 so that the model fits, as far as it can.

    ``name`` is of the model, for messages. Raises WontFitError with what would fit, and what planning raises.
    """
    wanted = plan(options)
    tight: Fitted | None = None
    for candidate in _candidates(options, wanted, plan, rooms):
        planned = plan(candidate)
        verdict = judge(planned, rooms)
        fitted = Fitted(candidate, planned, verdict, _note(candidate, planned, wanted))
        if verdict.state == "fits" and (tight is None or planned.n_ctx >= ROOMY_CTX):
            return fitted
        if verdict.state == "tight" and tight is None:
            tight = fitted
    if tight is None:
        raise WontFitError(f"{name} {judge(wanted, rooms)}; {remedy(options, plan, rooms)}")
    hint = remedy(tight.options, plan, rooms, states=("fits",))
    return replace(tight, verdict=replace(tight.verdict, remedy=hint))


def remedy(
    options: EngineOptions, plan: Plan, rooms: Sequence[Room], states: tuple[State, ...] = ("fits", "tight")
) -> str:
    """What to change so that it fits, tried out; the smallest loss first."""

    def works(candidate: EngineOptions) -> bool:
        try:
            return judge(plan(candidate), rooms).state in states
        except EngineError:  # a KV type that this model cannot have
            return False

    planned = plan(options)
    n_ctx = options.n_ctx or planned.n_ctx
    found: list[str] = []
    if planned.gpu_bytes and options.n_gpu_layers > 0:
        n_layers = _most_layers(options, min(options.n_gpu_layers, planned.n_layers), plan, rooms)
        if n_layers < options.n_gpu_layers and works(replace(options, n_gpu_layers=n_layers)):
            found.append(f"n_gpu_layers {n_layers}")
    smaller = next((n for n in _halvings(n_ctx) if works(replace(options, n_ctx=n))), None)
    if smaller is not None:
        found.append(f"n_ctx {smaller}")
    if options.flash_attention:
        kinds = _SMALLER_KV[options.kv_type]
        found += [f"kv_type {kind}" for kind in kinds if works(replace(options, kv_type=kind))][:1]
    if found:
        return f"{' or '.join(found)} fits"
    room = min((room for room in rooms if room.name == "RAM"), default=None, key=lambda room: room.free_bytes)
    size = "" if room is None else f" of about {gib(max(room.free_bytes - MIN_RESERVE_BYTES, GIB // 4))}"
    return f"close other programs, or choose a smaller model or quantization{size}; check_fit = false loads it anyway"


def gib(n_bytes: int) -> str:
    """For people."""
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB // 10 else f"{n_bytes / (1 << 20):.0f} MiB"


def _verdicts(plan: MemoryPlan, rooms: Sequence[Room]) -> Iterator[Verdict | None]:
    on_gpu = dict(plan.gpu_bytes)
    shared = sum(on_gpu.get(room.name, 0) for room in rooms if room.in_ram)
    for room in rooms:
        if room.name == "RAM":
            yield _ram_verdict(plan, room, shared)
        elif on_gpu.get(room.name):
            yield _gpu_verdict(on_gpu[room.name], room)


def _ram_verdict(plan: MemoryPlan, room: Room, shared_bytes: int) -> Verdict:
    must, all_bytes = plan.must_bytes + shared_bytes, plan.ram_bytes + shared_bytes
    reserve = max(MIN_RESERVE_BYTES, int(RESERVE_SHARE * room.total_bytes))
    needs = f"n_ctx {plan.n_ctx:,} needs {gib(all_bytes)} of RAM ({_parts(plan)}), {gib(room.free_bytes)} are free"
    if must > room.free_bytes:
        return Verdict("won't fit", needs)
    if all_bytes > room.free_bytes:
        return Verdict("tight", f"{needs}: weights would be read from the disk again and again, which is very slow")
    if all_bytes + reserve > room.free_bytes:
        return Verdict("tight", f"{needs}: other programs may be slowed down")
    return Verdict("fits", needs)


def _gpu_verdict(needed: int, room: Room) -> Verdict:
    reserve = max(MIN_GPU_RESERVE_BYTES, int(RESERVE_SHARE * room.total_bytes))
    needs = f"needs {gib(needed)} of {room.name}, {gib(room.free_bytes)} are free"
    if needed > room.free_bytes:
        return Verdict("won't fit", needs)
    return Verdict("tight" if needed + reserve > room.free_bytes else "fits", needs)


def _parts(plan: MemoryPlan) -> str:
    parts = (
        ("weights", plan.weights_bytes),
        ("KV cache", plan.kv_bytes),
        ("computing", plan.compute_bytes + plan.other_bytes),
        ("encoder", plan.encoder_bytes),
        ("draft model", plan.draft_bytes),
    )
    where = "" if not plan.gpu_bytes else ", some of it on a GPU"
    return ", ".join(f"{name} {gib(n_bytes)}" for name, n_bytes in parts if n_bytes) + where


def _candidates(
    options: EngineOptions, wanted: MemoryPlan, plan: Plan, rooms: Sequence[Room]
) -> Iterator[EngineOptions]:
    """What may be tried, the best first: a smaller context, as long as it is roomy, then fewer layers on a GPU, then
    any context. Only what was left to choose."""
    sizes = [options.n_ctx or wanted.n_ctx]
    if options.n_ctx is None:
        sizes += _halvings(wanted.n_ctx)
    roomy = [n for n in sizes if n >= ROOMY_CTX] or sizes[:1]
    small = [n for n in sizes if n not in roomy]
    yield from (replace(options, n_ctx=n) for n in roomy)
    if options.n_gpu_layers < 0 and wanted.gpu_bytes:
        for n_ctx in (roomy[-1], *small):
            candidate = replace(options, n_ctx=n_ctx)
            yield replace(candidate, n_gpu_layers=_most_layers(candidate, wanted.n_layers, plan, rooms))
    else:
        yield from (replace(options, n_ctx=n) for n in small)


def _most_layers(options: EngineOptions, n_layers: int, plan: Plan, rooms: Sequence[Room]) -> int:
    """How many layers, at most ``n_layers``, the GPUs have room for."""
    gpus = [room for room in rooms if room.name != "RAM"]
    low, high = 0, n_layers + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = judge(plan(replace(options, n_gpu_layers=middle)), gpus).state == "fits"
        low, high = (middle, high) if fits else (low, middle)
    return low


def _halvings(n_ctx: int) -> Iterator[int]:
    n = 1 << (max(n_ctx - 1, 1).bit_length() - 1)  # the power of two below
    while n >= SMALLEST_CTX:
        yield n
        n //= 2


def _note(options: EngineOptions, planned: MemoryPlan, wanted: MemoryPlan) -> str:
    lowered = []
    if planned.n_ctx < wanted.n_ctx:
        lowered.append(f"n_ctx is {planned.n_ctx:,} instead of {wanted.n_ctx:,}")
    if options.n_gpu_layers >= 0 and options.n_gpu_layers != wanted.n_gpu_layers:
        lowered.append(f"{options.n_gpu_layers} of {wanted.n_layers} layers are on the GPU")
    return " and ".join(lowered) + (", because memory is short" if lowered else "")
