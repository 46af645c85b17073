"""The command `hearth transcribe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hearth.cli_options import EXIT_INTERRUPTED, DataDirOption, SpeechModelOption
from hearth.terminal import CLEAR_LINE, ProgressLine, aside, cancel_on_interrupt, printable

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import Transcript


def transcribe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, or a video.")],
    language: Annotated[
        str | None, typer.Option("--language", metavar="LANGUAGE", help="Like de or German; else it is detected.")
    ] = None,
    translate: Annotated[bool, typer.Option("--translate", help="Translate to English.")] = False,
    words: Annotated[bool, typer.Option("--words", help="With the time of every word.")] = False,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="txt, json, srt or vtt.")] = "txt",
    speech_model: SpeechModelOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write down what is said in a recording. Opens no data folder, so it works beside a running Hearth."""
    from hearth.attachments import read_files
    from hearth.multimodal.errors import PerceptionCancelled
    from hearth.multimodal.sound import read_sound
    from hearth.multimodal.transcript_formats import FORMATS, write_transcript
    from hearth.settings import Settings
    from hearth.speech import make_transcriber, options_of

    if form not in FORMATS:
        raise typer.BadParameter(f"--format {form}: must be one of {', '.join(FORMATS)}")
    task = "translate" if translate else None
    settings = Settings(speech_model=speech_model, speech_language=language, speech_task=task, data_dir=data_dir)
    raw = read_files(file, "recording")[0]
    progress = ProgressLine(raw.name)
    with cancel_on_interrupt() as cancelled:
        try:
            sound = read_sound(raw.data, raw.name, cancelled=cancelled.is_set)
            transcript = make_transcriber(settings).transcribe(
                sound, options_of(settings, words=words), on_progress=progress, cancelled=cancelled.is_set
            )
        except PerceptionCancelled:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        finally:
            progress.clear()
    _tell_language(transcript)
    typer.echo(printable(write_transcript(transcript, form)), nl=False)


def _tell_language(transcript: Transcript) -> None:
    from hearth.multimodal.languages import language_name

    if transcript.language_prob is not None:
        name = language_name(transcript.language)
        aside(f"{CLEAR_LINE}heard in {name} ({transcript.language_prob:.0%} sure)")
