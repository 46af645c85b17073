"""The page in a real browser: drop, record, stream, stop, reload, restart, memory, sources. Nothing leaves."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from PIL import Image, ImageDraw

import hearth
from hearth import assets
from hearth.server import create_app
from tests.app.fake_assistant import FakeAssistant, path_of
from tests.models import tiny_architectures
from tests.models.fake_hub import COMMIT, FakeHub, reach, serving

playwright_api = pytest.importorskip("playwright.sync_api")
expect, Page = playwright_api.expect, playwright_api.Page

CHROMIUM = Path("/usr/bin/chromium")
ARTEFACTS = Path(__file__).parents[1] / "artefacts"
PATIENCE_MS = 90_000  # for a machine that is busy with other things
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
MOTIONLESS: dict[str, Any] = {"reduced_motion": "reduce"}
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium (Debian: apt-get install chromium)"),
    pytest.mark.timeout(900),
]
expect.set_options(timeout=PATIENCE_MS)


class Site:
    """A server on a loopback port of its own, which can be stopped and started again on the same data."""

    def __init__(self, data_dir: Path, open_assistant: Callable[[Path], Any] = FakeAssistant) -> None:
        self.data_dir = data_dir
        self._open_assistant = open_assistant
        self.port = 0
        self.start()

    def start(self) -> None:
        self.assistant = self._open_assistant(self.data_dir)
        app = create_app(self.assistant)
        config = uvicorn.Config(app, port=self.port, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self.assistant.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Watch:
    """What the browser did that it should not have."""

    requests: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("browser") / "data")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield launched
        launched.close()


@contextlib.contextmanager
def opened(browser: Any, site: Site, **options: Any) -> Iterator[Any]:
    """A page in a profile of its own; afterwards: no request left this machine, no script failed or was refused."""
    context = browser.new_context(
        **{"viewport": {"width": 1280, "height": 800}, "color_scheme": "light", **MOTIONLESS, **options}
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watch = Watch([], [])
    page.on("request", lambda request: watch.requests.append(request.url))
    page.on("websocket", lambda socket: watch.requests.append(socket.url))
    page.on("pageerror", lambda error: watch.complaints.append(str(error)))
    page.on("console", lambda message: _note_policy(message.text, watch))
    go(page, site)
    yield page
    context.close()
    foreign = [
        url for url in watch.requests if url.startswith(("http", "ws")) and urlsplit(url).hostname not in LOOPBACK
    ]
    assert foreign == []
    assert watch.complaints == []


@pytest.fixture(scope="module")
def desk(browser: Any, site: Site) -> Iterator[Any]:
    """One page for most tests, as loading it is the slowest part."""
    with opened(browser, site) as page:
        yield page


@pytest.fixture
def page(desk: Any, site: Site) -> Any:
    """The shared page with an empty chat; nothing runs any more."""
    for conversation in site.assistant.conversations.list():
        desk.evaluate("id => window.hearthTrigger('click', { action: 'delete', id })", conversation.id)
    expect(chats(desk)).to_have_count(0)
    desk.get_by_role("tab", name="Chat").click()
    box(desk).fill("")
    expect(answers(desk)).to_have_count(0)
    return desk


def _note_policy(text: str, watch: Watch) -> None:
    if "Content Security Policy" in text:
        watch.complaints.append(text)


def go(page: Any, site: Site, query: str = "") -> None:
    page.goto(site.url + "/" + query)
    box(page).wait_for()
    expect(page.locator("#hearth-status")).to_have_attribute("data-state", "ready")


def box(page: Any) -> Any:
    return page.locator("#hearth-box textarea")


def ask(page: Any, text: str) -> None:
    box(page).fill(text)
    box(page).press("Enter")


def answers(page: Any) -> Any:
    return page.locator("#hearth-chatbot [data-testid=bot]")


def questions(page: Any) -> Any:
    return page.locator("#hearth-chatbot [data-testid=user]")


def chats(page: Any) -> Any:
    return page.locator(".hearth-conversation")


def stop_button(page: Any) -> Any:
    return page.locator("#hearth-box .stop-button")


def shoot(page: Any, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / f"ui-{name}.png"))


@pytest.fixture
def picture() -> bytes:
    image = Image.new("RGB", (320, 240), "#fdf6e8")
    ImageDraw.Draw(image).ellipse((90, 50, 230, 190), fill="#c22f2f")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(32_000))
    return path


def drop(page: Any, data: bytes, name: str, mime: str) -> None:
    """Drops a file on the middle of the page, not on the box."""
    page.evaluate(
        """([bytes, name, type]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], name, { type }));
            const target = document.querySelector("#hearth-chatbot");
            for (const kind of ["dragenter", "dragover", "drop"])
                target.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        [list(data), name, mime],
    )


