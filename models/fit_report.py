"""What a model takes on this machine and whether it fits, as plain values: for `hearth doctor` and `hearth models`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from hearth.models.engine.options import EngineOptions
from hearth.models.engine.planning import Planner
from hearth.models.errors import EngineError, WontFitError
from hearth.models.fit import choose, judge
from hearth.models.gguf_header import check_gguf
from hearth.models.machine_memory import rooms
from hearth.models.tasks import Report

_SMALL_CTX, _LARGE_CTX = 1024, 2048


def fit_report(report: Report, path: Path, options: EngineOptions) -> dict[str, Any]:
    """``state``, ``reason``, ``remedy``, ``note``, the planned bytes of every part, and what a token takes of the KV
    cache by its type. Raises ModelFileError, RequestError and EngineError as loading would."""
    report(0.0, "planning")
    with closing(Planner(path, check_gguf(path))) as planner:
        found = rooms()
        try:
            fitted = choose(path.name, options, planner.plan, found)
            plan, verdict, note = fitted.plan, fitted.verdict, fitted.note
            state, reason, remedy = verdict.state, verdict.reason, verdict.remedy
        except WontFitError as error:
            plan, note = planner.plan(options), ""
            state, reason = "won't fit", judge(plan, found).reason
            remedy = str(error).partition(f"{reason}; ")[2]
        return {
            "state": state,
            "reason": reason,
            "remedy": remedy,
            "note": note,
            "n_ctx": plan.n_ctx,
            "n_gpu_layers": plan.n_gpu_layers,
            "n_layers": plan.n_layers,
            "total_bytes": plan.total_bytes,
            "ram_bytes": plan.ram_bytes,
            "gpu_bytes": dict(plan.gpu_bytes),
            "weights_bytes": plan.weights_bytes,
            "kv_bytes": plan.kv_bytes,
            "compute_bytes": plan.compute_bytes + plan.other_bytes,
            "encoder_bytes": plan.encoder_bytes,
            "draft_bytes": plan.draft_bytes,
            "media_tokens": plan.media_tokens,
            "kv_bytes_per_token": _kv_per_token(planner, options),
        }


def _kv_per_token(planner: Planner, options: EngineOptions) -> dict[str, float | None]:
    """By KV type; None for one that this model cannot have."""
    found: dict[str, float | None] = {}
    for kv_type in ("f16", "q8_0", "q4_0"):
        alone = replace(
            options, kv_type=kv_type, flash_attention=True, draft_model=None, mmproj=None, rope_scaling=None
        )
        try:
            small = planner.plan(replace(alone, n_ctx=_SMALL_CTX))
            large = planner.plan(replace(alone, n_ctx=_LARGE_CTX))
            found[kv_type] = (large.kv_bytes - small.kv_bytes) / (large.n_ctx - small.n_ctx)
        except EngineError:
            found[kv_type] = None
    return found
