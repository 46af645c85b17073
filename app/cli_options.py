"""Options and exit codes that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1  # with a line on standard error that says why
EXIT_INTERRUPTED: Final = 130  # by Ctrl-C, as shells have it; wrong usage is typer's 2

ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="A name of `hearth models list`, or the path of a GGUF file."),
]
MmprojOption = Annotated[
    Path | None,
    typer.Option("--mmproj", metavar="FILE", help="The model's encoder of pictures; found by itself beside the model."),
]
SpeechModelOption = Annotated[
    str | None,
    typer.Option("--speech-model", metavar="NAME", help="A size of Whisper on this machine, or a model's path."),
]
SpeechLanguageOption = Annotated[
    str | None,
    typer.Option("--speech-language", metavar="LANGUAGE", help="Of recordings, like de or German; else detected."),
]
SpeechTaskOption = Annotated[
    str | None,
    typer.Option("--speech-task", metavar="TASK", help="'transcribe', or 'translate' recordings to English."),
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Where conversations and memory are kept.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
