"""What is in a model file and what it takes here, read by a process of its own: as fields, and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hearth.models.errors import EngineError, HearthError
from hearth.models.fit import gib
from hearth.models.tasks import Limits, run_task
from hearth.terminal import one_line, printable

HEADER_LIMITS: Final = Limits(seconds=20.0, memory_bytes=2 << 30)
FIT_LIMITS: Final = Limits(seconds=60.0, memory_bytes=16 << 30)
TEMPLATE_LINES: Final = 6
_TEMPLATE_LINE_CHARS: Final = 110
_WIDTH: Final = 14


def examine(file: Path, *, mmproj: Path | None = None, n_ctx: int | None = None) -> dict[str, Any]:
    """What the header says; of a model also ``fit``: how it fits this machine, with the settings in force.

    ``fit`` has the state "error" where llama.cpp cannot plan the model. Raises ModelFileError, and EngineError if
    reading broke the limits of time or memory.
    """
    path = file.expanduser()
    try:
        found = run_task("inspect", HEADER_LIMITS, path=path)
    except EngineError as error:
        raise EngineError(f"{path}: {error}; download it again") from error
    if found["kind"] == "model":
        found["fit"] = _fit(path, mmproj, n_ctx)
        if found["fit"]["state"] != "error":
            found["kv_bytes_per_token"] = found["fit"].pop("kv_bytes_per_token")
    return found


def _fit(path: Path, mmproj: Path | None, n_ctx: int | None) -> dict[str, Any]:
    from hearth.model_choice import choose
    from hearth.settings import Settings

    try:
        settings = Settings(model=str(path), mmproj=mmproj, n_ctx=n_ctx)
        choice = choose(settings.model, settings.mmproj)
        options = settings.engine_options(choice.n_ctx, choice.mmproj)
        return run_task("fit", FIT_LIMITS, path=path, options=options)
    except HearthError as error:
        return {"state": "error", "reason": one_line(str(error)), "remedy": ""}


def lines(found: dict[str, Any], *, whole_template: bool = False) -> Iterator[str]:
    """For people: nothing that the file says can control the terminal."""
    yield one_line(f"{found['path']}: {_described(found)}")
    yield from _pairs(_fields(found))
    if found["kind"] == "model":
        yield from _template(found, whole=whole_template)
        yield from _pairs([("here", _fit_line(found["fit"]))])


def _described(found: dict[str, Any]) -> str:
    kind = {"model": "language model", "encoder": "encoder (mmproj)", "adapter": "LoRA adapter"}.get(
        found["kind"], found["kind"]
    )
    parts = f", in {found['parts']} parts" if found["parts"] > 1 else ""
    return f"{kind}, {found['architecture']}, {_count(found['n_params'])} parameters, {gib(found['size_bytes'])}{parts}"


def _fields(found: dict[str, Any]) -> list[tuple[str, str]]:
    types = ", ".join(f"{one['type']} {one['share']:.1%} ({one['tensors']} tensors)" for one in found["types"])
    fields = [
        ("name", found["name"]),
        ("license", found["license"]),
        ("file type", found["file_type"] or ""),
        ("weights", types),
    ]
    of_kind = {"model": _model_fields, "encoder": _encoder_fields, "adapter": _adapter_fields}.get(found["kind"])
    return fields + (of_kind(found) if of_kind is not None else [])


def _model_fields(found: dict[str, Any]) -> list[tuple[str, str]]:
    heads = f"{_number(found['n_heads'])} heads, {_number(found['n_heads_kv'])} of keys and values"
    layers = f"{_number(found['n_layers'])} of width {_number(found['n_embd'])}, {heads}"
    if found["n_experts"]:
        layers += f", {_number(found['n_experts_used'])} of {_number(found['n_experts'])} experts at a time"
    vocabulary = found["vocabulary"]
    window = f", most layers see {_number(found['sliding_window'])}" if found["sliding_window"] else ""
    kv = [(kind, size) for kind, size in found["kv_bytes_per_token"].items() if size is not None]
    special = ", ".join(f"{name} {token['text']!r} ({token['id']})" for name, token in found["special_tokens"].items())
    return [
        ("context", f"{_number(found['n_ctx_train'])} tokens{window}"),
        ("layers", layers),
        ("vocabulary", f"{vocabulary['n_tokens']:,} tokens, {vocabulary['model']}"),
        ("special tokens", special),
        ("KV cache", ", ".join(f"{kind} {size:,.0f}" for kind, size in kv) + " bytes a token" if kv else ""),
    ]


def _encoder_fields(found: dict[str, Any]) -> list[tuple[str, str]]:
    takes = " and ".join(word for word, does in (("pictures", found["sees"]), ("sounds", found["hears"])) if does)
    fields = [
        ("takes", takes),
        ("projector", found["projector"]),
        ("gives", f"embeddings of width {_number(found['n_embd'])}: the model's must be the same"),
    ]
    if found["max_picture_tokens"]:
        fields.append(("largest picture", f"{found['max_picture_tokens']:,} tokens"))
    return fields


def _adapter_fields(found: dict[str, Any]) -> list[tuple[str, str]]:
    ranks = ", ".join(str(rank) for rank in found["ranks"])
    return [
        ("adapter", f"{found['adapter_type']}, rank {ranks or '?'}, alpha {found['alpha']}"),
        ("changes", f"{found['n_weights_changed']:,} weights of a model of the same architecture"),
    ]


def _template(found: dict[str, Any], *, whole: bool) -> Iterator[str]:
    text = found["chat_template"]
    if text is None:
        yield from _pairs([("chat template", "none")])
        return
    rows = printable(text).expandtabs(2).splitlines() or [""]
    shown = rows if whole else [one_line(row, _TEMPLATE_LINE_CHARS) for row in rows[:TEMPLATE_LINES]]
    cut = len(rows) > len(shown) or found["chat_template_chars"] > len(text)
    more = ", the beginning of it (--template shows more)" if cut and not whole else ""
    yield from _pairs([("chat template", f"{found['chat_template_chars']:,} characters{more}")])
    yield from (f"  | {row}" for row in shown)


def _fit_line(fit: dict[str, Any]) -> str:
    remedy = f"; {fit['remedy']}" if fit["remedy"] else ""
    note = f"; {fit['note']}" if fit.get("note") else ""
    media = fit.get("media_tokens")
    pictures = f"; a picture takes up to {media:,} tokens" if media else ""
    return f"{fit['state']}: {fit['reason']}{remedy}{note}{pictures}"


def _pairs(fields: list[tuple[str, str]]) -> Iterator[str]:
    for name, value in fields:
        if value:
            yield f"{name:<{_WIDTH}} {one_line(value)}"


def _number(value: int | list[int] | None) -> str:
    if value is None:
        return "?"
    return f"{value:,}" if isinstance(value, int) else f"{min(value):,}..{max(value):,}"


def _count(n: int) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return str(n)
