"""The commands `hearth conversations …`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from hearth.cli_options import DataDirOption, JsonOption
from hearth.surroundings import opened
from hearth.terminal import SNIPPET_CHARS, aside, one_line, print_json, printable

conversations = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Earlier conversations.")


@conversations.command("list")
def conversations_list(
    context: typer.Context,
    query: Annotated[str, typer.Option(metavar="WORDS", help="Only those with these words.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="How many.")] = 50,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List conversations, newest first."""
    with opened(context, data_dir=data_dir) as assistant:
        found = assistant.conversations.list(query=query, limit=limit)
    if as_json:
        print_json({"conversations": [asdict(one) for one in found]})
        return
    for one in found:
        changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.updated_at))
        typer.echo(f"{one.id}  {changed}  {one_line(one.title, SNIPPET_CHARS) or '(no title)'}")
    if not found:
        aside("no conversations")


@conversations.command("show")
def conversations_show(
    context: typer.Context,
    conversation_id: Annotated[str, typer.Argument(metavar="ID", help="As printed by `hearth conversations list`.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a conversation."""
    with opened(context, data_dir=data_dir) as assistant:
        conversation = assistant.conversations.get(conversation_id)
        messages = assistant.conversations.messages(conversation_id)
    if as_json:
        # the frozen prompt pieces are opaque to everyone but the turn that made them
        listed = [{**asdict(message), "frozen": None} for message in messages]
        print_json({**asdict(conversation), "messages": listed})
        return
    for message in messages:
        attached = "".join(f" [{one_line(attachment.name)}]" for attachment in message.attachments)
        typer.echo(f"{message.role}:{attached} {printable(message.text)}")


@conversations.command("delete")
def conversations_delete(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As printed by `hearth conversations list`.")],
    data_dir: DataDirOption = None,
) -> None:
    """Delete conversations, and attachments that nothing else uses."""
    with opened(context, data_dir=data_dir) as assistant:
        for conversation_id in ids:
            assistant.conversations.delete(conversation_id)
