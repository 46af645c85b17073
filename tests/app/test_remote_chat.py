"""An assistant whose engine is a server: our own API with the embedded models, and llama-cpp-python's server."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import hearth
from hearth import assets
from hearth.doctor import examine
from hearth.held_files import HeldFiles
from hearth.models.errors import ContextOverflowError, EngineError, RequestError
from hearth.prompt import PictureContent
from hearth.sent_media import MAX_SIDE, SentMedia
from hearth.server import create_app
from hearth.settings import Settings, SettingsError
from hearth.store.derived import DerivedFiles
from tests.app.served import Served
from tests.models.misbehaving_server import ANSWER, MisbehavingServer, hangs, head, sends
from tests.models.tiny_gguf import write_tiny_gguf

sys.path.insert(0, str(Path(__file__).parents[1]))
import drawing

CIRCLE = drawing.png(drawing.shape("circle", "red"))
QUESTION = assets.samples_dir() / "question.wav"
NOTE = b"Minutes of the garden club. The key to the greenhouse is kept by Tobias Renner."
ELSEWHERE = "http://gpu.example.org:8000/v1"


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(hearth.Assistant(data_dir=tmp_path_factory.mktemp("pocket") / "data"))
    yield served
    served.stop()


@pytest.fixture
def fake() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer()
    yield server
    server.stop()


def at(server: Any, tmp_path: Path, **settings: Any) -> hearth.Assistant:
    given = {"engine_url": server.url, "data_dir": tmp_path / "data", **settings}
    return hearth.Assistant(**given)


def test_a_chat_with_a_picture_goes_on_as_it_would_here(pocket: Served, tmp_path: Path) -> None:
    with at(pocket, tmp_path, engine_model="pocket", temperature=0.0, system=" ") as assistant:
        first = assistant.ask("What is this?", images=[CIRCLE])
    with at(pocket, tmp_path, engine_model="pocket", temperature=0.0, system=" ") as assistant:
        second = assistant.ask("What colour is it?", conversation=first.conversation_id)
    assert "circle" in first.text
    assert "red" in second.text
    assert first.model == "pocket"
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert second.cache.memory_tokens == second.usage.cached_tokens


def test_a_recording_goes_along_where_it_is_taken_and_else_its_words(pocket: Served, tmp_path: Path) -> None:
    texts = []
    for hears in (True, False):
        with at(pocket, tmp_path, engine_model="pocket", engine_hears=hears, temperature=0.0, system=" ") as assistant:
            reply = assistant.ask(audio=[QUESTION])
            texts.append(reply.text)
            assert bool(reply.transcripts) is not hears
    assert texts[0] == texts[1]


def test_memory_is_searched_here_and_its_passages_are_sent(fake: MisbehavingServer, tmp_path: Path) -> None:
    fake.behaviours = [sends(head() + ANSWER.replace(b"Hello there", b"x").replace(b" there", b" Renner [1]."))]
    with at(fake, tmp_path) as assistant:
        assistant.memory.add(NOTE)
        reply = assistant.ask("Who keeps the key to the greenhouse?")
        assistant.ask("Thanks", conversation=reply.conversation_id, use_memory=False)
    (citation,) = reply.citations
    assert citation.used
    first, second = (asked.body["messages"] for asked in fake.asked)
    assert first[0]["role"] == "system"
    assert "kept by Tobias Renner" in first[1]["content"]
    assert second[: len(first)] == first  # nothing before the new message changes
    assert [message["role"] for message in second[len(first) :]] == ["assistant", "user"]


def test_the_first_instruction_stays_when_the_setting_changes(fake: MisbehavingServer, tmp_path: Path) -> None:
    with at(fake, tmp_path, system="Be brief.") as assistant:
        conversation = assistant.ask("Hello").conversation_id
    with at(fake, tmp_path, system="Be long.") as assistant:
        assistant.ask("And?", conversation=conversation)
    assert [asked.body["messages"][0]["content"] for asked in fake.asked] == ["Be brief.", "Be brief."]


def test_a_conversation_moves_between_engines(pocket: Served, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with hearth.Assistant(data_dir=data) as here:
        first = here.ask("What is this?", images=[CIRCLE])
    with at(pocket, tmp_path, engine_model="pocket", temperature=0.0, system=" ") as there:
        second = there.ask("What colour is it?", conversation=first.conversation_id)
    with hearth.Assistant(data_dir=data) as here:
        third = here.ask("Where is it?", conversation=first.conversation_id)
    assert "red" in second.text
    assert third.usage.prompt_tokens > second.usage.prompt_tokens


def test_what_the_server_refuses_is_said_and_nothing_is_lost(pocket: Served, tmp_path: Path) -> None:
    with at(pocket, tmp_path, engine_model="pocket") as assistant:
        with pytest.raises(ContextOverflowError, match="the context holds 2,048"):
            assistant.ask("word " * 3000)
        (conversation,) = assistant.conversations.list()
        assert assistant.conversations.messages(conversation.id)[0].text.startswith("word")
        with pytest.raises(RequestError, match="top_p"):
            assistant.ask("x", top_p=1.5)
        assert assistant.ask("Hello", conversation=conversation.id).text


def test_a_server_that_is_not_there_is_found_once_it_is(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with hearth.Assistant(engine_url=f"http://127.0.0.1:{port}/v1", data_dir=tmp_path / "data") as assistant:
        with pytest.raises(EngineError, match="check that the server runs"):
            assistant.ask("Hello")
        assert assistant.status()["state"].startswith("failed: ")
        (finding,) = [one for one in examine(assistant.settings) if one.name == "engine"]
        assert (finding.state, "start the server" in finding.remedy) == ("fail", True)
        server = MisbehavingServer(port=port)
        assert assistant.ask("Hello").text == "Hello there"
        server.stop()


def test_stop_takes_effect_while_the_server_is_silent(fake: MisbehavingServer, tmp_path: Path) -> None:
    import threading

    fake.behaviours = [hangs]
    with at(fake, tmp_path) as assistant:
        stop = threading.Event()
        for event in assistant.stream("Hello", cancelled=stop):
            if isinstance(event, hearth.Phase) and event.name == "waiting":
                stop.set()
                started = time.perf_counter()
        assert isinstance(event, hearth.Done)
        assert time.perf_counter() - started < 10  # the server hangs for longer
        assert event.reply.finish_reason == "cancelled"


def test_a_model_without_eyes_is_sent_no_pictures(fake: MisbehavingServer, tmp_path: Path) -> None:
    with at(fake, tmp_path, engine_sees=False) as assistant, pytest.raises(RequestError, match="'m' cannot see"):
        assistant.ask("What is this?", images=[CIRCLE])
    assert fake.asked == []


def test_pictures_are_sent_without_what_else_is_in_the_file(tmp_path: Path) -> None:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "Baker Street 221b"
    photograph = Image.effect_noise((3000, 1500), 60).convert("RGB")
    photograph.save(data, "JPEG", exif=exif, comment=b"by Watson", icc_profile=b"profile of a camera")
    blobs = HeldFiles(None)  # type: ignore[arg-type]
    media = SentMedia(blobs, DerivedFiles(tmp_path / "derived"))
    with blobs.holding([data.getvalue(), CIRCLE]):
        import hashlib

        sent = media.part(PictureContent(hashlib.sha256(data.getvalue()).hexdigest(), "a.jpg")).read()
        drawn = media.part(PictureContent(hashlib.sha256(CIRCLE).hexdigest(), "a.png")).read()
    assert (sent[1], drawn[1]) == ("image/jpeg", "image/png")
    assert max(Image.open(io.BytesIO(sent[0])).size) == MAX_SIDE
    for secret in (b"Baker", b"Watson", b"camera"):
        assert secret in data.getvalue()
        assert secret not in sent[0]
    assert list((tmp_path / "derived").iterdir()) == []  # what is only held leaves nothing on the disk


def test_the_api_passes_chats_on_and_says_that_it_lives_meanwhile(fake: MisbehavingServer, tmp_path: Path) -> None:
    fake.behaviours = [sends(b"", head(), ANSWER, pause_s=0.2)]
    served = Served(at(fake, tmp_path), alive_s=0.05)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    told = httpx.post(f"{served.url}/chat/completions", json=body, timeout=30)
    assert told.headers["content-type"].startswith("text/event-stream")
    assert told.text.startswith(": still at it\n\n")
    assert '"content":"Hello"' in told.text
    assert told.text.endswith("data: [DONE]\n\n")
    assert fake.asked[0].body["messages"] == body["messages"]  # no instruction of ours is added
    refused = httpx.post(f"{served.url}/chat/completions", json={**body, "logprobs": True}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")
    served.stop()


@pytest.mark.parametrize("alive_s", [0.05, 10.0])
def test_an_error_after_the_head_is_an_event_and_before_it_a_status(
    fake: MisbehavingServer, tmp_path: Path, alive_s: float
) -> None:
    fake.behaviours = [sends(b"", head(), b'data: {"error":{"message":"no memory"}}\n\n', pause_s=0.2)]
    served = Served(at(fake, tmp_path), alive_s=alive_s)
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.APIError, match="no memory") as told:
        list(client.chat.completions.create(model="m", messages=messages, stream=True))
    assert isinstance(told.value, openai.InternalServerError) is (alive_s == 10.0)
    served.stop()


# settings, and what is said of them


@pytest.mark.parametrize("offline", [True, "environment", "file"])
def test_offline_and_a_server_elsewhere_exclude_each_other(
    offline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings(engine_url=ELSEWHERE)
    arguments: dict[str, Any] = {"engine_url": ELSEWHERE}
    if offline == "environment":
        monkeypatch.setenv("HEARTH_OFFLINE", "true")
    elif offline == "file":
        (tmp_path / "hearth.toml").write_text("offline = true\n")
        monkeypatch.chdir(tmp_path)
    else:
        arguments["offline"] = True
    with pytest.raises(SettingsError, match=r"gpu\.example\.org.* is not on this machine, and offline is set"):
        Settings(**arguments)
    Settings(**{**arguments, "engine_url": "http://127.0.0.1:8000/v1"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"engine_url": "nonsense"}, "is not an address of an HTTP server"),
        ({"engine_model": "m"}, "engine_model is set without engine_url"),
        ({"engine_sees": False}, "engine_sees is set without engine_url"),
        ({"engine_url": ELSEWHERE, "engine_timeout_s": 0}, "engine_timeout_s"),
    ],
)
def test_settings_that_make_no_sense(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings(**arguments)


def test_the_key_comes_from_the_environment_and_is_kept_nowhere(
    fake: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_ENGINE_KEY", "sk-4826-secret")
    with at(fake, tmp_path) as assistant:
        assistant.ask("Hello")
        assert "sk-4826-secret" not in repr(assistant.settings) + repr(assistant.status())
    assert fake.asked[0].headers["authorization"] == "Bearer sk-4826-secret"
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or b"sk-4826-secret" not in path.read_bytes()


def test_doctor_and_status_say_who_generates_and_what_leaves(fake: MisbehavingServer, tmp_path: Path) -> None:
    (finding,) = [one for one in examine(Settings(engine_url=fake.url)) if one.name == "engine"]
    assert (finding.state, "nothing leaves this machine" in finding.detail) == ("ok", True)
    with hearth.Assistant(engine_url=ELSEWHERE, data_dir=tmp_path / "data") as assistant:
        assert assistant.status()["engine"] == "gpu.example.org:8000"
        assert "leave this machine: gpu.example.org:8000 writes the answers" in assistant.status()["leaves"]
    with hearth.Assistant(data_dir=tmp_path / "data") as assistant:
        assert (assistant.status()["engine"], assistant.status()["leaves"]) == ("this machine", "")


def test_the_page_says_what_leaves_in_its_own_line(tmp_path: Path) -> None:
    with hearth.Assistant(engine_url=ELSEWHERE, data_dir=tmp_path / "data") as assistant:
        drawn = TestClient(create_app(assistant), base_url="http://127.0.0.1:7860").get("/").text
    assert "Words, pictures, recordings and what is found in memory leave this machine: gpu.example.org:8000" in drawn
    assert "Everything stays on this machine" not in drawn


# llama-cpp-python's own server


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("sse_starlette", "starlette_context"):
        pytest.importorskip(package, reason="llama-cpp-python's server needs it")
    model = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_tiny_gguf(model)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = {"model": model, "host": "127.0.0.1", "port": port, "model_alias": "tiny", "n_ctx": 512, "n_threads": 1}
    command = [sys.executable, "-m", "llama_cpp.server", *(f"--{name}={value}" for name, value in options.items())]
    with (model.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (model.parent / "log").read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_another_server_answers_a_conversation(llama_server: str, tmp_path: Path) -> None:
    with hearth.Assistant(engine_url=llama_server, data_dir=tmp_path / "data", temperature=0.0) as assistant:
        first = assistant.ask("the cat", max_tokens=12)
        second = assistant.ask("and", conversation=first.conversation_id, max_tokens=12)
        assert (first.model, first.finish_reason, second.finish_reason) == ("tiny", "length", "length")
        assert first.text
        again = assistant.ask("the cat", max_tokens=12)
        assert again.text == first.text
        events = assistant.stream("the dog", max_tokens=400)
        for event in events:
            if isinstance(event, hearth.TextDelta):
                break
        events.close()  # type: ignore[attr-defined]
        assert assistant.ask("hello", max_tokens=2).finish_reason == "length"
        with pytest.raises(EngineError, match="cut off before it began"):  # it has sent its head by then
            assistant.ask("word " * 2000)
