"""Keeps the table of docs/architecture.md: who imports whom, what is imported late; and importing starts nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "hearth": "app",
    "hearth.models": "models",
    "hearth.multimodal": "multimodal",
    "hearth.store": "store",
    "hearth.assets": "assets",
}
MAY_IMPORT = {
    "hearth.models": ("hearth.models",),
    "hearth.multimodal": ("hearth.multimodal", "hearth.models.types", "hearth.models.errors"),
    "hearth.store": ("hearth.store", "hearth.models.errors"),
    "hearth.assets": ("hearth.assets",),
    "hearth": ("hearth",),
}
ONLY_IN = {
    "llama_cpp": ("hearth.models.llama", "hearth.models.mtmd"),
    "open_clip": ("hearth.multimodal.clip",),
    "whisper": ("hearth.multimodal.whisper_model",),
    "faster_whisper": ("hearth.multimodal.faster_whisper_model",),
    "sentence_transformers": (),
    "chromadb": ("hearth.store.vectors",),
    "huggingface_hub": ("hearth.models.hub",),
    "httpx2": ("hearth.models.hub",),
    "gradio": ("hearth.server", "hearth.ui."),
    "fastapi": ("hearth.server", "hearth.security", "hearth.ui.", "hearth.api"),
    "starlette": ("hearth.server", "hearth.security", "hearth.ui.", "hearth.api"),
    "uvicorn": ("hearth.server",),
    "httpx": ("hearth.models.remote",),
    "typer": ("hearth.cli", "hearth.cli_", "hearth.surroundings"),
}
HEAVY = (
    "torch",
    "torchvision",
    "open_clip",
    "whisper",
    "sentence_transformers",
    "transformers",
    "llama_cpp",
    "chromadb",
)
HEAVY += (
    "huggingface_hub",
    "gradio",
    "fastapi",
    "httpx",
    "numpy",
    "PIL",
    "av",
    "onnxruntime",
    "pypdfium2",
    "trafilatura",
    "rich",
)


@dataclass(frozen=True)
class Import:
    """``module`` imports ``target`` at ``line``, ``lazily`` when inside a function."""

    module: str
    target: str
    line: int
    lazily: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def package_of(module: str) -> str:
    """The part a module belongs to: the longest of our packages that begins its name."""
    return max((name for name in PACKAGES if f"{module}.".startswith(f"{name}.")), key=len)


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def imports_in(module: str, tree: ast.Module) -> Iterator[Import]:
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, lazily = pending.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for target in targets(node, module):
                yield Import(module, target, node.lineno, lazily)
        inside = lazily or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        pending.extend((child, inside) for child in ast.iter_child_nodes(node))


def targets(node: ast.Import | ast.ImportFrom, module: str) -> list[str]:
    """What an import statement names, as absolute dotted names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"{module}:{node.lineno}: relative import; write the full name"
    base = node.module or ""
    # `from hearth.models import llama` imports a module, `from hearth.models.types import Usage` a name of one
    return [full if (full := f"{base}.{alias.name}") in modules() else base for alias in node.names]


def all_imports() -> list[Import]:
    return [
        one
        for module, path in modules().items()
        for one in imports_in(module, ast.parse(path.read_text("utf-8"), str(path)))
    ]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return all_imports()


def begins(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix if prefix[-1] in "._" else prefix + ".") for prefix in prefixes)


def test_packages_import_only_what_the_table_allows(imports: list[Import]) -> None:
    wrong = [
        str(one)
        for one in imports
        if begins(one.target, ("hearth",)) and not begins(one.target, MAY_IMPORT[package_of(one.module)])
    ]
    assert wrong == []


def test_each_heavy_library_is_imported_in_its_own_module_alone(imports: list[Import]) -> None:
    wrong = [
        str(one)
        for one in imports
        for library, places in ONLY_IN.items()
        if begins(one.target, (library,)) and not begins(one.module, places)
    ]
    assert wrong == []


def test_the_table_in_the_documentation_names_the_same() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert {name for name in (*MAY_IMPORT, *ONLY_IN) if f"`{name}`" not in text} == set()


def test_a_breach_would_be_found() -> None:
    tree = ast.parse("def f():\n    import chromadb\nfrom hearth.store import records\n")
    found = {(one.target, one.lazily) for one in imports_in("hearth.multimodal.kinds", tree)}
    assert ("chromadb", True) in found
    assert any(target.startswith("hearth.store") for target, _ in found)
    assert not begins("hearth.store.records", MAY_IMPORT["hearth.multimodal"])
    assert not begins("hearth.models.llama", MAY_IMPORT["hearth.multimodal"])


def test_no_top_level_folder_shadows_the_package() -> None:
    assert not (ROOT / "hearth").exists()
    assert not (ROOT / "hearth.py").exists()


def loaded_after(statement: str) -> tuple[set[str], list[str]]:
    """Top-level modules and names of threads in a fresh interpreter after ``statement``."""
    code = (
        f"import sys\n{statement}\nimport json, threading\n"
        "print(json.dumps([sorted({m.split('.')[0] for m in sys.modules}), [t.name for t in threading.enumerate()]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    names, threads = json.loads(done.stdout.splitlines()[-1])
    return set(names), threads


@pytest.mark.parametrize("statement", ["import hearth", "import hearth.cli", "import hearth.terminal"])
def test_importing_the_surface_loads_nothing_heavy(statement: str) -> None:
    names, threads = loaded_after(statement)
    assert names.isdisjoint(HEAVY)
    assert threads == ["MainThread"]


def test_public_names_exist_and_composition_loads_no_model_library() -> None:
    names, threads = loaded_after("import hearth\nfor name in hearth.__all__: getattr(hearth, name)")
    assert names.isdisjoint({"torch", "open_clip", "whisper", "llama_cpp", "chromadb", "gradio", "transformers"})
    assert threads == ["MainThread"]


def test_importing_any_module_starts_no_thread_and_no_process() -> None:
    # One interpreter for all, so that the heavy libraries are loaded once; their native thread pools are not looked at.
    code = (
        "import importlib, json, os, socket, subprocess, sys, threading\n"
        "def refuse(*a, **k): raise RuntimeError('started while importing')\n"
        "threading.Thread.start = refuse\n"
        "started = []\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    try: importlib.import_module(name)\n"
        "    except RuntimeError as error: started.append(f'{name}: {error}')\n"
        "print(json.dumps(started))"
    )
    names = json.dumps([name for name in modules() if not name.endswith(".__main__")])
    done = subprocess.run([sys.executable, "-c", code, names], capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
