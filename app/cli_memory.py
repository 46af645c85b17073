"""The commands `hearth memory …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hearth.cli_options import EXIT_FAILED, DataDirOption, JsonOption, SpeechLanguageOption, SpeechModelOption
from hearth.models.errors import HearthError
from hearth.places import place_in
from hearth.surroundings import opened
from hearth.terminal import SNIPPET_CHARS, ProgressLine, aside, one_line, print_json, report

if TYPE_CHECKING:
    from hearth.store.records import Document

memory = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Documents and pictures kept for later questions."
)


@memory.command("add")
def memory_add(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Documents, pictures or recordings.")],
    speech_model: SpeechModelOption = None,
    speech_language: SpeechLanguageOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add files, to be found and cited later. Goes on after a file that cannot be read."""
    added, failed = [], 0
    speech = {"speech_model": speech_model, "speech_language": speech_language}
    with opened(context, data_dir=data_dir, **speech) as assistant:
        for path in files:
            progress = ProgressLine(path.name)
            try:
                document = assistant.memory.add(path, on_progress=progress)
            except HearthError as error:
                progress.clear()
                report(error)
                failed += 1
                continue
            progress.clear()
            added.append(asdict(document))
            if not as_json:
                typer.echo(f"{document.id}  {one_line(document.title)}  {_extent(document)}")
    if as_json:
        print_json({"documents": added})
    if failed:
        raise typer.Exit(EXIT_FAILED)


@memory.command("search")
def memory_search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    k: Annotated[int, typer.Option("--k", metavar="N", min=1, max=100, help="Results at most.")] = 5,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find passages and pictures, by meaning and by words."""
    with opened(context, data_dir=data_dir) as assistant:
        hits = assistant.memory.search(query, k=k)
    if as_json:
        print_json({"hits": [asdict(hit) for hit in hits]})
        return
    for hit in hits:
        passage = hit.passage
        where = "" if passage is None else place_in(passage.page, passage.start_s)
        text = "(picture)" if passage is None else one_line(passage.text, SNIPPET_CHARS)
        typer.echo(f"{hit.score:.3f}  {hit.document.id}  {one_line(hit.document.title)}{where}: {text}")
    if not hits:
        aside("nothing found")


@memory.command("list")
def memory_list(context: typer.Context, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List what is in memory, newest first."""
    with opened(context, data_dir=data_dir) as assistant:
        documents = assistant.memory.list()
    if as_json:
        print_json({"documents": [asdict(document) for document in documents]})
        return
    for document in documents:
        state = "" if document.state == "ready" else f"  {document.state}: {one_line(document.detail)}"
        typer.echo(f"{document.id}  {one_line(document.title)}  {_extent(document)}{state}")
    if not documents:
        aside("memory is empty; add files with `hearth memory add FILE`")


@memory.command("forget")
def memory_forget(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As printed by `hearth memory list`.")],
    data_dir: DataDirOption = None,
) -> None:
    """Delete documents with all that was made from them."""
    with opened(context, data_dir=data_dir) as assistant:
        for document_id in ids:
            assistant.memory.forget(document_id)


def _extent(document: Document) -> str:
    if document.kind == "picture":
        return "picture"
    return f"{document.n_passages} passage{'' if document.n_passages == 1 else 's'}"
