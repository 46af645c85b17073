"""The command `hearth serve`: the page and the HTTP API for other programs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hearth.cli_options import DataDirOption, MmprojOption, ModelOption
from hearth.surroundings import Surroundings

API_KEY_VARIABLE = "HEARTH_API_KEY"


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address of this machine to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="The API alone, without the page.")] = False,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env",
            metavar="NAME",
            help=f"Environment variable with the key that programs must send; {API_KEY_VARIABLE} if it is set.",
        ),
    ] = None,
    model: ModelOption = None,
    mmproj: MmprojOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Serve the page, and /v1 for programs that speak OpenAI's API."""
    from hearth.api.options import ApiOptions

    surroundings: Surroundings = context.obj
    api = ApiOptions(key=read_key(api_key_env))
    assistant = surroundings.open_assistant(model=model, mmproj=mmproj, data_dir=data_dir)
    try:
        surroundings.serve(assistant, host=host, port=port, open_browser=False, page=not no_ui, api=api)
    finally:
        assistant.close()


def read_key(variable: str | None) -> str | None:
    """The key from the environment; None if there is none and no variable was named.

    Raises SettingsError for a key that cannot be one: an open door that was meant to be locked.
    """
    from hearth.settings import SettingsError

    name = variable or API_KEY_VARIABLE
    key = os.environ.get(name)
    if key is None and variable is None:
        return None
    if not key or not key.strip() or not (key.isascii() and key.isprintable()):
        state = "is not set" if key is None else "holds no key: it is empty, or has characters that no key has"
        raise SettingsError(f"environment variable {name} {state}; set it to the key that programs must send")
    return key.strip()
