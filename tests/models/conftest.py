"""Tiny random models, written once per session, and an engine that is closed after the test."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hearth.models.engine import EngineOptions, LlamaEngine

# the writer is a plain module beside this file, so that other test folders can load it by path too
_spec = importlib.util.spec_from_file_location("tiny_gguf", Path(__file__).with_name("tiny_gguf.py"))
assert _spec is not None
assert _spec.loader is not None
tiny_gguf = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("tiny_gguf", tiny_gguf)
_spec.loader.exec_module(tiny_gguf)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny_gguf.write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    return path


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
