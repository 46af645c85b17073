"""The chat format of the pocket model: messages, and the token row with its answer mask that training uses."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from tokenizers import Tokenizer

from hearth.multimodal.print_order import PRINT_TOKENS
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


def n_visual(image: Image.Image) -> int:
    """Visual tokens of a picture: of its views, and of what is printed."""
    return n_tokens(image.width, image.height) + PRINT_TOKENS


def text_tokens(text: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Ids of ``text``, each with where it ends in the text without marks. What is marked to be spelled becomes one
    token a character.
    """
    found: list[tuple[int, int]] = []
    start = 0
    for part in text.split(SPELL_OPEN):
        spelled, closed, rest = part.partition(SPELL_CLOSE)
        for piece in (*spelled, rest) if closed else (part,):
            encoded = tokenizer.encode(piece, add_special_tokens=False)
            found += [(token, start + end) for token, (_, end) in zip(encoded.ids, encoded.offsets, strict=True)]
            start += len(piece)
    return found


def text_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of ``text``, see ``text_tokens``."""
    return [token for token, _ in text_tokens(text, tokenizer)]


def encode(chat: Chat, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is to be learnt (the assistant's words and the end after them)."""
    ids = [special_id(tokenizer, "<|bos|>")]
    learnt = [False]
    end = special_id(tokenizer, "<|end|>")
    for message in chat.messages:
        shown = sum(map(n_visual, message.images))
        head = [special_id(tokenizer, f"<|{message.role}|>")] + [IMAGE_ID] * shown
        text = message.gap + message.text if message.images else message.text
        body = [*text_ids(text, tokenizer), end]
        ids += head + body
        learnt += [False] * len(head) + [message.role == "assistant"] * len(body)
    return ids, learnt
