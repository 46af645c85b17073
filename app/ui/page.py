"""The page: Gradio components and what each event does. What the events mean is in ``chat`` and the tabs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from hearth import assets
from hearth.models.errors import HearthError, RequestError
from hearth.ui.chat import Chat, View
from hearth.ui.heard import HeardBoxes
from hearth.ui.icons import icon
from hearth.ui.lists import conversation_list
from hearth.ui.memory_tab import MemoryTab
from hearth.ui.models_tab import ModelsTab
from hearth.ui.paths import STATIC_PATH
from hearth.ui.rendering import active_marker
from hearth.ui.samples import Sample, find_samples, welcome

if TYPE_CHECKING:
    from hearth.assistant import Assistant
    from hearth.jobs import TurnJob

REDRAW_S = 0.12  # at most 8 redraws a second: a slow browser must not fall behind
WAIT_S = 1.0  # how long a follower sleeps when nothing happens before it looks whether it is still wanted
CACHE_S = 6 * 3600  # uploads older than this are deleted, looked for at the same interval
HERE = "this machine"  # where the engine is, as a status says
BOX_PLACEHOLDER = "Ask anything. Drop or paste a picture, a recording or a document."
NO_CHANGE: dict[str, Any] = gr.skip()
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_CONNECT = "window.hearthTrigger = trigger; window.dispatchEvent(new Event('hearth-bridge'));"
_HEADER = f"""
<div class="hearth-bar">
  <button type="button" class="icon" data-ui="menu" aria-label="Show or hide the chats">{icon("menu")}</button>
  <span class="hearth-brand">{icon("flame")} Hearth</span>
  <span id="hearth-status" class="hearth-status" role="status"></span>
  <button type="button" class="icon" data-ui="theme" aria-label="Light or dark">{icon("theme")}</button>
