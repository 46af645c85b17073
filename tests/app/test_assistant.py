"""The turn with a tiny random model: events, storing, append-only prompts, restart, errors, stop. Answers are noise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hearth
from hearth.models.errors import ContextOverflowError, ModelFileError, RequestError
from hearth.multimodal.errors import PerceptionError
from hearth.store.errors import NotFoundError
from tests.app.served import Served
from tests.models.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
def assistant(model: Path, tmp_path: Path) -> Iterator[hearth.Assistant]:
    with hearth.Assistant(model=str(model), data_dir=tmp_path / "data", temperature=0.0, system=" ") as opened:
        yield opened


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same model behind the API of another Hearth."""
    served = Served(hearth.Assistant(model=str(model), data_dir=tmp_path_factory.mktemp("server") / "data"))
    yield served
    served.stop()


@pytest.fixture(params=["here", "elsewhere"])
def either(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[hearth.Assistant]:
    """An assistant whose engine is on this machine, and one whose engine is a server."""
    if request.param == "here":
        engine = {"model": str(model)}
    else:
        engine = {"engine_url": request.getfixturevalue("server").url, "engine_model": "tiny"}
    with hearth.Assistant(**engine, data_dir=tmp_path / "data", temperature=0.0, system=" ") as opened:
        yield opened


def terminal(events: list[hearth.TurnEvent]) -> hearth.TurnEvent:
    ends = [event for event in events if isinstance(event, (hearth.Done, hearth.TurnFailed))]
    assert len(ends) == 1
    assert events[-1] is ends[0]
    return ends[0]


def test_events_and_what_is_stored(either: hearth.Assistant) -> None:
    events = list(either.stream("the cat", max_tokens=5))
    done = terminal(events)
    assert isinstance(done, hearth.Done)
    deltas = "".join(event.text for event in events if isinstance(event, hearth.TextDelta))
    assert deltas == done.reply.text
    assert done.reply.usage.completion_tokens == 5
    assert done.reply.finish_reason == "length"
    user, answer = either.conversations.messages(done.reply.conversation_id)
    assert (user.text, answer.text, answer.id) == ("the cat", done.reply.text, done.reply.message_id)
    assert answer.reply is not None
    assert answer.reply["usage"]["completion_tokens"] == 5
    (conversation,) = either.conversations.list()
    assert conversation.title == "the cat"


def test_the_prompt_is_only_ever_appended_to(either: hearth.Assistant) -> None:
    reply = either.ask("the cat sat", max_tokens=6)
    for question in ("and the dog", "on the mat", "hello"):
        before = reply
        reply = either.ask(question, conversation=before.conversation_id, max_tokens=6)
        in_cache = before.usage.prompt_tokens + before.usage.completion_tokens - 1  # the last token is never decoded
        assert reply.usage.cached_tokens >= in_cache


def test_a_restarted_assistant_continues_with_the_same_prompt(model: Path, tmp_path: Path) -> None:
    settings = hearth.Settings(model=str(model), data_dir=tmp_path / "data", temperature=0.0)
    with hearth.Assistant(settings) as one:
        first = one.ask("the cat sat", max_tokens=6)
        kept = one.ask("and", conversation=first.conversation_id, max_tokens=8)
        second = one.ask("the cat sat", max_tokens=6)
    with hearth.Assistant(settings) as two:
        restarted = two.ask("and", conversation=second.conversation_id, max_tokens=8)
    assert restarted.text == kept.text
    assert restarted.usage.prompt_tokens == kept.usage.prompt_tokens


def test_another_model_takes_the_conversation_over(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_tiny_gguf(other, seed=7)
    with hearth.Assistant(model=str(model), data_dir=tmp_path / "data") as one:
        first = one.ask("the cat sat", max_tokens=6)
    with hearth.Assistant(model=str(other), data_dir=tmp_path / "data") as two:
        reply = two.ask("and", conversation=first.conversation_id, max_tokens=6)
        messages = two.conversations.messages(first.conversation_id)
    assert reply.usage.prompt_tokens > first.usage.prompt_tokens
    assert len({message.fingerprint for message in messages}) == 1


@pytest.mark.parametrize("given", [object(), [("a.txt", b"text")], 5])
def test_what_is_no_file_is_refused_by_name(assistant: hearth.Assistant, given: Any) -> None:
    with pytest.raises(RequestError, match=r"^document 1 is of type \w+; give a file's path, or its bytes$"):
        assistant.ask("read it", documents=given)


def test_a_failed_turn_keeps_the_words_and_stays_out_of_the_prompt(either: hearth.Assistant, tmp_path: Path) -> None:
    first = either.ask("the cat", max_tokens=3)
    missing = tmp_path / "absent.pdf"
    failed = terminal(list(either.stream("read it", documents=[missing], conversation=first.conversation_id)))
    assert isinstance(failed, hearth.TurnFailed)
    assert isinstance(failed.error, PerceptionError)
    assert "absent.pdf: no such file" in str(failed.error)
    messages = either.conversations.messages(first.conversation_id)
    assert [m.text for m in messages] == ["the cat", first.text, "read it", ""]
    reply = either.ask("and", conversation=first.conversation_id, max_tokens=3)
    assert reply.usage.cached_tokens >= first.usage.prompt_tokens


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"text": "  "}, RequestError, "message is empty"),
        ({"text": "x", "conversation": "nope"}, NotFoundError, "nope"),
        ({"text": "x", "temperature": -1.0}, RequestError, "temperature"),
        ({"text": "x", "max_tokens": 0}, RequestError, "max_tokens"),
        ({"text": "x", "top_p": 1.5}, RequestError, "top_p"),
        ({"text": "word " * 2000}, ContextOverflowError, "this message alone takes"),
        ({"text": "x", "images": [b"\x89PNG"]}, RequestError, "cannot see pictures"),
    ],
)
def test_bad_input_is_named(
    assistant: hearth.Assistant, arguments: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        assistant.ask(**arguments)  # type: ignore[arg-type]
    assert assistant.ask("the cat", max_tokens=2).usage.completion_tokens == 2


def test_a_long_conversation_says_what_would_have_to_go(assistant: hearth.Assistant) -> None:
    conversation = assistant.ask("the cat " * 60, max_tokens=4).conversation_id

    def go_on() -> None:
        for _ in range(20):
            assistant.ask("the cat " * 60, conversation=conversation, max_tokens=4)

    with pytest.raises(ContextOverflowError, match=r"the \d+ oldest messages \(\d+ tokens\) would have to be dropped"):
        go_on()


def test_stop_ends_the_turn_and_keeps_the_part(either: hearth.Assistant) -> None:
    stop = threading.Event()
    events = []
    for event in either.stream("the cat", cancelled=stop, max_tokens=400):
        events.append(event)
        if isinstance(event, hearth.TextDelta):
            stop.set()
    done = terminal(events)
    assert isinstance(done, hearth.Done)
    assert done.reply.finish_reason == "cancelled"
    assert either.conversations.messages(done.reply.conversation_id)[1].text == done.reply.text
    assert either.ask("and", conversation=done.reply.conversation_id, max_tokens=2).usage.cached_tokens > 0


def test_closing_the_iterator_stops_the_turn(either: hearth.Assistant) -> None:
    events = either.stream("the cat", max_tokens=400)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert either.ask("hello", max_tokens=2).usage.completion_tokens == 2


def test_one_turn_at_a_time_in_a_conversation(either: hearth.Assistant) -> None:
    first = either.ask("the cat", max_tokens=2)
    running = either.stream("and", conversation=first.conversation_id, max_tokens=400)
    next(running)
    with pytest.raises(RequestError, match="being answered"):
        either.ask("dog", conversation=first.conversation_id)
    running.close()  # type: ignore[attr-defined]


def test_missing_model_is_one_clear_error_and_nothing_is_lost(tmp_path: Path) -> None:
    with hearth.Assistant(model=str(tmp_path / "absent.gguf"), data_dir=tmp_path / "data") as broken:
        for _ in range(2):
            with pytest.raises(ModelFileError, match=r"absent\.gguf"):
                broken.ask("hello")
        assert broken.status()["state"].startswith("failed: ")
        (conversation, _) = broken.conversations.list()
        assert broken.conversations.messages(conversation.id)[0].text == "hello"


def test_a_document_alone_is_read_into_memory(either: hearth.Assistant, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("The boiler stands in the kitchen cupboard. The door code is 4826.\n")
    events = list(either.stream(documents=[note]))
    done = terminal(events)
    assert isinstance(done, hearth.Done)
    assert "I have read" in done.reply.text
    assert any(isinstance(event, hearth.MemoryChanged) for event in events)
    (hit, *_) = either.memory.search("what is the door code?")
    assert "4826" in (hit.passage.text if hit.passage else "")
    cited = [e for e in either.stream("What is the door code?", max_tokens=2) if isinstance(e, hearth.CitationsFound)]
    assert "4826" in cited[0].citations[0].text
    unrelated = list(either.stream("thanks, good night", max_tokens=2))
    assert not any(isinstance(event, hearth.CitationsFound) for event in unrelated)


def test_same_document_is_kept_once(assistant: hearth.Assistant) -> None:
    one = assistant.memory.add(b"The boiler stands in the kitchen cupboard.")
    two = assistant.memory.add(b"The boiler stands in the kitchen cupboard.")
    assert one.id == two.id
    assert len(assistant.memory.list()) == 1


def test_a_closed_assistant_says_so(model: Path, tmp_path: Path) -> None:
    closed = hearth.Assistant(model=str(model), data_dir=tmp_path / "data")
    closed.close()
    closed.close()
    with pytest.raises(hearth.HearthError, match="closed"):
        closed.ask("hello")
