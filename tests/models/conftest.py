"""Tiny random models, written once per session, and an engine that is closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hearth.models.engine import EngineOptions, LlamaEngine
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def load_engine(tiny_model: Path) -> Iterator[Callable[..., LlamaEngine]]:
    """Loads engines on one thread each (a second one only waits, with models so small) and closes them all."""
    engines: list[LlamaEngine] = []

    def load(path: Path = tiny_model, **options: object) -> LlamaEngine:
        engine = LlamaEngine.load(path, EngineOptions(**{"n_threads": 1, **options}))  # type: ignore[arg-type]
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(load_engine: Callable[..., LlamaEngine]) -> LlamaEngine:
    return load_engine()
