"""Our engine behind a little HTTP, so that a comparison with llama-server counts it on both sides.

Knows `GET /health`, `POST /completion` (prompt as token ids, n_predict, stream; greedy), `POST /flush`
and `POST /stats`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ours import Run, opened

from hearth.models.errors import HearthError
from hearth.models.types import Failed, Finished, GenerationRequest, TextDelta, TextSegment


class Handler(BaseHTTPRequestHandler):
    """One request; the server holds the engine."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: EngineServer

    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.path == "/completion":
            self._complete(body)
        elif self.path == "/flush":
            self.server.engine.flush()
            self._send(200, {})
        elif self.path == "/stats":
            self._send(200, self.server.engine.stats())
        else:
            self._send(404, {})

    def _complete(self, body: dict[str, Any]) -> None:
        segments = (TextSegment(tuple(body["prompt"])),)
        request = GenerationRequest("http", segments, max_tokens=int(body["n_predict"]))
        try:
            handle = self.server.engine.submit(request)
        except HearthError as error:
            self._send(error.http_status, {"error": str(error)})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in handle.events():
            if isinstance(event, TextDelta):
                self._event({"content": event.text, "stop": False})
            elif isinstance(event, Finished):
                usage = {"tokens_predicted": len(event.tokens), "tokens_cached": event.usage.cached_tokens}
                self._event({"content": "", "stop": True, **usage})
            elif isinstance(event, Failed):
                self._event({"error": str(event.error), "stop": False})
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, fields: dict[str, Any]) -> None:
        data = b"data: " + json.dumps(fields).encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, status: int, fields: dict[str, Any]) -> None:
        data = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class EngineServer(ThreadingHTTPServer):
    """Holds the engine that the handlers use."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, engine: Any) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = engine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kv", type=Path, required=True)
    parser.add_argument("--n-ctx", type=int, required=True)
    parser.add_argument("--n-parallel", type=int, default=1)
    parser.add_argument("--n-threads", type=int, default=2)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--separate-kv", action="store_true", help="--n-ctx cells for every chat")
    parser.add_argument("--save-all", action="store_true", help="save prefixes however cheap they are")
    parser.add_argument("--resume", action="store_true", help="load the last chat at the start")
    parser.add_argument("--in-thread", action="store_true")
    given = parser.parse_args()
    run = Run(
        given.model,
        given.model,
        n_threads=given.n_threads,
        n_gpu_layers=given.gpu_layers,
        quick=given.save_all,
        in_thread=given.in_thread,
    )
    parallel = {"n_parallel": given.n_parallel, "n_sequences": max(given.n_parallel, 2)}
    options = {"kv_unified": not given.separate_kv, "kv_resume": given.resume, **parallel}
    with opened(run, n_ctx=given.n_ctx, kv=given.kv, **options) as engine:
        server = EngineServer(given.port, engine)
        # the engine is closed in order: what it saves is whole
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(poll_interval=0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
