"""What goes to a server and what is known of its model: messages, requests, no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from hearth.models.types import SamplingParams

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class MediaPart:
    """A picture or a recording. ``read`` gives the file to send, of type ``mime``; it may take a while."""

    kind: Literal["picture", "sound"]
    read: Callable[[], tuple[bytes, str]]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Role
    parts: tuple[str | MediaPart, ...]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer to be generated after ``messages``. ``max_tokens`` None leaves the length to the server.

    Of ``sampling`` only what the OpenAI API names is sent; what differs from the default beyond that is refused.
    """

    request_id: str
    messages: tuple[ChatMessage, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What the server says of the model. ``n_ctx`` in tokens, None if it does not say."""

    name: str
    n_ctx: int | None
    sees: bool
    hears: bool
