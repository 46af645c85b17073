"""What a page shows while turns run and chats change, frame by frame and as Gradio sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hearth.ui.chat import Chat, View
from hearth.ui.memory_tab import MemoryTab
from hearth.ui.models_tab import ModelsTab
from hearth.ui.page import NO_CHANGE, Page
from tests.app.fake_assistant import FakeAssistant

BROWSER: Any = SimpleNamespace(session_hash="a browser")
MOST_FRAMES = 1000


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    assistant: Any = FakeAssistant(tmp_path / "data")
    chat = Chat(assistant)
    yield Page(assistant, chat, MemoryTab(assistant), ModelsTab(assistant), tmp_path)
    chat.jobs.close()
    assistant.close()


def send(page: Page, text: str) -> View:
    page._send(BROWSER, {"text": text, "files": []})
    return page._view(BROWSER)


def back_in_the_box(page: Page, value: str) -> str | None:
    """What a follower of a page whose box held ``value`` puts into it at its end."""
    change = page._restore({"text": value, "files": []}, BROWSER)[0]
    return change["value"]["text"] if "value" in change else None


def failed(page: Page) -> None:
    list(page._follow(BROWSER))
    (job,) = page._chat.jobs._jobs.values()
    assert job.progress.error is not None


def shown(frame: list[Any]) -> str:
    return str(frame[0])


def test_a_follower_that_was_left_behind_draws_the_page_as_it_is_now(page: Page) -> None:
    """Its last frame of the chat that was left may be sent after everything that the new chat drew."""
    send(page, "slow story")
    left_behind = page._follow(BROWSER)
    late = next(left_behind)
    page._new_chat(BROWSER)
    list(page._follow(BROWSER))
    assert "slow story" in shown(late)
    assert next(left_behind)[0] == []
    assert list(left_behind) == [[NO_CHANGE] * 5]


def test_what_changes_while_a_drawing_is_sent_is_drawn_again(page: Page) -> None:
    send(page, "slow story")
    page._new_chat(BROWSER)
    follower = page._follow(BROWSER)
    assert next(follower)[0] == []
    view = send(page, "slow tale")
    other = page._follow(BROWSER)
    assert "slow tale" in shown(next(other))
    assert "slow tale" in shown(next(follower))
    assert view.conversation_id is not None
    page._chat.jobs.stop(view.conversation_id)
    assert "stopped" in shown(list(other)[-2])
    follower.close()


def test_an_answer_is_drawn_to_its_end(page: Page) -> None:
    send(page, "about kettles")
    frames = list(page._follow(BROWSER))
    assert "You said: about kettles" in shown(frames[-2])
    assert "hearth-figures" in shown(frames[-2])
    assert frames[-1] == [NO_CHANGE] * 5


def test_a_failed_text_comes_back_whatever_an_older_follower_saw(page: Page) -> None:
    """An older follower ends while the text is being sent: its page still had it in the box, or nothing yet."""
    page.build()
    send(page, "fail with this letter")
    failed(page)
    assert back_in_the_box(page, "fail with this letter") is None
    assert back_in_the_box(page, "") is None  # the page would empty the box after it
    list(page._follow_sent(BROWSER))
    assert back_in_the_box(page, "something new") is None
    assert back_in_the_box(page, "") == "fail with this letter"
    assert back_in_the_box(page, "") is None


def test_what_is_not_sent_stays_in_the_box_and_an_older_failure_can_come_back(page: Page) -> None:
    page.build()
    send(page, "fail with this letter")
    failed(page)
    list(page._follow_sent(BROWSER))
    assert page._send(BROWSER, {"text": " ", "files": []})[:5] == [NO_CHANGE] * 5
    assert back_in_the_box(page, "") == "fail with this letter"


def test_a_sample_leaves_what_stands_in_the_box(page: Page) -> None:
    asked: Any = SimpleNamespace(_data={"action": "sample", "id": page._samples[0].key})
    drawn = page._command(asked, BROWSER)
    assert page._samples[0].question in shown(drawn)
    assert "value" not in drawn[1]


def test_the_end_of_a_follower_overwrites_nothing(page: Page) -> None:
    """Gradio sends the last values of a generator once more when it ends, whatever was drawn since."""
    send(page, "about kettles")

    async def sent() -> list[dict[str, Any]]:
        blocks = page.build()
        follow = next(fn for fn in blocks.fns.values() if fn.fn is not None and fn.fn.__name__ == "_follow")
        results: list[dict[str, Any]] = []
        iterator = None
        while not results or results[-1]["is_generating"]:
            assert len(results) < MOST_FRAMES
            results.append(
                await blocks.process_api(
                    follow, [], request=BROWSER, iterator=iterator, session_hash="a browser", event_id="an event"
                )
            )
            iterator = results[-1]["iterator"]
        return results

    results = asyncio.run(sent())
    assert "You said: about kettles" in str(results)
    assert [value for value in results[-1]["data"] if value.get("__type__") != "update" or "value" in value] == []
