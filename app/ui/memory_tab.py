"""The memory tab: add files and watch them being read, search, forget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from hearth.models.errors import HearthError
from hearth.ui.ingest import IngestQueue
from hearth.ui.lists import document_list, search_results

if TYPE_CHECKING:
    from hearth.assistant import Assistant

FOUND = 8  # search results shown
REDRAW_S = 0.1
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class MemoryTab:
    """Components and events of the tab; ``build`` inside a gr.Tab, then ``wire``."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self.ingest = IngestQueue(self._add)

    def build(self) -> None:
        """Makes the components."""
        with gr.Column(elem_id="hearth-memory"):
            gr.HTML(
                '<p class="hearth-lead">What Hearth has read, it can be asked about in any chat.</p>',
                apply_default_css=False,
            )
            self._files = gr.File(
                file_count="multiple", show_label=False, elem_id="hearth-memory-files", height=130, type="filepath"
            )
            self._query = gr.Textbox(
                placeholder="Search memory",
                show_label=False,
                container=False,
                elem_id="hearth-memory-search",
                max_lines=1,
            )
            self._results = gr.HTML("", elem_id="hearth-memory-results", apply_default_css=False)
            self._documents = gr.HTML("", elem_id="hearth-memory-documents", apply_default_css=False)

    @property
    def outputs(self) -> list[Any]:
        """What ``draw`` gives values for."""
        return [self._documents]

    def wire(self, bridge: gr.HTML) -> None:
        """Connects the events; ``bridge`` brings clicks on the drawn list."""
        follow: dict[str, Any] = {
            "fn": self._follow,
            "outputs": self._documents,
            "concurrency_limit": None,
            "trigger_mode": "multiple",
            **_QUIET,
        }
        quick: dict[str, Any] = {"concurrency_limit": None, "trigger_mode": "multiple", **_QUIET}
        self._files.upload(self._submit, self._files, [self._files, self._documents], **quick).then(**follow)
        self._query.submit(self._search, self._query, self._results, trigger_mode="always_last", **_QUIET)
        self._query.change(self._clear_results, self._query, self._results, **quick)
        bridge.click(self._command, None, [self._documents, self._results], **quick)

    def draw(self) -> str:
        """The list of documents."""
        _, states = self.ingest.states()
        return document_list(self._assistant.memory.list(), states)

    def _add(self, path: Path, on_progress: Callable[[float], None], cancelled: Callable[[], bool]) -> object:
        return self._assistant.memory.add(path, on_progress, cancelled)

    def _submit(self, paths: list[str] | None) -> list[Any]:
        self.ingest.submit([Path(path) for path in paths or []])
        return [None, self.draw()]

    def _follow(self) -> Iterator[str]:
        version, _ = self.ingest.states()
        while self.ingest.busy:
            yield self.draw()
            time.sleep(REDRAW_S)
            self.ingest.wait(version, 1.0)
            version, _ = self.ingest.states()
        yield self.draw()

    def _search(self, query: str) -> str:
        if not query.strip():
            return ""
        try:
            return search_results(query, self._assistant.memory.search(query, FOUND))
        except HearthError as error:
            gr.Warning(str(error), title="Not done", duration=6)
            return ""

    def _clear_results(self, query: str) -> Any:
        return gr.skip() if query.strip() else ""

    def _command(self, event: gr.EventData) -> list[Any]:
        command = dict(event._data or {})
        if command.get("action") != "forget":
            return [gr.skip(), gr.skip()]
        try:
            self._assistant.memory.forget(str(command.get("id", "")))
        except HearthError as error:
            gr.Warning(str(error), title="Not done", duration=6)
        return [self.draw(), ""]
