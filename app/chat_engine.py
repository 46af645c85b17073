"""What a turn and the API need of an engine: a chat goes in, events come out, on this machine or elsewhere.

An engine on this machine is given token ids, so that nothing it has read is ever read again. A server elsewhere is
given messages: it has its own tokenizer, template and encoder, and no API takes ids and pictures together. What is
appended to is then the list of messages; equal bytes in front let the server's own cache find them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hearth import prompt
from hearth.models.errors import RequestError
from hearth.models.remote import chat as remote_chat
from hearth.models.remote.chat import ChatRequest
from hearth.models.remote.engine import RemoteEngine
from hearth.models.types import Engine, Finished, GenerationRequest, RequestHandle, SamplingParams
from hearth.prompt import ChatMessage, Content, FrozenSegment, FrozenTurn, PictureContent, PromptComposer
from hearth.senses import Senses
from hearth.sent_media import SentMedia

_BYTES_PER_TOKEN = 3  # of UTF-8, a cautious guess for a server that does not count beforehand


@dataclass(frozen=True, slots=True)
class ChatModel:
    """``n_ctx`` in tokens, None if nobody knows. Pieces of a prompt made under another ``fingerprint`` do not fit."""

    name: str
    n_ctx: int | None
    sees: bool
    hears: bool
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """How an answer is to be made. ``max_tokens`` None: as long as the context allows. ``owner`` as in
    GenerationRequest."""

    request_id: str
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    owner: str | None = None


class ChatEngine(Protocol):
    """All methods may be called from any thread."""

    @property
    def model(self) -> ChatModel: ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, or a cautious guess."""

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """What each token by itself stands for; it may be a part of a character."""

    def written(self, finished: Finished) -> tuple[int, ...]:
        """The ids of exactly ``finished.text``, as they were generated; empty if they cannot be told."""

    def n_tokens(self, turn: FrozenTurn) -> int:
        """Tokens that a piece takes in the context; 0 where only the server can tell."""

    def user_turn(self, content: Content, *, system: str | None, before: Sequence[FrozenTurn]) -> FrozenTurn:
        """The piece of a user's message behind the pieces ``before``; the first one brings ``system``."""

    def assistant_turn(self, text: str) -> FrozenTurn:
        """The piece of an answer known only as text."""

    def answered(self, finished: Finished) -> FrozenTurn | None:
        """The piece of an answer as it came out; None if there is nothing to go on from."""

    def go_on(self, turns: Sequence[FrozenTurn], wanted: Wanted) -> RequestHandle:
        """Answers a conversation: pieces of the user and of answers in turn, the user's last.

        Raises RequestError, ContextOverflowError, EngineError.
        """

    def answer(self, messages: Sequence[ChatMessage], wanted: Wanted) -> RequestHandle:
        """Answers a chat that is handed over whole. Raises as ``go_on``, and TemplateError."""

    def complete(self, text: str, wanted: Wanted) -> RequestHandle:
        """Goes on with a text, without a chat template. Raises as ``go_on``."""


