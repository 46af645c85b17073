"""What goes into an engine and what comes out: segments, requests, events. No behaviour, no native code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import HearthError

FinishReason = Literal["stop", "length", "cancelled"]
MAX_TOKENS_DEFAULT = 512  # tokens generated when a request does not say


@dataclass(frozen=True, slots=True)
class TextSegment:
    """Token ids of a piece of the prompt."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MediaEmbeddings:
    """What an encoder makes of a media segment, for models that place or read it otherwise than text.

    ``rows`` are float32 of shape (n_tokens, n_embd). ``places``, int32 of shape (n_tokens, 3), are time, row and column
    of each, counted from the segment's first position, for models with positions in several dimensions (M-RoPE,
    arXiv 2409.12191); None: one behind another. Not ``causal``: its tokens see each other both ways.
    """

    rows: NDArray[np.float32]
    places: NDArray[np.int32] | None = None
    causal: bool = True


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a model's own encoder takes. ``sample_rate`` is in Hz, 0 if it does not hear."""

    sees: bool
    hears: bool
    sample_rate: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class MediaShape:
    """The size of a picture in pixels, or of a sound in samples."""

    width: int = 0
    height: int = 0
    n_samples: int = 0

    @property
    def is_sound(self) -> bool:
        return self.width == 0 == self.height

    def __str__(self) -> str:
        return (
            f"a sound of {self.n_samples:,} samples" if self.is_sound else f"a picture of {self.width} x {self.height}"
        )


@dataclass(frozen=True, slots=True)
class MediaPiece:
    """A part of a picture or sound that is encoded by itself: the whole, or a tile."""

    n_tokens: int
    n_pos: int


@dataclass(frozen=True, slots=True)
class MediaSegment:
    """A picture (or a sound) in the prompt. It is atomic: cached whole or not at all.

    ``identity`` covers content, encoder and preprocessing: equal identities give equal embeddings.
    ``embed`` returns them, or their rows alone if they are one behind another and causal; it is called only when the
    prefix is not cached, on a thread of the engine's, possibly never.
    """

    identity: str
    n_tokens: int
    n_pos: int  # positions it takes; differs from n_tokens with M-RoPE
    embed: Callable[[], MediaEmbeddings | NDArray[np.float32]]


Segment = TextSegment | MediaSegment


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, in llama.cpp's order: ``logit_bias``, the penalties, DRY, ``top_k``, ``typical_p``,
    ``top_p``, ``min_p``, ``temperature``. Ranges are checked in ``hearth.models.engine.request_checks``.

    ``temperature`` 0 is greedy: the best token after biases and penalties. ``mirostat`` 1 or 2 takes the place of
    ``top_k``, ``typical_p``, ``top_p`` and ``min_p``. A grammar or schema holds for every token.
    """

    temperature: float = 0.0
    top_k: int = 40  # 0: all
    top_p: float = 0.95  # 1: all
    min_p: float = 0.05  # 0: all
    typical_p: float = 1.0  # 1: all
    repeat_penalty: float = 1.0  # 1: none
    repeat_last_n: int = 64  # tokens, of prompt and answer, that the three penalties look back on
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0  # 0: no DRY; a repetition of n tokens costs multiplier * base ** (n - allowed_length)
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64  # tokens that DRY looks back on
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0  # bits of surprise to aim at
    mirostat_eta: float = 0.1
    logit_bias: Mapping[int, float] | None = None  # token id → what is added to its logit; -inf bans it
    seed: int | None = None  # None: a fresh seed, reported in Finished.seed
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None  # GBNF
    n_logprobs: int | None = None  # likeliest tokens reported beside each chosen one; None: no log-probabilities


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of the model's own probabilities, before biases, penalties, temperature and grammar."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the likeliest tokens with theirs, best first


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to be generated after ``segments``. What is saved of its prefix belongs to ``owner``, such as a
    conversation, and is deleted with it; without one it stays until room is needed."""

    request_id: str
    segments: tuple[Segment, ...]
    sampling: SamplingParams = SamplingParams()
    max_tokens: int = MAX_TOKENS_DEFAULT
    stop: tuple[str, ...] = ()
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; ``prompt_tokens`` includes ``cached_tokens``. A media token counts as a token."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Where the prefix of a prompt came from. ``miss`` says why no more of it was found, "" if all was."""

    memory_tokens: int = 0  # from the KV cache, on the GPU or in RAM
    disk_tokens: int = 0  # restored from saved blocks
    miss: str = ""


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """Seconds spent on one request by the engine."""

    queue_s: float = 0.0
    restore_s: float = 0.0  # reading saved KV blocks
    encode_s: float = 0.0  # calls of MediaSegment.embed
    prefill_s: float = 0.0  # without encode_s
    ttft_s: float = 0.0  # submit → first token
    decode_s: float = 0.0
    decode_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """``done`` of ``total`` prompt tokens are in the KV cache; the first one tells how many were cached."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text generated since the last delta; never a part of a character, never a part of a stop string."""

    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()  # of the tokens since the last delta, if they were asked for


