"""Draws messages as HTML: attachments, answers with their sources, the line of figures under an answer."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

from hearth.events import Phase
from hearth.jobs import TurnJob, TurnProgress
from hearth.multimodal.languages import language_name
from hearth.places import clock, place_in
from hearth.ui.markdown import render_markdown
from hearth.ui.paths import ATTACHMENT_PATH, JOB_FILE_PATH

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import Transcript
    from hearth.store.records import Attachment, Message

LIVE = "live"  # stands for the message id of an answer that is not stored yet
_PHASES = {
    "loading": "Loading the model",
    "seeing": "Reading the picture",
    "transcribing": "Transcribing",
    "reading": "Reading the document",
    "searching": "Searching memory",
    "waiting": "Waiting for its turn",
    "prefilling": "Prefill",
    "generating": "Generating",
}
_REASONS = {"stop": "complete", "length": "cut at the token limit", "cancelled": "stopped"}


TranscriptOf = Callable[[str], "Transcript | None"]


class ChatMessage(TypedDict):
    """A message as ``gr.Chatbot`` takes it; ``content`` is one text block that holds HTML."""

    role: str
    content: list[dict[str, str]]


def chat_message(role: str, body: str) -> ChatMessage:
    """``body`` is HTML that is already safe."""
    return {"role": role, "content": [{"type": "text", "text": body}]}


def stored_messages(
    conversation_id: str, messages: Iterable[Message], transcript_of: TranscriptOf = lambda _: None
) -> list[ChatMessage]:
    """The stored messages of a conversation; ``transcript_of`` gives what was heard in a recording by its SHA-256."""
    return [
        chat_message("user", _user_message(message, transcript_of))
        if message.role == "user"
        else chat_message("assistant", _stored_answer(conversation_id, message))
        for message in messages
        if message.role in ("user", "assistant")
    ]


def running_messages(job: TurnJob) -> list[ChatMessage]:
    """The question and the answer so far of a turn that is not stored yet."""
    progress = job.progress
    text = "\n".join(part for part in (job.request.text, *progress.transcripts) if part)
    question = _attachments_of_job(job) + _plain(text)
    return [chat_message("user", question), chat_message("assistant", _live_answer(job, progress))]


def error_body(message: str) -> str:
    """An error in the chat."""
    return f'<div class="hearth-error"><strong>That did not work.</strong> {html.escape(message)}</div>'


def phase_text(phase: Phase | None) -> str:
    """What a turn is doing, in words: “Prefill 40 %”."""
    if phase is None:
        return "Starting"
    words = _PHASES[phase.name]
    if phase.done_s is not None and phase.total_s is not None:
        words += f" {clock(phase.done_s)} of {clock(phase.total_s)}"
    elif phase.fraction is not None:
        words += f" {round(100 * min(max(phase.fraction, 0.0), 1.0))} %"
    return f"{words} · {phase.detail}" if phase.detail else words


def figures(reply: Mapping[str, Any]) -> str:
    """“first token 0.42 s · 31 tokens/s · 87 % cached · complete”, as far as known."""
    usage, timings = reply.get("usage") or {}, reply.get("timings") or {}
    parts = []
    if timings.get("ttft_s"):
        parts.append(f"first token {timings['ttft_s']:.2f} s")
    if timings.get("decode_tokens_per_s"):
        parts.append(f"{timings['decode_tokens_per_s']:.0f} tokens/s")
    if usage.get("prompt_tokens"):
        share = f"{round(100 * usage.get('cached_tokens', 0) / usage['prompt_tokens'])} % cached"
        from_disk = (reply.get("cache") or {}).get("disk_tokens", 0)
        parts.append(f"{share} ({from_disk:,} tokens from disk)" if from_disk else share)
    reason = reply.get("finish_reason")
    if reason:
        parts.append(_REASONS.get(str(reason), str(reason)))
    return " · ".join(parts)


def context_meter(reply: Mapping[str, Any] | None, n_ctx: int | None) -> str:
    """How full the context is after the last answer, as HTML; empty when unknown."""
    usage = (reply or {}).get("usage") or {}
    used = int(usage.get("prompt_tokens", 0)) + int(usage.get("completion_tokens", 0))
    if not n_ctx or not used:
        return ""
    percent = min(100, round(100 * used / n_ctx))
    state = "full" if percent >= 90 else "filling" if percent >= 70 else "free"
    title = f"{used:,} of {n_ctx:,} tokens of the context are used"
    if state == "full":
        title += "; start a new chat soon"
    return (
        f'<span class="hearth-meter {state}" title="{title}"><span>context</span>'
        f'<progress max="100" value="{percent}"></progress><span>{percent} %</span></span>'
    )


def told_language(transcript: Transcript) -> str:
    """“heard in German (98 % sure)”."""
    translated = ", translated" if transcript.task == "translate" else ""
    sure = "" if transcript.language_prob is None else f" ({round(100 * transcript.language_prob)} % sure)"
    return f"heard in {language_name(transcript.language)}{translated}{sure}"


def _user_message(message: Message, transcript_of: TranscriptOf) -> str:
    drawn = "".join(
        _attachment(attachment) + (_heard(transcript_of(attachment.sha256)) if attachment.kind == "sound" else "")
        for attachment in message.attachments
    )
    return _attachment_row(drawn) + _plain(message.text)


def _heard(transcript: Transcript | None) -> str:
    return "" if transcript is None else f'<span class="hearth-heard">{html.escape(told_language(transcript))}</span>'


def _stored_answer(conversation_id: str, message: Message) -> str:
    reply = message.reply or {}
    if reply.get("error"):
        return error_body(str(reply["error"]))
    return _answer(
        message.text, message.citations, f"{conversation_id}/{message.id}", reply, reply.get("notices") or ()
    )


def _live_answer(job: TurnJob, progress: TurnProgress) -> str:
    if progress.error is not None:
        return error_body(str(progress.error))
    citations = [asdict(citation) for citation in progress.citations]
    key = f"{job.request.conversation_id}/{LIVE}"
    if progress.reply is not None:
        return _answer(progress.text, citations, key, asdict(progress.reply), progress.notices)
    status = "Stopping" if progress.stopping else phase_text(progress.phase)
    body = _answer(progress.text, citations if progress.text else (), key, {}, progress.notices)
    return f'{body}<div class="hearth-phase"><span class="hearth-pulse"></span>{html.escape(status)}</div>'


def _answer(
    text: str, citations: Sequence[Mapping[str, Any]], key: str, reply: Mapping[str, Any], notices: Iterable[str]
) -> str:
    chips = {int(citation["number"]): _chip(citation, key) for citation in citations}
    parts = [f'<div class="hearth-notice">{html.escape(str(notice))}</div>' for notice in notices]
    if text:
        parts.append(f'<div class="hearth-answer">{render_markdown(text, chips)}</div>')
    if reply:  # which sources the answer refers to is known at its end
        parts.append(_sources(citations, key))
    line = figures(reply)
    if line:
        parts.append(f'<div class="hearth-figures">{html.escape(line)}</div>')
    return "".join(parts)


def _sources(citations: Sequence[Mapping[str, Any]], key: str) -> str:
    """The sources that the answer refers to; if it refers to none, those it was given, said to be so."""
    used = [citation for citation in citations if citation.get("used")]
    shown, lead = (used, "") if used else (citations, "<span>Looked at, not cited:</span>")
    drawn = "".join(_source(citation, key) for citation in shown)
    return f'<div class="hearth-sources">{lead}{drawn}</div>' if drawn else ""


def _chip(citation: Mapping[str, Any], key: str) -> str:
    number = int(citation["number"])
    title = html.escape(citation_label(citation))
    return f'<a class="hearth-chip" href="#cite/{html.escape(key)}/{number}" title="{title}">{number}</a>'


def _source(citation: Mapping[str, Any], key: str) -> str:
    number = int(citation["number"])
    label = html.escape(citation_label(citation))
    return f'<a class="hearth-source" href="#cite/{html.escape(key)}/{number}"><b>{number}</b> {label}</a>'


def citation_label(citation: Mapping[str, Any]) -> str:
    """“Manual, p. 3”, “talk.mp3, 0:42”."""
    return f"{citation['title']}{place_in(citation.get('page'), citation.get('start_s'))}"


def _plain(text: str) -> str:
    return f'<div class="hearth-said">{html.escape(text).replace(chr(10), "<br>")}</div>' if text else ""


def _attachment_row(drawn: str) -> str:
    return f'<div class="hearth-attachments">{drawn}</div>' if drawn else ""


def _attachment(attachment: Attachment) -> str:
    return _file(attachment.kind, f"{ATTACHMENT_PATH}/{quote(attachment.sha256)}", attachment.name)


def _attachments_of_job(job: TurnJob) -> str:
    request = job.request
    kinds = ["picture"] * len(request.images) + ["sound"] * len(request.audio) + ["document"] * len(request.documents)
    drawn = [
        _file(kind, f"{JOB_FILE_PATH}/{job.request.conversation_id}/{position}", Path(path).name)
        for position, (kind, path) in enumerate(zip(kinds, request.files, strict=True))
    ]
    return _attachment_row("".join(drawn))


def _file(kind: str, url: str, name: str) -> str:
    shown = html.escape(name)
    if kind == "picture":
        return f'<a class="hearth-picture" href="{url}"><img src="{url}" alt="{shown}" title="{shown}"></a>'
    if kind == "sound":
        return f'<audio controls preload="metadata" src="{url}" title="{shown}"></audio>'
    return f'<a class="hearth-file" href="{url}">{shown}</a>'


def active_marker(conversation_id: str | None, title: str, *, running: bool) -> str:
    """The title over the chat; the page's script reads from it which chat is open."""
    key = html.escape(conversation_id or "")
    return f'<h2 class="hearth-title" data-chat="{key}" data-running="{int(running)}">{html.escape(title)}</h2>'
