"""Finds the source distribution of the llama-cpp-python that uv.lock names: its llama.cpp is what is installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "benchmarks" / "build"
MODELS = ROOT / "benchmarks" / "models"
PACKAGE = "llama-cpp-python"
DOWNLOAD_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Locked:
    """What uv.lock says of the package."""

    version: str
    url: str
    sha256: str


def locked() -> Locked:
    """The version in use and where its source is."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    package = next(package for package in lock["package"] if package["name"] == PACKAGE)
    return Locked(package["version"], package["sdist"]["url"], package["sdist"]["hash"].removeprefix("sha256:"))


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's sources: uv's unpacked copy if it kept one, else downloaded into the build folder.

    Raises SystemExit if neither can be had.
    """
    wanted = locked()
    for folder in _unpacked(wanted):
        source = folder / "vendor" / "llama.cpp"
        if (source / "CMakeLists.txt").is_file():
            return source
    archive = _download(wanted)
    target = BUILD / f"sdist-{wanted.version}"
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    print(f"unpacking {archive.name}", file=sys.stderr)
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    (inner,) = partial.iterdir()
    shutil.rmtree(target, ignore_errors=True)
    inner.rename(target)
    shutil.rmtree(partial)
    return target / "vendor" / "llama.cpp"


def _unpacked(wanted: Locked) -> list[Path]:
    """Folders that may hold the unpacked source, the best first."""
    named = os.environ.get("LLAMA_CPP_PYTHON_SDIST")
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    kept = sorted(cache.glob(f"sdists-v*/pypi/{PACKAGE}/{wanted.version}/*/src"))
    return [*([Path(named)] if named else []), *kept, BUILD / f"sdist-{wanted.version}"]


def _download(wanted: Locked) -> Path:
    archive = BUILD / Path(wanted.url).name
    BUILD.mkdir(parents=True, exist_ok=True)
    if not archive.is_file() or _sha256(archive) != wanted.sha256:
        print(f"downloading {wanted.url}", file=sys.stderr)
        partial = archive.with_name(archive.name + ".partial")
        with urllib.request.urlopen(wanted.url, timeout=DOWNLOAD_TIMEOUT_S) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
        partial.replace(archive)
    if _sha256(archive) != wanted.sha256:
        archive.unlink()
        raise SystemExit(f"{wanted.url}: the download is not what uv.lock names; run this again")
    return archive


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
