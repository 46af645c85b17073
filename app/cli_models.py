"""The commands `hearth models …`; those on a file are in cli_models_file."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hearth.cli_models_file import attach
from hearth.cli_options import DataDirOption, JsonOption
from hearth.model_library import POCKET, ModelLibrary, origin_title
from hearth.models.catalogue import CatalogueEntry
from hearth.models.describe import describe
from hearth.models.discovery import FoundModel
from hearth.models.pulling import PullProgress, pull
from hearth.terminal import CLEAR_LINE, aside, one_line, print_json

if TYPE_CHECKING:
    from hearth.settings import Settings

GIB: Final = 2**30
_PROGRESS_EVERY_S: Final = 0.2
_NAME_WIDTH: Final = 24

models = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Models: which there are, and getting more.")
attach(models)


@models.command("list")
def models_list(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the models on this machine, Hearth's and other programs', and what the catalogue offers."""
    settings = _settings(data_dir)
    library = ModelLibrary(settings.data_dir)
    discovery = library.discover()
    in_use = _in_use(settings, library)
    if as_json:
        found = [_found_fields(model) for model in discovery.models]
        offered = [_entry_fields(entry) for entry in library.catalogue.values()]
        print_json({"in_use": in_use, "found": found, "catalogue": offered, "notes": list(discovery.notes)})
        return
    typer.echo(f"In use: {one_line(in_use)}\n\nOn this machine")
    typer.echo(f"  {POCKET:<{_NAME_WIDTH}}  comes with Hearth; sees, knows a small world")
    for model in discovery.models:
        typer.echo(f"  {one_line(model.name):<{_NAME_WIDTH}}  {one_line(_found_line(model))}")
    typer.echo("\nIn the catalogue; `hearth models pull NAME` fetches one")
    here = {model.name.split(":")[0] for model in discovery.models if model.origin == "hearth"}
    for entry in library.catalogue.values():
        if entry.name not in here:
            typer.echo(f"  {entry.name:<{_NAME_WIDTH}}  {_entry_line(entry)}")
    for note in discovery.notes:
        aside(f"note: {one_line(note)}")


