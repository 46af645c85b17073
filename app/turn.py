"""One turn, start to end: perceive → recall → compose → generate → remember. Runs on a thread of its own."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from hearth import prompt
from hearth.attachments import Source, read_files
from hearth.background import Cancelled
from hearth.chat_engine import ChatEngine, Wanted
from hearth.events import Citation, CitationsFound, Done, Reply, Timings, TurnEvent, TurnFailed
from hearth.history import History
from hearth.memory import Memory, standalone_query
from hearth.models.errors import EngineError, HearthError, RequestError
from hearth.models.types import (
    EngineTimings,
    Failed,
    Finished,
    FinishReason,
    PrefillProgress,
    RequestHandle,
    SamplingParams,
    TextDelta,
    Usage,
)
from hearth.multimodal.errors import PerceptionCancelled
from hearth.perceive import Perceived, Perceiver
from hearth.prompt import FrozenTurn
from hearth.quoting import quoting_grammar
from hearth.reporter import Reporter
from hearth.runtime import Runtime
from hearth.sources import NO_SOURCES, Sources, mark_used, number_sources
from hearth.store.records import Message

log = logging.getLogger("hearth.turn")
N = TypeVar("N", int, float)
TITLE_CHARS = 60
PICTURE_ONLY_QUESTION = "What is this?"  # what a picture sent without words is taken to ask
RETRIEVAL_SHARE = 3  # one part in this many of the context is for passages, for a model that does not say
MAX_RETRIEVAL_TOKENS = 3000
ASSUMED_N_CTX = 4096  # tokens, of a server that does not tell


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


class Turn:
    """``run`` is called once and hands every event to ``emit``; ``cancel`` may come from any thread."""

    def __init__(self, runtime: Runtime, memory: Memory, given: TurnInput, emit: Callable[[TurnEvent], None]) -> None:
        self._runtime = runtime
        self._memory = memory
        self._given = given
        self._reporter = Reporter(emit)
        self._handle: RequestHandle | None = None
        self._conversation_id: str | None = None
        self._perceived = Perceived(text=given.text.strip())
        self._user_message: Message | None = None
        self._timings = Timings()
        self._start = time.perf_counter()

    @property
    def conversation_id(self) -> str | None:
        """The conversation that it belongs to; None as long as a new one has not been made."""
        return self._conversation_id or self._given.conversation

    def cancel(self) -> None:
        """Stops the turn in whatever phase it is; it ends with Done(finish_reason="cancelled")."""
        self._reporter.cancelled.set()
        handle = self._handle
        if handle is not None:
            handle.cancel()

    def run(self) -> None:
        """Runs the turn. Raises nothing: an error becomes TurnFailed."""
        try:
            reply = self._run()
        except (Cancelled, PerceptionCancelled):
            self._reporter.emit(Done(self._remember_cancelled()))
        except HearthError as error:
            self._fail(error)
        except Exception as error:  # the turn ends, the application goes on
            log.exception("turn failed")
            self._fail(EngineError(f"unexpected {type(error).__name__}: {error}; the log has the details"))
        else:
            self._reporter.emit(Done(reply))

    def _run(self) -> Reply:
        if self._given.use_memory:
            self._memory.warm()
        self._perceive()
        perceived = self._perceived
        self._timings = replace(self._timings, perceive_s=self._elapsed())
        user_message = self._user_message = self._store_user_message()
        if not (perceived.text or perceived.pictures or perceived.sounds):
            if not perceived.documents:
                raise RequestError("the recording's words are empty; write what is said in it, or ask something")
            return self._only_documents()
        chat = self._load()
        before = self._runtime.store.conversations.messages(user_message.conversation_id)[: user_message.position]
        system = self._given.system or self._runtime.settings.system or self._runtime.choice.system
        history = History(self._runtime, chat, self._reporter, before, system)
        question = perceived.text or (PICTURE_ONLY_QUESTION if perceived.pictures else "")
        found = self._recall(standalone_query(question, history.last_question), chat)
        turns = history.append((*perceived.pictures, *perceived.sounds, found.text + prompt.clean(question)))
        self._runtime.store.conversations.refreeze(user_message.id, prompt.dump(turns[-1]), chat.model.fingerprint)
        finished = self._generate(chat, turns)
        return self._remember(chat, finished, found.citations)

    def _perceive(self) -> None:
        given = self._given
        if given.conversation is not None:  # an unknown one is refused before any work
            self._conversation_id = self._runtime.store.conversations.get(given.conversation).id
        images, audio = read_files(given.images, "picture"), read_files(given.audio, "recording")
        documents = read_files(given.documents, "document")
        if not (given.text.strip() or images or audio or documents):
            raise RequestError("the message is empty; write a question or add a picture, recording or document")
        perceiver = Perceiver(self._runtime, self._memory, self._reporter, self._perceived)
        perceiver.see(images)
        perceiver.hear(audio)
        perceiver.read(documents)

    def _load(self) -> ChatEngine:
        started = time.perf_counter()
        chat = self._reporter.wait_for(self._runtime.chat, "loading", self._runtime.load_fraction)
        self._timings = replace(self._timings, load_s=time.perf_counter() - started)
        return chat

    def _store_user_message(self) -> Message:
        perceived, conversations = self._perceived, self._runtime.store.conversations
        if self._conversation_id is None:
            named = perceived.attachments[0].name if perceived.attachments else "New chat"
            title = " ".join(perceived.text.split())[:TITLE_CHARS] or named
            self._conversation_id = conversations.create(title).id
        return conversations.append(
            self._conversation_id, "user", perceived.text, attachments=tuple(perceived.attachments)
        )

    def _only_documents(self) -> Reply:
        """Documents without a question: they are in memory now, and there is nothing to ask the model."""
        names = ", ".join(f"{d.title} ({d.n_passages} passages)" for d in self._perceived.documents)
        text = f"I have read {names}. Ask me about it."
        self._reporter.emit(TextDelta(text))
        return self._append_reply(self._reply(text, "stop"), frozen=None, fingerprint=None)

    # recall

    def _recall(self, query: str, chat: ChatEngine) -> Sources:
        perceived = self._perceived
        named = [document.id for document in perceived.documents]
        if not query or (not named and (not self._given.use_memory or perceived.pictures)):
            return NO_SOURCES
        started = time.perf_counter()
        if named or self._runtime.store.documents.n_ready("text"):
            self._reporter.phase("searching")
        n_passages = self._runtime.settings.memory_passages
        hits = self._memory.recall(query, n_passages, named or None, self._reporter.cancelled.is_set)
        n_ctx = chat.model.n_ctx or ASSUMED_N_CTX
        budget = self._runtime.choice.retrieval_budget_tokens or min(n_ctx // RETRIEVAL_SHARE, MAX_RETRIEVAL_TOKENS)
        found = number_sources(hits, query, budget, chat.count_tokens)
        if found.citations:
            self._reporter.emit(CitationsFound(found.citations))
        n_there = sum(document.n_passages for document in perceived.documents)
        if n_there > len(found.citations):
            self._reporter.notice(
                f"The answer is from the {len(found.citations)} nearest of {n_there} passages, "
                "not from the whole document."
            )
        self._timings = replace(self._timings, recall_s=time.perf_counter() - started)
        return found

    # generate

    def _generate(self, chat: ChatEngine, turns: list[FrozenTurn]) -> Finished:
        self._reporter.check()
        wanted = Wanted(
            request_id=secrets.token_hex(8),
            sampling=self._sampling(turns),
            max_tokens=_first(self._given.max_tokens, self._runtime.settings.max_tokens),
            owner=self._conversation_id,
        )
        self._reporter.phase("waiting")
        submitted_s = self._elapsed()
        self._handle = handle = chat.go_on(turns, wanted)
        if self._reporter.cancelled.is_set():  # set between the check and the hand-over
            handle.cancel()
        for event in handle.events():
            match event:
                case PrefillProgress(done, total):
                    self._reporter.phase("prefilling", done / total if total else 1.0)
                case TextDelta():
                    if not self._timings.ttft_s:
                        self._timings = replace(self._timings, ttft_s=self._elapsed())
                        self._reporter.phase("generating")
                    self._reporter.emit(event)
                case Failed(error):
                    raise error
                case Finished():
                    self._take_timings(event.timings, submitted_s)
                    return event
        raise EngineError("the engine ended a request without a result; ask again")

    def _sampling(self, turns: list[FrozenTurn]) -> SamplingParams:
        given, settings = self._given, self._runtime.settings
        quotes = self._runtime.choice.quotes_sources and given.json_schema is None
        return SamplingParams(
            temperature=_first(given.temperature, settings.temperature, self._runtime.choice.temperature),
            top_p=_first(given.top_p, settings.top_p, SamplingParams().top_p),
            seed=given.seed,
            json_schema=given.json_schema,
            grammar=quoting_grammar([_text(turn) for turn in turns[::2]]) if quotes else None,
        )

    def _take_timings(self, engine: EngineTimings, submitted_s: float) -> None:
        self._timings = replace(
            self._timings,
            queue_s=engine.queue_s,
            restore_s=engine.restore_s,
            encode_s=engine.encode_s,
            prefill_s=engine.prefill_s,
            ttft_s=self._timings.ttft_s or submitted_s + engine.ttft_s,
            decode_tokens_per_s=engine.decode_tokens_per_s,
        )

    # remember

    def _remember(self, chat: ChatEngine, finished: Finished, found: tuple[Citation, ...]) -> Reply:
        citations = mark_used(found, finished.text)
        reply = replace(
            self._reply(finished.text, finished.reason),
            citations=citations,
            transcripts=tuple(self._perceived.transcripts),
            usage=finished.usage,
            cache=finished.cache,
            seed=finished.seed,
        )
        frozen = chat.answered(finished)
        dumped = prompt.dump(frozen) if frozen is not None else None
        return self._append_reply(reply, dumped, chat.model.fingerprint)

    def _remember_cancelled(self) -> Reply:
        """Stopped before the first token: what the user sent is kept all the same."""
        self._keep_user_message()
        reply = self._reply("", "cancelled")
        return self._append_reply(reply, frozen=None, fingerprint=None) if self._user_message else reply

    def _reply(self, text: str, reason: FinishReason) -> Reply:
        return Reply(
            text=text,
            conversation_id=self._conversation_id or "",
            message_id="",
            finish_reason=reason,
            notices=tuple(self._reporter.notices),
            usage=Usage(),
            timings=replace(self._timings, total_s=self._elapsed()),
            model=self._runtime.model_name,
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
        self._reporter.emit(TurnFailed(error, self._conversation_id))

    def _keep_user_message(self) -> None:
        """Stores what was sent, as far as it was read, if that has not been done; not for an unknown conversation."""
        unknown = self._given.conversation is not None and self._conversation_id is None
        if self._user_message is None and not unknown and (self._perceived.text or self._perceived.attachments):
            self._user_message = self._store_user_message()

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start


def _first(*values: N | None) -> N:
    """The first value that was given; the last one always is."""
    return next(value for value in values if value is not None)


def _text(turn: FrozenTurn) -> str:
    return "".join(part for part in turn.content if isinstance(part, str))
