"""What the tests of the recipe share."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from training.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on generated text alone, always the same."""
    return train_tokenizer(None, seed=1)
