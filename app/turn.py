"""One turn, start to end: perceive → recall → compose → generate → remember. Runs on a thread of its own."""

from __future__ import annotations

import io
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hearth import prompt, sources
from hearth.attachments import RawFile, Source, read_files
from hearth.background import Background, Cancelled
from hearth.events import (
    Citation,
    CitationsFound,
    Done,
    MemoryChanged,
    Notice,
    Phase,
    PhaseName,
    Reply,
    Timings,
    Transcribed,
    TurnEvent,
    TurnFailed,
)
from hearth.memory import Memory, ScannedDocumentError, standalone_query
from hearth.models.errors import ContextOverflowError, EngineError, HearthError, RequestError
from hearth.models.types import (
    EngineTimings,
    Failed,
    Finished,
    GenerationRequest,
    PrefillProgress,
    RequestHandle,
    SamplingParams,
    TextDelta,
    Usage,
)
from hearth.multimodal.errors import PerceptionCancelled
from hearth.prompt import Content, FrozenTurn, MediaRecord, PictureContent
from hearth.runtime import Runtime
from hearth.store.records import Attachment, Document, Message

if TYPE_CHECKING:
    from hearth.multimodal.pictures import Picture

log = logging.getLogger("hearth.turn")
TITLE_CHARS = 60
MAX_SCANNED_PAGES = 4  # of a scanned document, looked at as pictures in one turn
PICTURE_ONLY_QUESTION = "What is this?"  # what a picture sent without words is taken to ask
RETRIEVAL_SHARE = 3  # one part in this many of the context is for passages, for a model that does not say
MAX_RETRIEVAL_TOKENS = 3000


@dataclass(frozen=True, slots=True)
class TurnInput:
    """What the user sent and how the answer is to be made."""

    text: str = ""
    images: Source | Sequence[Source] = ()
    audio: Source | Sequence[Source] = ()
    documents: Source | Sequence[Source] = ()
    conversation: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    json_schema: dict[str, Any] | None = None
    use_memory: bool = True


@dataclass(slots=True)
class _Perceived:
    """What the attachments turned out to be."""

    text: str = ""  # typed and spoken
    pictures: list[PictureContent] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    transcripts: list[str] = field(default_factory=list)


