"""What this machine has, what will fit and what is wrong, each with its remedy.

Asks nothing of the network, unless the engine is a server: then that one.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from hearth import __version__, assets, machine
from hearth.devices import devices, unused_accelerator
from hearth.models.cpu import physical_cores
from hearth.models.errors import HearthError
from hearth.settings import Settings, leaving

State = Literal["ok", "warn", "fail"]
GIB: Final = 2**30
ASK_S: Final = 5.0
LOW_DISK_BYTES: Final = GIB
NO_DISK_BYTES: Final = 100 * 2**20
LOW_MEMORY_BYTES: Final = 2 * GIB  # torch, the speech model and the page together take about 1.5 GiB
FIT_TIMEOUT_S: Final = 60.0
PACKAGES: Final = ("llama-cpp-python", "torch", "open-clip-torch", "openai-whisper", "chromadb", "gradio")
REINSTALL: Final = "install again: `make setup` or `uv sync`"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``remedy`` is empty where nothing is to be done."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Looks at everything; a check that fails is a finding, not an error."""
    checks: tuple[Callable[[], Finding], ...] = (
        _versions,
        _system,
        _memory,
        _sqlite,
        _backends,
        _embedded_models,
        lambda: _model(settings) if settings.engine_url is None else _engine_elsewhere(settings),
        lambda: _speech(settings),
        lambda: _data_folder(settings.data_dir),
        lambda: _disk(settings.data_dir),
    )
    return tuple(check() for check in checks)


