"""Hearth's own HTTP routes for the page: attachments, files being sent, the opened source, status, style and script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response

from hearth import assets
from hearth.models.errors import HearthError
from hearth.ui.lists import passage_panel
from hearth.ui.paths import ATTACHMENT_PATH, JOB_FILE_PATH, PASSAGE_PATH, STATIC_PATH, STATUS_PATH

if TYPE_CHECKING:
    from hearth.assistant import Assistant
    from hearth.ui.chat import Chat

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_HEADERS = {"Content-Security-Policy": "default-src 'none'; media-src 'self'; sandbox", "Cache-Control": "private"}
_STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAGIC_BYTES = 16
# What a browser may show; anything else is only ever downloaded. SVG is not among them: it can carry scripts.
_SHOWN_TYPES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM"), "image/bmp"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "audio/wav"),
    (re.compile(rb"ID3|\xff[\xfb\xf3\xf2]"), "audio/mpeg"),
    (re.compile(rb"OggS"), "audio/ogg"),
    (re.compile(rb"fLaC"), "audio/flac"),
    (re.compile(rb"....ftyp", re.DOTALL), "audio/mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "audio/webm"),
)


def make_router(assistant: Assistant, chat: Chat) -> APIRouter:
    """The routes, all under one prefix and read-only."""
    router = APIRouter()

    @router.get(STATUS_PATH)
    def status() -> JSONResponse:
        return JSONResponse(assistant.status(), headers={"Cache-Control": "no-store"})

    @router.get(f"{STATIC_PATH}/{{name}}")
    def static(name: str) -> Response:
        found = {path.name: path for path in assets.ui_dir().iterdir() if path.suffix in _STATIC_TYPES}
        if name not in found:
            return _not_found(f"{name}: no such file")
        return FileResponse(
            found[name], media_type=_STATIC_TYPES[found[name].suffix], headers={"Cache-Control": "no-cache"}
        )

    @router.get(f"{ATTACHMENT_PATH}/{{sha256}}")
    def attachment(sha256: str, name: str = "") -> Response:
        if not _SHA256.fullmatch(sha256):
            return _not_found("an attachment is named by its SHA-256")
        try:
            return _file(assistant.attachment_path(sha256), name or sha256[:12])
        except HearthError as error:
            return _not_found(str(error))

    @router.get(f"{JOB_FILE_PATH}/{{conversation_id}}/{{position}}")
    def sending(conversation_id: str, position: int) -> Response:
        job = chat.jobs.latest(conversation_id)
        if job is None or not 0 <= position < len(job.request.files):
            return _not_found("this file is no longer being sent")
        path = job.request.files[position]
        return _file(path, path.name)

    @router.get(f"{PASSAGE_PATH}/{{conversation_id}}/{{message_id}}/{{number}}")
    def passage(conversation_id: str, message_id: str, number: int) -> Response:
        try:
            citation = chat.citation(conversation_id, message_id, number)
        except HearthError as error:
            return _not_found(str(error))
        if citation is None:
            return _not_found("this source is not there any more")
        recording = assistant.memory.recording_of(str(citation["document_id"]))
        return HTMLResponse(passage_panel(citation, recording), headers={"Cache-Control": "no-store"})

    return router


def _file(path: Path, name: str) -> Response:
    try:
        with path.open("rb") as file:
            head = file.read(_MAGIC_BYTES)
    except OSError:
        return _not_found("this file is not there any more")
    for magic, media_type in _SHOWN_TYPES:
        if magic.match(head):
            return FileResponse(path, media_type=media_type, headers=_FILE_HEADERS)
    return FileResponse(path, media_type="application/octet-stream", filename=name, headers=_FILE_HEADERS)


def _not_found(reason: str) -> Response:
    return PlainTextResponse(reason, 404)
