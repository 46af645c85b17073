"""The assistant that scripts, the command line and the page use: a turn is one stream of events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.attachments import Source, read_files
from hearth.background import Cancelled
from hearth.events import Done, Reply, TurnEvent, TurnFailed
from hearth.memory import Memory
from hearth.model_library import ModelLibrary
from hearth.models.errors import EngineError, HearthError, ModelFileError, RequestError
from hearth.multimodal.errors import PerceptionCancelled
from hearth.multimodal.languages import language_code
from hearth.runtime import Runtime, describe_failure
from hearth.settings import Settings, leaving
from hearth.store.conversations import ConversationStore
from hearth.turn import Turn, TurnInput

if TYPE_CHECKING:
    from hearth.multimodal.transcripts import Transcript, TranscriptSegment

STOP_S = 10.0  # a turn that was cancelled has ended by then, on a busy machine too
_POLL_S = 0.05  # how often a waiting stream looks whether its caller has cancelled


class Assistant:
    """Answers questions about pictures, recordings, documents and text, on this machine.

    Opening it takes the data folder (DataFolderInUseError if another process has it); models load when first needed.
    Use it as a context manager, or call ``close``. Methods may be called from any thread.
    """

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        """``overrides`` are settings by name, e.g. ``model="llama.gguf"``. Raises SettingsError, StoreError."""
        if settings is None:
            settings = Settings(**overrides)
        elif overrides:
            settings = Settings(**{**settings.model_dump(exclude_unset=True), **overrides})
        self.settings = settings
        self._runtime = Runtime(settings)
        self.conversations.while_deleting = self._deleting
        self.memory = Memory(self._runtime)
        self._turns: dict[Turn, threading.Thread] = {}
        self._going: set[str] = set()  # conversations that are being deleted
        self._turns_lock = threading.Lock()
        self._closed = False

    @property
    def runtime(self) -> Runtime:
        """The parts that it is made of, for Hearth's own surfaces."""
        return self._runtime

    @property
    def conversations(self) -> ConversationStore:
        """The stored conversations: list, messages, rename, delete."""
        return self._runtime.store.conversations

    @property
    def library(self) -> ModelLibrary:
        """The models of this machine and of the catalogue."""
        return self._runtime.library

    def isolate_engine(self) -> None:
        """From now on the model is loaded into a process of its own, so that a crash in native code ends one answer and
        not the application; unless the setting says otherwise."""
        if self.settings.isolate_engine is None:
            self._runtime.isolates_engine = True

    def ask(
        self,
        text: str = "",
        *,
        images: Source | Sequence[Source] = (),
        audio: Source | Sequence[Source] = (),
        documents: Source | Sequence[Source] = (),
        conversation: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        json_schema: dict[str, Any] | None = None,
        use_memory: bool = True,
    ) -> Reply:
        """The whole answer. Parameters as for ``stream``. Raises the HearthError that ended the turn."""
        events = self.stream(
            text,
            images=images,
            audio=audio,
            documents=documents,
            conversation=conversation,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            json_schema=json_schema,
            use_memory=use_memory,
        )
        for event in events:
            if isinstance(event, Done):
                return event.reply
            if isinstance(event, TurnFailed):
                raise event.error
        raise EngineError("the turn ended without a result; ask again")

    def stream(
        self,
        text: str = "",
        *,
        images: Source | Sequence[Source] = (),
        audio: Source | Sequence[Source] = (),
        documents: Source | Sequence[Source] = (),
        conversation: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        json_schema: dict[str, Any] | None = None,
        use_memory: bool = True,
        cancelled: threading.Event | None = None,
    ) -> Iterator[TurnEvent]:
        """The events of one turn; exactly one Done or TurnFailed comes last, and nothing is raised.

        ``images``, ``audio`` and ``documents`` are paths or bytes, one or several. ``conversation`` continues an
        earlier one by its id. ``max_tokens`` counts generated tokens; ``temperature`` 0 is greedy. Setting
        ``cancelled`` stops the turn within 200 ms in any phase; so does closing the iterator.
        """
        given = TurnInput(
            text,
            images,
            audio,
            documents,
            conversation,
            system,
            max_tokens,
            temperature,
            top_p,
            seed,
            json_schema,
            use_memory,
        )
        if self._closed:
            yield TurnFailed(EngineError("the assistant is closed; make a new one"), conversation)
            return
        events: queue.SimpleQueue[TurnEvent] = queue.SimpleQueue()
        turn = Turn(self._runtime, self.memory, given, events.put)
        try:
            thread = self._start(turn)
        except RequestError as error:
            yield TurnFailed(error)
            return
        asked_to_stop = False
        try:
            while True:
                if not asked_to_stop and cancelled is not None and cancelled.is_set():
                    asked_to_stop = True
                    turn.cancel()
                try:
                    event = events.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(event, (Done, TurnFailed)):
                    thread.join()  # the conversation is free before its listener knows
                    yield event
                    return
                yield event
        finally:
            turn.cancel()

    def transcribe(
        self,
        recording: Source,
        *,
        language: str | None = None,
        translate: bool | None = None,
        words: bool = False,
        on_progress: Callable[[float], None] | None = None,
        on_segment: Callable[[TranscriptSegment], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Transcript:
        """What is said in a recording or video, with times; ``words`` adds the time of every word.

        ``language`` and ``translate`` go before the settings. ``on_progress`` gets the share that is done,
        ``on_segment`` what is heard as it comes; ``cancelled`` is asked often enough to stop within 200 ms. Nothing is
        stored. Raises PerceptionError (NoSpeechError, PerceptionCancelled), ModelFileError, RequestError.
        """
        from hearth.multimodal.sound import read_sound
        from hearth.multimodal.transcripts import SpeechOptions
        from hearth.speech import transcribed

        file = read_files(recording, "recording")[0]
        if language is not None:
            language = language_code(language)
        try:
            defaults = self._runtime.transcriber.get(cancelled).options
            task = defaults.task if translate is None else "translate" if translate else "transcribe"
            options = SpeechOptions(language or defaults.language, task, words, defaults.carry_text)
            sound = read_sound(file.data, file.name, cancelled=cancelled)
            return transcribed(
                self._runtime, sound, options, on_progress=on_progress, on_segment=on_segment, cancelled=cancelled
            )
        except Cancelled as error:
            raise PerceptionCancelled(f"transcribing {file.name} was cancelled; nothing was kept") from error

    @property
    def hears_by_itself(self) -> bool:
        """Whether recordings go to the model as they are, as far as is known before it is loaded."""
        if self._runtime.choice.mmproj is None:
            return False
        return self._runtime.engine.peek() is None or self._runtime.hears

    def transcript(self, sha256: str) -> Transcript | None:
        """What was heard in a stored recording, with its times; None if nothing is kept of it."""
        from hearth.multimodal.transcripts import Transcript

        kept = self._runtime.store.transcripts.get(sha256)
        return None if kept is None else Transcript.from_dict(kept)

    def attachment_path(self, sha256: str) -> Path:
        """The stored file of an attachment. Raises NotFoundError."""
        return self._runtime.store.blobs.path(sha256)

    def load(self) -> None:
        """Begins to load the models without waiting for them, so that the first answer comes sooner."""
        self._runtime.chat.start()
        with suppress(ModelFileError):  # the engine fails for the same reason, and `status` tells it
            if self._runtime.sees and not self._runtime.is_elsewhere:
                self._runtime.senses.start()
        self.memory.warm()

    def status(self) -> dict[str, Any]:
        """What is loaded: model, state ("idle", "loading", "ready" or "failed: …"), fraction, n_ctx, note (if memory is
        short), data_dir.

        ``engine`` is "this machine" or the server's name and port; ``leaves`` says in a sentence what leaves this
        machine, "" if nothing does.
        """
        chat, error = self._runtime.chat.peek(), self._runtime.chat.error
        engine = self._runtime.engine.peek()
        if chat is not None:
            state = "ready"
        elif error is not None:
            state = f"failed: {describe_failure(error)}"
        else:
            state = "loading" if self._runtime.chat.started else "idle"
        try:
            name = self._runtime.model_name
        except HearthError:
            name = (None if self.settings.names_model else self.library.chosen()) or self.settings.model
        remote = self.settings.remote_options()
        return {
            "model": name,
            "state": state,
            "fraction": self._runtime.load_fraction,
            "n_ctx": chat.model.n_ctx if chat else None,
            "note": engine.info.fit_note if engine else "",
            "data_dir": str(self.settings.data_dir),
            "engine": remote.host if remote is not None else "this machine",
            "leaves": leaving(remote),
        }

    def close(self) -> None:
        """Stops what runs, frees the models and gives the data folder back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with self._turns_lock:
            running = dict(self._turns)
        for turn in running:
            turn.cancel()
        for thread in running.values():
            thread.join(STOP_S)
        self._runtime.close()

    def __enter__(self) -> Assistant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, turn: Turn) -> threading.Thread:
        """Begins ``turn`` on a thread of its own. Raises RequestError if its conversation has a running turn or is
        being deleted."""
        conversation = turn.conversation_id
        thread = threading.Thread(target=self._run, args=(turn,), name="hearth-turn", daemon=True)
        with self._turns_lock:
            if conversation in self._going:
                raise RequestError(f"conversation {conversation} is being deleted; begin a new one")
            if self._turns_of(conversation):
                raise RequestError(f"conversation {conversation} is being answered; wait or stop it first")
            thread.start()
            self._turns[turn] = thread
        return thread

    def _run(self, turn: Turn) -> None:
        try:
            turn.run()
        finally:
            with self._turns_lock:
                self._turns.pop(turn, None)

    def _turns_of(self, conversation: str | None) -> list[Turn]:
        return [turn for turn in self._turns if conversation is not None and turn.conversation_id == conversation]

    @contextmanager
    def _deleting(self, conversation: str) -> Iterator[None]:
        """Around the deletion of a conversation: its turn is stopped, no other begins, its KV blocks go first.

        Raises EngineError if the turn does not end, StoreError if the blocks cannot be removed.
        """
        with self._turns_lock:
            self._going.add(conversation)
            running = {turn: self._turns[turn] for turn in self._turns_of(conversation)}
        try:
            for turn, thread in running.items():
                turn.cancel()
                thread.join(STOP_S)
                if thread.is_alive():
                    raise EngineError("the answer being written could not be stopped; the chat is kept, try again")
            self._runtime.forget_conversation(conversation)
            yield
        finally:
            with self._turns_lock:
                self._going.discard(conversation)
