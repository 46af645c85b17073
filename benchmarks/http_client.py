"""The client of both servers: requests over one connection each, streams with the clock read at their first data."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that came as server-sent events; times on ``perf_counter``."""

    sent_s: float
    first_s: float
    ended_s: float
    n_tokens: int

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.sent_s


def get_status(port: int, path: str) -> int:
    """The status of a GET, 0 if nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def post(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Raises RuntimeError for any status but 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"POST {path}: {response.status} {data[:300]!r}")
    answer: dict[str, Any] = json.loads(data)
    return answer


def completion(prompt: list[int], n_tokens: int, **fields: Any) -> dict[str, Any]:
    """The body of a greedy completion, for llama-server and for ours. (A bias against the end would cost both.)"""
    return {
        "prompt": prompt,
        "n_predict": n_tokens,
        "stream": True,
        "samplers": ["top_k"],  # the cheapest greedy chain that llama-server has
        "top_k": 1,
        "cache_prompt": True,
        **fields,
    }


def stream(port: int, body: dict[str, Any]) -> Streamed:
    """Raises RuntimeError if it does not end as it should."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    data = json.dumps(body).encode()
    try:
        connection.connect()
        sent_s = time.perf_counter()
        connection.request("POST", "/completion", data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"POST /completion: {response.status} {response.read()[:300]!r}")
        first_s, last = 0.0, b""
        for line in response:
            if line.startswith(b"data: "):
                first_s = first_s or time.perf_counter()
                last = line
        ended_s = time.perf_counter()
    finally:
        connection.close()
    final = json.loads(last.removeprefix(b"data: ")) if last else {}
    if not final.get("stop"):
        raise RuntimeError(f"the stream ended without a result: {last[:300]!r}")
    return Streamed(sent_s, first_s, ended_s, int(final["tokens_predicted"]))
