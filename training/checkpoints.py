"""Takes weights over from the checkpoint of a stage, and whole networks."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from hearth.multimodal.clip import VisionNetwork
from training.aligning import Saying, vision_config
from training.language import LanguageConfig, LanguageModel
from training.pocket_network import PocketNetwork

TOKENIZER = "tokenizer.json"
NAMES = "names.json"
# of an encoder's weights; older files lack them, or have others
READING = ("letters.", "lines.", "print.", "locator.", "namer.")
NAME_VECTORS = "print.words"  # came with the namer

log = logging.getLogger(__name__)


def load_stage(path: Path, network: nn.Module, prefix: str = "") -> bool:
    """Loads the part of a checkpoint whose names begin with ``prefix``; False if there is no such file. Which of
    ``READING`` it has nothing of stay as ``network`` has them: it is older than they are.
    """
    if not path.is_file():
        return False
    state = torch.load(path, map_location="cpu", weights_only=True)
    log.info("%s: step %d, %.0f s", path.name, state["step"], state["elapsed"])
    part = {name.removeprefix(prefix): value for name, value in state["network"].items() if name.startswith(prefix)}
    own = network.state_dict()
    for of in (*READING, NAME_VECTORS):
        names = [name for name in own if name.removeprefix("vision.").startswith(of)]
        if not any(name in part for name in names):
            part |= {name: own[name] for name in names}
    network.load_state_dict(part)
    return True


def saved_tokenizer(runs: Path) -> Tokenizer | None:
    """The tokenizer of a run, or None before there is one."""
    path = runs / TOKENIZER
    return Tokenizer.from_file(str(path)) if path.is_file() else None


def saved_network(runs: Path, stage: str) -> tuple[PocketNetwork, Tokenizer]:
    """The pocket model as a stage left it. FileNotFoundError names what is missing."""
    checkpoint = runs / f"{stage}.pt"
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint} does not exist: run python -m training.pocket --stage {stage} first")
    tokenizer = saved_tokenizer(runs)
    if tokenizer is None:
        raise FileNotFoundError(f"{runs / TOKENIZER} does not exist: put back the one of {checkpoint.name}")
    network = new_network(tokenizer.get_vocab_size(), saved_names(runs))
    load_stage(checkpoint, network)
    return network, tokenizer


def saved_names(runs: Path) -> list[list[str]]:
    """The names that a run's namer tells, each by its words; none before there are any."""
    path = runs / NAMES
    names: list[list[str]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return names


def new_network(n_vocab: int, names: Sequence[Sequence[str]] = ()) -> PocketNetwork:
    """The pocket model with random weights."""
    language = LanguageModel(LanguageConfig(n_vocab=n_vocab))
    n_embd = language.config.n_embd
    return PocketNetwork(VisionNetwork(vision_config(n_embd, n_vocab, names)), language, Saying(n_vocab))
