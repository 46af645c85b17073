"""Turns messages into prompt segments that are only ever appended to.

A turn's piece of the prompt is computed once and stored with the message as *frozen segments*; later turns reuse it as
it stands. To be independent of what a chat template does with older messages, the piece of a later turn is what the
template renders after the answer of a stand-in exchange.

Contents go through the template as placeholders and are tokenized apart from it, so that control tokens written in a
user's text or in a document stay plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, Protocol

from hearth.models.errors import TemplateError
from hearth.models.types import MediaSegment, Segment, TextSegment

FORMAT_VERSION = 1
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"  # private use: stands for a content while the template is rendered
_PLACEHOLDER = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_STAND_IN = f"{_OPEN}9{_CLOSE}"  # the answer of the stand-in exchange


@dataclass(frozen=True, slots=True)
class PictureContent:
    """A picture in a message: its blob, and the media identity under the encoder in use."""

    sha256: str
    name: str


@dataclass(frozen=True, slots=True)
class SoundContent:
    """A recording in a message, for a model that hears: its blob."""

    sha256: str
    name: str


MediaContent = PictureContent | SoundContent
Content = tuple[str | MediaContent, ...]


@dataclass(frozen=True, slots=True)
class MediaRecord:
    """A media segment without its embeddings: piece ``part`` of the picture or sound ``sha256``."""

    identity: str
    sha256: str
    n_tokens: int
    n_pos: int
    part: int = 0
    is_sound: bool = False


FrozenSegment = TextSegment | MediaRecord


@dataclass(frozen=True, slots=True)
class FrozenTurn:
    """The prompt piece of one message, and the content it was made of (to make it anew for another model).

    For a server elsewhere the content is all there is, and ``system`` what it was told first.
    """

    content: Content
    segments: tuple[FrozenSegment, ...]
    system: str | None = None


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message of a chat that is handed over whole; ``tokens`` are its ids if the model made it."""

    role: Literal["system", "user", "assistant"]
    content: Content
    tokens: tuple[int, ...] = ()


class Template(Protocol):
    def render(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str: ...


class Tokenize(Protocol):
    def __call__(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]: ...


class PromptComposer:
    """Makes frozen turns for one model."""

    def __init__(
        self,
        template: Template,
        tokenize: Tokenize,
        media: Callable[[MediaContent], tuple[FrozenSegment, ...]],
        *,
        bos_token: str = "",
        add_bos: bool = True,
    ) -> None:
        self._template = template
        self._tokenize = tokenize
        self._media = media
        self._bos_token = bos_token
        self._add_bos = add_bos

    def user_turn(self, content: Content, *, system: str | None, after: Sequence[int] | None) -> FrozenTurn:
        """The piece for a user's message, up to where the answer begins.

        ``after`` are the generated ids of the answer before it; None for the first turn, which brings ``system``.
        Raises TemplateError.
        """
        if after is None:
            return FrozenTurn(content, self._first(content, system))
        return FrozenTurn(content, self._later(content, after))

    def assistant_turn(self, text: str) -> FrozenTurn:
        """The piece for an answer known only as text (made by another model)."""
        return FrozenTurn((text,), (TextSegment(tuple(self._tokenize(text))),))

    def whole_chat(self, messages: Sequence[ChatMessage]) -> tuple[FrozenSegment, ...]:
        """All of a chat, up to where the next answer begins. Raises TemplateError.

        A template that refuses a role or two messages of one role in turn gets them joined.
        """
        try:
            return self._chat(messages)
        except TemplateError:
            joined = _joined(messages)
            if [one.role for one in joined] == [one.role for one in messages]:
                raise
            return self._chat(joined)

    def _chat(self, messages: Sequence[ChatMessage]) -> tuple[FrozenSegment, ...]:
        listed = [{"role": message.role, "content": _placeholder(i)} for i, message in enumerate(messages)]
        contents: dict[int, Sequence[str | MediaContent | TextSegment]] = {
            i: (TextSegment(message.tokens),) if message.tokens else message.content
            for i, message in enumerate(messages)
        }
        rendered = self._render(listed, expected=set(contents))
        return self._segments(rendered.removeprefix(self._bos_token), contents, add_bos=self._add_bos)

    def text(self, text: str) -> tuple[FrozenSegment, ...]:
        """A prompt without a chat template."""
        return (TextSegment(tuple(self._tokenize(text, add_bos=self._add_bos))),)

    def _first(self, content: Content, system: str | None) -> tuple[FrozenSegment, ...]:
        user = {"role": "user", "content": _placeholder(1)}
        contents: dict[int, Content] = {1: content}
        messages = [user]
        if system:
            contents[0] = (system,)
            messages = [{"role": "system", "content": _placeholder(0)}, user]
        try:
            rendered = self._render(messages, expected=set(contents))
        except TemplateError:
            if not system:
                raise
            # a template that knows no system role gets the instruction at the head of the first user message
            contents = {1: (system + "\n\n", *content)}
            rendered = self._render([user], expected={1})
        if self._bos_token:
            rendered = rendered.removeprefix(self._bos_token)  # the tokenizer adds it
        return self._segments(rendered, contents, add_bos=self._add_bos)

    def _later(self, content: Content, after: Sequence[int]) -> tuple[FrozenSegment, ...]:
        exchange = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _STAND_IN}]
        user = {"role": "user", "content": _placeholder(1)}
        rendered = self._render([*exchange, user], expected={1, 9})
        delta = rendered.split(_STAND_IN, 1)[1]
        segments = self._segments(delta, {1: content}, add_bos=False)
        head = segments[0]
        if after and isinstance(head, TextSegment) and head.tokens and head.tokens[0] == after[-1]:
            # the model has closed its message itself
            segments = (TextSegment(head.tokens[1:]), *segments[1:]) if len(head.tokens) > 1 else segments[1:]
        return segments

    def _render(self, messages: list[dict[str, Any]], expected: set[int]) -> str:
        rendered = self._template.render(messages, add_generation_prompt=True)
        found = [int(number) for number in _PLACEHOLDER.findall(rendered)]
        if sorted(found) != sorted(expected):
            raise TemplateError("the model's chat template leaves out or repeats a message; use another model file")
        return rendered

    def _segments(
        self, rendered: str, contents: Mapping[int, Sequence[str | MediaContent | TextSegment]], add_bos: bool
    ) -> tuple[FrozenSegment, ...]:
        pieces: list[FrozenSegment] = []

        def add_text(text: str, special: bool) -> None:
            bos = add_bos and not pieces
            if not text and not bos:
                return
            add_tokens(tuple(self._tokenize(text, parse_special=special, add_bos=bos)))

        def add_tokens(tokens: tuple[int, ...]) -> None:
            if pieces and isinstance(pieces[-1], TextSegment):
                pieces[-1] = TextSegment(pieces[-1].tokens + tokens)
            else:
                pieces.append(TextSegment(tokens))

        position = 0
        for match in _PLACEHOLDER.finditer(rendered):
            add_text(rendered[position : match.start()], special=True)
            for part in contents[int(match.group(1))]:
                if isinstance(part, str):
                    add_text(part, special=False)
                elif isinstance(part, TextSegment):
                    add_tokens(part.tokens)
                else:
                    pieces.extend(self._media(part))
            position = match.end()
        add_text(rendered[position:], special=True)
        return tuple(pieces)


