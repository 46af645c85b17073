"""The engine elsewhere against a server that misbehaves in every way, on loopback."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hearth.models.errors import ContextOverflowError, EngineError, HearthError, RequestError
from hearth.models.remote.chat import ChatMessage, ChatRequest, MediaPart
from hearth.models.remote.engine import RemoteEngine, RemoteHandle
from hearth.models.remote.event_stream import MAX_EVENT_BYTES, EventStream
from hearth.models.remote.options import RemoteOptions, check_url
from hearth.models.types import EngineEvent, Failed, Finished, SamplingParams, TextDelta
from tests.models.misbehaving_server import (
    ANSWER,
    DONE,
    USAGE,
    Behaviour,
    MisbehavingServer,
    delta,
    fails,
    hangs,
    hangs_up,
    head,
    sends,
)

KEY = "sk-very-secret-4826"
HELLO = ChatRequest("r", (ChatMessage("user", ("Hello",)),))


@contextmanager
def talking_to(*behaviours: Behaviour, models: Any = None, **options: Any) -> Iterator[tuple[Any, RemoteEngine]]:
    server = MisbehavingServer(*behaviours, models=models)
    engine = None
    try:
        given = {"backoff_s": 0.01, "connect_s": 2.0, "first_byte_s": 5.0, "between_s": 5.0, **options}
        engine = RemoteEngine.connect(RemoteOptions(server.url, **given))
        yield server, engine
    finally:
        if engine is not None:
            engine.close()
        server.stop()


def answer(engine: RemoteEngine, request: ChatRequest = HELLO) -> tuple[str, Finished | Failed]:
    """The text of the deltas and the last event."""
    events: list[EngineEvent] = list(engine.submit(request).events())
    last = events[-1]
    assert isinstance(last, Finished | Failed)
    assert not any(isinstance(event, Finished | Failed) for event in events[:-1])
    return "".join(event.text for event in events if isinstance(event, TextDelta)), last


def finished(engine: RemoteEngine, request: ChatRequest = HELLO) -> Finished:
    text, last = answer(engine, request)
    assert isinstance(last, Finished), last
    assert last.text == text
    return last


def error_of(*behaviours: Behaviour, **options: Any) -> HearthError:
    with talking_to(*behaviours, **options) as (_, engine):
        _, last = answer(engine)
    assert isinstance(last, Failed), last
    return last.error


def test_an_answer_with_its_counts_and_times() -> None:
    with talking_to(
        sends(head() + delta("Hello"), delta(" there") + delta("", "stop") + USAGE + DONE, pause_s=0.05)
    ) as (
        _,
        engine,
    ):
        last = finished(engine)
    assert (last.text, last.reason, last.tokens) == ("Hello there", "stop", ())
    assert (last.usage.prompt_tokens, last.usage.cached_tokens, last.usage.completion_tokens) == (9, 4, 2)
    assert last.timings.decode_tokens_per_s > 0
    assert last.timings.ttft_s > 0


def test_what_is_sent() -> None:
    sampling = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        seed=7,
        presence_penalty=0.1,
        logit_bias={5: -float("inf")},
        json_schema={"type": "object", "properties": {}},
    )
    picture = MediaPart("picture", lambda: (b"p", "image/png"))
    sound = MediaPart("sound", lambda: (b"s", "audio/wav"))
    messages = (ChatMessage("system", ("Be ", "brief.")), ChatMessage("user", (picture, sound, "", "What is this?")))
    with talking_to(key=KEY) as (server, engine):
        finished(engine, ChatRequest("r", messages, sampling, 12, ("END",)))
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    body = asked.body
    assert body.pop("messages") == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(b'p').decode()}"}},
                {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"s").decode(), "format": "wav"}},
                {"type": "text", "text": "What is this?"},
            ],
        },
    ]
    assert body.pop("response_format")["json_schema"]["schema"] == sampling.json_schema
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 0.1,
        "logit_bias": {"5": -100.0},
        "max_tokens": 12,
        "stop": ["END"],
    }


@pytest.mark.parametrize(
    "parameter",
    [{"grammar": 'root ::= "a"'}, {"mirostat": 2}, {"n_logprobs": 1}, {"top_k": 3}, {"dry_multiplier": 1.0}],
)
def test_what_such_servers_do_not_take_is_refused(parameter: dict[str, Any]) -> None:
    with talking_to() as (server, engine), pytest.raises(RequestError, match=f"{next(iter(parameter))} cannot be had"):
        engine.submit(ChatRequest("r", HELLO.messages, SamplingParams(temperature=0.5, **parameter)))
    assert server.asked == []


@pytest.mark.parametrize(
    "trouble",
    [fails(429, "slow down"), fails(503, "loading", Retry_After="0"), hangs_up, sends(b"")],
    ids=["429", "503", "hangs up", "says nothing"],
)
def test_what_fails_before_the_first_byte_is_asked_again(trouble: Behaviour) -> None:
    with talking_to(trouble, trouble, sends(head() + ANSWER)) as (server, engine):
        assert finished(engine).text == "Hello there"
    assert len(server.asked) == 3


def test_a_server_that_comes_up_late_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = RemoteOptions(f"http://127.0.0.1:{port}/v1", model="m", backoff_s=0.01, attempts=2)
    with pytest.raises(EngineError, match=rf"connecting to 127.0.0.1:{port} failed: .*; check that the server runs"):
        RemoteEngine.connect(options)


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        (fails(429, "slow down"), EngineError, "is busy: slow down; ask again later"),
        (fails(401, f"bad key {KEY}"), EngineError, "refuses access: bad key …; set HEARTH_ENGINE_KEY"),
        (fails(403), EngineError, "refuses access: HTTP status 403"),
        (fails(404, "no model m"), EngineError, "no model m; check engine_model"),
        (fails(400, "temperature is too hot"), RequestError, "refuses the request: temperature is too hot"),
        (fails(400, "maximum context length is 4096"), ContextOverflowError, "maximum context length is 4096; start a"),
        (fails(500, "out of memory"), EngineError, "failed: out of memory; look at its log"),
        (fails(500), EngineError, "failed: HTTP status 500"),
        (fails(302, Location="http://127.0.0.1:1/"), EngineError, "redirects elsewhere, which is not followed"),
        (sends(head(418, "text/html") + b"<html>" * 99), RequestError, "HTTP status 418"),
        (sends(head(kind="text/html") + b"<html>"), EngineError, "'text/html' instead of an event stream"),
        (sends(head() + delta("Hel")), EngineError, "cut off after 3 characters"),
        (sends(head()), EngineError, "cut off before it began"),
        (sends(head() + delta("Hel") + b"data: {nonsense\n\n"), EngineError, "'{nonsense', which is no JSON object"),
        (sends(head() + b"data: 7\n\n"), EngineError, "'7', which is no JSON object"),
        (sends(head() + b"data: " + b"[" * 100_000 + b"\n\n"), EngineError, "no JSON object"),
        (sends(head() + b"data: " + b"x" * (MAX_EVENT_BYTES + 9)), EngineError, "a line of more than 8 MiB"),
        (sends(head() + b'data: {"error":{"message":"the GPU is gone"}}\n\n'), EngineError, "failed: the GPU is gone"),
        (sends(head() + b'event: error\ndata: {"message":"gone"}\n\n'), EngineError, "failed: gone"),
        (sends(head() + b'error: {"message":"old style"}\n\n'), EngineError, "failed: old style"),
        (sends(head() + delta("", "abort")), EngineError, "broke the answer off"),
        (sends(head(kind="application/json") + b'{"choices":[]}'), EngineError, "cut off before it began"),
        (sends(head(kind="application/json") + b"{"), EngineError, "no JSON object"),
        (sends(b"nonsense\r\n\r\n"), EngineError, "connecting to"),
        (
            sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\nnot gzip"),
            EngineError,
            "reading the answer",
        ),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(trouble: Behaviour, kind: type[HearthError], said: str) -> None:
    error = error_of(trouble, key=KEY, attempts=2)
    assert isinstance(error, kind)
    assert said in str(error)
    assert KEY not in str(error)
    assert "\n" not in str(error)


def test_a_server_that_never_answers_is_given_up() -> None:
    error = error_of(hangs, first_byte_s=0.2)
    assert "did not begin to answer within 0.2 s" in str(error)
    error = error_of(sends(head(), pause_s=60), first_byte_s=0.2)
    assert "has sent nothing for 0.2 s" in str(error)
    error = error_of(sends(head() + delta("Hel"), pause_s=60), between_s=0.2)
    assert "has sent nothing for 0.2 s" in str(error)


def test_signs_of_life_keep_a_connection() -> None:
    alive = [b": still reading\n\n"] * 8
    with talking_to(sends(head(), *alive, ANSWER, pause_s=0.05), first_byte_s=0.25, between_s=0.25) as (_, engine):
        assert finished(engine).text == "Hello there"


def test_after_the_end_only_the_counts_can_be_missing() -> None:
    for rest in (b"", b"data: {nonsense\n\n"):
        with talking_to(sends(head() + delta("Hello") + delta("", "length") + rest)) as (_, engine):
            last = finished(engine)
        assert (last.text, last.reason, last.usage.completion_tokens) == ("Hello", "length", 1)


def test_servers_that_do_it_otherwise() -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    with talking_to(sends(head(kind="application/json; charset=utf-8") + json.dumps(whole).encode())) as (_, engine):
        assert finished(engine).text == "Hello"
    windows = ANSWER.replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    with talking_to(sends(head() + windows)) as (_, engine):
        assert finished(engine).text == "Hello there"
    unended = delta("Hello", "stop").rstrip()
    with talking_to(sends(head() + unended)) as (_, engine):
        assert finished(engine).text == "Hello"
    odd = b'data: {"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}\n\n'
    odd += b'data: {"choices":null,"usage":{"prompt_tokens":-1,"completion_tokens":1e999}}\n\ndata: {"choices":[7]}\n\n'
    with talking_to(sends(head() + odd + ANSWER)) as (_, engine):
        assert finished(engine).text == "Hello there"


def test_text_cut_anywhere_comes_whole() -> None:
    whole = head() + delta("ünï🎈") + delta("", "stop") + DONE
    with talking_to(sends(*(whole[i : i + 1] for i in range(len(whole))))) as (_, engine):
        assert finished(engine).text == "ünï🎈"


def cancelled_within(engine: RemoteEngine, ready: Callable[[RemoteHandle], None]) -> float:
    """Seconds from a cancel to the last event."""
    handle = engine.submit(HELLO)
    ready(handle)
    started = time.perf_counter()
    threading.Timer(0.0, handle.cancel).start()
    last = list(handle.events())[-1]
    assert isinstance(last, Finished)
    assert last.reason == "cancelled"
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "behaviour",
    [hangs, sends(head(), pause_s=60), sends(head() + delta("Hel"), pause_s=60), fails(503, "wait", Retry_After="9")],
    ids=["no head", "no text", "in the answer", "before another attempt"],
)
def test_cancel_closes_the_connection_in_every_phase(behaviour: Behaviour) -> None:
    with talking_to(behaviour) as (server, engine):
        for pause_s in (0.0, 0.15):
            assert cancelled_within(engine, lambda _, pause_s=pause_s: time.sleep(pause_s)) < 5  # type: ignore[misc]
        started = time.perf_counter()
        while server.n_open:
            assert time.perf_counter() - started < 2
            time.sleep(0.005)


def test_closing_ends_what_runs_and_refuses_more() -> None:
    with talking_to(sends(head() + delta("Hel"), pause_s=60)) as (_, engine):
        handle = engine.submit(HELLO)
        time.sleep(0.1)
        engine.close()
        assert list(handle.events())[-1].reason == "cancelled"  # type: ignore[union-attr]
        handle.cancel()
        with pytest.raises(EngineError, match="closed"):
            engine.submit(HELLO)
        engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "hearth-remote"]


def test_many_at_once() -> None:
    with talking_to(sends(head(), *(delta(c) for c in "Hello"), delta("", "stop") + DONE, pause_s=0.02)) as (_, engine):
        handles = [engine.submit(HELLO) for _ in range(40)]
        assert {list(handle.events())[-1].text for handle in handles} == {"Hello"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ({"data": []}, {}, "lists no model; name one by engine_model"),
        ({"data": [{"id": "a"}, {"id": "b"}]}, {}, r"serves 2 models \(a, b\); name one by engine_model"),
        ({"data": "x"}, {}, "lists no model"),
        ({"data": [7, {"id": 5}, {"id": ""}]}, {}, "lists no model"),
        (b"<html>", {}, "no JSON object"),
    ],
)
def test_the_model_must_be_plain(models: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=said), talking_to(models=models, **options):
        pass


def test_what_servers_tell_of_their_models() -> None:
    vllm = {"data": [{"id": "q", "max_model_len": 4096}, {"id": "e", "type": "embeddings"}]}
    with talking_to(models=vllm) as (_, engine):
        assert (engine.model.name, engine.model.n_ctx, engine.model.sees, engine.model.hears) == (
            "q",
            4096,
            True,
            False,
        )
    takes = {"input_modalities": ["text", "audio"]}
    with talking_to(models={"data": [{"id": "q", "architecture": takes}]}, n_ctx=99, model="q") as (_, engine):
        assert (engine.model.n_ctx, engine.model.sees, engine.model.hears) == (99, False, True)
    with talking_to(models={"data": [{"id": "q"}]}, sees=False, hears=True, model="other") as (_, engine):
        assert (engine.model.name, engine.model.sees, engine.model.hears) == ("other", False, True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x/v1", "is not an address"),
        ("localhost:8000", "is not an address"),
        ("http:///v1", "is not an address"),
        ("http://x:99999/v1", "write http://HOST:PORT/v1"),
        ("http://me:secret@x/v1", "put the key into HEARTH_ENGINE_KEY"),
        ("http://x/v1?key=secret", "nothing may follow the path"),
        ("http://x/v 1", "has a space"),
    ],
)
def test_addresses_that_are_none(url: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        check_url(url)
    assert "me:secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [
        ("http://127.0.0.1:8000/v1/", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://127.0.0.1.example.org/v1", False),
        ("https://example.org/v1", False),
        ("http://192.168.1.2/v1", False),
        ("http://0.0.0.0:8000/v1", False),
    ],
)
def test_what_stays_on_this_machine(url: str, is_loopback: bool) -> None:
    options = RemoteOptions(url, key=KEY)
    assert options.is_loopback is is_loopback
    assert not options.url.endswith("/")
    assert KEY not in repr(options)


def test_the_key_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("hearth.remote", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    with caplog.at_level(logging.DEBUG), talking_to(fails(429, KEY), sends(head() + ANSWER), key=KEY) as (_, engine):
        finished(engine)
    assert caplog.records
    assert not [record for record in caplog.records if KEY in record.getMessage()]


def test_a_proxy_has_no_part_in_what_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with talking_to() as (_, engine):
        assert finished(engine).text == "Hello there"


def test_events_are_the_same_however_the_bytes_are_cut() -> None:
    data = b"event: a\ndata: 1\ndata: 2\n\n: comment\ndata\n\ndata: last"
    expected = None
    for size in (1, 2, 3, 7, 100):
        stream = EventStream()
        found = [event for i in range(0, len(data), size) for event in stream.push(data[i : i + size])]
        found += stream.flush()
        expected = expected or found
        assert found == expected
    assert [(event.name, event.data) for event in expected or []] == [
        ("a", "1\n2"),
        ("message", ""),
        ("message", "last"),
    ]
