"""The application without a browser: its routes, its refusals, and what it does at start and end."""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from hearth import assets
from hearth.jobs import TurnRequest
from hearth.server import ServerError, create_app, serve
from tests.app.fake_assistant import FACT, FakeAssistant

BASE = "http://127.0.0.1:7860"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAssistant]:
    opened = FakeAssistant(tmp_path_factory.mktemp("server") / "data")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def app(assistant: FakeAssistant) -> FastAPI:
    return create_app(assistant)  # type: ignore[arg-type]  # a fake


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE) as opened:
        yield opened


def test_the_page_names_nothing_outside(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:)?//', page.text)
    assert loaded == []
    assert "/hearth/static/hearth.js" in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/hearth/status", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x", "/gradio_api/x"],
)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:7860"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ],
)
def test_strangers_are_refused_on_every_route(
    client: TestClient, path: str, headers: dict[str, str], status: int
) -> None:
    for method in ("GET", "POST"):
        response = client.request(method, path, headers=headers)
        assert response.status_code == status
        assert "access-control-allow-origin" not in response.headers


def test_no_event_of_the_page_is_an_open_api(client: TestClient) -> None:
    described = client.get("/gradio_api/info").json()
    assert described["named_endpoints"] == {}
    assert described["unnamed_endpoints"] == {}


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/gradio_api/mcp/sse", "/monitoring"])
def test_what_is_not_needed_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (403, 404)


def test_status(client: TestClient) -> None:
    assert client.get("/hearth/status").json()["state"] == "ready"


@pytest.mark.parametrize("name", ["hearth.css", "hearth.js"])
def test_own_style_and_script(client: TestClient, name: str) -> None:
    answered = client.get(f"/hearth/static/{name}")
    assert answered.content == (assets.ui_dir() / name).read_bytes()
    assert client.get("/hearth/static/..%2F__init__.py").status_code == 404


def test_an_attachment_is_shown_by_its_content(client: TestClient, assistant: FakeAssistant) -> None:
    store = assistant._store.blobs
    picture, page = store.put(PNG, name="a.svg", mime="image/svg+xml"), store.put(SVG, name="a.png", mime="image/png")
    shown = client.get(f"/hearth/attachments/{picture}")
    assert shown.headers["content-type"] == "image/png"
    assert "sandbox" in shown.headers["Content-Security-Policy"]
    kept = client.get(f"/hearth/attachments/{page}?name=../x/a.png")
    assert kept.headers["content-type"] == "application/octet-stream"
    assert kept.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("name", ["0" * 64, "..%2F..%2Fhearth.db", "A" * 64, "x"])
def test_no_other_file_is_an_attachment(client: TestClient, name: str) -> None:
    assert client.get(f"/hearth/attachments/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/etc/passwd", "{data}/hearth.db", "{data}/uploads/../hearth.db", "{data}/lock"])
def test_gradio_serves_no_file_of_the_data_folder(client: TestClient, assistant: FakeAssistant, path: str) -> None:
    wanted = path.format(data=assistant.status()["data_dir"])
    assert client.get(f"/gradio_api/file={wanted}").status_code in (403, 404)


def test_a_source_opens_by_its_number(client: TestClient, assistant: FakeAssistant) -> None:
    conversation = assistant.conversations.create("x").id
    for _ in assistant.stream("cite it", conversation=conversation):
        pass
    answer = assistant.conversations.messages(conversation)[-1]
    opened = client.get(f"/hearth/passage/{conversation}/{answer.id}/1")
    assert f"<mark>{FACT}</mark>" in opened.text
    for path in (f"{conversation}/{answer.id}/2", f"{conversation}/nothing/1", f"nothing/{answer.id}/1", "a/live/1"):
        assert client.get(f"/hearth/passage/{path}").status_code == 404


def test_a_file_being_sent_is_served_by_position_only(app: FastAPI, client: TestClient, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(PNG)
    chat = app.state.chat
    conversation = chat._assistant.conversations.create("x").id
    job = chat.jobs.start(TurnRequest(conversation, "hi", images=(picture,)))
    assert client.get(f"/hearth/sending/{conversation}/0").headers["content-type"] == "image/png"
    assert client.get(f"/hearth/sending/{conversation}/1").status_code == 404
    assert client.get("/hearth/sending/nothing/0").status_code == 404
    job.stop()


def test_uploads_stay_in_the_data_folder(client: TestClient, assistant: FakeAssistant) -> None:
    answered = client.post("/gradio_api/upload", files={"files": ("../../a.txt", b"hello")}, headers={"Origin": BASE})
    uploads = Path(assistant.status()["data_dir"]) / "uploads"
    assert answered.status_code == 200
    assert Path(answered.json()[0]).resolve().is_relative_to(uploads.resolve())
    assert stat.S_IMODE(uploads.stat().st_mode) == 0o700
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_only_the_loopback_is_bound(assistant: FakeAssistant, host: str) -> None:
    with pytest.raises(ServerError, match="no authentication yet"):
        serve(assistant, host=host, open_browser=False)  # type: ignore[arg-type]


def test_a_port_in_use_is_named_with_the_remedy(assistant: FakeAssistant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} on 127.0.0.1 is in use.*--port {port + 1}"):
            serve(assistant, port=port, open_browser=False)  # type: ignore[arg-type]


def test_a_port_out_of_range_is_refused(assistant: FakeAssistant) -> None:
    with pytest.raises(ServerError, match="between 0 and 65535"):
        serve(assistant, port=70_000, open_browser=False)  # type: ignore[arg-type]


def test_serve_tells_its_address_once_it_answers(assistant: FakeAssistant) -> None:
    addresses: list[str] = []
    told = threading.Event()

    def ready(address: str) -> None:
        addresses.append(address)
        told.set()

    threading.Thread(
        target=serve,
        args=(assistant,),
        kwargs={"port": 0, "open_browser": False, "on_ready": ready},
        daemon=True,
    ).start()
    assert told.wait(60)
    with urllib.request.urlopen(f"{addresses[0]}/hearth/status", timeout=30) as answer:
        assert answer.status == 200
