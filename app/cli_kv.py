"""The commands `hearth kv …`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from hearth.cli_options import DataDirOption, JsonOption
from hearth.terminal import print_json

kv = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="What the model has read, kept on disk to go on at once."
)


@kv.command("show")
def kv_show(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Say how much it is, and how much of it programs' chats (/v1) left. Works beside a running Hearth."""
    from hearth.kv_disk import kv_use
    from hearth.settings import Settings

    use = kv_use(Settings(data_dir=data_dir))
    if as_json:
        print_json({**asdict(use), "folder": str(use.folder)})
        return
    limit = f"of at most {_size(use.limit_bytes)}" if use.limit_bytes else "and no more is kept (kv_disk_gib is 0)"
    typer.echo(f"{_blocks(use.n_blocks, use.n_bytes)} {limit}, in {use.folder}")
    programs = use.programs
    shared = f"; conversations use {_size(programs.n_shared_bytes)} of that too" if programs.n_shared_blocks else ""
    typer.echo(f"of programs (/v1): {_blocks(programs.n_blocks, programs.n_bytes)}{shared}")


@kv.command("delete")
def kv_delete(data_dir: DataDirOption = None) -> None:
    """Delete what programs' chats (/v1) left. What conversations use too stays, and goes with them."""
    from hearth.kv_disk import delete_of_programs
    from hearth.settings import Settings

    typer.echo(f"deleted {_blocks(*delete_of_programs(Settings(data_dir=data_dir)))}")


@kv.command("wipe")
def kv_wipe(data_dir: DataDirOption = None) -> None:
    """Delete all of it at once, that of conversations too: they stay, and are read anew when they go on."""
    from hearth.kv_disk import wipe
    from hearth.settings import Settings

    typer.echo(f"deleted {_blocks(*wipe(Settings(data_dir=data_dir)))}")


def _blocks(n_blocks: int, n_bytes: int) -> str:
    return f"{n_blocks} block{'' if n_blocks == 1 else 's'}, {_size(n_bytes)}"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
