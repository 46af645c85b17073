"""Builds llama.cpp's own programs, which ours is compared with, from the llama.cpp inside llama-cpp-python.

    python benchmarks/build_peers.py [--jobs N] [--force] [--cmake=-DGGML_CUDA=on …]

The sources are those of the source distribution that uv.lock names, the options those of the package's own build, so
that the kernels are the same; what both say of the processor features they were built for is compared at the end.
No network is used but to get the sources or cmake where they are missing. An interrupted build goes on where it was.
Takes some ten minutes on two cores. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from sdist import BUILD, ROOT, llama_cpp_source, locked

TARGETS = ("llama-bench", "llama-batched-bench", "llama-server", "llama-mtmd-cli")
SOURCES = ("tools/llama-bench", "tools/batched-bench", "tools/server", "tools/mtmd", "vendor/cpp-httplib")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "ON",  # as pip and uv build the package, unless SOURCE_DATE_EPOCH was set
    "LLAMA_BUILD_COMMON": "ON",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # would be downloaded
    "LLAMA_OPENSSL": "OFF",
}
LIMIT_S = 3600
_FEATURES = (
    "import ctypes, sys; say = ctypes.CDLL(sys.argv[1]).llama_print_system_info; "
    "say.restype = ctypes.c_char_p; print(say().decode())"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--force", action="store_true", help="throw away what was built")
    parser.add_argument("--cmake", action="append", default=[], metavar="OPTION", help="passed on; may be repeated")
    parser.add_argument("--configure-only", action="store_true", help="stop before the compiler starts")
    given = parser.parse_args()
    target = BUILD / "llama"
    source = _source_of(target) or llama_cpp_source()
    missing = [name for name in SOURCES if not (source / name / "CMakeLists.txt").is_file()]
    if missing:
        raise SystemExit(f"the sources lack {', '.join(missing)}")
    if given.force or _source_of(target) is None:
        shutil.rmtree(target, ignore_errors=True)
    started_s = time.monotonic()
    env = _environment()
    passed = [*shlex.split(os.environ.get("CMAKE_ARGS", "")), *given.cmake]
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    _run(["cmake", "-S", str(source), "-B", str(target), "-G", "Ninja", *options, *passed], env)
    if given.configure_only:
        return 0
    _run(["cmake", "--build", str(target), "--parallel", str(given.jobs), "--target", *TARGETS], env)
    programs = {name: _version(target / "bin" / name) for name in TARGETS}
    same = _compare_features(target / "bin")
    print(
        json.dumps(
            {
                "benchmark": "build_peers",
                "llama_cpp_python": locked().version,
                "seconds": round(time.monotonic() - started_s, 1),
                "programs": programs,
                "same_features": same,
            }
        )
    )
    return 0 if same else 1


def _source_of(target: Path) -> Path | None:
    """The sources that a build was begun from, if they are still there and of the version in use."""
    try:
        lines = (target / "CMakeCache.txt").read_text("utf-8").splitlines()
    except OSError:
        return None
    found = next((line.partition("=")[2] for line in lines if line.startswith("CMAKE_HOME_DIRECTORY:")), "")
    return Path(found) if f"{locked().version}" in found and (Path(found) / "CMakeLists.txt").is_file() else None


def _environment() -> dict[str, str]:
    """With cmake and ninja on the path, installed into the build folder if the machine has none."""
    env = dict(os.environ)
    if shutil.which("cmake") and shutil.which("ninja"):
        return env
    tools = BUILD / "tools"
    folder = tools / ("Scripts" if os.name == "nt" else "bin")
    if not (folder / "ninja").is_file():
        own = ROOT / ".tools" / "uv" / "bin" / "uv"
        uv = str(own) if own.is_file() else "uv"
        _run([uv, "venv", "--quiet", "--clear", str(tools)], env)
        _run([uv, "pip", "install", "--quiet", "--python", str(folder / "python"), "cmake", "ninja"], env)
    return {**env, "PATH": f"{folder}{os.pathsep}{env.get('PATH', '')}"}


def _run(command: list[str], env: dict[str, str]) -> None:
    print("+", shlex.join(command), file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, env=env, stdout=sys.stderr, timeout=LIMIT_S, check=False)
    except FileNotFoundError as error:
        raise SystemExit(f"{command[0]} is not there: install it, or run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"not done after {LIMIT_S} s; run this again, it goes on from here") from error
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed; the reason stands above")


def _version(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    return " ".join((done.stdout + done.stderr).split())[:120]


def _compare_features(folder: Path) -> bool:
    """Whether both builds use the same processor features."""
    import llama_cpp

    package = Path(llama_cpp.__file__).parent / "lib"
    name = {"darwin": "libllama.dylib", "win32": "llama.dll"}.get(sys.platform, "libllama.so")
    features = []
    for library in (package / name, folder / name):
        command = [sys.executable, "-c", _FEATURES, str(library)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        features.append(done.stdout.strip())
    if features[0] != features[1]:
        print(f"built for other features than the package:\n  {features[0]}\n  {features[1]}", file=sys.stderr)
        print("build again with --force and the options that the package was built with", file=sys.stderr)
    return features[0] == features[1]


if __name__ == "__main__":
    sys.exit(main())