@dataclass(frozen=True, slots=True)
class Finished:
    """The request ended. ``tokens`` are all generated ids, an end-of-generation token included when there was one:
    together with the request's segments they are exactly what the KV cache may hold for the next turn."""

    reason: FinishReason
    text: str
    tokens: tuple[int, ...]
    usage: Usage
    timings: EngineTimings
    seed: int
    cache: CacheReport = CacheReport()
    logprobs: tuple[TokenLogprobs, ...] = ()  # one for each of ``tokens``, if they were asked for


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended with an error; the engine goes on."""

    error: HearthError


EngineEvent = PrefillProgress | TextDelta | Finished | Failed
"""Exactly one Finished or Failed ends every request."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a loaded model. ``fingerprint`` changes whenever KV or token ids might."""

    name: str
    path: Path
    fingerprint: str
    n_ctx: int  # tokens, as allocated
    n_ctx_train: int
    n_embd: int
    n_vocab: int
    n_params: int
    size_bytes: int
    chat_template: str | None
    bos_token: str
    eos_token: str
    add_bos: bool
    media: MediaInfo | None = None  # of its own encoder; None: it has none
    fit_note: str = ""  # that memory is short, and what was lowered for it


class RequestHandle(Protocol):
    """A submitted request."""

    def events(self) -> Iterator[EngineEvent]:
        """Yields until the terminal event, which is yielded too. Blocks; may be iterated once, from any thread."""

    def cancel(self) -> None:
        """Ends the request within 200 ms, in prefill too, with Finished(reason="cancelled"). Any thread, any time."""


class Engine(Protocol):
    """Generates. All methods may be called from any thread; native code runs on one thread of the engine's own."""

    @property
    def info(self) -> ModelInfo: ...

    def submit(self, request: GenerationRequest) -> RequestHandle:
        """Queues a request.

        Raises RequestError (bad parameter), ContextOverflowError (too long), EngineError (closed).
        """

    def tokenize(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        """Token ids of ``text``. Special tokens are recognised in it only with ``parse_special``."""

    def detokenize(self, tokens: list[int], *, special: bool = False) -> str: ...

    def pieces(self, tokens: list[int]) -> list[bytes]:
        """What each token by itself stands for, special ones too; a piece may be a part of a character."""

    def plan_media(self, shape: MediaShape) -> tuple[TextSegment | MediaPiece, ...]:
        """What a picture or a sound of this shape becomes in the prompt: tokens, and pieces to be encoded.

        Raises EngineError if the model has no encoder, or none for such media.
        """

    def encode_media(self, media: NDArray[Any]) -> tuple[MediaEmbeddings, ...]:
        """Embeddings of every MediaPiece of ``plan_media``. ``media`` is a picture, uint8 of shape (height, width, 3),
        or a sound, float32 of shape (n,) at the encoder's sample rate. Takes seconds, and does not hold up answers."""

    def forget(self, owner: str) -> int:
        """Deletes the saved KV blocks that only ``owner`` uses, and returns how many. They are gone on return."""

    def flush(self) -> None:
        """Returns when all that is to be saved of the KV cache is on disk."""

    def stats(self) -> dict[str, float]:
        """What the engine has done since it was loaded (hearth.models.engine.counters)."""

    def close(self) -> None:
        """Cancels what runs, ends the thread, frees the model. Idempotent."""