def test_a_question_streams_its_answer_with_figures(page: Any) -> None:
    shoot(page, "empty")
    ask(page, "Tell me *about* <b>kettles</b>")
    expect(questions(page)).to_have_text("Tell me *about* <b>kettles</b>")
    expect(answers(page)).to_contain_text("You said: Tell me about <b>kettles</b>")
    expect(answers(page).locator("em")).to_have_text("about")
    expect(page.locator(".hearth-figures")).to_have_text("first token 0.42 s · 31 tokens/s · 83 % cached · complete")
    expect(page.locator(".hearth-meter")).to_contain_text("20 %")
    expect(box(page)).to_have_value("")
    assert "chat=" in page.url


def test_a_picture_dropped_anywhere_is_sent_and_shown(page: Any, picture: bytes) -> None:
    drop(page, picture, "apple.png", "image/png")
    expect(page.locator("#hearth-box .thumbnail-item")).to_have_count(1)
    ask(page, "What is this?")
    expect(answers(page)).to_contain_text("It is a red apple.")
    shown = questions(page).locator("img")
    expect(shown).to_have_attribute("src", re.compile(r"^/hearth/attachments/[0-9a-f]{64}"))
    page.wait_for_function("document.querySelector('.hearth-picture img').naturalWidth === 320")
    shoot(page, "picture")


def heard(page: Any, slot: int = 0) -> Any:
    """The box with the words of a recording that waits to be sent."""
    return page.locator(f"#hearth-heard-{slot} textarea")


def attach(page: Any, *files: Path) -> None:
    page.locator("#hearth-box input[type=file]").set_input_files(list(files))


def test_a_recording_is_transcribed_and_can_be_played(page: Any, recording: Path, site: Site) -> None:
    attach(page, recording)
    expect(heard(page)).to_have_value("What is this?")
    expect(heard(page)).to_be_editable()
    expect(page.locator("#hearth-heard-0")).to_contain_text("question.wav · heard in German (98 % sure)")
    shoot(page, "heard")
    box(page).press("Enter")
    expect(answers(page)).to_contain_text("You said: What is this?")
    expect(questions(page)).to_contain_text("What is this?")
    expect(heard(page)).to_have_count(0)
    page.wait_for_function("document.querySelector('.hearth-attachments audio').readyState >= 1")
    expect(questions(page)).to_contain_text("heard in German (98 % sure)")
    expect(page.locator(".hearth-conversation.active")).to_contain_text("What is this?")
    assert [path_of(one).name for one in site.assistant.seen[-1]["audio"]] == ["question.wav"]
    shoot(page, "heard-sent")


def test_the_words_of_a_recording_are_corrected_before_it_is_sent(
    page: Any, recording: Path, tmp_path: Path, site: Site
) -> None:
    silent = tmp_path / "silent.wav"
    silent.write_bytes(recording.read_bytes() + bytes(2))
    attach(page, recording)
    expect(heard(page)).to_be_editable()
    heard(page).fill("What is that kettle?")
    attach(page, silent)
    expect(page.locator("#hearth-heard-1")).to_contain_text("no speech found in silent.wav")
    expect(heard(page)).to_have_value("What is that kettle?")
    heard(page, 1).fill("It stands on the shelf.")
    shoot(page, "heard-two")
    ask(page, "Say:")
    expect(answers(page)).to_contain_text("What is that kettle?")
    expect(questions(page)).to_contain_text("It stands on the shelf.")
    expect(heard(page)).to_have_count(0)
    sent = site.assistant.seen[-1]["audio"]
    assert [one.text for one in sent] == ["What is that kettle?", "It stands on the shelf."]
    assert sent[0].transcript.text == "What is this?"


