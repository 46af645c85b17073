"""Quantizes a model file with llama.cpp's own quantizer: checked before, whole or not at all. Runs as a task."""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from hearth.models import tasks
from hearth.models.errors import EngineError, ModelFileError, RequestError
from hearth.models.gguf_header import BF16, F16, F32, GgufHeader, check_gguf, read_gguf_header, tensor_bytes
from hearth.models.imatrix import Importance, read_imatrix
from hearth.models.llama import log_callback, native, start_backend

ALIASES: Final = {"F32": "ALL_F32", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
DISK_RESERVE_BYTES: Final = 64 << 20
NOT_WRITTEN: Final = ("GUESSED", "MOSTLY_NVFP4")  # llama.cpp has names for them and no way to make them
_F64: Final = 28
_UNQUANTIZED: Final = (F32, F16, BF16, _F64)
_PROGRESS = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s*(\S+)")
_PLANNED_MIB = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_REASON = re.compile(r"failed to quantize:? *(.*)")


def type_names() -> list[str]:
    """Every type that llama.cpp quantizes to."""
    return sorted(name.removeprefix("MOSTLY_").removeprefix("ALL_") for name in _types())


def quantize(
    report: tasks.Report,
    source: Path,
    target: Path,
    type: str,
    imatrix: Path | None = None,
    n_threads: int | None = None,
    requantize: bool = False,
    replace: bool = False,
) -> dict[str, Any]:
    """Writes ``target`` through a temporary file beside it. Returns sizes, bits a weight, and seconds.

    Raises RequestError (a type or an option), ModelFileError (the source), EngineError (no room, or llama.cpp failed).
    """
    started_s = time.monotonic()
    number = _type_number(type)
    header = _checked_source(source, requantize=requantize)
    _check_target(source, target, replace=replace)
    importance = read_imatrix(imatrix) if imatrix is not None else None
    job = _Job(source, number, importance, n_threads, report)
    planned_bytes = job.planned_bytes() + header.data_offset
    _check_disk(target, planned_bytes)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    tasks.when_orphaned(lambda: partial.unlink(missing_ok=True))
    try:
        job.run(partial)
        written = read_gguf_header(partial)
        _settle(partial, target)
    except OSError as error:
        raise EngineError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    n_params = max(sum(math.prod(tensor.shape) for tensor in written.tensors.values()), 1)
    return {
        "source": str(source),
        "target": str(target),
        "type": type.upper(),
        "source_bytes": sum(tensor_bytes(tensor) for tensor in header.tensors.values()) + header.data_offset,
        "target_bytes": written.size_bytes,
        "bits_per_weight": round(8 * sum(tensor_bytes(tensor) for tensor in written.tensors.values()) / n_params, 3),
        "seconds": round(time.monotonic() - started_s, 3),
    }


class _Job:
    """One call of llama.cpp's quantizer, with what it needs kept alive."""

    def __init__(
        self, source: Path, number: int, importance: Importance | None, n_threads: int | None, report: tasks.Report
    ) -> None:
        self._source = source
        self._report = report
        self._lines: list[str] = []
        self._kept: list[Any] = []
        params = native.llama_model_quantize_default_params()
        params.ftype = number
        params.allow_requantize = True  # whether that is wanted was looked at before
        params.nthread = n_threads or 0
        if importance is not None:
            params.imatrix = self._native_importance(importance)
        self._params = params

    def planned_bytes(self) -> int:
        """Of the tensors in the end. Raises EngineError, ModelFileError as ``run``."""
        self._params.dry_run = True
        self._call(Path(os.devnull))
        self._params.dry_run = False
        sizes = [float(match[1]) for line in self._lines if (match := _PLANNED_MIB.search(line))]
        return int(sizes[-1] * (1 << 20)) if sizes else 0

    def run(self, target: Path) -> None:
        self._call(target)

    def _call(self, target: Path) -> None:
        self._lines.clear()
        tells = not self._params.dry_run
        pending, told = "", ""

        @native.llama_log_callback  # type: ignore[untyped-decorator]
        def on_log(_level: int, text: bytes, _user_data: object) -> None:
            nonlocal pending, told
            pending += text.decode("utf-8", "replace")
            *lines, pending = pending.split("\n")
            self._lines.extend(lines)
            match = _PROGRESS.search(pending)
            if tells and match and match[1] != told:
                told = match[1]
                self._report((int(told) - 1) / max(int(match[2]), 1), match[3])

        start_backend()
        native.llama_log_set(on_log, None)
        try:
            status = native.llama_model_quantize(
                str(self._source).encode(), str(target).encode(), ctypes.byref(self._params)
            )
        finally:
            native.llama_log_set(log_callback, None)
        self._lines.append(pending)
        if status:
            reason = self._reason()
            if "requires an imatrix" in reason:
                raise RequestError(
                    "a type so coarse needs an importance matrix; give --imatrix, or take Q2_K or Q3_K_S"
                )
            raise EngineError(f"{self._source}: llama.cpp could not quantize it: {reason}")

    def _reason(self) -> str:
        for line in reversed(self._lines):
            if match := _REASON.search(line):
                return match[1] or "no reason given"
        return next((line for line in reversed(self._lines) if line.strip()), "no reason given").strip()

    def _native_importance(self, importance: Importance) -> Any:
        """An array that a nameless entry ends."""
        kind = native.llama_model_imatrix_data
        entries = (kind * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items(), strict=False):
            encoded = name.encode()
            entry.name, entry.size = encoded, len(values)
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            self._kept += [encoded, values]
        self._kept.append(entries)
        return ctypes.cast(entries, ctypes.POINTER(kind))


def _types() -> dict[str, int]:
    prefix = "LLAMA_FTYPE_"
    return {
        name.removeprefix(prefix): value
        for name, value in vars(native).items()
        if name.startswith(prefix) and isinstance(value, int) and name.removeprefix(prefix) not in NOT_WRITTEN
    }


def _type_number(name: str) -> int:
    known = _types()
    wanted = ALIASES.get(name.upper(), name.upper())
    for full in (wanted, f"MOSTLY_{wanted}"):
        if full in known:
            return known[full]
    raise RequestError(f"type {name!r} is not known; one of {', '.join(type_names())}")


def _checked_source(source: Path, *, requantize: bool) -> GgufHeader:
    header = check_gguf(source)
    if header.architecture == "clip" or header.metadata.get("general.type", "model") != "model":
        raise ModelFileError(f"{source}: an encoder or an adapter, not a language model; only these are quantized")
    if not header.tensors:
        raise ModelFileError(f"{source}: there are no weights in it")
    quantized = [tensor for tensor in header.tensors.values() if tensor.kind not in _UNQUANTIZED]
    if quantized and not requantize:
        raise ModelFileError(
            f"{source}: {len(quantized)} of its {len(header.tensors)} tensors are quantized already, and lose more by "
            "being quantized again; start from the F16, BF16 or F32 file, or add --requantize"
        )
    return header


def _check_target(source: Path, target: Path, *, replace: bool) -> None:
    if target.is_dir():
        raise RequestError(f"{target}: a folder; name the file to write")
    if not target.parent.is_dir():
        raise RequestError(f"{target.parent}: no such folder; make it first")
    if target.exists() and target.resolve() == source.resolve():
        raise RequestError(f"{target}: source and target are the same file; name another target")
    if target.exists() and not replace:
        raise RequestError(f"{target}: is there already; name another target, or add --force")


def _check_disk(target: Path, planned_bytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if planned_bytes + DISK_RESERVE_BYTES > free:
        raise EngineError(
            f"{target}: it needs {planned_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free there; "
            "free some space or name another disk"
        )


def _settle(partial: Path, target: Path) -> None:
    """Gives the file its name, once it is on the disk."""
    mask = os.umask(0)
    os.umask(mask)
    partial.chmod(0o666 & ~mask)  # temporary files are for their owner alone
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(target)
