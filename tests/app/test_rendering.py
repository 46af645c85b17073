"""What is drawn: hostile Markdown and names stay text, sources become chips, figures say what is known."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hearth.events import Citation, Phase, Reply, Timings
from hearth.jobs import TurnJob, TurnRequest
from hearth.models.errors import RequestError
from hearth.models.types import CacheReport, TextDelta, Usage
from hearth.multimodal.transcripts import Transcript
from hearth.store.records import Attachment, Conversation, Document, Message, PassageRecord, SearchHit
from hearth.ui.ingest import IngestState
from hearth.ui.lists import conversation_list, document_list, passage_panel, search_results
from hearth.ui.markdown import render_markdown
from hearth.ui.rendering import (
    active_marker,
    citation_label,
    context_meter,
    error_body,
    figures,
    phase_text,
    running_messages,
    stored_messages,
    told_language,
)

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(1)</script>'
SHA = "a" * 64


def citation(**changes: Any) -> dict[str, Any]:
    known = {
        "number": 1,
        "document_id": "d",
        "title": "Notes",
        "page": 3,
        "start": 0,
        "end": 4,
        "text": "The fact.",
        "score": 0.5,
        "used": True,
    }
    return known | changes


def message(role: Any, text: str, **changes: Any) -> Message:
    known: dict[str, Any] = {
        "attachments": (),
        "citations": (),
        "frozen": None,
        "fingerprint": None,
        "reply": None,
        "created_at": 0.0,
    }
    return Message("m1", "c1", 0, role, text, **(known | changes))


def body(drawn: Any) -> str:
    return str(drawn["content"][0]["text"])


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "![pixel](https://evil.example/track.png)",
        "![pixel][ref]\n\n[ref]: https://evil.example/track.png",
        "<iframe src='https://evil.example'></iframe>",
        "<style>body{display:none}</style>",
        "[x](file:///etc/passwd)",
        "[x](//evil.example)",
        "[x](#cite/other/chat/1)",
    ],
)
def test_answers_can_load_and_run_nothing(text: str) -> None:
    drawn = render_markdown(text)
    assert not re.search(r"<(img|script|iframe|style|link|object|svg|form|input)\b", drawn, re.IGNORECASE)
    assert not re.search(r"""href=["'](?!https?://)""", drawn)
    assert not re.search(r"<[^>]*\son\w+=", drawn)


def test_markdown_is_drawn() -> None:
    drawn = render_markdown(
        "**bold** `code`\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[site](https://a.example)"
    )
    for part in (
        "<strong>bold</strong>",
        "<code>code</code>",
        "<li>one</li>",
        "<td>1</td>",
        'href="https://a.example"',
    ):
        assert part in drawn


def test_a_hostile_nesting_is_bounded() -> None:
    render_markdown("> " * 5000 + "x")
    render_markdown("[" * 5000)
    render_markdown("*" * 5000 + "a")


def test_references_become_chips_outside_of_code() -> None:
    drawn = render_markdown("In room 12 [1], not [2]. `x[1]`", {1: "<a>CHIP</a>"})
    assert "In room 12 <a>CHIP</a>, not [2]." in drawn
    assert "<code>x[1]</code>" in drawn


def test_a_stored_answer_has_chips_sources_figures_and_notices() -> None:
    reply = {
        "usage": {"prompt_tokens": 200, "cached_tokens": 174, "completion_tokens": 5},
        "timings": {"ttft_s": 0.4217, "decode_tokens_per_s": 31.2},
        "finish_reason": "stop",
        "notices": ["Page 2 is a scan."],
    }
    answer = message("assistant", "Room 12 [1].", citations=(citation(), citation(number=2, used=False)), reply=reply)
    drawn = body(stored_messages("c1", [answer])[0])
    assert '<a class="hearth-chip" href="#cite/c1/m1/1" title="Notes, p. 3">1</a>' in drawn
    assert drawn.count('hearth-source"') == 1
    assert "first token 0.42 s · 31 tokens/s · 87 % cached · complete" in drawn
    assert "Page 2 is a scan." in drawn


