"""Both halves of the pocket model in one module, so that one optimiser and one checkpoint hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from hearth.multimodal.clip import VisionNetwork
from training.language import LanguageModel

if TYPE_CHECKING:
    from training.aligning import Saying


class PocketNetwork(nn.Module):
    """The vision encoder with its connector, the language model, and ``saying``, which only training needs."""

    def __init__(self, vision: VisionNetwork, language: LanguageModel, saying: Saying) -> None:
        super().__init__()
        self.vision = vision
        self.language = language
        self.saying = saying
