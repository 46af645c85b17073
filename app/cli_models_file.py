"""The commands `hearth models inspect|quantize`, which take a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hearth.cli_options import EXIT_DONE, EXIT_FAILED, JsonOption, MmprojOption
from hearth.terminal import ProgressLine, print_json

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF: model, encoder (mmproj) or LoRA adapter.")]


def attach(commands: typer.Typer) -> None:
    """Adds the commands to `hearth models`."""
    commands.command("inspect")(inspect)
    commands.command("quantize")(quantize)


def inspect(
    file: FileArgument,
    mmproj: MmprojOption = None,
    n_ctx: Annotated[int | None, typer.Option("--n-ctx", metavar="N", min=32, help="Context to plan for.")] = None,
    template: Annotated[bool, typer.Option("--template", help="Print the whole chat template.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Say what is in a model file, and whether it fits this machine, without loading it."""
    from hearth.model_report import examine, lines

    found = examine(file, mmproj=mmproj, n_ctx=n_ctx)
    if as_json:
        print_json(found)
    else:
        for line in lines(found, whole_template=template):
            typer.echo(line)
    return EXIT_FAILED if found.get("fit", {}).get("state") == "error" else EXIT_DONE


def quantize(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The model: an F16, BF16 or F32 GGUF.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write.")],
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0 …")] = "Q4_K_M",
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", metavar="FILE", help="Importance matrix; very coarse types need one.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="All if left out.")
    ] = None,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Take a source that is quantized already; it loses more.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a target that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a smaller file of a model. Whole or not at all: Ctrl-C leaves nothing behind."""
    from hearth.models.tasks import Limits, run_task

    progress = ProgressLine(f"{source.name} → {type_}")
    with leaving_nothing(target):
        try:
            result = run_task(
                "quantize",
                Limits(),
                lambda fraction, _tensor: progress(fraction),
                source=source.expanduser(),
                target=target.expanduser(),
                type=type_,
                imatrix=imatrix,
                n_threads=threads,
                requantize=requantize,
                replace=force,
            )
        finally:
            progress.clear()
    if as_json:
        print_json(result)
        return
    before, after = result["source_bytes"] / 1e6, result["target_bytes"] / 1e6
    typer.echo(
        f"{result['target']}: {result['type']}, {after:,.1f} MB instead of {before:,.1f} ({after / before:.0%}), "
        f"{result['bits_per_weight']:.2f} bits a weight, {result['seconds']:.1f} s"
    )


@contextmanager
def leaving_nothing(target: Path) -> Iterator[None]:
    """Takes away what a quantization that was ended by force had written: the temporary files that are new."""
    pattern = f".{target.name}.*.partial"

    def partials() -> set[Path]:
        return set(target.parent.glob(pattern)) if target.parent.is_dir() else set()

    before = partials()
    try:
        yield
    except BaseException:
        for path in partials() - before:
            path.unlink(missing_ok=True)
        raise
