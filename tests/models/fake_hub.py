"""A server on loopback that answers as the Hugging Face hub does to what a pull asks, and fails where told to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

COMMIT = "a" * 40
NEWER = "b" * 40


@dataclass
class FakeHub:
    """``repositories``: name → commit → path → content. ``refs``: what a branch means now."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    gated: set[str] = field(default_factory=set)
    small: set[str] = field(default_factory=set)  # paths that are no LFS files: the hub tells git's hash of them
    lies: dict[str, bytes] = field(default_factory=dict)  # path → what is sent in place of what was announced
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # path → bytes sent before the connection breaks
    elsewhere: dict[str, str] = field(default_factory=dict)  # path → address that the hub sends one on to
    stall: threading.Event | None = None  # a sent file stops halfway until it is set
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.refs.get(revision, revision)
        files = self.repositories.get(repository, {}).get(commit)
        return None if files is None else (commit, files)

    def fetched(self) -> list[str]:
        """Paths of the files that were asked for, in order."""
        return [path for _, path, _ in self.requests if "/resolve/" in path or path.startswith("/plain/")]


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serves until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        if hub.stall is not None:
            hub.stall.set()
        server.shutdown()
        server.server_close()


def reach(hub: FakeHub, patch: pytest.MonkeyPatch) -> None:
    """Makes ``hub`` the hub of this test, whatever the environment and the assistants before it have settled."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        patch.delenv(variable, raising=False)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setenv("HF_ENDPOINT", hub.url)


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = unquote(self.path.split("?")[0])
            hub.requests.append((self.command, path, dict(self.headers)))
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._tell("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            elif "resolve" in parts:
                self._send("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            elif parts[0] == "plain":
                self._send_content(path, hub.repositories["plain"][COMMIT][parts[1]])
            else:
                self._refuse(404, "RepoNotFound")

        def _tell(self, repository: str, revision: str) -> None:
            if repository not in hub.repositories:
                return self._refuse(401, "RepoNotFound")  # as the hub answers who is not logged in
            found = hub.files(repository, revision)
            if found is None:
                return self._refuse(404, "RevisionNotFound")
            commit, files = found
            siblings = [_sibling(path, content, path in hub.small) for path, content in files.items()]
            gated = "manual" if repository in hub.gated else False
            fields = {"_id": "1", "id": repository, "modelId": repository, "sha": commit, "gated": gated}
            body = json.dumps({**fields, "siblings": siblings, "private": False, "tags": []}).encode()
            return self._answer(200, body, {"Content-Type": "application/json"})

        def _send(self, repository: str, revision: str, path: str) -> None:
            if repository in hub.gated and "Authorization" not in self.headers:
                return self._refuse(401, "GatedRepo")
            found = hub.files(repository, revision)
            if found is None or path not in found[1]:
                return self._refuse(404, "EntryNotFound")
            if path in hub.elsewhere:
                return self._answer(302, b"", {"Location": hub.elsewhere[path]})
            return self._send_content(path, found[1][path])

        def _send_content(self, path: str, content: bytes) -> None:
            content = hub.lies.get(path, content)
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._refuse(416, "")
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            cuts = hub.cut_after.get(path, [])
            if cuts:
                self.wfile.write(body[: cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return self.connection.close()
            if hub.stall is not None:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                hub.stall.wait(20)
                body = body[len(body) // 2 :]
            self.wfile.write(body)
            return None

        def _refuse(self, status: int, code: str) -> None:
            self._answer(status, b"", {"X-Error-Code": code, "X-Error-Message": "refused"})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _sibling(path: str, content: bytes, small: bool) -> dict[str, Any]:
    git_sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    fields: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_sha1}
    if not small:
        fields["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return fields
