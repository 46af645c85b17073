"""The commands `hearth models …`."""

from __future__ import annotations

import typer

from hearth.cli_models_file import attach

models = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look into model files and make smaller ones.")
attach(models)
