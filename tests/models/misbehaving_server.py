"""An OpenAI-compatible server that does what a test tells it to, byte by byte, on a loopback port."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Writer = asyncio.StreamWriter
Behaviour = Callable[["Asked", Writer], Awaitable[None]]


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def delta(text: str, reason: str | None = None) -> bytes:
    """A chunk of an answer as an event."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


COUNTS = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
USAGE = b"data: " + json.dumps({"choices": [], "usage": COUNTS}).encode() + b"\n\n"
DONE = b"data: [DONE]\n\n"
ANSWER = delta("Hello") + delta(" there") + delta("", "stop") + USAGE + DONE


def head(status: int = 200, kind: str = "text/event-stream", **headers: str) -> bytes:
    """A response's head; its body ends with the connection."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def sends(*pieces: bytes, pause_s: float = 0.0) -> Behaviour:
    """Writes ``pieces`` and closes the connection."""

    async def behave(_: Asked, writer: Writer) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return behave


def fails(status: int, message: str = "", **headers: str) -> Behaviour:
    body = json.dumps({"error": {"message": message}}).encode() if message else b""
    return sends(head(status, "application/json", **headers) + body)


async def hangs(_: Asked, __: Writer) -> None:
    await asyncio.sleep(3600)


async def hangs_up(_: Asked, writer: Writer) -> None:
    writer.transport.abort()


class MisbehavingServer:
    """``behaviours`` are what answers do, one after the other, the last one for ever; ``asked`` what came."""

    def __init__(self, *behaviours: Behaviour, models: Any = None, port: int = 0) -> None:
        self.behaviours = list(behaviours) or [sends(head() + ANSWER)]
        self.models = {"data": [{"id": "m"}]} if models is None else models
        self.asked: list[Asked] = []
        self.n_open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", port), self._loop)
        self._server = started.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.n_open += 1
        try:
            asked = await self._read(reader)
            if asked.path.endswith("/models"):
                body = self.models if isinstance(self.models, bytes) else json.dumps(self.models).encode()
                writer.write(head(kind="application/json") + body)
                await writer.drain()
                return
            self.asked.append(asked)
            behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            working = asyncio.ensure_future(behave(asked, writer))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            gone.cancel()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.n_open -= 1
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(method, path, headers, json.loads(body) if body else None)