def test_a_recording_sent_while_it_is_written_down_is_waited_for(page: Any, recording: Path, site: Site) -> None:
    site.assistant.hearing_s = 3.0
    try:
        attach(page, recording)
        expect(page.locator("#hearth-heard-0")).to_contain_text("listening")
        expect(heard(page)).not_to_be_editable()
        box(page).press("Enter")
        expect(page.locator(".hearth-phase")).to_contain_text("Transcribing")
        expect(answers(page)).to_contain_text("You said: What is this?")
    finally:
        site.assistant.hearing_s = 0.2


def test_corrected_words_come_back_after_a_failure(page: Any, recording: Path, site: Site) -> None:
    attach(page, recording)
    expect(heard(page)).to_be_editable()
    heard(page).fill("What is that kettle?")
    ask(page, "fail with this recording")
    expect(page.locator(".hearth-error")).to_be_visible()
    expect(heard(page)).to_have_value("What is that kettle?")
    expect(page.locator("#hearth-box .thumbnail-item")).to_have_count(1)
    ask(page, "now")
    expect(answers(page).last).to_contain_text("What is that kettle?")
    assert [one.text for one in site.assistant.seen[-1]["audio"]] == ["What is that kettle?"]


def test_the_recorder_puts_a_recording_into_the_box(page: Any, recording: Path) -> None:
    box(page).fill("Listen:")
    page.get_by_text("Record a question").click()
    page.locator("#hearth-recorder [aria-label='Upload file']").click()
    page.locator("#hearth-recorder input[type=file]").set_input_files(recording)
    expect(page.locator("#hearth-box .thumbnail-item")).to_have_count(1)
    expect(heard(page)).to_have_value("What is this?")
    expect(box(page)).to_have_value("Listen:")
    box(page).press("Enter")
    expect(answers(page)).to_contain_text("What is this?")
    page.get_by_text("Record a question").click()


def test_a_recording_taken_out_of_the_box_is_dropped(page: Any, recording: Path) -> None:
    attach(page, recording)
    expect(heard(page)).to_be_editable()
    page.locator("#hearth-box .delete-button").click()
    expect(heard(page)).to_have_count(0)


@pytest.mark.parametrize("by", ["button", "key"])
def test_stop_keeps_what_was_written_and_the_next_question_works(page: Any, by: str) -> None:
    ask(page, "slow story")
    expect(answers(page)).to_contain_text("word word word")
    expect(page.locator(".hearth-phase")).to_contain_text("Generating")
    if by == "button":
        stop_button(page).click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".hearth-figures")).to_contain_text("stopped")
    expect(stop_button(page)).to_have_count(0)
    ask(page, "and now?")
    expect(answers(page).last).to_contain_text("You said: and now?")


def test_text_typed_while_an_answer_runs_is_kept(page: Any) -> None:
    ask(page, "slow story")
    expect(answers(page)).to_contain_text("word")
    ask(page, "one more thing")
    expect(page.get_by_text("an answer is still being written")).to_be_visible()
    expect(box(page)).to_have_value("one more thing")
    stop_button(page).click()
    expect(page.locator(".hearth-figures")).to_contain_text("stopped")
    expect(box(page)).to_have_value("one more thing")


def test_a_reload_picks_up_the_running_answer(page: Any) -> None:
    ask(page, "slow story")
    expect(answers(page)).to_contain_text("word word")
    page.wait_for_url(re.compile("chat="))
    page.reload()
    expect(answers(page)).to_contain_text("word word")
    written = len(answers(page).inner_text())
    page.wait_for_function(
        "n => document.querySelector('#hearth-chatbot [data-testid=bot]').innerText.length > n", arg=written + 20
    )
    stop_button(page).click()
    expect(page.locator(".hearth-figures")).to_contain_text("stopped")


def test_another_chat_can_be_used_while_one_runs(page: Any) -> None:
    ask(page, "slow story told aside")
    expect(answers(page)).to_contain_text("word word")
    page.locator("#hearth-new").click()
    expect(answers(page)).to_have_count(0)
    ask(page, "something else")
    expect(answers(page)).to_contain_text("You said: something else")
    page.locator(".hearth-conversation .open", has_text="slow story told aside").click()
    expect(answers(page)).to_contain_text("word word")
    expect(page.locator(".hearth-phase")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".hearth-figures")).to_contain_text("stopped")


