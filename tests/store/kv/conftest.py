"""A store of KV blocks in a folder of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hearth.store.kv_blocks import KvBlockStore
from tests.store.kv.chains import BUDGET

MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a file system: hundreds of times these tests wait until an index is on the disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else tmp_path) as place:
        yield Path(place) / "kv"


@pytest.fixture
def store(folder: Path) -> Iterator[KvBlockStore]:
    with closing(KvBlockStore(folder, budget_bytes=BUDGET)) as opened:
        yield opened
