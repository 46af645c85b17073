"""The loopback-only middleware: who is answered, who is refused, and with which headers."""

from __future__ import annotations

import base64
import hashlib

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.websockets import WebSocketDisconnect

from hearth.security import LoopbackOnly, content_security_policy, is_loopback

PAGE = "<script>let a = 1;</script><script src='x.js'></script><p onclick='evil()'>hi</p>"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.get("/events")
    def events() -> StreamingResponse:
        return StreamingResponse(iter([b"data: 1\n\n"]), media_type="text/event-stream")

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("in")
        await connection.close()

    app.add_middleware(LoopbackOnly)
    return TestClient(app, base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]", "[::1]:7860", "localhost:65535"]
)
def test_loopback_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:7860",
        "127.0.0.1@evil.example",
        "127.0.0.1:7860:evil",
        "127.0.0.2",
        "0.0.0.0",
        "192.168.1.4:7860",
        "::1",
        "",
        " 127.0.0.1 evil",
    ],
)
@pytest.mark.parametrize("path", ["/", "/events", "/nothing"])
def test_foreign_hosts_are_refused_on_every_route(client: TestClient, host: str, path: str) -> None:
    assert client.get(path, headers={"Host": host}).status_code == 400


def test_two_hosts_are_refused(client: TestClient) -> None:
    assert client.get("/", headers=[("Host", "127.0.0.1"), ("Host", "evil.example")]).status_code == 400  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://127.0.0.1.evil.example",
        "null",
        "",
        "file://",
        "chrome-extension://abc",
        "http://127.0.0.1:9999",  # another server on this machine
        "http://localhost:7860",  # this server by another name is another origin
        "http://127.0.0.1:7860/",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/"), ("GET", "/events"), ("OPTIONS", "/")])
def test_foreign_origins_are_refused_on_every_route(client: TestClient, origin: str, method: str, path: str) -> None:
    assert client.request(method, path, headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:4000", "[::1]:7860"])
def test_the_page_itself_may_post(client: TestClient, host: str) -> None:
    assert client.post("/", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


def test_programs_without_an_origin_are_answered(client: TestClient) -> None:
    assert client.post("/").status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_other_pages_embed_is_refused_but_their_links_work(client: TestClient, site: str) -> None:
    embedded = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    framed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    linked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=embedded).status_code == 403
    assert client.get("/", headers=framed).status_code == 403
    assert client.get("/", headers=linked).status_code == 200
    assert client.post("/", headers=linked).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example", "Origin": ""}]
)
def test_foreign_websockets_are_refused_before_they_open(client: TestClient, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket", headers=headers):
        pass


def test_the_page_may_open_a_websocket(client: TestClient) -> None:
    own = {"Host": "127.0.0.1:7860", "Origin": "http://127.0.0.1:7860"}
    with client.websocket_connect("/socket", headers=own) as socket:
        assert socket.receive_text() == "in"


def test_every_answer_carries_the_headers(client: TestClient) -> None:
    for response in (client.get("/"), client.get("/events"), client.get("/", headers={"Host": "evil.example"})):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


def test_inline_scripts_run_by_their_hash_only(client: TestClient) -> None:
    response = client.get("/")
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    policy = response.headers["Content-Security-Policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert f"'sha256-{digest}'" in scripts
    assert scripts.count("sha256-") == 1
    assert "unsafe-inline" not in scripts
    assert response.text == PAGE


def test_the_policy_names_no_other_place() -> None:
    assert "http" not in content_security_policy()


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True)]
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.3", "example.org", "", "127.0.0.1.example.org"])
def test_other_addresses(host: str) -> None:
    assert not is_loopback(host)
