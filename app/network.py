"""Keeps the process that answers from making connections of its own; pulls run in a process apart."""

from __future__ import annotations

import os

_HUB_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # of libraries that would otherwise look for newer files
_closed_by_us: set[str] = set()


def close_hub() -> None:
    """From now on no library of this process asks the Hugging Face hub for anything. Idempotent."""
    for name in _HUB_SWITCHES:
        if name not in os.environ:
            os.environ[name] = "1"
            _closed_by_us.add(name)


def environment_for_pull() -> dict[str, str]:
    """This process's environment without what ``close_hub`` set; what the user set stays."""
    return {name: value for name, value in os.environ.items() if name not in _closed_by_us}
