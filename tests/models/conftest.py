"""Tiny random models, written once per session, and an engine that is closed after the test."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hearth.models.engine import EngineOptions, LlamaEngine


def _load_beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


# the writers are plain modules beside this file, so that other test folders can load them by path too
tiny_gguf = _load_beside("tiny_gguf")
_load_beside("tiny_architectures")
_load_beside("tiny_lora")


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