def to_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    """JSON-ready: ``version``, ``ok`` (nothing failed) and the findings."""
    return {
        "version": __version__,
        "ok": all(finding.state != "fail" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def line(finding: Finding) -> str:
    """A finding as a line for people."""
    remedy = f" → {finding.remedy}" if finding.remedy else ""
    return f"{finding.state:<5} {finding.name:<16} {finding.detail}{remedy}"


def _versions() -> Finding:
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("versions", "fail", f"not installed: {', '.join(missing)}", REINSTALL)
    return Finding("versions", "ok", f"hearth {__version__}, Python {platform.python_version()}, {', '.join(found)}")


def _system() -> Finding:
    cores = physical_cores()
    return Finding("system", "ok", f"{machine.system_name()}, {cores} physical core{'' if cores == 1 else 's'}")


def _memory() -> Finding:
    ram = machine.memory()
    if ram is None:
        return Finding("memory", "warn", "the system does not tell how much memory it has")
    available = ram.total_bytes if ram.available_bytes is None else ram.available_bytes
    detail = f"{_gib(ram.total_bytes)} in all, {_gib(available)} available"
    if available < LOW_MEMORY_BYTES:
        return Finding("memory", "warn", detail, f"close other programs: below {_gib(LOW_MEMORY_BYTES)} it may swap")
    return Finding("memory", "ok", detail)


def _sqlite() -> Finding:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5(words)")
    except sqlite3.OperationalError:
        return Finding("sqlite", "fail", f"{sqlite3.sqlite_version} without FTS5", "use another build of Python")
    finally:
        connection.close()
    return Finding("sqlite", "ok", f"{sqlite3.sqlite_version} with FTS5")


def _backends() -> Finding:
    try:
        from hearth.models.llama import build_id

        found = devices()
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("llama.cpp", "fail", f"cannot be loaded: {error}", REINSTALL)
    gpus = [device for device in found if "gpu" in device.kind]
    listed = "; ".join(f"{gpu.name}: {gpu.description}, {_gib(gpu.free_bytes)} free" for gpu in gpus)
    detail = f"{build_id()}, {listed or 'built for the processor alone'}"
    driver = unused_accelerator()
    if not gpus and driver is not None:
        return Finding("llama.cpp", "warn", detail, f"this machine has a GPU: `make run ACCEL={driver}` uses it")
    return Finding("llama.cpp", "ok", detail)


def _embedded_models() -> Finding:
    folder = assets.pocket_dir()
    manifest_path = folder / "pocket.toml"
    try:
        manifest = tomllib.loads(manifest_path.read_text("utf-8"))
    except OSError as error:
        return Finding("embedded models", "fail", f"{manifest_path}: {error.strerror}", f"{REINSTALL}; or `make train`")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return Finding("embedded models", "fail", f"{manifest_path}: not a valid manifest: {error}", REINSTALL)
    names = [value for value in manifest.values() if isinstance(value, str) and Path(value).suffix]
    bad = [name for name in names if not _has_bytes(folder / name)]
    if bad:
        return Finding("embedded models", "fail", f"missing or empty in {folder}: {', '.join(bad)}", REINSTALL)
    size_bytes = sum((folder / name).stat().st_size for name in names)
    return Finding("embedded models", "ok", f"{len(names)} files, {size_bytes / 1e6:.0f} MB")


def _model(settings: Settings) -> Finding:
    from hearth.model_choice import choose_by
    from hearth.models.gguf_header import check_gguf
    from hearth.models.tasks import Limits, run_task

    try:
        choice = choose_by(settings)
        assert choice.path is not None  # of a model that is chosen by name or file
        check_gguf(choice.path)
    except HearthError as error:
        return Finding("model", "fail", str(error), "choose another with --model or HEARTH_MODEL")
    name = f"{choice.name}, {_gib(choice.path.stat().st_size)}"
    options = settings.engine_options(choice.n_ctx, choice.mmproj)
    try:
        found = run_task("fit", Limits(seconds=FIT_TIMEOUT_S), path=choice.path, options=options)
    except HearthError as error:
        return Finding("model", "fail", f"{name}: {error}", "choose another with --model or HEARTH_MODEL")
    detail = f"{name}, {found['state']}: " + "; ".join(part for part in (found["reason"], found["note"]) if part)
    states: dict[str, State] = {"fits": "ok", "tight": "warn"}
    return Finding("model", states.get(found["state"], "fail"), detail, found["remedy"])


def _speech(settings: Settings) -> Finding:
    """The model that writes recordings down, by its header; loading it takes seconds."""
    from hearth.multimodal.speech_header import read_checkpoint_header, read_converted_header
    from hearth.speech import choose_backend, speech_files

    remedy = REINSTALL if settings.speech_model is None else "choose another with --speech-model or HEARTH_SPEECH_MODEL"
    try:
        files = speech_files(settings)
        if settings.speech_backend != "auto":
            remedy = "set HEARTH_SPEECH_BACKEND=auto, or choose another model with --speech-model"
        backend = choose_backend(files, settings)
        if files.size is not None:
            remedy = f"delete it, and `hearth models pull whisper-{files.size}` fetches it again"
        converted = files.converted if backend == "faster-whisper" else None
        if converted is not None:
            header = read_converted_header(converted)
        else:
            assert files.checkpoint is not None  # or the backend would be the other one
            header = read_checkpoint_header(files.checkpoint)
    except HearthError as error:
        return Finding("speech", "fail", str(error), remedy)
    languages = {True: ", many languages", False: ", English only", None: ""}[header.knows_languages]
    return Finding("speech", "ok", f"{files.name} by {backend}, {_gib(header.size_bytes)}{languages}")


def _engine_elsewhere(settings: Settings) -> Finding:
    """Asks the server for its models, once and briefly: the one request that is ever made from here."""
    from hearth.models.remote.engine import RemoteEngine

    options = settings.remote_options()
    assert options is not None
    quick = replace(options, connect_s=ASK_S, between_s=ASK_S, attempts=1)
    try:
        engine = RemoteEngine.connect(quick)
    except HearthError as error:
        return Finding("engine", "fail", str(error), "start the server, or leave out engine_url")
    engine.close()
    model = engine.model
    senses = [word for word, has in (("sees", model.sees), ("hears", model.hears)) if has]
    detail = f"{model.name} at {options.url}" + (f", {' and '.join(senses)}" if senses else "")
    if options.is_loopback:
        return Finding("engine", "ok", f"{detail}; nothing leaves this machine")
    if options.url.startswith("http:"):
        return Finding("engine", "warn", f"{detail}. {leaving(options)}", "use https: it can be read on the way")
    return Finding("engine", "ok", f"{detail}. {leaving(options)}")


def _data_folder(folder: Path) -> Finding:
    from hearth.store.lock import FolderLock

    if not folder.exists():
        return _creatable(folder)
    if not folder.is_dir():
        return Finding("data folder", "fail", f"{folder}: a file, not a folder", "set HEARTH_DATA_DIR to a folder")
    try:
        FolderLock(folder).release()
    except HearthError as error:
        return Finding("data folder", "warn", str(error))
    return Finding("data folder", "ok", str(folder))


def _creatable(folder: Path) -> Finding:
    parent = folder.parent
    while not parent.exists():
        parent = parent.parent
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Finding("data folder", "ok", f"{folder} (made at the first start)")
    return Finding(
        "data folder", "fail", f"{folder}: {parent} is not writable", "set HEARTH_DATA_DIR to another folder"
    )


def _disk(folder: Path) -> Finding:
    try:
        free_bytes = machine.disk_free_bytes(folder)
    except OSError as error:
        return Finding("disk", "fail", f"{folder}: {error.strerror}", "set HEARTH_DATA_DIR to another folder")
    detail = f"{_gib(free_bytes)} free for {folder}"
    if free_bytes < NO_DISK_BYTES:
        return Finding("disk", "fail", detail, "free some space or set HEARTH_DATA_DIR to another disk")
    if free_bytes < LOW_DISK_BYTES:
        return Finding("disk", "warn", detail, "free some space: documents and chats are kept there")
    return Finding("disk", "ok", detail)


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB / 10 else f"{n_bytes / 2**20:.0f} MiB"
