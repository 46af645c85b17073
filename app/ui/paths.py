"""The paths of Hearth's own HTTP routes, which the page links to."""

from __future__ import annotations

ROOT = "/hearth"
STATUS_PATH = f"{ROOT}/status"
STOP_PATH = f"{ROOT}/stop"
PASSAGE_PATH = f"{ROOT}/passage"
ATTACHMENT_PATH = f"{ROOT}/attachments"
JOB_FILE_PATH = f"{ROOT}/sending"
STATIC_PATH = f"{ROOT}/static"
