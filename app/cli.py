"""The command line: `hearth`, `hearth ask|serve|transcribe|doctor`, `hearth memory|models|conversations|kv|bench …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from hearth import __version__
from hearth.cli_bench import bench
from hearth.cli_conversations import conversations
from hearth.cli_kv import kv
from hearth.cli_memory import memory
from hearth.cli_models import models
from hearth.cli_options import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    DataDirOption,
    JsonOption,
    MmprojOption,
    ModelOption,
    SpeechLanguageOption,
    SpeechModelOption,
    SpeechTaskOption,
)
from hearth.cli_serve import serve as serve_command
from hearth.cli_transcribe import transcribe
from hearth.logging_setup import configure_logging
from hearth.surroundings import Surroundings, open_assistant, opened, serve
from hearth.terminal import cancel_on_interrupt, print_json, report

# rich would take longer to import than the rest of `hearth --help`
cli = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
cli.add_typer(memory, name="memory")
cli.add_typer(models, name="models")
cli.add_typer(conversations, name="conversations")
cli.add_typer(kv, name="kv")
cli.add_typer(bench, name="bench")


@cli.callback(invoke_without_command=True)
def page(
    context: typer.Context,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address of this machine to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the browser.")] = False,
    model: ModelOption = None,
    mmproj: MmprojOption = None,
    speech_model: SpeechModelOption = None,
    speech_language: SpeechLanguageOption = None,
    speech_task: SpeechTaskOption = None,
    data_dir: DataDirOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the log on standard error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A local multimodal assistant. Without a command: the web page on this machine."""
    configure_logging(verbose=verbose)
    if version:
        typer.echo(f"hearth {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is not None:
        _refuse_page_options(context)
        return
    surroundings: Surroundings = context.obj
    speech = _speech(speech_model, speech_language, speech_task)
    assistant = surroundings.open_assistant(model=model, mmproj=mmproj, data_dir=data_dir, **speech)
    try:
        surroundings.serve(assistant, host=host, port=port, open_browser=not no_browser)
    finally:
        assistant.close()


def _refuse_page_options(context: typer.Context) -> None:
    """An option of the page before a command would otherwise be accepted and ignored."""
    speech = ("speech_model", "speech_language", "speech_task")
    for name in ("host", "port", "no_browser", "model", "mmproj", *speech, "data_dir"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            command = context.invoked_subcommand
            raise typer.BadParameter(f"{option} before {command!r} has no effect; put it after or drop it")


@cli.command()
def ask(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT|-", help="The question; '-' reads it from standard input.")] = "",
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="FILE", help="A picture; may be repeated.")
    ] = None,
    audio: Annotated[
        list[str] | None, typer.Option("--audio", metavar="FILE", help="A recording; may be repeated.")
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option("--document", metavar="FILE", help="A document; may be repeated.")
    ] = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")] = None,
    model: ModelOption = None,
    mmproj: MmprojOption = None,
    speech_model: SpeechModelOption = None,
    speech_language: SpeechLanguageOption = None,
    speech_task: SpeechTaskOption = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt of a new conversation.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens to generate at most.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="0 always takes the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Makes a random answer repeatable.")] = None,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Do not search memory.")] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask once: text, pictures, recordings and documents go in, the answer comes out as it is made."""
    question = sys.stdin.read().strip() if text == "-" else text
    images, recordings, documents = image or [], audio or [], document or []
    if not (question or images or recordings or documents):
        raise typer.BadParameter("nothing to ask: give a text, --image, --audio or --document")
    from hearth.turn_printer import TurnPrinter, follow

    printer = TurnPrinter(sys.stdout, sys.stderr)
    files = {"model": model, "mmproj": mmproj, "data_dir": data_dir}
    speech = _speech(speech_model, speech_language, speech_task)
    with opened(context, **files, **speech) as assistant, cancel_on_interrupt() as cancelled:
        reply = follow(
            assistant.stream(
                question,
                images=images,
                audio=recordings,
                documents=documents,
                conversation=conversation,
                system=system,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                use_memory=not no_memory,
                cancelled=cancelled,
            ),
            None if as_json else printer,
        )
    if as_json:
        print_json(reply.to_dict())
    if cancelled.is_set() and reply.finish_reason == "cancelled":
        raise typer.Exit(EXIT_INTERRUPTED)


cli.command()(transcribe)
cli.command("serve")(serve_command)


@cli.command()
def doctor(
    model: ModelOption = None,
    speech_model: SpeechModelOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine has, what will fit, and what is wrong."""
    from hearth.doctor import examine, line, to_dict
    from hearth.settings import Settings

    findings = examine(Settings(model=model, speech_model=speech_model, data_dir=data_dir))
    if as_json:
        print_json(to_dict(findings))
    else:
        for finding in findings:
            typer.echo(line(finding))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _speech(model: str | None, language: str | None, task: str | None) -> dict[str, str | None]:
    """The settings of recordings, as far as they were given."""
    given = {"speech_model": model, "speech_language": language, "speech_task": task}
    return {name: value for name, value in given.items() if value is not None}


REAL = Surroundings(open_assistant, serve)


def main(arguments: Sequence[str] | None = None, surroundings: Surroundings = REAL) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    _tolerate_encodings()
    try:
        code = cli(arguments, standalone_mode=False, obj=surroundings, prog_name="hearth")
        sys.stdout.flush()
    except TyperException as error:
        _show_usage(error)
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        _end_line()
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader of a pipe went away; Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # the outermost boundary: nothing is hidden, HEARTH_DEBUG shows all of it
        report(error)
        return EXIT_FAILED
    return code if isinstance(code, int) else EXIT_DONE


def _show_usage(error: TyperException) -> None:
    show = getattr(error, "show", None)
    if show is None:
        report(error)
    else:
        show()


def _end_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def _tolerate_encodings() -> None:
    """A terminal that cannot show a character of the answer must not end it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
