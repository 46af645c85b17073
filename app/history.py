"""A conversation so far as prompt pieces for the model in use, and whether the next one fits behind them."""

from __future__ import annotations

from collections.abc import Sequence

from hearth import prompt
from hearth.chat_engine import ChatEngine
from hearth.models.errors import ContextOverflowError
from hearth.prompt import Content, FrozenTurn, MediaContent, MediaRecord, SoundContent
from hearth.reporter import Reporter
from hearth.runtime import Runtime
from hearth.store.records import Message


class History:
    """The exchanges of a conversation before the turn that is being made, for an engine that is ready."""

    def __init__(
        self,
        runtime: Runtime,
        chat: ChatEngine,
        reporter: Reporter,
        messages: Sequence[Message],
        system: str | None,
    ) -> None:
        self._runtime = runtime
        self._chat = chat
        self._reporter = reporter
        self._messages = messages
        self._system = prompt.clean(system) if system else None
        self.turns = self._frozen()

    @property
    def last_question(self) -> str | None:
        """What the user asked last, or None."""
        return next((m.text for m in reversed(self._messages) if m.role == "user" and m.text), None)

    def append(self, content: Content) -> list[FrozenTurn]:
        """The pieces of the whole prompt, the last one that of a new user message.

        Raises ContextOverflowError, TemplateError.
        """
        if any(isinstance(part, MediaRecord) for turn in self.turns for part in turn.segments):
            self._reporter.wait_for(self._runtime.senses, "seeing")
        turn = self._user_turn(content, self.turns)
        self._check_room(turn)
        return [*self.turns, turn]

    def _user_turn(self, content: Content, before: list[FrozenTurn]) -> FrozenTurn:
        return self._chat.user_turn(content, system=self._system, before=before)

    def _frozen(self) -> list[FrozenTurn]:
        """The pieces as stored; from the first one made for another model on, they are made anew, once."""
        frozen: list[FrozenTurn] = []
        stale = False
        for user, answer in _exchanges(self._messages):
            pieces = [prompt.load(message.frozen or "") for message in (user, answer)]
            stale = stale or None in pieces or {user.fingerprint, answer.fingerprint} != {self._chat.model.fingerprint}
            if stale:
                content = pieces[0].content if pieces[0] is not None else (user.text,)
                frozen += self._made_anew(user, content, answer, frozen)
            else:
                frozen += [piece for piece in pieces if piece is not None]
        return frozen

    def _made_anew(
        self, user: Message, content: Content, answer: Message, before: list[FrozenTurn]
    ) -> tuple[FrozenTurn, FrozenTurn]:
        content = tuple(part for part in content if isinstance(part, str) or self._perceives(part))
        if not self._runtime.is_elsewhere and any(not isinstance(part, str) for part in content):
            self._reporter.wait_for(self._runtime.senses, "seeing")
        asked = self._user_turn(content, before)
        said = self._chat.assistant_turn(prompt.clean(answer.text))
        for message, piece in ((user, asked), (answer, said)):
            self._runtime.store.conversations.refreeze(message.id, prompt.dump(piece), self._chat.model.fingerprint)
        return asked, said

    def _perceives(self, part: MediaContent) -> bool:
        return self._chat.model.hears if isinstance(part, SoundContent) else self._chat.model.sees

    def _check_room(self, turn: FrozenTurn) -> None:
        n_ctx = self._chat.model.n_ctx
        earlier = [self._chat.n_tokens(piece) for piece in self.turns]
        new = self._chat.n_tokens(turn)
        if n_ctx is None or sum(earlier) + new < n_ctx:
            return
        excess = sum(earlier) + new + 1 - n_ctx
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
