"""Hearth: a local multimodal assistant. The public names, loaded when first used (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hearth.assistant import Assistant
    from hearth.attachments import HeardRecording
    from hearth.events import (
        Citation,
        CitationsFound,
        Done,
        MemoryChanged,
        Notice,
        Phase,
        Reply,
        Timings,
        Transcribed,
        TurnEvent,
        TurnFailed,
    )
    from hearth.models.errors import HearthError
    from hearth.models.types import TextDelta, Usage
    from hearth.settings import Settings

__version__ = "0.1.0"

_HOME_OF = {
    "Assistant": "hearth.assistant",
    "Citation": "hearth.events",
    "CitationsFound": "hearth.events",
    "Done": "hearth.events",
    "HeardRecording": "hearth.attachments",
    "HearthError": "hearth.models.errors",
    "MemoryChanged": "hearth.events",
    "Notice": "hearth.events",
    "Phase": "hearth.events",
    "Reply": "hearth.events",
    "Settings": "hearth.settings",
    "TextDelta": "hearth.models.types",
    "Timings": "hearth.events",
    "Transcribed": "hearth.events",
    "TurnEvent": "hearth.events",
    "TurnFailed": "hearth.events",
    "Usage": "hearth.models.types",
}

__all__ = [
    "Assistant",
    "Citation",
    "CitationsFound",
    "Done",
    "HeardRecording",
    "HearthError",
    "MemoryChanged",
    "Notice",
    "Phase",
    "Reply",
    "Settings",
    "TextDelta",
    "Timings",
    "Transcribed",
    "TurnEvent",
    "TurnFailed",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hearth' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
