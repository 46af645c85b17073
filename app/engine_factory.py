"""Makes the engine with its KV blocks on disk, in this process or in a child, which must not load the surfaces."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hearth.models.engine import EngineOptions, LlamaEngine
    from hearth.store.kv_blocks import KvBlockStore

log = logging.getLogger("hearth.kv")


@dataclass(frozen=True, slots=True)
class KvFolder:
    """Where KV blocks are kept and how much of the disk they may take; ``daily_write_bytes`` None is no limit."""

    path: Path
    budget_bytes: int
    daily_write_bytes: int | None = None

    def open(self) -> KvBlockStore | None:
        """The store, or None if it cannot be had: then prompts are computed, which is slower and never wrong."""
        from hearth.models.errors import HearthError
        from hearth.store.kv_blocks import KvBlockStore

        try:
            return KvBlockStore(self.path, budget_bytes=self.budget_bytes, daily_write_bytes=self.daily_write_bytes)
        except HearthError as error:
            log.warning("KV blocks are not kept: %s", error)
            return None


def make_engine(
    path: Path,
    options: EngineOptions | None = None,
    *,
    kv: KvFolder | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> LlamaEngine:
    """As ``LlamaEngine.load``, with the store of ``kv``. A child process runs it as it stands."""
    from hearth.models.engine.engine import LlamaEngine

    store = kv.open() if kv is not None else None
    return LlamaEngine.load(path, options, store=store, cancelled=cancelled, on_progress=on_progress)
