"""What the commands run on: the real assistant and web server, or a test's own parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hearth.api.options import ApiOptions
    from hearth.assistant import Assistant


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``open_assistant`` takes settings by name, None for those not given; ``serve`` returns when the server stops."""

    open_assistant: Callable[..., Assistant]
    serve: Callable[..., None]


def open_assistant(**settings: Any) -> Assistant:
    """The real assistant, with the settings that were given on the command line."""
    from hearth.assistant import Assistant

    return Assistant(**{name: value for name, value in settings.items() if value is not None})


def serve(
    assistant: Assistant,
    *,
    host: str,
    port: int,
    open_browser: bool,
    page: bool = True,
    api: ApiOptions | None = None,
) -> None:
    """The real web server."""
    from hearth.server import serve as serve_page

    assistant.isolate_engine()

    def announce(address: str) -> None:
        if page:
            typer.echo(f"Hearth answers at {address} (Ctrl-C stops it)")
        if api is not None:
            key = "asks for its key" if api.key is not None else "asks for no key"
            typer.echo(f"Other programs use {address}/v1, which {key}" + ("" if page else " (Ctrl-C stops it)"))
        leaves = assistant.status()["leaves"]
        if leaves:
            typer.echo(leaves)

    serve_page(assistant, host=host, port=port, open_browser=open_browser, on_ready=announce, page=page, api=api)


@contextmanager
def opened(context: typer.Context, **settings: Any) -> Iterator[Assistant]:
    """The assistant of a command, closed when the command is done with it."""
    surroundings: Surroundings = context.obj
    assistant = surroundings.open_assistant(**settings)
    try:
        yield assistant
    finally:
        assistant.close()