def test_a_click_counts_though_the_stream_of_results_closes_at_that_moment(browser: Any, site: Site) -> None:
    """As Gradio's does when the event before has just ended; its client then waits for ever."""
    kept = site.assistant.conversations.create("Kept")
    site.assistant.conversations.append(kept.id, "user", "Is it kept?")
    site.assistant.conversations.append(kept.id, "assistant", "It is kept.")
    closing = 'data: {"msg":"close_stream"}\n\n'
    closed: list[str] = []

    def close(route: Any) -> None:
        closed.append(route.request.url)
        route.fulfill(status=200, content_type="text/event-stream", body=closing)

    with opened(browser, site) as page:
        open_streams: set[Any] = set()
        page.on("request", lambda one: open_streams.add(one) if "/queue/data" in one.url else None)
        page.on("requestfinished", lambda one: open_streams.discard(one))
        page.on("requestfailed", lambda one: open_streams.discard(one))
        link = page.locator(".hearth-conversation .open", has_text="Kept")
        link.wait_for()
        quiet = 0
        while quiet < 10:  # until what the page does at its start is over
            page.wait_for_timeout(100)
            quiet = 0 if open_streams else quiet + 1
        page.route("**/queue/data?*", close, times=1)
        link.click()
        expect(answers(page)).to_contain_text("It is kept.")
    assert len(closed) == 1
    site.assistant.conversations.delete(kept.id)


def test_chats_survive_a_restart_of_the_server(page: Any, site: Site) -> None:
    ask(page, "Remember the lighthouse")
    expect(answers(page)).to_contain_text("You said: Remember the lighthouse")
    expect(page.locator(".hearth-figures")).to_be_visible()
    site.stop()
    expect(page.locator("#hearth-status")).to_have_attribute("data-state", "failed")
    site.start()
    go(page, site)
    page.locator(".hearth-conversation .open", has_text="Remember the lighthouse").first.click()
    expect(answers(page)).to_contain_text("You said: Remember the lighthouse")
    expect(page.locator(".hearth-figures")).to_contain_text("complete")


def test_chats_are_renamed_found_and_deleted(page: Any) -> None:
    ask(page, "About the zeppelin")
    expect(page.locator(".hearth-figures")).to_be_visible()
    row = page.locator(".hearth-conversation.active")
    row.hover()
    row.locator("[data-action=rename]").click()
    row.locator("input").fill("Airships")
    row.locator("input").press("Enter")
    expect(page.locator(".hearth-conversation.active .open")).to_have_text("Airships")
    page.locator("#hearth-search").locator("input, textarea").fill("airsh")
    expect(chats(page)).to_have_count(1)
    expect(chats(page)).to_contain_text("Airships")
    page.locator("#hearth-search").locator("input, textarea").fill("")
    row.hover()
    row.locator("[data-action=delete]").click()
    expect(row.locator("[data-action=delete]")).to_have_text("Delete?")
    row.locator("[data-action=delete]").click()
    expect(page.locator(".hearth-conversation", has_text="Airships")).to_have_count(0)
    expect(answers(page)).to_have_count(0)


def test_a_failure_is_told_in_the_chat_and_the_text_comes_back(page: Any) -> None:
    ask(page, "fail with this letter")
    expect(page.locator(".hearth-error")).to_contain_text("remove its password and send it again")
    expect(box(page)).to_have_value("fail with this letter")
    shoot(page, "error")
    ask(page, "hello again")
    expect(answers(page).last).to_contain_text("You said: hello again")
    expect(box(page)).to_have_value("")


