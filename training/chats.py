"""The chat format of the pocket model: messages, and the token row with its answer mask that training uses."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from tokenizers import Tokenizer

SPECIAL_TOKENS = ("<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
IMAGE_ID = -1  # stands where a visual token goes


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of one of ``SPECIAL_TOKENS``. Raises ValueError if the tokenizer lacks it."""
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no {token}; train it anew")
    return int(number)


@dataclass(frozen=True)
class Message:
    """``images`` come ahead of ``text``. ``gap`` is what stands between them (nothing, a space or a line break)."""

    role: str  # user or assistant or system
    text: str
    images: tuple[Image.Image, ...] = ()
    gap: str = ""


@dataclass(frozen=True)
class Chat:
    """A conversation; ``skill`` names what its last answer shows, ``expected`` what that answer must contain."""

    messages: tuple[Message, ...]
    skill: str
    expected: tuple[str, ...] = ()


def encode(chat: Chat, tokenizer: Tokenizer, n_visual_tokens: int) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is to be learnt (the assistant's words and the end after them)."""
    ids = [special_id(tokenizer, "<|bos|>")]
    learnt = [False]
    end = special_id(tokenizer, "<|end|>")
    for message in chat.messages:
        head = [special_id(tokenizer, f"<|{message.role}|>")] + [IMAGE_ID] * (n_visual_tokens * len(message.images))
        text = message.gap + message.text if message.images else message.text
        body = [*tokenizer.encode(text, add_special_tokens=False).ids, end]
        ids += head + body
        learnt += [False] * len(head) + [message.role == "assistant"] * len(body)
    return ids, learnt
