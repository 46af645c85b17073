"""The models tab: what is on this machine, what suits it, fetching one, and choosing the one that answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gradio as gr

from hearth.model_library import POCKET
from hearth.models.errors import HearthError, PullError
from hearth.pull_jobs import PullJobs
from hearth.ui.models_list import draw_models, draw_pulls

if TYPE_CHECKING:
    from hearth.assistant import Assistant
    from hearth.recommendation import Recommendation

REDRAW_S = 0.3
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
LEAD = (
    '<p class="hearth-lead">A bigger model answers better and takes more memory. Models of other programs are used '
    "where they are; nothing is fetched unless you say so.</p>"
)


class ModelsTab:
    """Components and events of the tab; ``build`` inside a gr.Tab, then ``wire``."""

    def __init__(self, assistant: Assistant, pulls: PullJobs | None = None) -> None:
        self._assistant = assistant
        self._library = assistant.library
        self.pulls = pulls or PullJobs(self._library.models_dir.parent)

    def build(self) -> None:
        """Makes the components."""
        with gr.Column(elem_id="hearth-models"):
            gr.HTML(LEAD, apply_default_css=False)
            # apart from the list, which a redraw would fold
            self._pulling = gr.HTML("", elem_id="hearth-models-pulling", apply_default_css=False)
            self._list = gr.HTML("", elem_id="hearth-models-list", apply_default_css=False)

    def wire(self, blocks: gr.Blocks, tab: gr.Tab, bridge: gr.HTML) -> None:
        """Connects the events; ``bridge`` brings clicks on the drawn list. The disk is looked at when the tab opens."""
        follow: dict[str, Any] = {
            "fn": self._follow,
            "outputs": [self._pulling, self._list],
            "concurrency_limit": None,
            "trigger_mode": "multiple",
            **_QUIET,
        }
        quick: dict[str, Any] = {"concurrency_limit": None, "trigger_mode": "multiple", **_QUIET}
        tab.select(self.draw, None, [self._pulling, self._list], **quick).then(**follow)
        bridge.click(self._command, None, [self._pulling, self._list], **quick).then(**follow)
        blocks.load(**follow)

    @cached_property
    def _recommended(self) -> tuple[Recommendation, ...]:
        """Devices do not come and go; asking llama.cpp for them takes a moment."""
        from hearth.recommendation import recommend, this_machine

        return recommend(self._library.catalogue, this_machine(self._library.models_dir))

    def draw(self) -> list[Any]:
        """What is being fetched, and the list."""
        settings = self._assistant.settings
        listed = draw_models(
            library=self._library,
            recommended=self._recommended,
            running=str(self._assistant.status()["model"]),
            next_start=settings.model if settings.names_model else self._library.chosen() or POCKET,
            is_fixed=settings.names_model,
            is_offline=settings.offline,
        )
        return [self._draw_pulls(), listed]

    def _draw_pulls(self) -> str:
        return draw_pulls(self._library.catalogue, self.pulls.states()[1].values())

    def _follow(self) -> Iterator[list[Any]]:
        """Redraws what is being fetched, and at its end the list."""
        if not self.pulls.busy:
            yield [gr.skip(), gr.skip()]
            return
        while self.pulls.busy:
            version, _ = self.pulls.states()
            yield [self._draw_pulls(), gr.skip()]
            time.sleep(REDRAW_S)
            self.pulls.wait(version, 1.0)
        yield self.draw()

    def _command(self, event: gr.EventData) -> list[Any]:
        command = dict(event._data or {})
        name = str(command.get("id", ""))
        try:
            match command.get("action"):
                case "pull-model":
                    self._pull(name)
                    return [self._draw_pulls(), gr.skip()]
                case "stop-pull":
                    self.pulls.stop(name)
                    return [self._draw_pulls(), gr.skip()]
                case "use-model":
                    self._library.choose(name)
                case _:
                    return [gr.skip(), gr.skip()]
        except HearthError as error:
            gr.Warning(str(error), title="Not done", duration=6)
        return self.draw()

    def _pull(self, name: str) -> None:
        if self._assistant.settings.offline:
            raise PullError("offline = true: nothing may be fetched; set it to false for a pull")
        self.pulls.start(self._library.entry(name).name)