def test_a_source_opens_beside_the_answer(page: Any) -> None:
    ask(page, "cite the meeting")
    expect(page.locator(".hearth-figures")).to_be_visible()
    page.locator(".hearth-answer .hearth-chip").click()
    opened = page.locator("#hearth-panel")
    expect(opened.locator("mark")).to_have_text("The meeting about the blue kettle is in room 12.")
    expect(opened.locator("h3")).to_have_text("Notes of Monday")
    expect(opened.locator(".page")).to_have_text("page 3")
    shoot(page, "source")
    opened.locator("[data-ui=close-panel]").click()
    expect(opened).to_be_hidden()
    page.locator(".hearth-source").click()
    expect(opened.locator("mark")).to_be_visible()


def test_a_source_in_a_recording_plays_from_its_time(page: Any, tmp_path: Path, site: Site) -> None:
    path = tmp_path / "talk.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(60 * 32_000))
    attach(page, path)
    expect(heard(page)).to_be_editable()
    ask(page, "cite the talk")
    expect(page.locator(".hearth-figures")).to_be_visible()
    (conversation,) = site.assistant.conversations.list()
    (attachment,) = site.assistant.conversations.messages(conversation.id)[0].attachments
    site.assistant.memory.recordings["talk"] = attachment.sha256
    expect(page.locator(".hearth-source")).to_contain_text("talk.wav, 0:42")
    page.locator(".hearth-answer .hearth-chip").click()
    expect(page.locator("#hearth-panel .page")).to_have_text("0:42")
    page.wait_for_function("document.querySelector('#hearth-panel audio').readyState >= 1")
    page.wait_for_function("Math.abs(document.querySelector('#hearth-panel audio').currentTime - 42) < 0.5")
    shoot(page, "source-recording")


def test_memory_takes_finds_and_forgets_files(page: Any, tmp_path: Path) -> None:
    note, broken = tmp_path / "kettle.txt", tmp_path / "broken.bin"
    note.write_text("The blue kettle stands on the third shelf.")
    broken.write_bytes(b"\x00\x01")
    page.get_by_role("tab", name="Memory").click()
    page.locator("#hearth-memory-files input[type=file]").set_input_files([note, broken])
    documents = page.locator("#hearth-memory-documents")
    expect(documents.locator(".hearth-document.ready")).to_contain_text("1 passage")
    expect(documents.locator(".failed")).to_contain_text("memory takes text, Markdown, PDF, Word and HTML")
    search = page.locator("#hearth-memory-search").locator("input, textarea")
    search.fill("shelf")
    search.press("Enter")
    hit = page.locator(".hearth-hit")
    expect(hit).to_contain_text("The blue kettle stands on the third shelf.")
    expect(hit).to_contain_text("kettle.txt · p. 1")
    expect(hit).to_contain_text("score 0.500")
    shoot(page, "memory")
    forget = documents.locator("[data-action=forget]")
    forget.click()
    expect(forget).to_have_text("Forget?")
    forget.click()
    expect(documents.locator(".hearth-document.ready")).to_have_count(0)


def test_a_file_dropped_on_the_memory_tab_is_remembered(page: Any) -> None:
    page.get_by_role("tab", name="Memory").click()
    expect(page.locator("#hearth-memory")).to_be_visible()
    drop(page, b"Tea is at four.", "tea.txt", "text/plain")
    row = page.locator(".hearth-document.ready", has_text="tea.txt")
    expect(row).to_be_visible()
    row.locator("[data-action=forget]").click()
    row.locator("[data-action=forget]").click()
    expect(row).to_have_count(0)


def model(page: Any, name: str) -> Any:
    return page.locator(f"#hearth-models-list [data-model='{name}']")