def test_sources_that_were_not_cited_are_said_to_be_so() -> None:
    reply = {"finish_reason": "stop"}
    answer = message("assistant", "I cannot tell.", citations=(citation(used=False),), reply=reply)
    assert "Looked at, not cited:" in body(stored_messages("c1", [answer])[0])


def test_users_text_names_and_titles_stay_text() -> None:
    attachment = Attachment(SHA, HOSTILE, "document", "text/plain", 5)
    stored = [
        message("user", HOSTILE + "\nline", attachments=(attachment,)),
        message("assistant", HOSTILE, citations=(citation(title=HOSTILE, text=HOSTILE),), reply={"notices": [HOSTILE]}),
        message("assistant", "", reply={"error": HOSTILE}),
    ]
    drawn = "".join(body(shown) for shown in stored_messages("c1", stored))
    drawn += passage_panel(citation(title=HOSTILE, text=HOSTILE)) + active_marker("c", HOSTILE, running=False)
    drawn += conversation_list([Conversation(HOSTILE, HOSTILE, 0, 0, 1)], None)
    document = Document("d", HOSTILE, HOSTILE, "text", "", SHA, 1, 1, "failed", HOSTILE, 0.0)
    drawn += document_list([document], [IngestState(0, HOSTILE, error=HOSTILE)]) + error_body(HOSTILE)
    passage = PassageRecord("p", "d", 0, HOSTILE, None, 0, 1, "")
    drawn += search_results(HOSTILE, [SearchHit(document, passage, 1.0, None, None, None)]) + search_results(
        HOSTILE, []
    )
    assert "<img src=x" not in drawn
    assert "<script" not in drawn
    assert not re.search(r'="[^"]*<', drawn)


def test_attachments_are_shown_by_kind() -> None:
    kinds = [Attachment(SHA, f"f{number}", kind, "", 1) for number, kind in enumerate(("picture", "sound", "document"))]
    drawn = body(stored_messages("c1", [message("user", "", attachments=tuple(kinds))])[0])
    assert f'<img src="/hearth/attachments/{SHA}"' in drawn
    assert "<audio controls" in drawn
    assert 'class="hearth-file"' in drawn


def test_system_messages_are_not_shown() -> None:
    assert stored_messages("c1", [message("system", "be kind")]) == []


def test_a_running_turn_shows_question_phase_and_text() -> None:
    job = TurnJob(TurnRequest("c1", "hi", images=(Path("/tmp/a b.png"),), audio=(Path("q.wav"),)), 0)
    job.run(lambda *_: iter([Phase("prefilling", 0.4), TextDelta("so far")]))
    job._progress = replace(job._progress, error=None)
    question, answer = (body(drawn) for drawn in running_messages(job))
    assert '<img src="/hearth/sending/c1/0" alt="a b.png"' in question
    assert '<audio controls preload="metadata" src="/hearth/sending/c1/1"' in question
    assert "hi" in question
    assert "so far" in answer
    assert "Prefill 40 %" in answer
    job.stop()
    assert "Stopping" in body(running_messages(job)[1])


def test_a_failed_turn_shows_its_error() -> None:
    job = TurnJob(TurnRequest("c1", "hi"), 0)
    job._progress = replace(job._progress, error=RequestError("too long; shorten it"))
    assert "too long; shorten it" in body(running_messages(job)[1])


def test_a_live_source_is_named_before_it_is_stored() -> None:
    job = TurnJob(TurnRequest("c1", "hi"), 0)
    found = Citation(1, "d", "Notes", None, 0, 4, "text", 0.5)
    job._progress = replace(job._progress, text="See [1].", citations=(found,))
    assert 'href="#cite/c1/live/1"' in body(running_messages(job)[1])


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (None, "Starting"),
        (Phase("seeing", detail="a.png"), "Reading the picture · a.png"),
        (Phase("transcribing", 0.123), "Transcribing 12 %"),
        (Phase("searching"), "Searching memory"),
        (Phase("prefilling", 0.4), "Prefill 40 %"),
        (Phase("prefilling", 7.0), "Prefill 100 %"),
        (Phase("generating"), "Generating"),
    ],
)
def test_phases_in_words(phase: Phase | None, words: str) -> None:
    assert phase_text(phase) == words