class LocalChat:
    """An engine on this machine, with its template and its encoder."""

    def __init__(
        self,
        engine: Engine,
        composer: PromptComposer,
        senses: Callable[[], Senses],
        model: ChatModel,
        *,
        pictures_first: bool = False,
    ) -> None:
        """``senses`` is called once a chat has pictures or sounds; ``pictures_first``: the model knows no other order
        within a message."""
        self._engine = engine
        self._composer = composer
        self._senses = senses
        self._pictures_first = pictures_first
        self.model = model

    def count_tokens(self, text: str) -> int:
        return len(self._engine.tokenize(text))

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        return self._engine.pieces(list(tokens))

    def written(self, finished: Finished) -> tuple[int, ...]:
        tokens = finished.tokens
        ends_early = finished.reason == "stop"  # by a token that ends the answer, or one that completes a stop string
        ids = tokens[:-1] if ends_early else tokens
        return ids if ids and self._engine.detokenize(list(ids)) == finished.text else ()

    def n_tokens(self, turn: FrozenTurn) -> int:
        return prompt.count_tokens(turn.segments)

    def user_turn(self, content: Content, *, system: str | None, before: Sequence[FrozenTurn]) -> FrozenTurn:
        after = prompt.last_tokens(before[-1].segments) if before else None
        return self._composer.user_turn(content, system=system, after=after)

    def assistant_turn(self, text: str) -> FrozenTurn:
        return self._composer.assistant_turn(text)

    def answered(self, finished: Finished) -> FrozenTurn | None:
        if not finished.tokens:
            return None
        return FrozenTurn((finished.text,), prompt.text_segments(finished.tokens))

    def go_on(self, turns: Sequence[FrozenTurn], wanted: Wanted) -> RequestHandle:
        return self._submit([segment for turn in turns for segment in turn.segments], wanted)

    def answer(self, messages: Sequence[ChatMessage], wanted: Wanted) -> RequestHandle:
        if self._pictures_first:
            messages = [replace(message, content=_pictures_first(message.content)) for message in messages]
        return self._submit(self._composer.whole_chat(messages), wanted)

    def complete(self, text: str, wanted: Wanted) -> RequestHandle:
        return self._submit(self._composer.text(text), wanted)

    def _submit(self, segments: Sequence[FrozenSegment], wanted: Wanted) -> RequestHandle:
        max_tokens = wanted.max_tokens
        if max_tokens is None:
            max_tokens = max(1, (self.model.n_ctx or 0) - prompt.count_tokens(segments))
        return self._engine.submit(
            GenerationRequest(
                request_id=wanted.request_id,
                segments=prompt.with_embeddings(segments, lambda record: self._senses().embedder_of(record)),
                sampling=wanted.sampling,
                max_tokens=max_tokens,
                stop=wanted.stop,
                owner=wanted.owner,
            )
        )


class RemoteChat:
    """A server elsewhere. Pictures and sounds are sent along with every question, as its API has no other way."""

    def __init__(self, engine: RemoteEngine, media: SentMedia) -> None:
        self._engine = engine
        self._media = media
        takes = f"{'s' if engine.model.sees else ''}{'h' if engine.model.hears else ''}"
        self.model = ChatModel(
            engine.model.name, engine.model.n_ctx, engine.model.sees, engine.model.hears, f"messages1.{takes}"
        )

    def count_tokens(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:  # noqa: ARG002
        return []  # it reports no ids

    def written(self, finished: Finished) -> tuple[int, ...]:  # noqa: ARG002
        return ()

    def n_tokens(self, turn: FrozenTurn) -> int:  # noqa: ARG002
        return 0

    def user_turn(self, content: Content, *, system: str | None, before: Sequence[FrozenTurn]) -> FrozenTurn:
        return FrozenTurn(content, (), None if before else system)

    def assistant_turn(self, text: str) -> FrozenTurn:
        return FrozenTurn((text,), ())

    def answered(self, finished: Finished) -> FrozenTurn | None:
        return FrozenTurn((finished.text,), ()) if finished.text else None

    def go_on(self, turns: Sequence[FrozenTurn], wanted: Wanted) -> RequestHandle:
        messages: list[ChatMessage] = []
        for position, turn in enumerate(turns):
            if turn.system:
                messages.append(ChatMessage("system", (turn.system,)))
            messages.append(ChatMessage("assistant" if position % 2 else "user", turn.content))
        return self.answer(messages, wanted)

    def answer(self, messages: Sequence[ChatMessage], wanted: Wanted) -> RequestHandle:
        sent = tuple(
            remote_chat.ChatMessage(
                message.role,
                tuple(part if isinstance(part, str) else self._media.part(part) for part in message.content),
            )
            for message in messages
        )
        return self._engine.submit(
            ChatRequest(wanted.request_id, sent, wanted.sampling, wanted.max_tokens, wanted.stop)
        )

    def complete(self, text: str, wanted: Wanted) -> RequestHandle:  # noqa: ARG002
        raise RequestError("a server elsewhere (engine_url) is asked by chat completions only")

    def close(self) -> None:
        """Cancels what runs. Idempotent."""
        self._engine.close()


def _pictures_first(content: Content) -> Content:
    pictures = tuple(part for part in content if isinstance(part, PictureContent))
    return (*pictures, *(part for part in content if not isinstance(part, PictureContent)))
