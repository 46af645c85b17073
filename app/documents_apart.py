"""Reads documents in a process of its own: what a stranger's file does to a parser costs that file, not the assistant.

A PDF of a kilobyte can have pdfium draw for hours or take all memory there is, and pdfium cannot be stopped.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.models.errors import EngineError
from hearth.models.tasks import Limits, Report, run_task
from hearth.multimodal.errors import MediaTooLargeError, PerceptionCancelled, PerceptionError, UnsupportedMediaError
from hearth.multimodal.kinds import shown_name

if TYPE_CHECKING:
    from hearth.multimodal.documents import DocumentText

MEMORY_BYTES = 5 << 28  # of address space, besides the document itself
PAGE_SECONDS = 30.0  # to draw one page
_ERRORS = {kind.__name__: kind for kind in (PerceptionError, UnsupportedMediaError, MediaTooLargeError)}

Progress = Callable[[float], None]
Cancelled = Callable[[], bool]


def read_document(
    data: bytes, name: str, *, on_progress: Progress | None = None, cancelled: Cancelled | None = None
) -> DocumentText:
    """As ``hearth.multimodal.documents.read_document``; MediaTooLargeError also if the process ran out of memory or
    ended. Plain text is read here: no parser of others' sees it, and a process takes a third of a second."""
    from hearth.multimodal import documents
    from hearth.multimodal.documents import DocumentText, Page
    from hearth.multimodal.kinds import identify

    mime = identify(data, name).mime
    if mime.startswith("text/") and mime != "text/html":
        return documents.read_document(data, name, on_progress=on_progress, cancelled=cancelled)
    found = json.loads(_run(document_task, None, data, name, on_progress, cancelled))
    pages = tuple(Page(*page) for page in found.pop("pages"))
    return DocumentText(
        **found | {"pages": pages, "scanned_pages": tuple(found["scanned_pages"]), "notices": tuple(found["notices"])}
    )


def page_png(data: bytes, number: int, *, name: str, cancelled: Cancelled | None = None) -> bytes:
    """Page ``number`` (from 1) of a PDF as a PNG. Raises what ``render_page`` raises, and MediaTooLargeError if it took
    more than ``PAGE_SECONDS``, or too much memory; PerceptionCancelled."""
    return _run(page_task, PAGE_SECONDS, data, name, None, cancelled, number=number)


def _run(
    task: Callable[..., dict[str, Any]],
    seconds: float | None,
    data: bytes,
    name: str,
    on_progress: Progress | None,
    cancelled: Cancelled | None,
    **arguments: Any,
) -> bytes:
    """What the task wrote."""
    stop = cancelled or (lambda: False)

    def report(fraction: float, _text: str) -> None:
        check()
        if on_progress is not None:
            on_progress(fraction)

    def check() -> None:
        if stop():
            raise PerceptionCancelled(f"reading {shown_name(name)} was cancelled; nothing was kept")

    check()
    with tempfile.TemporaryDirectory(prefix="hearth-") as folder:
        source, target = Path(folder) / "document", Path(folder) / "read"
        source.write_bytes(data)
        limits = Limits(seconds, MEMORY_BYTES + 3 * len(data))
        try:
            place = f"{__name__}:{task.__name__}"
            answer = run_task(place, limits, report, stop, source=source, target=target, file_name=name, **arguments)
        except EngineError as error:
            check()
            raise MediaTooLargeError(
                f"{shown_name(name)} takes more than {MEMORY_BYTES >> 20:,} MiB or too long to read, or breaks the "
                f"reader ({error}); split it, or save it again"
            ) from error
        if "error" in answer:
            raise _ERRORS.get(answer["kind"], PerceptionError)(answer["error"])
        return target.read_bytes()


def document_task(report: Report, source: Path, target: Path, file_name: str) -> dict[str, Any]:
    """In the process: writes the text to ``target``, or returns the error."""
    from hearth.multimodal import documents

    def read() -> bytes:
        text = documents.read_document(source.read_bytes(), file_name, on_progress=lambda at: report(at, ""))
        pages = [(page.number, page.text, page.section) for page in text.pages]
        fields = {name: getattr(text, name) for name in ("title", "mime", "sha256", "scanned_pages", "notices")}
        return json.dumps(fields | {"pages": pages}).encode("ascii")

    return _written(read, target)


def page_task(report: Report, source: Path, target: Path, file_name: str, number: int) -> dict[str, Any]:
    """In the process: writes the picture of a page to ``target``, or returns the error."""
    from hearth.multimodal import documents

    report(0.0, "drawing")

    def draw() -> bytes:
        documents.render_page(source.read_bytes(), number, name=file_name).save(target, "PNG")
        return target.read_bytes()

    return _written(draw, target)


def _written(make: Callable[[], bytes], target: Path) -> dict[str, Any]:
    try:
        target.write_bytes(make())
    except PerceptionError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    return {}
