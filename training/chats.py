"""The chat format of the pocket model: messages, and the token row with its answer mask that training uses."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from tokenizers import Tokenizer

from hearth.multimodal.views import n_tokens
from training.exchanges import SPELL_CLOSE, SPELL_OPEN

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


def text_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of ``text``; what is marked to be spelled becomes one token a character."""
    ids: list[int] = []
    for part in text.split(SPELL_OPEN):
        spelled, closed, rest = part.partition(SPELL_CLOSE)
        if closed:
            for character in spelled:
                ids += tokenizer.encode(character, add_special_tokens=False).ids
        ids += tokenizer.encode(rest if closed else part, add_special_tokens=False).ids
    return ids


def encode(chat: Chat, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is to be learnt (the assistant's words and the end after them)."""
    ids = [special_id(tokenizer, "<|bos|>")]
    learnt = [False]
    end = special_id(tokenizer, "<|end|>")
    for message in chat.messages:
        n_visual = sum(n_tokens(image.width, image.height) for image in message.images)
        head = [special_id(tokenizer, f"<|{message.role}|>")] + [IMAGE_ID] * n_visual
        text = message.gap + message.text if message.images else message.text
        body = [*text_ids(text, tokenizer), end]
        ids += head + body
        learnt += [False] * len(head) + [message.role == "assistant"] * len(body)
    return ids, learnt