def test_figures_leave_out_what_is_not_known() -> None:
    assert figures({}) == ""
    assert figures({"finish_reason": "cancelled"}) == "stopped"
    reply = Reply("", "c", "m", "length", usage=Usage(0, 0, 0), timings=Timings())
    assert figures(reply.to_dict()) == "cut at the token limit"


def test_figures_say_what_came_from_disk() -> None:
    usage = Usage(prompt_tokens=2000, cached_tokens=1740, completion_tokens=24)
    timings = Timings(ttft_s=0.42, decode_tokens_per_s=31.4)
    reply = Reply("", "c", "m", "stop", usage=usage, timings=timings, cache=CacheReport(disk_tokens=1536))
    known = "first token 0.42 s · 31 tokens/s · 87 % cached"
    assert figures(reply.to_dict()) == f"{known} (1,536 tokens from disk) · complete"
    assert figures(asdict(replace(reply, cache=CacheReport()))) == f"{known} · complete"
    older = {key: value for key, value in asdict(reply).items() if key != "cache"}  # stored before it was counted
    assert figures(older) == f"{known} · complete"


@pytest.mark.parametrize(("used", "state"), [(100, "free"), (750, "filling"), (950, "full"), (2000, "full")])
def test_the_meter_says_how_full_the_context_is(used: int, state: str) -> None:
    drawn = context_meter({"usage": {"prompt_tokens": used, "completion_tokens": 0}}, 1000)
    assert f"hearth-meter {state}" in drawn
    assert f"{min(100, used // 10)} %" in drawn


def test_the_meter_is_empty_when_nothing_is_known() -> None:
    assert context_meter(None, 1000) == ""
    assert context_meter({"usage": {"prompt_tokens": 5}}, None) == ""


def test_conversations_stand_under_their_day() -> None:
    now = time.time()
    drawn = conversation_list(
        [Conversation("a", "New", now, now, 1), Conversation("b", "", now, now - 400 * 86_400, 1)], "a", ["b"]
    )
    assert drawn.index("Today") < drawn.index("New") < drawn.index("New chat")
    assert 'class="hearth-conversation active"' in drawn
    assert 'class="hearth-conversation busy"' in drawn


def test_documents_say_how_far_they_are() -> None:
    ready = Document("d", "Manual", "m.pdf", "text", "", SHA, 12, 40, "ready", "", 0.0)
    drawn = document_list([ready], [IngestState(1, "b.pdf", started=True, fraction=0.25), IngestState(2, "c.pdf")])
    for part in ("12 pages · 40 passages", "reading 25 %", "waiting", 'data-action="forget"'):
        assert part in drawn


def test_the_opened_source_is_named_and_highlighted() -> None:
    drawn = passage_panel(citation())
    assert drawn.index("<h3>Notes</h3>") < drawn.index("page 3") < drawn.index("<mark>The fact.</mark>")
    assert "page" not in passage_panel(citation(page=None)).replace("passage", "")


def test_a_place_in_a_recording_is_a_time_and_can_be_played() -> None:
    heard = citation(title="talk.mp3", page=None, start_s=42.4)
    assert citation_label(heard) == "talk.mp3, 0:42"
    drawn = passage_panel(heard, "ab" * 32)
    assert f'src="/hearth/attachments/{"ab" * 32}#t=42.4"' in drawn
    assert '<span class="page">0:42</span>' in drawn
    assert "<audio" not in passage_panel(heard)
    assert "<audio" not in passage_panel(citation(), "ab" * 32)
    assert phase_text(Phase("transcribing", 0.5, "talk.mp3", 61.0, 3723.0)) == "Transcribing 1:01 of 1:02:03 · talk.mp3"


def test_the_language_that_was_heard_stands_with_the_recording() -> None:
    sound = Attachment("ab" * 32, "talk.mp3", "sound", "audio", 3)
    asked = message("user", "Was ist das?", attachments=(sound,))
    heard = Transcript("Was ist das?", (), 2.0, "de", 0.978)
    assert "heard in German (98 % sure)" in body(stored_messages("c1", [asked], lambda _: heard)[0])
    assert "heard in" not in body(stored_messages("c1", [asked])[0])
    assert told_language(Transcript("x", (), 1.0, "de", None, "translate")) == "heard in German, translated"