class Turn:
    """``run`` is called once and hands every event to ``emit``; ``cancel`` may come from any thread."""

    def __init__(self, runtime: Runtime, memory: Memory, given: TurnInput, emit: Callable[[TurnEvent], None]) -> None:
        self._runtime = runtime
        self._memory = memory
        self._given = given
        self._emit = emit
        self._cancelled = threading.Event()
        self._handle: RequestHandle | None = None
        self._conversation_id: str | None = None
        self._perceived = _Perceived(text=given.text.strip())
        self._user_message: Message | None = None
        self._notices: list[str] = []
        self._timings = Timings()
        self._start = time.perf_counter()

    def cancel(self) -> None:
        """Stops the turn in whatever phase it is; it ends with Done(finish_reason="cancelled")."""
        self._cancelled.set()
        handle = self._handle
        if handle is not None:
            handle.cancel()

    def run(self) -> None:
        """Runs the turn. Raises nothing: an error becomes TurnFailed."""
        try:
            reply = self._run()
        except (Cancelled, PerceptionCancelled):
            self._emit(Done(self._remember_cancelled()))
        except HearthError as error:
            self._fail(error)
        except Exception as error:  # the turn ends, the application goes on
            log.exception("turn failed")
            self._fail(EngineError(f"unexpected {type(error).__name__}: {error}; the log has the details"))
        else:
            self._emit(Done(reply))

    def _run(self) -> Reply:
        if self._given.use_memory:
            self._memory.warm()
        perceived = self._perceived
        self._perceive(perceived)
        self._timings = replace(self._timings, perceive_s=self._elapsed())
        self._user_message = self._store_user_message(perceived)
        if not perceived.text and not perceived.pictures:
            return self._only_documents(perceived)
        history = self._history()
        engine = self._loaded(self._runtime.engine, "loading")
        question = perceived.text or PICTURE_ONLY_QUESTION
        found = self._recall(perceived, question, history)
        content: Content = (*perceived.pictures, found.text + prompt.clean(question))
        segments, frozen = self._compose(content, history)
        fingerprint = engine.info.fingerprint
        self._runtime.store.conversations.refreeze(self._user_message.id, prompt.dump(frozen), fingerprint)
        finished = self._generate(segments)
        return self._remember(finished, found.citations, perceived)

    # perceive

    def _perceive(self, perceived: _Perceived) -> None:
        given = self._given
        if given.conversation is not None:  # an unknown one is refused before any work
            self._conversation_id = self._runtime.store.conversations.get(given.conversation).id
        images, audio = read_files(given.images, "picture"), read_files(given.audio, "recording")
        documents = read_files(given.documents, "document")
        if not (given.text.strip() or images or audio or documents):
            raise RequestError("the message is empty; write a question or add a picture, recording or document")
        self._see(images, perceived)
        self._hear(audio, perceived)
        self._read(documents, perceived)

    def _see(self, files: list[RawFile], perceived: _Perceived) -> None:
        if not files:
            return
        from hearth.multimodal.pictures import read_picture

        self._phase("seeing", detail=files[0].name)
        if not self._runtime.sees:
            raise RequestError(
                f"the model {self._runtime.choice.name!r} cannot see pictures; send text only, or use --model pocket"
            )
        self._runtime.engine.start()  # loads beside the encoder
        read: list[tuple[RawFile, Picture]] = [(file, read_picture(file.data, file.name)) for file in files]
        self._runtime.vision.get(self._cancelled.is_set)
        for file, picture in read:
            self._check()
            self._keep(file, picture.sha256, "picture", picture.mime, perceived)
            perceived.pictures.append(PictureContent(picture.sha256, file.name))

    def _hear(self, files: list[RawFile], perceived: _Perceived) -> None:
        if not files:
            return
        from hearth.multimodal.sound import read_sound

        self._runtime.engine.start()
        for file in files:
            self._phase("transcribing", 0.0, file.name)
            sound = read_sound(file.data, file.name, cancelled=self._cancelled.is_set)
            transcript = self._runtime.transcriber.get(self._cancelled.is_set).transcribe(
                sound,
                on_progress=lambda fraction, name=file.name: self._phase("transcribing", fraction, name),
                cancelled=self._cancelled.is_set,
            )
            self._keep(file, sound.sha256, "sound", "audio", perceived)
            perceived.transcripts.append(transcript.text)
            perceived.text = f"{perceived.text}\n{transcript.text}".strip()
            self._emit(Transcribed(file.name, transcript.text, transcript.duration_s))

    def _read(self, files: list[RawFile], perceived: _Perceived) -> None:
        for file in files:
            self._phase("reading", 0.0, file.name)
            try:
                ingested = self._memory.ingest(
                    file,
                    lambda fraction, name=file.name: self._phase("reading", fraction, name),
                    self._cancelled.is_set,
                )
            except ScannedDocumentError:
                if not self._runtime.sees:
                    raise
                self._see_pages(file, perceived)
                continue
            document = ingested.document
            self._keep(file, document.sha256, "document", document.mime, perceived)
            perceived.documents.append(document)
            if ingested.new:
                self._emit(MemoryChanged(document.id, document.title, document.n_passages))
            for notice in ingested.notices:
                self._notice(notice)

    def _see_pages(self, file: RawFile, perceived: _Perceived) -> None:
        """Takes the first pages of a scanned document as pictures."""
        from hearth.multimodal.documents import read_document, render_page

        pages = read_document(file.data, file.name).scanned_pages
        shown = pages[:MAX_SCANNED_PAGES]
        left = f"; the other {len(pages) - len(shown)} pages are not looked at" if len(pages) > len(shown) else ""
        self._notice(
            f"{file.name} has no text, only scans: its first {len(shown)} pages are looked at as pictures{left}."
        )
        drawn = []
        for number in shown:
            self._check()
            out = io.BytesIO()
            render_page(file.data, number, name=file.name).save(out, "PNG")
            drawn.append(RawFile(out.getvalue(), f"{file.name}, page {number}.png"))
        self._see(drawn, perceived)

    def _keep(self, file: RawFile, sha256: str, kind: Any, mime: str, perceived: _Perceived) -> None:
        self._runtime.store.blobs.put(file.data, name=file.name, mime=mime)
        perceived.attachments.append(Attachment(sha256, file.name, kind, mime, len(file.data)))

    def _store_user_message(self, perceived: _Perceived) -> Message:
        conversations = self._runtime.store.conversations
        if self._conversation_id is None:
            named = perceived.attachments[0].name if perceived.attachments else "New chat"
            title = " ".join(perceived.text.split())[:TITLE_CHARS] or named
            self._conversation_id = conversations.create(title).id
        return conversations.append(
            self._conversation_id, "user", perceived.text, attachments=tuple(perceived.attachments)
        )

    def _only_documents(self, perceived: _Perceived) -> Reply:
        """Documents without a question: they are in memory now, and there is nothing to ask the model."""
        names = ", ".join(f"{d.title} ({d.n_passages} passages)" for d in perceived.documents)
        text = f"I have read {names}. Ask me about it."
        self._emit(TextDelta(text))
        return self._append_reply(self._reply(text, "stop"), frozen=None, fingerprint=None)

    # recall

    def _recall(self, perceived: _Perceived, question: str, history: list[Message]) -> sources.Sources:
        named = [document.id for document in perceived.documents]
        if not named and (not self._given.use_memory or perceived.pictures):
            return sources.NO_SOURCES
        started = time.perf_counter()
        budget = self._retrieval_budget()
        asked_before = next((m.text for m in reversed(history) if m.role == "user" and m.text), None)
        query = standalone_query(question, asked_before)
        if named or self._runtime.store.documents.n_ready("text"):
            self._phase("searching")
        n_passages = self._runtime.settings.memory_passages
        hits = self._memory.recall(query, n_passages, named or None, self._cancelled.is_set)
        found = sources.number_sources(hits, query, budget, self._count)
        if found.citations:
            self._emit(CitationsFound(found.citations))
        n_there = sum(document.n_passages for document in perceived.documents)
        if n_there > len(found.citations):
            self._notice(
                f"The answer is from the {len(found.citations)} nearest of {n_there} passages, "
                "not from the whole document."
            )
        self._timings = replace(self._timings, recall_s=time.perf_counter() - started)
        return found

    def _retrieval_budget(self) -> int:
        choice, info = self._runtime.choice, self._runtime.engine.get().info
        return choice.retrieval_budget_tokens or min(info.n_ctx // RETRIEVAL_SHARE, MAX_RETRIEVAL_TOKENS)

    def _count(self, text: str) -> int:
        return len(self._runtime.engine.get().tokenize(text))

    # compose

    def _history(self) -> list[Message]:
        """The messages before this turn's, those of failed turns left out."""
        assert self._conversation_id is not None
        assert self._user_message is not None
        messages = self._runtime.store.conversations.messages(self._conversation_id)
        return [m for m in messages if m.position < self._user_message.position]

    def _compose(self, content: Content, history: list[Message]) -> tuple[list[Any], FrozenTurn]:
        composer = self._runtime.composer()
        frozen = self._frozen_history(history)
        if any(isinstance(part, MediaRecord) for turn in frozen for part in turn.segments):
            self._loaded(self._runtime.vision, "seeing")
        system = self._given.system or self._runtime.settings.system or self._runtime.choice.system
        after = _last_tokens(frozen[-1]) if frozen else None
        turn = composer.user_turn(content, system=prompt.clean(system) if system else None, after=after)
        earlier = [segment for frozen_turn in frozen for segment in frozen_turn.segments]
        self._check_room(frozen, turn)
        return [*earlier, *turn.segments], turn

    def _frozen_history(self, history: list[Message]) -> list[FrozenTurn]:
        """The prompt pieces of the exchanges so far; those made for another model are made anew, once."""
        composer, store = self._runtime.composer(), self._runtime.store.conversations
        fingerprint = self._runtime.engine.get().info.fingerprint
        frozen: list[FrozenTurn] = []
        stale = False
        for user, answer in _exchanges(history):
            pieces = [prompt.load(message.frozen or "") for message in (user, answer)]
            stale = stale or None in pieces or {user.fingerprint, answer.fingerprint} != {fingerprint}
            if stale:
                content = pieces[0].content if pieces[0] is not None else (user.text,)
                if not self._runtime.sees:
                    content = tuple(part for part in content if isinstance(part, str))
                elif any(isinstance(part, PictureContent) for part in content):
                    self._loaded(self._runtime.vision, "seeing")
                system = self._given.system or self._runtime.settings.system or self._runtime.choice.system
                after = _last_tokens(frozen[-1]) if frozen else None
                pieces = [
                    composer.user_turn(content, system=system, after=after),
                    composer.assistant_turn(prompt.clean(answer.text)),
                ]
                for message, piece in zip((user, answer), pieces, strict=True):
                    assert piece is not None
                    store.refreeze(message.id, prompt.dump(piece), fingerprint)
            frozen.extend(piece for piece in pieces if piece is not None)
        return frozen

    def _check_room(self, frozen: list[FrozenTurn], turn: FrozenTurn) -> None:
        n_ctx = self._runtime.engine.get().info.n_ctx
        earlier = [prompt.count_tokens(piece.segments) for piece in frozen]
        new = prompt.count_tokens(turn.segments)
        excess = sum(earlier) + new + 1 - n_ctx
        if excess <= 0:
            return
        said = f"the prompt has {sum(earlier) + new:,} tokens, the context holds {n_ctx:,}"
        if new >= n_ctx:
            raise ContextOverflowError(f"{said}: this message alone takes {new:,}; shorten it or raise n_ctx")
        dropped = tokens = 0
        while tokens < excess and dropped < len(earlier):
            tokens += sum(earlier[dropped : dropped + 2])
            dropped += 2
        raise ContextOverflowError(
            f"{said}: to go on, the {dropped} oldest messages ({tokens:,} tokens) would have to be dropped; "
            "start a new conversation, or raise n_ctx"
        )

    # generate

    def _generate(self, segments: list[Any]) -> Finished:
        self._check()
        request = GenerationRequest(
            request_id=secrets.token_hex(8),
            segments=prompt.with_embeddings(segments, self._runtime.embedder_of),
            sampling=self._sampling(),
            max_tokens=self._given.max_tokens or self._runtime.settings.max_tokens,
        )
        self._phase("waiting")
        submitted_s = self._elapsed()
        self._handle = handle = self._runtime.engine.get().submit(request)
        if self._cancelled.is_set():  # set between the check and the hand-over
            handle.cancel()
        for event in handle.events():
            match event:
                case PrefillProgress(done, total):
                    self._phase("prefilling", done / total if total else 1.0)
                case TextDelta():
                    if not self._timings.ttft_s:
                        self._timings = replace(self._timings, ttft_s=self._elapsed())
                        self._phase("generating")
                    self._emit(event)
                case Failed(error):
                    raise error
                case Finished():
                    self._take_timings(event.timings, submitted_s)
                    return event
        raise EngineError("the engine ended a request without a result; ask again")

    def _sampling(self) -> SamplingParams:
        given, settings, default = self._given, self._runtime.settings, SamplingParams()
        temperature = given.temperature if given.temperature is not None else settings.temperature
        return SamplingParams(
            temperature=self._runtime.choice.temperature if temperature is None else temperature,
            top_p=given.top_p or settings.top_p or default.top_p,
            seed=given.seed,
            json_schema=given.json_schema,
        )

    def _take_timings(self, engine: EngineTimings, submitted_s: float) -> None:
        self._timings = replace(
            self._timings,
            queue_s=engine.queue_s,
            encode_s=engine.encode_s,
            prefill_s=engine.prefill_s,
            ttft_s=self._timings.ttft_s or submitted_s + engine.ttft_s,
            decode_tokens_per_s=engine.decode_tokens_per_s,
        )

    # remember

    def _remember(self, finished: Finished, found: tuple[Citation, ...], perceived: _Perceived) -> Reply:
        citations = sources.mark_used(found, finished.text)
        reply = replace(
            self._reply(finished.text, finished.reason),
            citations=citations,
            transcripts=tuple(perceived.transcripts),
            usage=finished.usage,
            seed=finished.seed,
        )
        fingerprint = self._runtime.engine.get().info.fingerprint
        segments = prompt.text_segments(finished.tokens)
        frozen = prompt.dump(FrozenTurn((finished.text,), segments)) if finished.tokens else None
        return self._append_reply(reply, frozen, fingerprint)

    def _remember_cancelled(self) -> Reply:
        """Stopped before the first token: what the user sent is kept all the same."""
        self._keep_user_message()
        reply = self._reply("", "cancelled")
        return self._append_reply(reply, frozen=None, fingerprint=None) if self._user_message else reply

    def _reply(self, text: str, reason: Any) -> Reply:
        return Reply(
            text=text,
            conversation_id=self._conversation_id or "",
            message_id="",
            finish_reason=reason,
            notices=tuple(self._notices),
            usage=Usage(),
            timings=replace(self._timings, total_s=self._elapsed()),
            model=self._runtime.choice.name,
        )

    def _append_reply(self, reply: Reply, frozen: str | None, fingerprint: str | None) -> Reply:
        kept = asdict(replace(reply, text="", citations=()))
        message = self._runtime.store.conversations.append(
            reply.conversation_id,
            "assistant",
            reply.text,
            citations=tuple(asdict(citation) for citation in reply.citations),
            frozen=frozen,
            fingerprint=fingerprint,
            reply=kept,
        )
        return replace(reply, message_id=message.id)

    def _fail(self, error: HearthError) -> None:
        """Keeps the user's words and the error in the conversation, as far as the store can, and ends the turn."""
        try:
            self._keep_user_message()
            if self._conversation_id is not None:
                self._runtime.store.conversations.append(
                    self._conversation_id, "assistant", "", reply={"error": str(error)}
                )
        except HearthError as second:
            log.warning("a failed turn could not be stored: %s", second)
        self._emit(TurnFailed(error, self._conversation_id))

    def _keep_user_message(self) -> None:
        """Stores what was sent, as far as it was read, if that has not been done; not for an unknown conversation."""
        unknown = self._given.conversation is not None and self._conversation_id is None
        if self._user_message is None and not unknown and (self._perceived.text or self._perceived.attachments):
            self._user_message = self._store_user_message(self._perceived)

    # small things

    def _loaded(self, part: Background[Any], phase: PhaseName) -> Any:
        if not part.ready:
            self._phase(phase, self._runtime.load_fraction if part is self._runtime.engine else None)
            started = time.perf_counter()
            value = part.get(self._cancelled.is_set)
            self._timings = replace(self._timings, load_s=self._timings.load_s + time.perf_counter() - started)
            return value
        return part.get()

    def _phase(self, name: PhaseName, fraction: float | None = None, detail: str = "") -> None:
        self._emit(Phase(name, fraction, detail))

    def _notice(self, text: str) -> None:
        self._notices.append(text)
        self._emit(Notice(text))

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start


def _exchanges(messages: Sequence[Message]) -> list[tuple[Message, Message]]:
    """Pairs of a user's message and its answer; a message without an answer in the prompt is left out."""
    pairs: list[tuple[Message, Message]] = []
    user: Message | None = None
    for message in messages:
        if message.role == "user":
            user = message if message.frozen else None
        elif message.role == "assistant" and user is not None and message.frozen:
            pairs.append((user, message))
            user = None
    return pairs


def _last_tokens(turn: FrozenTurn) -> tuple[int, ...]:
    return prompt.last_tokens(turn.segments)
