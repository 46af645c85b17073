"""Draws the models tab as HTML: in use, on this machine, suited to it, and the rest of the catalogue."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hearth.model_library import POCKET, ModelLibrary, origin_title
from hearth.models.catalogue import CHAT_KINDS, Catalogue, CatalogueEntry
from hearth.models.describe import describe
from hearth.models.discovery import Discovery, FoundModel

if TYPE_CHECKING:
    from hearth.pull_jobs import PullState
    from hearth.recommendation import Recommendation

GIB = 2**30
SHOWN_FOUND = 200  # models of other programs; more are found by `hearth models list`
_STEPS = {"starting": "starting", "looking up": "looking it up", "fetching": "fetching", "checking": "checking"}
_OTHER_KINDS = {"embedding": "embeddings", "speech": "speech to text", "pictures": "embeddings of pictures"}


def draw_models(
    *,
    library: ModelLibrary,
    recommended: Sequence[Recommendation],
    running: str,
    next_start: str,
    is_fixed: bool,
    is_offline: bool,
) -> str:
    """The tab. ``running`` answers now, ``next_start`` from the next start on; ``is_fixed`` by a setting."""
    discovery = library.discover()
    drawer = _Drawer(library, discovery, running, next_start, is_fixed, is_offline)
    picks = dict.fromkeys(pick.name for pick in recommended if pick.name)
    reasons = {name: [pick for pick in recommended if pick.name == name] for name in picks}
    rest = [entry for entry in library.catalogue.values() if entry.name not in picks]
    return "".join(
        (
            drawer.notice(),
            _section("On this machine", [drawer.pocket(), *drawer.found()]),
            _section("Suits this machine", [drawer.offered(library.catalogue[name], reasons[name]) for name in picks]),
            _section("More", [drawer.offered(entry) for entry in rest], folded=True),
            drawer.notes(),
        )
    )


def draw_pulls(catalogue: Catalogue, pulls: Iterable[PullState]) -> str:
    """The models that are being fetched, or whose fetching failed."""
    rows = [_pull(catalogue[pull.name], pull) for pull in pulls if pull.is_running or pull.error]
    return _section("Being fetched", rows)


def _pull(entry: CatalogueEntry, pull: PullState) -> str:
    if pull.is_running:
        action = "" if pull.is_stopping else _button("stop-pull", entry.name, "Stop")
        return _row(entry.name, entry.title, [], _progress(pull), action)
    return _row(entry.name, entry.title, [], "", _button("pull-model", entry.name, "Go on"), problem=pull.error)


class _Drawer:
    def __init__(
        self,
        library: ModelLibrary,
        discovery: Discovery,
        running: str,
        next_start: str,
        is_fixed: bool,
        is_offline: bool,
    ) -> None:
        self._library, self._discovery = library, discovery
        self._running, self._next, self._is_fixed, self._is_offline = running, next_start, is_fixed, is_offline
        self._here = {
            model.name.split(":")[0] for model in discovery.models if model.origin == "hearth" and not model.problem
        }

    def notice(self) -> str:
        """What is not yet as it will be."""
        notices = []
        if self._next != self._running and not self._is_fixed:
            notices.append(f"<b>{html.escape(self._next)}</b> answers from the next start of Hearth on.")
        if self._is_fixed:
            notices.append("A setting names the model of this start; a choice here holds for starts without one.")
        if self._is_offline:
            notices.append("The setting <code>offline</code> is on: nothing can be fetched.")
        return "".join(f'<div class="hearth-notice">{notice}</div>' for notice in notices)

    def pocket(self) -> str:
        return _row(POCKET, "Pocket", ["sees"], "comes with Hearth, knows a small world", self._state(POCKET))

    def found(self) -> list[str]:
        usable = [model for model in self._discovery.models if not model.problem]
        broken = [model for model in self._discovery.models if model.problem]
        return [self._found(model) for model in [*usable, *broken][:SHOWN_FOUND]]

    def _found(self, model: FoundModel) -> str:
        details = describe(model)
        answers = details.use == "chat" and not details.problem
        encoder = model.encoder() if answers else None
        entry = self._library.catalogue.get(model.name.split(":")[0]) if model.origin == "hearth" else None
        badges = _badges(entry) if entry is not None else ["with encoder"] if encoder is not None else []
        words = [_gib(model.size_bytes), details.quant, origin_title(model) if model.origin != "hearth" else ""]
        if details.use in _OTHER_KINDS and entry is None:
            words.append(_OTHER_KINDS[details.use])
        title = entry.title if entry is not None else model.short_name
        action = self._state(model.name) if answers else ""
        return _row(model.name, title, badges, _joined(words), action, problem=details.problem)

    def offered(self, entry: CatalogueEntry, reasons: Sequence[Recommendation] = ()) -> str:
        about = "about " if entry.file().approximate else ""
        words = [f"{about}{_gib(entry.download_bytes())}", entry.note, entry.licence]
        if reasons:
            words = [
                f"{about}{_gib(entry.download_bytes())}",
                *(reason.purpose for reason in reasons),
                reasons[0].reason,
            ]
        return _row(entry.name, entry.title, _badges(entry), _joined(words), self._offer(entry))

    def _offer(self, entry: CatalogueEntry) -> str:
        if entry.name in self._here:
            return self._state(entry.name) if entry.kind in CHAT_KINDS else '<span class="state">here</span>'
        if self._is_offline:
            return f"<code>hearth models pull {html.escape(entry.name)}</code>"
        return _button("pull-model", entry.name, "Fetch")

    def _state(self, name: str) -> str:
        """Whether a model answers now or will, or the button that makes it."""
        if name == self._running:
            again = "" if name == self._next or self._is_fixed else _button("use-model", name, "Keep")
            return f'<span class="state now">in use</span>{again}'
        if name == self._next:
            return '<span class="state">at the next start</span>'
        return _button("use-model", name, "Use")

    def notes(self) -> str:
        if not self._discovery.notes:
            return ""
        listed = "".join(f"<li>{html.escape(note)}</li>" for note in self._discovery.notes[:20])
        return f'<details class="hearth-more"><summary>Not looked at</summary><ul>{listed}</ul></details>'


def _section(title: str, rows: Sequence[str], *, folded: bool = False) -> str:
    if not rows:
        return ""
    listed = f'<div class="hearth-documents">{"".join(rows)}</div>'
    if folded:
        return f'<details class="hearth-more"><summary>{title}</summary>{listed}</details>'
    return f'<h3 class="hearth-section">{title}</h3>{listed}'


def _row(name: str, title: str, badges: Sequence[str], detail: str, action: str, problem: str = "") -> str:
    drawn = "".join(f'<span class="badge">{html.escape(badge)}</span>' for badge in badges)
    error = f'<span class="detail error">{html.escape(problem)}</span>' if problem else ""
    key, text = html.escape(name), html.escape(title)
    return (
        f'<div class="hearth-model" data-model="{key}"><div class="about"><div class="head">'
        f'<span class="title" title="{key}">{text}</span>{drawn}</div>'
        f'<span class="detail">{detail}</span>{error}</div><div class="act">{action}</div></div>'
    )


def _badges(entry: CatalogueEntry) -> list[str]:
    words = [("sees", entry.sees), ("hears", entry.hears), (_OTHER_KINDS.get(entry.kind, ""), True)]
    return [word for word, holds in words if word and holds]


def _progress(pull: PullState) -> str:
    percent = round(100 * pull.fraction)
    words = "stopping" if pull.is_stopping else _STEPS.get(pull.step, pull.step)
    share = f" {percent} % of {_gib(pull.total_bytes)}" if pull.total_bytes else ""
    return f'<progress max="100" value="{percent}"></progress> {html.escape(words)}{share}'


def _button(action: str, name: str, words: str) -> str:
    key = html.escape(name)
    return (
        f'<button type="button" class="hearth-action" data-action="{action}" data-id="{key}" '
        f'aria-label="{words} {key}">{words}</button>'
    )


def _joined(words: Sequence[str]) -> str:
    return html.escape(" · ".join(word for word in words if word))


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB / 10 else f"{n_bytes / 2**20:.0f} MiB"
