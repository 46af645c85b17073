"""Takes weights over from the checkpoint of a stage."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

log = logging.getLogger(__name__)


def load_stage(path: Path, network: nn.Module, prefix: str = "") -> bool:
    """Loads the part of a checkpoint whose names begin with ``prefix``; False if there is no such file."""
    if not path.is_file():
        return False
    state = torch.load(path, map_location="cpu", weights_only=True)
    log.info("%s: step %d, %.0f s", path.name, state["step"], state["elapsed"])
    part = {name.removeprefix(prefix): value for name, value in state["network"].items() if name.startswith(prefix)}
    network.load_state_dict(part)
    return True
