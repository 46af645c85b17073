"""What recordings say, in boxes above the message: seen while it is written down, corrected before it is sent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from hearth.drafts import RecordingDraft
from hearth.ui.chat import Chat, Drawn, View
from hearth.ui.rendering import told_language

SLOTS = 4  # recordings of one message whose words are shown; more are transcribed when it is sent
REDRAW_S = 0.15
WAIT_S = 0.5
SETTLED_S = 1.0  # after which a browser shows what it was sent


class HeardBoxes:
    """The boxes, one for each recording that waits to be sent. ``build`` inside the chat's column."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def build(self) -> None:
        """Makes the components."""
        with gr.Column(elem_id="hearth-heard"):
            self.boxes = [
                gr.Textbox(visible=False, lines=1, max_lines=6, elem_id=f"hearth-heard-{slot}", container=True)
                for slot in range(SLOTS)
            ]
        self.token = gr.State(0)  # a new value has the boxes followed

    @property
    def outputs(self) -> list[Any]:
        """What ``note`` gives values for."""
        return [*self.boxes, self.token]

    def note(self, view: View, paths: Sequence[Path], words: Sequence[str]) -> list[Any]:
        """Begins to write down the recordings among ``paths`` that are new and drops those that are gone. ``words`` are
        what the boxes hold."""
        self.take(view, words)
        if not self._chat.note_recordings(view, list(paths), SLOTS):
            return [gr.skip()] * (SLOTS + 1)
        view.heard_token += 1
        drafts = list(view.drafts.values())
        hidden = [gr.update(visible=False, value="")] * (SLOTS - len(drafts))
        return [*(_draw(view, draft) for draft in drafts), *hidden, view.heard_token]

    def take(self, view: View, words: Sequence[str]) -> None:
        """Notes the words in the boxes as what their recordings say, as far as the user could edit them."""
        now_s = time.monotonic()
        for draft, text in zip(view.drafts.values(), words, strict=False):
            drawn = view.drawn.get(draft.path)
            # the browser may not have drawn yet what was heard, and still hold what it showed before
            if drawn and drawn.finished and (text != drawn.partial or now_s - drawn.at_s > SETTLED_S):
                draft.corrected = text

    def follow(self, view: View) -> Iterator[list[Any]]:
        """Redraws the boxes until all recordings are written down, or others are followed."""
        token = view.heard_token
        drafts = list(view.drafts.values())
        yield [gr.skip()] * SLOTS  # a generator that yields nothing empties every output
        while token == view.heard_token:
            stale = [not _is_drawn(view, draft) for draft in drafts]
            if any(stale):
                updates = [_draw(view, draft) if new else gr.skip() for draft, new in zip(drafts, stale, strict=True)]
                yield [*updates, *[gr.skip()] * (SLOTS - len(updates))]
            pending = next((draft for draft in drafts if not view.drawn[draft.path].finished), None)
            if pending is None:
                break
            if any(stale):
                time.sleep(REDRAW_S)
            pending.wait(view.drawn[pending.path].version, WAIT_S)
        yield [gr.skip()] * SLOTS  # Gradio sends the last values once more at the end, over what was edited since

    def restore(self, view: View, drafts: Sequence[RecordingDraft]) -> list[Any]:
        """The boxes of a message that could not be answered, with what had been corrected in them."""
        view.heard_token += 1
        view.drafts, view.drawn = {draft.path: draft for draft in drafts}, {}
        return [*(_draw(view, draft) for draft in drafts), *[gr.skip()] * (SLOTS - len(drafts))]

    def clear(self, view: View) -> list[Any]:
        """The boxes after sending."""
        view.heard_token += 1
        view.drawn = {}
        return [gr.update(visible=False, value="") for _ in range(SLOTS)]


def _is_drawn(view: View, draft: RecordingDraft) -> bool:
    drawn = view.drawn.get(draft.path)
    return drawn is not None and (drawn.finished or drawn.version == draft.state.version)


def _draw(view: View, draft: RecordingDraft) -> Any:
    state, name = draft.state, draft.path.name
    before = view.drawn.get(draft.path)
    shown = before.partial if before is not None else ""
    if not state.finished:
        view.drawn[draft.path] = Drawn(state.version, False, time.monotonic(), state.text)
        label = f"{name} · listening {round(100 * state.fraction)} %"
        return gr.update(visible=True, interactive=False, value=state.text, label=label, info=None, placeholder="")
    at_s = before.at_s if before is not None and before.finished else time.monotonic()
    view.drawn[draft.path] = Drawn(state.version, True, at_s, shown)
    text = draft.corrected if draft.corrected is not None else state.text
    if state.transcript is None:
        told = f"{state.error} – or write here what is said in it"
        return gr.update(visible=True, interactive=True, value=text, label=name, info=told)
    label = f"{name} · {told_language(state.transcript)}"
    return gr.update(visible=True, interactive=True, value=text, label=label, info=None)
