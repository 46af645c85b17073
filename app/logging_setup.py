"""What of the program's own log reaches standard error, and how."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Final

from hearth.models.errors import RequestError

LEVELS: Final = ("debug", "info", "warning", "error")
LEVEL_VARIABLE: Final = "HEARTH_LOG_LEVEL"

# Libraries that report their own affairs at info, or warn about choices that are ours and made on purpose.
_CHATTY: Final = (
    "asyncio",
    "chromadb",
    "filelock",
    "gradio",
    "hpack",
    "httpcore",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "markdown_it",
    "matplotlib",
    "multipart",
    "PIL",
    "sentence_transformers",
    "torch",
    "trafilatura",
    "transformers",
    "urllib3",
    "uvicorn",
)


class OneLineFormatter(logging.Formatter):
    """A record as one line: no time, no traceback; for people who did not ask for a log."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"hearth: {record.levelname.lower()}: {record.getMessage()}"
        return " ".join(line.split())


def log_level(*, verbose: bool) -> str | None:
    """The level that was asked for: ``HEARTH_LOG_LEVEL``, else ``info`` with ``verbose``, else None.

    Raises RequestError if the variable names no level.
    """
    asked = os.environ.get(LEVEL_VARIABLE, "").strip().lower()
    if not asked:
        return "info" if verbose else None
    if asked not in LEVELS:
        raise RequestError(f"{LEVEL_VARIABLE}={asked!r} is not a level; use one of {', '.join(LEVELS)}")
    return asked


def configure_logging(*, verbose: bool = False) -> None:
    """Sends the log to standard error: one-line warnings, or everything from the level asked for, with times.

    Replaces what an earlier call set up. Raises RequestError if ``HEARTH_LOG_LEVEL`` names no level.
    """
    level = log_level(verbose=verbose)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if getattr(handler, "of_hearth", False):
            root.removeHandler(handler)
    root.addHandler(_marked(_plain_handler() if level is None else _rich_handler()))
    root.setLevel(logging.WARNING)
    logging.getLogger("hearth").setLevel(level.upper() if level else logging.WARNING)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.ERROR)
    if level is None:
        warnings.simplefilter("ignore")
    else:
        logging.captureWarnings(True)


def _marked(handler: logging.Handler) -> logging.Handler:
    handler.of_hearth = True  # type: ignore[attr-defined]
    return handler


def _plain_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter())
    return handler


def _rich_handler() -> logging.Handler:
    # rich takes a tenth of a second to import, and most runs print no log
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False, markup=False)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    return handler
