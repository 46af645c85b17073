"""Draws a comparison of quantizations: what is lost against size, and speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.models.errors import RequestError

if TYPE_CHECKING:
    from hearth.bench_quant import QuantBench

FORMATS = (".png", ".svg", ".pdf")
_INK, _BLUE, _ORANGE = "#2b2b2b", "#3b6ea8", "#d08a3c"


def check_plot_path(path: Path) -> None:
    """Before the work is done. Raises RequestError."""
    if path.suffix.lower() not in FORMATS:
        raise RequestError(f"{path}: a plot is written as {', '.join(FORMATS)}; name such a file")
    if not path.parent.is_dir():
        raise RequestError(f"{path.parent}: no such folder; make it first")


def draw(bench: QuantBench, path: Path) -> None:
    """Writes the picture. Raises RequestError if the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{_plain(bench.model)}: {bench.n_tokens:,} tokens of {_plain(bench.text)}", fontsize=11)
    loss, agreement, speed = figure.subplots(1, 3)
    sizes = [row.size_bytes / 1e6 for row in bench.rows]
    names = [row.type for row in bench.rows]
    _points(loss, sizes, [row.perplexity for row in bench.rows], names, "perplexity", _ORANGE)
    _points(agreement, sizes, [row.mean_kl for row in bench.rows], names, "mean KL divergence (nats)", _BLUE)
    positions = range(len(names))
    speed.bar([at - 0.2 for at in positions], [row.prefill_tokens_per_s for row in bench.rows], 0.4, color=_BLUE)
    answers = speed.twinx()
    answers.bar([at + 0.2 for at in positions], [row.decode_tokens_per_s for row in bench.rows], 0.4, color=_ORANGE)
    speed.set_xticks(list(positions), names, rotation=30, ha="right", fontsize=8)
    speed.set_ylabel("reading, tokens/s", color=_BLUE)
    answers.set_ylabel("answering, tokens/s", color=_ORANGE)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from error


def _points(
    axes: Any, sizes: list[float], values: list[float | None], names: list[str], label: str, color: str
) -> None:
    known = [(size, value, name) for size, value, name in zip(sizes, values, names, strict=True) if value is not None]
    known.sort()
    axes.plot([size for size, _, _ in known], [value for _, value, _ in known], "o-", color=color)
    for size, value, name in known:
        axes.annotate(name, (size, value), textcoords="offset points", xytext=(5, 5), fontsize=8, color=_INK)
    axes.set_xlabel("size, MB")
    axes.set_ylabel(label)
    axes.margins(0.18)


def _plain(text: str) -> str:
    """Dollars would begin a formula."""
    return "".join(char if char.isprintable() and char != "$" else " " for char in text)[:80]
