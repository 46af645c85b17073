"""Who may use ``/v1``: nobody from elsewhere, and with a key only who has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import hearth
from hearth.api.options import ApiOptions
from hearth.cli import main
from hearth.server import create_app
from hearth.surroundings import Surroundings
from tests.app.fake_assistant import FakeAssistant

BASE = "http://127.0.0.1:7860"
KEY = "k-4826"
PATHS = ("/v1/models", "/v1/chat/completions", "/v1/embeddings", "/v1/audio/transcriptions", "/v1/nothing")


def client_of(assistant: Any, *, page: bool = False, **options: Any) -> TestClient:
    return TestClient(create_app(assistant, page=page, api=ApiOptions(**options)), base_url=BASE)


@pytest.fixture
def assistant(tmp_path: Path) -> Any:
    opened = hearth.Assistant(model=str(tmp_path / "absent.gguf"), data_dir=tmp_path / "data")
    yield opened
    opened.close()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ],
)
def test_web_pages_of_others_are_refused(assistant: Any, path: str, headers: dict[str, str], status: int) -> None:
    client = client_of(assistant)
    for method in ("GET", "POST", "OPTIONS"):
        answered = client.request(method, path, headers={**headers, "Content-Type": "application/json"}, content=b"{}")
        assert answered.status_code == status
        assert "access-control-allow-origin" not in answered.headers
        assert answered.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer é"]
)
def test_without_the_key_nothing_is_told(assistant: Any, path: str, given: str | None) -> None:
    client = client_of(assistant, key=KEY)
    headers = [] if given is None else [(b"authorization", given.encode("latin-1"))]
    for method in ("GET", "POST"):
        answered = client.request(method, path, headers=headers)
        assert answered.status_code == 401
        assert answered.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in answered.text


def test_with_the_key_all_is_served(assistant: Any) -> None:
    client = client_of(assistant, key=KEY)
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_what_is_no_request_is_told_in_the_same_shape(assistant: Any) -> None:
    client = client_of(assistant)
    json_type = {"Content-Type": "application/json"}
    for content, headers, status in (
        (b"{", json_type, 400),
        (b"[1]", json_type, 400),
        (b"[" * 100_000, json_type, 400),
        (b"\xff\xfe\x00", json_type, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {}, 415),
    ):
        answered = client.post("/v1/chat/completions", content=content, headers=headers)
        assert answered.status_code == status
        assert answered.json()["error"]["type"] == "invalid_request_error"
    lost = client.get("/v1/files")
    assert lost.status_code == 404
    assert "/v1/files is not served here" in lost.json()["error"]["message"]
    form = client.post("/v1/audio/transcriptions", data={"model": "pocket-speech"}, files={"other": b"x"})
    assert "the recording is sent as file" in form.json()["error"]["message"]


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_request(assistant: Any) -> None:
    with client_of(assistant) as client:
        body = {"model": "absent", "messages": [{"role": "user", "content": "hello"}]}
        for stream in (False, True):
            answered = client.post("/v1/chat/completions", json={**body, "stream": stream})
            assert answered.status_code == 422
            assert "absent.gguf" in answered.json()["error"]["message"]
        assert client.get("/v1/models").status_code == 200


def test_the_page_alone_serves_no_api(tmp_path: Path) -> None:
    fake = FakeAssistant(tmp_path / "data")
    client = TestClient(create_app(fake), base_url=BASE)  # type: ignore[arg-type]
    assert client.get("/v1/models").status_code in (404, 405)
    fake.close()


def test_the_page_and_the_api_in_one_server(assistant: Any) -> None:
    client = client_of(assistant, page=True, key=KEY)
    assert "Hearth" in client.get("/").text
    assert client.get("/v1/models").status_code == 401
    alone = client_of(assistant, page=False)
    assert alone.get("/").status_code == 404


def serve(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `hearth serve …`, and what it would serve with."""
    given: dict[str, Any] = {}

    class Opened:
        def close(self) -> None:
            pass

    def note(assistant: Any, **options: Any) -> None:  # noqa: ARG001
        given.update(options)

    code = main(["serve", *arguments], Surroundings(lambda **_: Opened(), note))  # type: ignore[arg-type,return-value]
    return code, given


def test_the_command_takes_the_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, given = serve("--port", "0")
    assert (code, given["page"], given["open_browser"], given["api"].key) == (0, True, False, None)
    monkeypatch.setenv("HEARTH_API_KEY", KEY)
    code, given = serve("--no-ui")
    assert (given["page"], given["api"].key) == (False, KEY)
    assert KEY not in repr(given)
    monkeypatch.setenv("TEAM_KEY", "other")
    assert serve("--api-key-env", "TEAM_KEY")[1]["api"].key == "other"
    for variable, value in (("NOT_SET", None), ("EMPTY", ""), ("BLANK", "  "), ("ODD", "a\nb")):
        if value is not None:
            monkeypatch.setenv(variable, value)
        assert serve("--api-key-env", variable) == (1, {})
        assert variable in capsys.readouterr().err