def _placeholder(number: int) -> str:
    return f"{_OPEN}{number}{_CLOSE}"


def _joined(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same words with instructions at the head of the user's next message, and neighbours of one role as one."""
    joined: list[ChatMessage] = []
    instructions: list[str] = []
    for message in messages:
        if message.role == "system":
            instructions.append("".join(part for part in message.content if isinstance(part, str)))
            continue
        content = message.content
        if instructions and message.role == "user":
            content = ("\n\n".join(instructions) + "\n\n", *content)
            instructions = []
        if joined and joined[-1].role == message.role:
            joined[-1] = ChatMessage(message.role, (*joined[-1].content, "\n\n", *content))
        else:
            joined.append(ChatMessage(message.role, content, message.tokens))
    if instructions:
        joined.append(ChatMessage("user", ("\n\n".join(instructions),)))
    return joined


def clean(text: str) -> str:
    """``text`` without the two private-use characters that stand for contents here, and without NUL."""
    return text.replace(_OPEN, "").replace(_CLOSE, "").replace("\0", "")


def dump(turn: FrozenTurn) -> str:
    """A frozen turn as JSON."""
    content = [_dump_content(part) for part in turn.content]
    segments = [
        {"tokens": list(segment.tokens)} if isinstance(segment, TextSegment) else {"media": list(astuple(segment))}
        for segment in turn.segments
    ]
    stored: dict[str, Any] = {"version": FORMAT_VERSION, "content": content, "segments": segments}
    if turn.system is not None:
        stored["system"] = turn.system
    return json.dumps(stored, separators=(",", ":"))


def load(text: str) -> FrozenTurn | None:
    """The frozen turn of ``dump``, or None if it is of another version."""
    stored = json.loads(text) if text else {}
    if stored.get("version") != FORMAT_VERSION:
        return None
    content = [_load_content(part) for part in stored["content"]]
    segments: list[FrozenSegment] = [
        TextSegment(tuple(segment["tokens"])) if "tokens" in segment else MediaRecord(*segment["media"])
        for segment in stored["segments"]
    ]
    return FrozenTurn(tuple(content), tuple(segments), stored.get("system"))


def _dump_content(part: str | MediaContent) -> dict[str, str]:
    if isinstance(part, str):
        return {"text": part}
    return {"picture" if isinstance(part, PictureContent) else "sound": part.sha256, "name": part.name}


def _load_content(stored: dict[str, str]) -> str | MediaContent:
    if "text" in stored:
        return stored["text"]
    if "picture" in stored:
        return PictureContent(stored["picture"], stored["name"])
    return SoundContent(stored["sound"], stored["name"])


def count_tokens(segments: Sequence[FrozenSegment]) -> int:
    """Tokens that ``segments`` take in the context, visual ones included."""
    return sum(len(s.tokens) if isinstance(s, TextSegment) else s.n_tokens for s in segments)


def with_embeddings(
    segments: Sequence[FrozenSegment], embed: Callable[[MediaRecord], Callable[[], Any]]
) -> tuple[Segment, ...]:
    """Engine segments: neighbouring text joined, media with a way to get their embeddings."""
    joined: list[Segment] = []
    for segment in segments:
        if isinstance(segment, MediaRecord):
            joined.append(MediaSegment(segment.identity, segment.n_tokens, segment.n_pos, embed(segment)))
        elif joined and isinstance(joined[-1], TextSegment):
            joined[-1] = TextSegment(joined[-1].tokens + segment.tokens)
        elif segment.tokens:
            joined.append(segment)
    return tuple(joined)


def text_segments(tokens: Sequence[int]) -> tuple[TextSegment, ...]:
    """Generated ids as the segments of a frozen turn."""
    return (TextSegment(tuple(tokens)),)


def last_tokens(segments: Sequence[FrozenSegment]) -> tuple[int, ...]:
    """The ids of the last text segment; empty when the last one is media."""
    last = segments[-1] if segments else None
    return last.tokens if isinstance(last, TextSegment) else ()
