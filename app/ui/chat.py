"""What the page does with conversations and turns, apart from how Gradio is wired to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.attachments import HeardRecording
from hearth.drafts import RecordingDraft
from hearth.events import Phase, Transcribed, TurnEvent
from hearth.jobs import TurnJob, TurnJobs, TurnRequest
from hearth.models.errors import HearthError, RequestError
from hearth.store.errors import NotFoundError
from hearth.ui.rendering import LIVE, ChatMessage, chat_message, context_meter, running_messages, stored_messages
from hearth.ui.uploads import sort_uploads

if TYPE_CHECKING:
    from hearth.assistant import Assistant
    from hearth.store.records import Conversation, Message

TITLE_CHARS = 60
SHOWN_MESSAGES = 60  # of a long chat, the last ones; the others on demand
LISTED_CONVERSATIONS = 200
DRAFT_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the box of a recording shows: which version of it, since when (time.monotonic()), and whether it can be
    edited; ``partial`` is what it showed before that."""

    version: int
    finished: bool
    at_s: float
    partial: str = ""


@dataclass(slots=True)
class View:
    """What one open page shows. ``token`` names its newest follower: older ones end when they see another."""

    conversation_id: str | None = None
    query: str = ""
    whole: bool = False  # show all messages of a long chat
    token: int = 0
    restored: str = ""  # the failed job whose text has been put back into the box
    sending: bool = False  # what stands in the box is being sent: the page has yet to empty it
    drafts: dict[Path, RecordingDraft] = field(default_factory=dict)  # recordings in the box, in their order
    drawn: dict[Path, Drawn] = field(default_factory=dict)  # what their boxes show
    heard_token: int = 0  # of the newest follower of those


