"""What quantizing a model costs and gains: every type made in a temporary folder and compared with the original."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hearth import assets
from hearth.models.errors import EngineError, RequestError
from hearth.models.tasks import Limits, run_task

DEFAULT_TYPES: Final = ("Q8_0", "Q4_K_M", "Q4_0")
DEFAULT_TOKENS: Final = 2048
MIN_TOKENS: Final = 32
MAX_TEXT_BYTES: Final = 16 << 20
SPARE_DISK_BYTES: Final = 256 << 20
_UNQUANTIZED: Final = ("F32", "F16", "BF16", "F64")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class QuantRow:
    """One file. Agreement and divergence are with the original, whose row is the first: 1 and 0."""

    type: str
    size_bytes: int
    bits_per_weight: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    perplexity: float | None  # None: not finite
    perplexity_error: float | None  # standard error
    top1_agreement: float
    mean_kl: float | None  # nats


@dataclass(frozen=True, slots=True)
class QuantBench:
    """``n_tokens`` of the text were scored. ``is_original_quantized``: it had lost something before."""

    model: str
    text: str
    n_tokens: int
    is_original_quantized: bool
    rows: tuple[QuantRow, ...]


def bench_quant(
    model: Path,
    types: Sequence[str] = DEFAULT_TYPES,
    *,
    text: Path | None = None,
    max_tokens: int = DEFAULT_TOKENS,
    n_gpu_layers: int = -1,
    say: Say = lambda _: None,
) -> QuantBench:
    """Quantizes ``model`` to ``types`` and compares them on ``text`` (None: a sample of ours), ``max_tokens`` of it.

    Raises ModelFileError, RequestError (a type, the text) and EngineError.
    """
    words = _text(text)
    header = run_task("inspect", Limits(seconds=60), path=model)
    if header["kind"] != "model":
        raise RequestError(f"{model}: not a language model but of kind {header['kind']!r}; only models are compared")
    quantized = [one for one in header["types"] if one["type"] not in _UNQUANTIZED]
    _check_disk(header, max_tokens)
    with tempfile.TemporaryDirectory(prefix="hearth-quant-") as folder:
        reference = Path(folder) / "reference.f32"

        def row(name: str, path: Path, *, first: bool = False) -> tuple[QuantRow, int]:
            say(f"reading the text with {name}")
            found = run_task(
                "score",
                Limits(),
                path=path,
                text=words,
                max_tokens=max_tokens,
                reference=reference,
                is_reference=first,
                n_gpu_layers=n_gpu_layers,
            )
            return _row(name, path, found), int(found["n_tokens"])

        original, n_tokens = row(_name_of(header), model, first=True)
        rows = [original]
        for kind in types:
            target = Path(folder) / f"{kind}.gguf"
            say(f"quantizing to {kind}")
            run_task(
                "quantize", Limits(), source=model, target=target, type=kind, requantize=bool(quantized), replace=True
            )
            rows.append(row(kind.upper(), target)[0])
            target.unlink()
    return QuantBench(
        model=header["name"] or model.stem,
        text=text.name if text is not None else "sample",
        n_tokens=n_tokens,
        is_original_quantized=bool(quantized),
        rows=tuple(rows),
    )


def _row(name: str, path: Path, found: dict[str, Any]) -> QuantRow:
    return QuantRow(
        type=name,
        size_bytes=path.stat().st_size,
        bits_per_weight=round(8 * found["size_bytes"] / max(found["n_params"], 1), 3),
        **{field: found[field] for field in QuantRow.__dataclass_fields__ if field in found and field != "size_bytes"},
    )


def _name_of(header: dict[str, Any]) -> str:
    return str(header["file_type"] or (header["types"][0]["type"] if header["types"] else "original")).replace(
        "ALL_", ""
    )


def _text(path: Path | None) -> str:
    place = path if path is not None else assets.sample_text()
    try:
        with place.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES)
    except OSError as error:
        raise RequestError(f"{place}: cannot be read: {error.strerror or error}; name a text file") from error
    text = content.decode("utf-8", "replace")
    if not text.strip() or "\0" in text:
        raise RequestError(f"{place}: there is no text in it; name a file of plain text")
    return text


def _check_disk(header: dict[str, Any], max_tokens: int) -> None:
    """The probabilities of the original and one quantized file lie in the temporary folder at a time."""
    folder = tempfile.gettempdir()
    needed = header["size_bytes"] + 2 * max_tokens * header["vocabulary"]["n_tokens"] + SPARE_DISK_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EngineError(
            f"{folder}: comparing needs up to {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free there; "
            "free some, name another folder by TMPDIR, or lower --tokens"
        )