@models.command("recommend")
def models_recommend(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Say which models of the catalogue suit this machine, and why."""
    from hearth.recommendation import recommend, this_machine

    library = ModelLibrary(_settings(data_dir).data_dir)
    resources = this_machine(library.models_dir)
    picks = recommend(library.catalogue, resources)
    if as_json:
        print_json({"machine": asdict(resources), "recommendations": [asdict(pick) for pick in picks]})
        return
    for pick in picks:
        size = f", {_gib(pick.download_bytes)} to fetch" if pick.name else ""
        typer.echo(f"{pick.purpose}:\n  {pick.name or '-':<{_NAME_WIDTH}}  {pick.reason}{size}")
    aside("`hearth models pull NAME` fetches one, `hearth models use NAME` makes it the one that answers")


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `hearth models list` has it.")],
    quant: Annotated[str | None, typer.Option("--quant", metavar="Q", help="Another quantization: Q8_0, …")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take the newest commit, not the one pulled before.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model of the catalogue with its encoder. Goes on where a pull was cut off; checks what came."""
    settings = _settings(data_dir)
    library = ModelLibrary(settings.data_dir)
    entry = library.entry(name)
    bar = _Bar()
    try:
        result = pull(entry, library.models_dir, quant=quant, update=update, offline=settings.offline, on_progress=bar)
    finally:
        bar.clear()
    if as_json:
        fields = {**asdict(result), "paths": [str(path) for path in result.paths]}
        print_json({**fields, "mmproj": None if result.mmproj is None else str(result.mmproj)})
        return
    done = f"fetched {_gib(result.fetched_bytes)}" if result.fetched_bytes else "was here already"
    typer.echo(f"{result.name} {result.quant}: {done}, {result.paths[0]}")
    if entry.kind in ("chat", "vision", "hearing"):
        aside(f"`hearth models use {entry.name}` makes it the one that answers; `--model {entry.name}` takes it once")


@models.command("add")
def models_add(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="GGUF files, or folders with some.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look into a folder, or take a GGUF file, from now on. Nothing is copied."""
    library = ModelLibrary(_settings(data_dir).data_dir)
    found = [model for path in paths for model in library.add(path)]
    if as_json:
        print_json({"found": [_found_fields(model) for model in found]})
        return
    for model in found:
        typer.echo(f"{one_line(model.name):<{_NAME_WIDTH}}  {one_line(_found_line(model))}")


@models.command("use")
def models_use(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model on this machine, or 'pocket'.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the model that answers from the next start on, where no setting names one."""
    settings = _settings(data_dir)
    library = ModelLibrary(settings.data_dir)
    library.choose(name)
    in_use = _in_use(settings, library)
    if as_json:
        print_json({"chosen": library.chosen(), "in_use": in_use})
        return
    typer.echo(f"{one_line(library.chosen() or name)} answers from the next start on")
    if settings.names_model:
        aside(f"but the setting model = {settings.model!r} goes before it; take that out of the file or environment")


def _settings(data_dir: Path | None) -> Settings:
    from hearth.settings import Settings

    return Settings(data_dir=data_dir)


def _in_use(settings: Settings, library: ModelLibrary) -> str:
    return settings.model if settings.names_model else library.chosen() or POCKET


class _Bar:
    """One line on a terminal, rewritten; elsewhere a line for each step, so that a log tells what happened."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._step: tuple[str, str] = ("", "")
        self._last_s = 0.0
        self._from: tuple[float, int] = (0.0, 0)
        self._shown = False

    def __call__(self, progress: PullProgress) -> None:
        now, step = time.monotonic(), (progress.step, progress.file)
        is_new = step != self._step
        if is_new:
            self._step, self._from = step, (now, progress.done_bytes)
            if not self._is_terminal:
                print(f"{progress.step} {progress.file}", file=sys.stderr)
        if self._is_terminal and (is_new or now - self._last_s >= _PROGRESS_EVERY_S):
            self._last_s, self._shown = now, True
            sys.stderr.write(f"{CLEAR_LINE}{self._line(progress, now)}")
            sys.stderr.flush()

    def _line(self, progress: PullProgress, now_s: float) -> str:
        share = f"{progress.done_bytes / progress.total_bytes:4.0%}" if progress.total_bytes else ""
        line = f"{progress.step} {progress.file} {share} of {_gib(progress.total_bytes)}"
        begin_s, begin_bytes = self._from
        if progress.step == "fetching" and now_s - begin_s > 1.0 and progress.done_bytes > begin_bytes:
            bytes_per_s = (progress.done_bytes - begin_bytes) / (now_s - begin_s)
            left_s = (progress.total_bytes - progress.done_bytes) / bytes_per_s
            line += f", {bytes_per_s / 1e6:.1f} MB/s, {int(left_s // 60)}:{int(left_s % 60):02d} left"
        return line

    def clear(self) -> None:
        """Takes the line away."""
        if self._shown:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()


def _found_line(model: FoundModel) -> str:
    details = describe(model)
    encoder = model.encoder() if details.use == "chat" and not details.problem else None
    parts = [
        _gib(model.size_bytes),
        details.quant,
        details.architecture,
        f"with {encoder.name}"
        if encoder is not None and model.origin != "ollama"
        else "with its encoder"
        if encoder
        else "",
        {"embedding": "embeddings", "speech": "speech to text"}.get(details.use, ""),
        origin_title(model),
        details.problem and f"cannot be used: {details.problem}",
    ]
    return ", ".join(part for part in parts if part)


def _found_fields(model: FoundModel) -> dict[str, Any]:
    details = describe(model)
    encoder = model.encoder() if details.use == "chat" and not details.problem else None
    return {
        "name": model.name,
        "origin": model.origin,
        "path": str(model.path),
        "n_parts": len(model.parts),
        "size_bytes": model.size_bytes,
        "mmproj": None if encoder is None else str(encoder),
        **asdict(details),
    }


def _entry_line(entry: CatalogueEntry) -> str:
    parts = [
        f"{'about ' if entry.file().approximate else ''}{_gib(entry.download_bytes())}",
        entry.title,
        "sees and hears" if entry.sees and entry.hears else "sees" if entry.sees else "hears" if entry.hears else "",
        {"embedding": "embeddings", "speech": "speech to text", "pictures": "embeddings of pictures"}.get(
            entry.kind, ""
        ),
        entry.licence,
        entry.note,
    ]
    return ", ".join(part for part in parts if part)


def _entry_fields(entry: CatalogueEntry) -> dict[str, Any]:
    return {**asdict(entry), "download_bytes": entry.download_bytes(), "kv_bytes_per_token": entry.kv_bytes_per_token}


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB / 10 else f"{n_bytes / 2**20:.0f} MiB"