</div>"""
_PANEL = f"""
<div class="hearth-panel-bar"><b>Source</b>
<button type="button" class="icon" data-ui="close-panel" aria-label="Close the source">{icon("close")}</button></div>
<div id="hearth-passage" aria-live="polite"></div>"""


class Page:
    """One page for all browsers; each open tab has its View, by Gradio's session."""

    def __init__(
        self, assistant: Assistant, chat: Chat, memory_tab: MemoryTab, models_tab: ModelsTab, uploads_dir: Path
    ) -> None:
        self._assistant = assistant
        self._chat = chat
        self._memory_tab = memory_tab
        self._models_tab = models_tab
        self._heard = HeardBoxes(chat)
        self._samples = find_samples(assets.samples_dir(), uploads_dir)
        status = assistant.status()
        self._leaves = str(status.get("leaves", ""))
        self._engine = "" if status.get("engine", HERE) == HERE else str(status["engine"])
        self._views: dict[str, View] = {}

    def build(self) -> Any:
        """Makes the components and wires them; a ``gr.Blocks``."""
        with gr.Blocks(
            title="Hearth", analytics_enabled=False, fill_width=True, delete_cache=(CACHE_S, CACHE_S)
        ) as blocks:
            gr.HTML(_HEADER, elem_id="hearth-header", apply_default_css=False)
            if self._leaves:
                gr.HTML(escape(self._leaves), elem_id="hearth-leaves", apply_default_css=False)
            with gr.Row(elem_id="hearth-body", equal_height=False):
                with gr.Column(elem_id="hearth-side", min_width=0, scale=0):
                    self._build_side()
                with gr.Column(elem_id="hearth-main", min_width=0), gr.Tabs(elem_id="hearth-tabs"):
                    with gr.Tab("Chat", id="chat", elem_id="hearth-chat-tab"):
                        self._build_chat()
                    with gr.Tab("Memory", id="memory", elem_id="hearth-memory-tab"):
                        self._memory_tab.build()
                    with gr.Tab("Models", id="models", elem_id="hearth-models-tab") as self._models:
                        self._models_tab.build()
                with gr.Column(elem_id="hearth-panel", min_width=0, scale=0):
                    gr.HTML(_PANEL, apply_default_css=False)
            self._bridge = gr.HTML("", elem_id="hearth-bridge", js_on_load=_CONNECT, visible="hidden")
            self._wire(blocks)
        return blocks

    def _build_side(self) -> None:
        self._new = gr.Button("New chat", elem_id="hearth-new", variant="primary", size="md")
        self._search = gr.Textbox(
            placeholder="Search chats", show_label=False, container=False, elem_id="hearth-search", max_lines=1
        )
        self._list = gr.HTML("", elem_id="hearth-conversations", apply_default_css=False)

    def _build_chat(self) -> None:
        # empty until the server has read the address, or the script would clear the chat that it names
        self._active = gr.HTML("", elem_id="hearth-active")
        self._chatbot = gr.Chatbot(
            elem_id="hearth-chatbot",
            show_label=False,
            container=False,
            layout="bubble",
            sanitize_html=True,
            render_markdown=False,
            group_consecutive_messages=False,
            placeholder=welcome(self._samples, stays=not self._leaves, engine=self._engine),
            buttons=[],
            feedback_options=None,
            height="100%",
        )
        self._heard.build()
        self._box = gr.MultimodalTextbox(
            value={"text": "", "files": []},
            elem_id="hearth-box",
            sources=["upload", "microphone"],
            file_count="multiple",
            placeholder=BOX_PLACEHOLDER,
            show_label=False,
            container=False,
            lines=1,
            max_lines=8,
            max_plain_text_length=8000,
            autofocus=True,
        )
        with gr.Row(elem_id="hearth-under"):
            with gr.Accordion("Record a question", open=False, elem_id="hearth-recorder"):
                self._recorder = gr.Audio(
                    sources=["microphone", "upload"], type="filepath", show_label=False, buttons=[], editable=False
                )
            self._meter = gr.HTML("", elem_id="hearth-context", apply_default_css=False)

    def _wire(self, blocks: gr.Blocks) -> None:
        drawn = [self._chatbot, self._box, self._meter, self._list, self._active]
        follow: dict[str, Any] = {
            "fn": self._follow,
            "outputs": drawn,
            "trigger_mode": "multiple",
            "concurrency_limit": None,
            **_QUIET,
        }
        restore: dict[str, Any] = {
            "fn": self._restore,
            "inputs": self._box,
            "outputs": [self._box, *self._heard.boxes],
            "trigger_mode": "multiple",
            **_QUIET,
        }
        # through the queue, as Gradio shows warnings of queued events only
        immediate: dict[str, Any] = {
            "outputs": drawn,
            "concurrency_limit": None,
            "trigger_mode": "multiple",
            **_QUIET,
        }
        sent = self._box.submit(
            self._send, [self._box, *self._heard.boxes], **{**immediate, "outputs": [*drawn, *self._heard.boxes]}
        )
        sent.then(**{**follow, "fn": self._follow_sent}).then(**restore)
        starts = (
            blocks.load(self._open_page, **immediate),
            self._bridge.click(self._command, **immediate),
            self._new.click(self._new_chat, **immediate),
        )
        for start in starts:
            start.then(**follow).then(**restore)
        self._wire_recordings()
        self._box.stop(self._stop, None, None, queue=False, **_QUIET)
        self._search.change(self._search_chats, self._search, self._list, queue=False, **_QUIET)
        blocks.load(self._memory_tab.draw, None, self._memory_tab.outputs, queue=False, **_QUIET)
        self._memory_tab.wire(self._bridge)
        self._models_tab.wire(blocks, self._models, self._bridge)
        blocks.unload(self._leave)

    def _wire_recordings(self) -> None:
        boxes = self._heard.boxes
        quick: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": None, **_QUIET}
        note: dict[str, Any] = {
            "fn": self._note_files,
            "inputs": [self._box, *boxes],
            "outputs": self._heard.outputs,
            **quick,
        }
        self._box.change(**note)
        self._heard.token.change(self._follow_recordings, None, boxes, **quick)
        for ended in (self._recorder.stop_recording, self._recorder.upload):
            taken = ended(self._take_recording, [self._recorder, self._box], [self._recorder, self._box], **quick)
            taken.then(**note)  # what the server puts into the box is no change to Gradio

    # events

    def _open_page(self, request: gr.Request) -> list[Any]:
        view = self._view(request)
        asked = dict(request.query_params).get("chat")
        view.conversation_id = asked if asked and self._chat.exists(asked) else None
        return self._draw(view)

    def _send(self, request: gr.Request, value: dict[str, Any] | None, *words: str) -> list[Any]:
        view = self._view(request)
        self._heard.take(view, words)
        text, paths = _content(value)
        view.sending, drawn = True, None
        try:
            drawn = self._begin(view, text, paths)
        finally:
            view.sending = drawn is not None
        if drawn is None:  # nothing was sent: the box keeps what is in it
            return [NO_CHANGE] * (5 + len(words))
        drawn[1] = _box(running=True, value={"text": "", "files": []})
        return [*drawn, *self._heard.clear(view)]

    def _note_files(self, request: gr.Request, value: dict[str, Any] | None, *words: str) -> list[Any]:
        return self._heard.note(self._view(request), _content(value)[1], words)

    def _follow_recordings(self, request: gr.Request) -> Iterator[list[Any]]:
        yield from self._heard.follow(self._view(request))

    def _take_recording(self, recording: str | None, value: dict[str, Any] | None) -> list[Any]:
        """What was recorded goes into the box, where its words can be seen before it is sent."""
        if not recording:
            return [NO_CHANGE, NO_CHANGE]
        text, paths = _content(value)
        return [None, gr.update(value={"text": text, "files": [*map(str, paths), recording]})]

    def _begin(self, view: View, text: str, paths: list[Path]) -> list[Any] | None:
        """Begins a turn and draws it; None, with a warning, if it cannot begin."""
        try:
            self._chat.send(view, text, paths)
        except HearthError as error:
            gr.Warning(str(error), title="Not done", duration=6)
            return None
        return self._draw(view)

    def _command(self, event: gr.EventData, request: gr.Request) -> list[Any]:
        """What the page's own script asks for: open, rename, delete a chat, show all of it, try a sample."""
        view, command = self._view(request), dict(event._data or {})
        action, key = str(command.get("action")), str(command.get("id", ""))
        try:
            match action:
                case "open":
                    view.conversation_id, view.whole = (key if self._chat.exists(key) else None), False
                case "rename":
                    self._chat.rename(key, str(command.get("title", "")))
                case "delete":
                    self._chat.delete(view, key)
                case "earlier":
                    view.whole = True
                case "new":
                    view.conversation_id = None
                case "fetch":  # the page waits for results on a stream that was closed; this opens it
                    pass
                case "sample":
                    sample = self._sample(key)
                    view.conversation_id = None
                    return self._begin(view, sample.question, list(sample.paths)) or [NO_CHANGE] * 5
                case _:
                    return [NO_CHANGE] * 5
        except HearthError as error:
            gr.Warning(str(error), title="Not done", duration=6)
        return self._draw(view)

    def _new_chat(self, request: gr.Request) -> list[Any]:
        view = self._view(request)
        view.conversation_id, view.whole = None, False
        return self._draw(view)

    def _stop(self, request: gr.Request) -> None:
        view = self._view(request)
        if view.conversation_id is not None:
            self._chat.jobs.stop(view.conversation_id)

    def _search_chats(self, query: str, request: gr.Request) -> str:
        view = self._view(request)
        view.query = query
        return self._draw_list(view)

    def _follow(self, request: gr.Request) -> Iterator[list[Any]]:
        """Redraws the running turn until it ends, or until this page follows something else."""
        view = self._view(request)
        view.token += 1
        job = self._running(view)
        if job is not None:
            yield from self._follow_job(view, job)
        yield from self._settle(view)

    def _follow_sent(self, request: gr.Request) -> Iterator[list[Any]]:
        """As ``_follow``, for what was sent from the box, which the page has emptied by now."""
        self._view(request).sending = False
        yield from self._follow(request)

    def _follow_job(self, view: View, job: TurnJob) -> Iterator[list[Any]]:
        followed = view.token, view.conversation_id
        before, version = self._chat.history(view), -1
        yield self._draw(view)
        while True:
            progress = job.wait(version, WAIT_S)
            if progress.finished or (view.token, view.conversation_id) != followed:
                return
            if progress.version != version:
                version = progress.version
                yield [before + self._chat.live(job), *[NO_CHANGE] * 4]
                time.sleep(REDRAW_S)

    def _settle(self, view: View) -> Iterator[list[Any]]:
        """Draws the page, and again as long as it shows something else by the time that was sent: another follower's
        last drawing may have been sent before. Nothing is resumed before its drawing is sent."""
        drawn = None
        while drawn != (now := (view.token, self._running(view))):
            drawn = now
            yield self._draw(view)
        yield [NO_CHANGE] * 5  # Gradio sends the last values once more at the end, over what was drawn since

    def _restore(self, value: dict[str, Any] | None, request: gr.Request) -> Any:
        """Puts what was sent with a failed turn back into the box, unless something new stands there. ``value`` may be
        from before it was sent, as the page asks after every follower: then a later one puts it back."""
        view = self._view(request)
        job = self._chat.failed(view)
        if job is None or any(_content(value)):
            return [NO_CHANGE] * (1 + len(self._heard.boxes))
        view.restored = job.id
        files = [str(path) for path in job.request.files if path.is_file()]
        box = _box(running=False, value={"text": job.request.text, "files": files})
        return [box, *self._heard.restore(view, job.request.drafts)]

    def _leave(self, request: gr.Request) -> None:
        view = self._views.pop(str(request.session_hash), None)
        if view is not None:
            self._chat.drop_recordings(view)

    # drawing

    def _draw(self, view: View) -> list[Any]:
        """Values for chat, box, meter, list and active marker."""
        conversation_id, job = view.conversation_id, self._running(view)
        messages = self._chat.history(view) + (self._chat.live(job) if job is not None else [])
        running = job is not None
        active = active_marker(conversation_id, self._chat.title(conversation_id), running=running)
        return [messages, _box(running=running), self._chat.meter(view), self._draw_list(view), active]

    def _running(self, view: View) -> TurnJob | None:
        return self._chat.jobs.running(view.conversation_id) if view.conversation_id is not None else None

    def _draw_list(self, view: View) -> str:
        conversations = self._chat.conversations(view.query)
        running = [c.id for c in conversations if self._chat.jobs.running(c.id) is not None]
        return conversation_list(conversations, view.conversation_id, running)

    def _view(self, request: gr.Request) -> View:
        return self._views.setdefault(str(request.session_hash), View())

    def _sample(self, key: str) -> Sample:
        for sample in self._samples:
            if sample.key == key:
                return sample
        raise RequestError(f"there is no sample {key!r}")


def _content(value: dict[str, Any] | None) -> tuple[str, list[Path]]:
    """Text and files in the box."""
    value = value or {}
    return value.get("text") or "", [Path(path) for path in value.get("files") or []]


def _box(*, running: bool, value: dict[str, Any] | None = None) -> Any:
    """Buttons of the box: stop while an answer is being written, else send."""
    changes: dict[str, Any] = {"submit_btn": not running, "stop_btn": running}
    if value is not None:
        changes["value"] = value
    return gr.update(**changes)


def head() -> str:
    """What the page's head needs: its own style sheet and script, nothing from elsewhere."""
    return (
        f'<link rel="stylesheet" href="{STATIC_PATH}/hearth.css">'
        f'<script src="{STATIC_PATH}/hearth.js" defer></script>'
        '<meta name="color-scheme" content="light dark">'
    )
