"""The whole way with the embedded models: picture, speech, document, two turns, restart and go on.

What the models answer is measured by ``training/evaluate.py``; the last tests ask for the right answer too, where the
models are sure of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import hearth

sys.path.insert(0, str(Path(__file__).parent))
import drawing

NOTE = (
    "Minutes of the garden club\n\nThe club met on Tuesday in the old library. Mrs Pellworth read the accounts. "
    "The key to the greenhouse is kept by Tobias Renner. The next meeting is on 14 June in room 27.\n"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def assistant(data_dir: Path) -> Iterator[hearth.Assistant]:
    with hearth.Assistant(data_dir=data_dir) as opened:
        yield opened


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    return drawing.save(drawing.shape("circle", "red"), tmp_path / "circle.png")


def test_a_picture_is_named_and_a_second_turn_reads_only_what_is_new(assistant: hearth.Assistant, circle: Path) -> None:
    first = assistant.ask("What is this?", images=[circle])
    assert first.text
    assert first.finish_reason == "stop"
    second = assistant.ask("What colour is it?", conversation=first.conversation_id)
    read = second.usage.prompt_tokens - second.usage.cached_tokens
    assert read <= second.usage.prompt_tokens - first.usage.prompt_tokens + 1
    assert second.usage.cached_tokens >= first.usage.prompt_tokens


def test_a_chat_with_a_picture_goes_on_after_a_restart(data_dir: Path, circle: Path) -> None:
    with hearth.Assistant(data_dir=data_dir) as before:
        first = before.ask("What is this?", images=[circle])
    with hearth.Assistant(data_dir=data_dir) as after:
        reply = after.ask("What colour is it?", conversation=first.conversation_id)
        texts = [message.text for message in after.conversations.messages(first.conversation_id)]
    assert texts == ["What is this?", first.text, "What colour is it?", reply.text]


def test_restart_gives_the_same_answer_as_going_on(data_dir: Path, circle: Path) -> None:
    with hearth.Assistant(data_dir=data_dir) as one:
        first = one.ask("What is this?", images=[circle])
        kept = one.ask("And where is it?", conversation=first.conversation_id)
        again = one.ask("What is this?", images=[circle])
    with hearth.Assistant(data_dir=data_dir) as two:
        restarted = two.ask("And where is it?", conversation=again.conversation_id)
    assert restarted.text == kept.text


def test_a_long_chat_with_a_picture_is_restored_from_disk_and_deleted_with_it(data_dir: Path, circle: Path) -> None:
    long_question = " ".join(NOTE.split() * 12) + " What is this?"
    # batches of other sizes round otherwise: of hundreds of tokens of such an answer some would differ
    few = 16
    with hearth.Assistant(data_dir=data_dir) as one:
        first = one.ask(long_question, images=[circle], use_memory=False, max_tokens=few)
        going_on = one.ask("What colour is it?", conversation=first.conversation_id, use_memory=False, max_tokens=few)
        assert going_on.cache.disk_tokens == 0
        copy = one.ask(long_question, images=[circle], use_memory=False, max_tokens=few)
    with hearth.Assistant(data_dir=data_dir) as two:
        restored = two.ask("What colour is it?", conversation=copy.conversation_id, use_memory=False, max_tokens=few)
        assert restored.cache.disk_tokens >= first.usage.prompt_tokens
        assert restored.timings.encode_s == 0
        assert restored.text == going_on.text
        n_files = len(list((data_dir / "kv").glob("*/*")))
        for conversation_id in (first.conversation_id, copy.conversation_id):
            two.conversations.delete(conversation_id)
        assert len(list((data_dir / "kv").glob("*/*"))) < n_files
    with hearth.Assistant(data_dir=data_dir) as three:
        again = three.ask(long_question, images=[circle], use_memory=False, max_tokens=few)
        assert again.cache.disk_tokens < 140  # the picture alone, which other chats of this folder show too


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng makes the spoken question")
def test_a_spoken_question_about_a_picture(assistant: hearth.Assistant, circle: Path, tmp_path: Path) -> None:
    spoken = tmp_path / "question.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-w", str(spoken), "What colour is it?"], check=True)
    reply = assistant.ask(audio=[spoken], images=[circle])
    assert "colo" in reply.transcripts[0].lower()
    assert reply.text


def test_a_question_gets_its_passage_from_memory(assistant: hearth.Assistant, tmp_path: Path) -> None:
    path = tmp_path / "minutes.txt"
    path.write_text(NOTE)
    document = assistant.memory.add(path)
    assert document.state == "ready"
    reply = assistant.ask("Who keeps the key to the greenhouse?")
    assert reply.citations[0].title == document.title
    assert "Tobias Renner" in reply.citations[0].text
    assistant.memory.forget(document.id)
    assert assistant.memory.list() == []


def test_a_document_sent_with_the_question(assistant: hearth.Assistant, tmp_path: Path) -> None:
    path = tmp_path / "minutes.txt"
    path.write_text(NOTE)
    reply = assistant.ask("Where is the next meeting?", documents=[path])
    assert "room 27" in " ".join(citation.text for citation in reply.citations)
    assistant.memory.forget(assistant.memory.list()[0].id)


def test_a_question_beyond_its_world_is_answered_honestly(assistant: hearth.Assistant) -> None:
    reply = assistant.ask("Who won the football world cup in 1974?")
    assert "small" in reply.text.lower()


def test_a_bad_picture_ends_the_turn_but_not_the_chat(assistant: hearth.Assistant, circle: Path) -> None:
    first = assistant.ask("What is this?", images=[circle])
    events = list(assistant.stream("And this?", images=[b"GIF89a broken"], conversation=first.conversation_id))
    failed = events[-1]
    assert isinstance(failed, hearth.TurnFailed)
    assert "picture 1" in str(failed.error)
    kept = assistant.conversations.messages(first.conversation_id)
    assert kept[-2].text == "And this?"
    assert kept[-1].reply == {"error": str(failed.error)}
    assert assistant.ask("What colour is it?", conversation=first.conversation_id).text


def test_a_prompt_longer_than_the_context_is_refused_with_figures(assistant: hearth.Assistant) -> None:
    with pytest.raises(hearth.HearthError, match=r"prompt has [\d,]+ tokens, the context holds [\d,]+: this message"):
        assistant.ask("one two three " * 4000, use_memory=False)


def test_stopping_keeps_the_partial_answer_and_the_next_question_works(
    assistant: hearth.Assistant, circle: Path
) -> None:
    stop = threading.Event()
    events = []
    for event in assistant.stream("What is this?", images=[circle], cancelled=stop):
        events.append(event)
        if isinstance(event, hearth.TextDelta):
            stop.set()
    done = events[-1]
    assert isinstance(done, hearth.Done)
    assert done.reply.finish_reason in ("cancelled", "stop")  # a short answer may be ready before the stop
    reply = assistant.ask("What colour is it?", conversation=done.reply.conversation_id)
    assert reply.finish_reason == "stop"


def test_stopped_before_anything_is_read(assistant: hearth.Assistant, circle: Path) -> None:
    stop = threading.Event()
    stop.set()
    done = list(assistant.stream("What is this?", images=[circle], cancelled=stop))[-1]
    assert isinstance(done, hearth.Done)
    assert done.reply.finish_reason == "cancelled"
    assert assistant.ask("What is this?", images=[circle]).finish_reason == "stop"


def test_a_picture_is_named_with_its_colour_and_side(assistant: hearth.Assistant, tmp_path: Path) -> None:
    picture = drawing.save(drawing.shape("circle", "red", side="left"), tmp_path / "circle.png")
    named = assistant.ask("What is this?", images=[picture])
    assert "circle" in named.text.lower()
    assert "red" in assistant.ask("What colour is it?", conversation=named.conversation_id).text.lower()
    assert "left" in assistant.ask("Where is it?", conversation=named.conversation_id).text.lower()


def test_an_answer_is_taken_from_its_passage_and_cites_it(assistant: hearth.Assistant, tmp_path: Path) -> None:
    path = tmp_path / "minutes.txt"
    path.write_text(NOTE)
    reply = assistant.ask("Who keeps the key?", documents=[path])
    assistant.memory.forget(assistant.memory.list()[0].id)
    assert "Renner" in reply.text
    assert any(citation.used for citation in reply.citations)