class Chat:
    """Conversations and turns for the page. Methods may be called from any thread."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self.jobs = TurnJobs(self._stream)

    def conversations(self, query: str = "") -> list[Conversation]:
        """The newest conversations that fit ``query``."""
        return list(self._assistant.conversations.list(query=query.strip(), limit=LISTED_CONVERSATIONS))

    def exists(self, conversation_id: str) -> bool:
        """Whether there is such a conversation."""
        try:
            self._assistant.conversations.get(conversation_id)
        except NotFoundError:
            return False
        return True

    def title(self, conversation_id: str | None) -> str:
        """The title to show for a conversation."""
        if conversation_id is None:
            return "New chat"
        try:
            return self._assistant.conversations.get(conversation_id).title or "New chat"
        except NotFoundError:
            return "New chat"

    def note_recordings(self, view: View, paths: list[Path], most: int) -> bool:
        """Has the recordings among ``paths`` written down, the first ``most``, and stops those that are not among them
        any more; whether anything changed. Nothing is written down for a model that hears by itself."""
        if not paths and not view.drafts:  # at every letter that is typed
            return False
        wanted = {} if self._hears_by_itself() else {path: view.drafts.get(path) for path in paths}
        new = [path for path, draft in wanted.items() if draft is None]
        recordings = set(sort_uploads([path for path in new if path.is_file()]).audio)
        kept = [path for path, draft in wanted.items() if draft is not None or path in recordings][:most]
        if kept == list(view.drafts):
            return False
        for path, draft in view.drafts.items():
            if path not in kept:
                draft.cancel()
        view.drafts = {path: view.drafts.get(path) or RecordingDraft(path, self._assistant.transcribe) for path in kept}
        return True

    def _hears_by_itself(self) -> bool:
        try:
            return self._assistant.hears_by_itself
        except HearthError:  # the turn says what is wrong with the model
            return False

    def drop_recordings(self, view: View) -> None:
        """Stops what is being written down for a page that was closed."""
        for draft in view.drafts.values():
            draft.cancel()
        view.drafts = {}

    def send(self, view: View, text: str, paths: list[Path]) -> TurnJob:
        """Begins a turn in the view's conversation, a new one if it has none. Its recordings go with the words that
        were written down, as far as they are.

        Raises RequestError if there is nothing to send or a turn is running, StoreError, PerceptionError.
        """
        text = text.strip()
        if not text and not paths:
            raise RequestError("write a question, or add a picture, a recording or a document")
        if view.conversation_id is not None and self.jobs.running(view.conversation_id):
            raise RequestError("an answer is still being written in this chat; stop it or wait for its end")
        uploads = sort_uploads(paths)
        if view.conversation_id is None:
            title = " ".join(text.split())[:TITLE_CHARS] or (paths[0].name if paths else "")
            view.conversation_id = self._assistant.conversations.create(title).id
        n_before = len(self._assistant.conversations.messages(view.conversation_id))
        drafts = tuple(draft for path, draft in view.drafts.items() if path in uploads.audio)
        request = TurnRequest(view.conversation_id, text, uploads.images, uploads.audio, uploads.documents, drafts)
        job = self.jobs.start(request, n_before)
        view.drafts = {}
        return job

    def delete(self, view: View, conversation_id: str) -> None:
        """Stops what runs in a conversation and deletes it."""
        self.jobs.forget(conversation_id)
        self._assistant.conversations.delete(conversation_id)
        if view.conversation_id == conversation_id:
            view.conversation_id = None

    def rename(self, conversation_id: str, title: str) -> None:
        """Gives a conversation a title; an empty one changes nothing."""
        title = " ".join(title.split())[: 2 * TITLE_CHARS]
        if title:
            self._assistant.conversations.rename(conversation_id, title)

    def history(self, view: View) -> list[ChatMessage]:
        """The stored messages of the view's conversation, without those of a turn that is running."""
        if view.conversation_id is None:
            return []
        job = self.jobs.running(view.conversation_id)
        messages = self._messages(view.conversation_id)
        return self._draw(view, messages if job is None else messages[: job.n_messages_before])

    def live(self, job: TurnJob) -> list[ChatMessage]:
        """The turn of a running job."""
        return running_messages(job)

    def meter(self, view: View) -> str:
        """How full the context is."""
        if view.conversation_id is None:
            return ""
        for message in reversed(self._messages(view.conversation_id)):
            if ((message.reply or {}).get("usage") or {}).get("prompt_tokens"):
                return context_meter(message.reply, self._assistant.status().get("n_ctx"))
        return ""

    def citation(self, conversation_id: str, message_id: str, number: int) -> dict[str, Any] | None:
        """The source ``[number]`` of an answer. Raises NotFoundError."""
        if message_id == LIVE:
            job = self.jobs.latest(conversation_id)
            found = [asdict(citation) for citation in job.progress.citations] if job is not None else []
        else:
            messages = self._assistant.conversations.messages(conversation_id)
            found = [citation for message in messages if message.id == message_id for citation in message.citations]
        return next((citation for citation in found if citation["number"] == number), None)

    def failed(self, view: View) -> TurnJob | None:
        """The last turn of the view's conversation if it failed and its text can be put back: that is still to be done,
        and the page would not empty the box after it."""
        job = self.jobs.latest(view.conversation_id) if view.conversation_id is not None else None
        if job is None or job.progress.error is None or job.id == view.restored or view.sending:
            return None
        return job

    def _messages(self, conversation_id: str) -> list[Message]:
        try:
            return list(self._assistant.conversations.messages(conversation_id))
        except NotFoundError:
            return []

    def _draw(self, view: View, messages: list[Message]) -> list[ChatMessage]:
        assert view.conversation_id is not None
        hidden = 0 if view.whole else max(0, len(messages) - SHOWN_MESSAGES)
        drawn = stored_messages(view.conversation_id, messages[hidden:], self._assistant.transcript)
        if hidden:
            link = f'<a class="hearth-earlier" href="#earlier">Show {hidden} earlier messages</a>'
            drawn.insert(0, chat_message("assistant", link))
        return drawn

    def _stream(self, request: TurnRequest, cancelled: threading.Event) -> Iterator[TurnEvent]:
        named = bool(request.text)
        drafts = {draft.path: draft for draft in request.drafts}
        audio: list[Path | HeardRecording] = []
        for path in request.audio:
            if path in drafts:
                yield from _finish_draft(drafts[path], cancelled)
                audio.append(drafts[path].recording())
            else:
                audio.append(path)
        for event in self._assistant.stream(
            request.text,
            images=request.images,
            audio=audio,
            documents=request.documents,
            conversation=request.conversation_id,
            cancelled=cancelled,
        ):
            if isinstance(event, Transcribed) and not named and event.text.strip():
                self.rename(request.conversation_id, event.text[:TITLE_CHARS])
                named = True
            yield event


def _finish_draft(draft: RecordingDraft, cancelled: threading.Event) -> Iterator[TurnEvent]:
    """Waits for a recording that was sent while it was still being written down."""
    state = draft.state
    while not state.finished:
        yield Phase("transcribing", state.fraction, draft.path.name)
        if cancelled.is_set():
            draft.cancel()
            return
        state = draft.wait(state.version, DRAFT_POLL_S)
