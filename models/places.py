"""The folders in which this and other programs keep models on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Origin = Literal["hearth", "huggingface", "ollama", "lmstudio", "llama.cpp", "added"]
TITLES: Mapping[Origin, str] = {
    "hearth": "Hearth",
    "huggingface": "Hugging Face cache",
    "ollama": "Ollama",
    "lmstudio": "LM Studio",
    "llama.cpp": "llama.cpp",
    "added": "added",
}
_MAX_POINTER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, or for ``added`` also a file, and whose it is."""

    origin: Origin
    path: Path


def find_places(
    models_dir: Path,
    *,
    home: Path,
    environ: Mapping[str, str],
    platform: str,
    added: Iterable[Path] = (),
) -> tuple[Place, ...]:
    """Where models may lie, whether there is such a folder or not; each path once. ``platform`` is ``sys.platform``."""
    places = [Place("hearth", models_dir)]
    places += [Place("added", path) for path in added]
    places += [Place("huggingface", path) for path in _hugging_face(home, environ)]
    places += [Place("llama.cpp", path) for path in _llama_cpp(home, environ, platform)]
    places += [Place("lmstudio", path) for path in _lm_studio(home)]
    places += [Place("ollama", path) for path in _ollama(home, environ, platform)]
    seen: set[Path] = set()
    return tuple(place for place in places if not (place.path in seen or seen.add(place.path)))  # type: ignore[func-returns-value]


def _cache(home: Path, environ: Mapping[str, str]) -> Path:
    return _given(environ, "XDG_CACHE_HOME") or home / ".cache"


def _hugging_face(home: Path, environ: Mapping[str, str]) -> list[Path]:
    named = _given(environ, "HF_HUB_CACHE") or _given(environ, "HUGGINGFACE_HUB_CACHE")
    if named is not None:
        return [named]
    root = _given(environ, "HF_HOME") or _cache(home, environ) / "huggingface"
    return [root / "hub"]


def _llama_cpp(home: Path, environ: Mapping[str, str], platform: str) -> list[Path]:
    named = _given(environ, "LLAMA_CACHE")
    if named is not None:
        return [named]
    if platform == "darwin":
        return [home / "Library" / "Caches" / "llama.cpp"]
    if platform == "win32":
        return [(_given(environ, "LOCALAPPDATA") or home / "AppData" / "Local") / "llama.cpp"]
    return [_cache(home, environ) / "llama.cpp"]


def _lm_studio(home: Path) -> list[Path]:
    folders = [home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]
    try:  # LM Studio notes there where its folder was moved to
        with (home / ".lmstudio-home-pointer").open("rb") as file:
            moved = Path(file.read(_MAX_POINTER_BYTES).decode("utf-8").strip())
        if moved.is_absolute():
            folders.insert(0, moved / "models")
    except (OSError, ValueError):
        pass
    return folders


def _ollama(home: Path, environ: Mapping[str, str], platform: str) -> list[Path]:
    named = _given(environ, "OLLAMA_MODELS")
    if named is not None:
        return [named]
    folders = [home / ".ollama" / "models"]
    if platform == "linux":  # of the service that its installer sets up
        folders.append(Path("/usr/share/ollama/.ollama/models"))
    return folders


def _given(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name, "").strip()
    return Path(value).expanduser() if value else None