def test_a_model_is_fetched_and_chosen(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tiny_architectures.write_llama(tmp_path / "tiny.gguf").read_bytes()
    with serving(FakeHub({"Qwen/Qwen3-0.6B-GGUF": {COMMIT: {"Qwen3-0.6B-Q8_0.gguf": content * 2}}})) as hub:
        reach(hub, monkeypatch)
        hub.stall = threading.Event()
        site = Site(tmp_path / "data")
        with opened(browser, site) as page:
            page.get_by_role("tab", name="Models").click()
            expect(model(page, "pocket")).to_contain_text("in use")
            page.locator("#hearth-models-list summary", has_text="More").click()
            page.get_by_role("button", name="Fetch qwen3-0.6b").click()
            pulling = page.locator("#hearth-models-pulling [data-model='qwen3-0.6b']")
            expect(pulling).to_contain_text("fetching")
            expect(model(page, "qwen3-1.7b")).to_be_visible()  # the list stays unfolded
            shoot(page, "models")
            pulling.get_by_role("button", name="Stop").click()
            expect(pulling).to_contain_text("stopping")
            hub.stall.set()
            expect(pulling).to_contain_text("what was fetched is kept")
            hub.stall = None
            pulling.get_by_role("button", name="Go on").click()
            expect(pulling).to_have_count(0)
            page.get_by_role("button", name="Use qwen3-0.6b").first.click()
            expect(model(page, "qwen3-0.6b").first).to_contain_text("at the next start")
            expect(page.locator("#hearth-models-list .hearth-notice")).to_contain_text("qwen3-0.6b")
            assert site.assistant.library.chosen() == "qwen3-0.6b"
        with opened(browser, site, viewport={"width": 390, "height": 780}, color_scheme="dark") as page:
            page.get_by_role("tab", name="Models").click()
            expect(model(page, "qwen3-0.6b").first).to_be_visible()
            shoot(page, "models-phone")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
        site.stop()


def test_enter_sends_and_shift_enter_breaks_the_line(page: Any) -> None:
    box(page).fill("first")
    box(page).press("Shift+Enter")
    box(page).press_sequentially("second")
    expect(box(page)).to_have_value("first\nsecond")
    expect(questions(page)).to_have_count(0)
    box(page).press("Enter")
    expect(questions(page)).to_contain_text("second")
    expect(page.locator(".hearth-figures")).to_be_visible()
    page.keyboard.press("Control+Shift+O")
    expect(questions(page)).to_have_count(0)


def test_dark_follows_the_system_until_it_is_toggled(browser: Any, site: Site) -> None:
    with opened(browser, site, color_scheme="dark") as page:
        expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b"))
        ask(page, "cite the meeting")
        expect(page.locator(".hearth-figures")).to_be_visible()
        page.locator(".hearth-source").click()
        expect(page.locator("#hearth-panel mark")).to_be_visible()
        shoot(page, "dark")
        page.locator("[data-ui=theme]").click()
        expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
        go(page, site)
        expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))


def test_a_phone_shows_the_chat_and_hides_the_list(browser: Any, site: Site) -> None:
    with opened(browser, site, viewport={"width": 390, "height": 780}, has_touch=True) as page:
        ask(page, "cite the meeting")
        expect(page.locator(".hearth-figures")).to_be_visible()
        expect(page.locator("#hearth-side")).to_be_hidden()
        shoot(page, "phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("[data-ui=menu]").click()
        expect(page.locator("#hearth-side")).to_be_visible()
        shoot(page, "phone-menu")
        chats(page).first.locator(".open").click()
        expect(page.locator("#hearth-side")).to_be_hidden()


def test_a_sample_is_one_click(page: Any) -> None:
    sample = page.locator("a.hearth-sample.picture")
    if sample.count() == 0:
        pytest.skip("the sample picture is not there")
    sample.click()
    expect(answers(page)).to_contain_text("It is a red apple.")
    expect(questions(page).locator("img")).to_be_visible()


@pytest.mark.skipif(not (assets.pocket_dir() / "pocket.toml").is_file(), reason="the pocket models are not there")
def test_the_samples_are_answered_by_the_pocket_models(browser: Any, tmp_path: Path) -> None:
    site = Site(tmp_path / "data", lambda data_dir: hearth.Assistant(data_dir=data_dir, isolate_engine=True))
    with opened(browser, site) as page:
        for sample in ("document", "aloud", "picture"):
            page.locator("#hearth-new").click()
            expect(answers(page)).to_have_count(0)
            page.locator(f"a.hearth-sample.{sample}").click()
            expect(page.locator(".hearth-figures")).to_contain_text("first token")
            expect(page.locator(".hearth-answer")).to_have_text(re.compile(r"\w"))
            expect(page.locator(".hearth-error")).to_have_count(0)
            shoot(page, f"pocket-{sample}")
        page.reload()
        expect(page.locator(".hearth-answer")).to_have_text(re.compile(r"\w"))
        expect(chats(page)).to_have_count(3)
    site.stop()
