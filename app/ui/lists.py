"""Draws what stands beside the chat as HTML: conversations, documents in memory, search results, the opened source."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hearth.places import clock, place_in
from hearth.ui.icons import icon
from hearth.ui.ingest import IngestState
from hearth.ui.paths import ATTACHMENT_PATH
from hearth.ui.rendering import citation_label

if TYPE_CHECKING:
    from hearth.store.records import Conversation, Document, SearchHit

_DAY_S = 86_400
_SNIPPET_CHARS = 320


def conversation_list(conversations: Sequence[Conversation], active: str | None, running: Iterable[str] = ()) -> str:
    """The conversations, newest first, under the day of their last change."""
    if not conversations:
        return '<p class="hearth-empty">No chats yet.</p>'
    busy = set(running)
    parts: list[str] = []
    heading = ""
    for conversation in conversations:
        day = _day(conversation.updated_at)
        if day != heading:
            heading = day
            parts.append(f'<div class="hearth-day">{heading}</div>')
        parts.append(_conversation(conversation, conversation.id == active, conversation.id in busy))
    return "".join(parts)


def _conversation(conversation: Conversation, active: bool, busy: bool) -> str:
    key, title = html.escape(conversation.id), html.escape(conversation.title or "New chat")
    classes = "hearth-conversation" + (" active" if active else "") + (" busy" if busy else "")
    current = ' aria-current="true"' if active else ""
    opens = f'class="open" data-action="open" data-id="{key}"{current} title="{title}"'
    return (
        f'<div class="{classes}" data-conversation="{key}"><button type="button" {opens}>{title}</button>'
        f"{_icon_button('rename', 'pencil', key, f'Rename {title}')}"
        f"{_icon_button('delete', 'bin', key, f'Delete {title}', confirm='Delete?')}</div>"
    )


def _icon_button(action: str, shape: str, key: str, label: str, confirm: str = "") -> str:
    asks = f' data-confirm="{confirm}"' if confirm else ""
    return (
        f'<button type="button" class="icon" data-action="{action}"{asks} data-id="{key}" aria-label="{label}">'
        f"{icon(shape)}</button>"
    )


def document_list(documents: Sequence[Document], ingesting: Sequence[IngestState]) -> str:
    """Files on their way into memory, then the documents that are there."""
    rows = [_ingesting(state) for state in ingesting] + [_document(document) for document in documents]
    if not rows:
        return '<p class="hearth-empty">Nothing in memory yet. Add a file, and ask about it in any chat.</p>'
    return f'<div class="hearth-documents">{"".join(rows)}</div>'


def _ingesting(state: IngestState) -> str:
    name = html.escape(state.name)
    if state.error is not None:
        detail = f'<span class="detail error">{html.escape(state.error)}</span>'
        return f'<div class="hearth-document failed"><span class="title">{name}</span>{detail}</div>'
    percent = round(100 * state.fraction)
    words = f"reading {percent} %" if state.started else "waiting"
    bar = f'<progress max="100" value="{percent}"></progress>' if state.started else ""
    return (
        f'<div class="hearth-document"><span class="title">{name}</span><span class="detail">{bar}{words}</span></div>'
    )


def _document(document: Document) -> str:
    key, title = html.escape(document.id), html.escape(document.title or document.name)
    if document.state == "failed":
        detail = f'<span class="detail error">{html.escape(document.detail or "could not be read")}</span>'
    elif document.kind == "picture":
        detail = '<span class="detail">picture</span>'
    else:
        pages = f"{_count(document.n_pages, 'page')} · " if document.n_pages > 1 else ""
        state = "" if document.state == "ready" else " · reading"
        detail = f'<span class="detail">{pages}{_count(document.n_passages, "passage")}{state}</span>'
    return (
        f'<div class="hearth-document {document.state}" data-document="{key}">'
        f'<span class="title" title="{html.escape(document.name)}">{title}</span>{detail}'
        f"{_icon_button('forget', 'bin', key, f'Forget {title}', confirm='Forget?')}</div>"
    )


def search_results(query: str, hits: Sequence[SearchHit]) -> str:
    """What memory holds for ``query``, best first."""
    if not query.strip():
        return ""
    if not hits:
        return f'<p class="hearth-empty">Nothing in memory fits “{html.escape(query)}”.</p>'
    return "".join(_hit(hit) for hit in hits)


def _hit(hit: SearchHit) -> str:
    place = "" if hit.passage is None else place_in(hit.passage.page, hit.passage.start_s).replace(", ", " · ", 1)
    text = hit.passage.text if hit.passage is not None else "picture"
    snippet = text if len(text) <= _SNIPPET_CHARS else text[:_SNIPPET_CHARS].rstrip() + " …"
    return (
        f'<div class="hearth-hit"><div class="head"><span class="title">{html.escape(hit.document.title)}{place}</span>'
        f'<span class="score">score {hit.score:.3f}</span></div><p>{html.escape(snippet)}</p></div>'
    )


def passage_panel(citation: Mapping[str, Any], recording: str | None = None) -> str:
    """The cited passage, highlighted, under the title and page of its document; ``recording`` is the SHA-256 of the one
    that it is from, which can be played from there."""
    page, start_s = citation.get("page"), citation.get("start_s")
    place = f'<span class="page">page {int(page)}</span>' if page is not None else ""
    player = ""
    if start_s is not None:
        place = f'<span class="page">{clock(float(start_s))}</span>'
        if recording is not None:
            source = f"{ATTACHMENT_PATH}/{html.escape(recording)}#t={float(start_s):.1f}"
            player = f'<audio controls preload="metadata" src="{source}"></audio>'
    return (
        f'<article class="hearth-passage" aria-label="{html.escape(citation_label(citation))}">'
        f'<header><span class="number">{int(citation["number"])}</span>'
        f"<h3>{html.escape(str(citation['title']))}</h3>{place}</header>{player}"
        f"<mark>{html.escape(str(citation['text']))}</mark></article>"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _day(moment_s: float) -> str:
    now = time.localtime()
    midnight = time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1))
    for limit, words in ((midnight, "Today"), (midnight - _DAY_S, "Yesterday"), (midnight - 6 * _DAY_S, "This week")):
        if moment_s >= limit:
            return words
    return time.strftime("%B %Y", time.localtime(moment_s))
