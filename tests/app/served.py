"""A server of ours on a loopback port, as programs meet it."""

from __future__ import annotations

import threading
import time
from typing import Any

import uvicorn

import hearth
from hearth.api.options import ApiOptions
from hearth.server import create_app


class Served:
    """``/v1`` of an assistant, without the page, until ``stop``; the assistant is closed then too."""

    def __init__(self, assistant: hearth.Assistant, **options: Any) -> None:
        self.assistant = assistant
        app = create_app(assistant, page=False, api=ApiOptions(**options))
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self.assistant.close()
