"""Settles what was left to choose of an engine's options, so that the model fits, before anything is loaded."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from hearth.models.engine.options import EngineOptions
from hearth.models.engine.planning import Planner
from hearth.models.errors import ModelError, WontFitError
from hearth.models.fit import Fitted, choose
from hearth.models.gguf_header import GgufHeader
from hearth.models.kv_size import kv_bytes_per_token
from hearth.models.machine_memory import Room, rooms

logger = logging.getLogger("hearth.fit")

ROOMY_SHARE = 0.5  # of the free RAM
WEIGHTS_FACTOR = 2.2  # repacked for the processor, they may lie in memory twice
ROOMY_REST_BYTES = 1 << 30  # more than any graph of a model that small
DEFAULT_N_CTX = 8192


def settle(path: Path, header: GgufHeader, options: EngineOptions) -> tuple[EngineOptions, str]:
    """The options with which to load, and a note for people if memory is short, "" if not.

    Raises WontFitError. A model that llama.cpp cannot plan is left to loading, which says what is wrong.
    """
    if not options.check_fit:
        return options, ""
    found = rooms()
    if _is_roomy(header, options, found):
        return options, ""
    try:
        fitted = fit(path, header, options, found)
    except WontFitError:
        raise
    except ModelError as error:
        logger.debug("%s could not be planned: %s", path.name, error)
        return options, ""
    note = "; ".join(text for text in (fitted.note, _warning(fitted)) if text)
    if note:
        logger.warning("%s: %s", path.name, note)
    return fitted.options, note


def fit(path: Path, header: GgufHeader, options: EngineOptions, found: tuple[Room, ...]) -> Fitted:
    """As ``hearth.models.fit.choose``, planned by llama.cpp."""
    with closing(Planner(path, header)) as planner:
        return choose(path.name, options, planner.plan, found)


def _warning(fitted: Fitted) -> str:
    return "" if fitted.verdict.state == "fits" else str(fitted.verdict)


def _is_roomy(header: GgufHeader, options: EngineOptions, found: tuple[Room, ...]) -> bool:
    """Whether it fits so well that planning, which reads the vocabulary, is not worth its time."""
    ram = next((room for room in found if room.name == "RAM"), None)
    per_token = kv_bytes_per_token(header, options.kv_type)
    if ram is None or per_token is None or len(found) > 1 or options.mmproj or options.draft_model or options.lora:
        return False
    kv = per_token * (options.n_ctx or DEFAULT_N_CTX)
    return WEIGHTS_FACTOR * header.size_bytes + kv + ROOMY_REST_BYTES < ROOMY_SHARE * ram.free_bytes
