"""Carries out chunks on the llama context: builds batches, calls encoders. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hearth.models.engine.scheduler import Chunk, MediaChunk, TokenChunk
from hearth.models.errors import EngineError
from hearth.models.llama_context import DecodeStatus
from hearth.models.types import MediaEmbeddings, MediaSegment

if TYPE_CHECKING:
    from hearth.models.llama_context import LlamaContext

MEDIA_PIECE_TOKENS = 64  # of a picture between two looks for a cancel, where a decode cannot be broken off


class Runner:
    """Used by the engine's thread only, but for ``embed``."""

    def __init__(self, context: LlamaContext, *, interruptible: bool = True) -> None:
        """``interruptible`` False: the abort flag is never set, so that a long picture looks for a cancel itself."""
        self._context = context
        self._n_embd = context.model.n_embd_inp
        n = context.n_batch
        self._max_wanted = context.options.n_outputs_max or n
        self._n_media_batch = n if interruptible else min(n, MEDIA_PIECE_TOKENS)
        self._tokens = np.zeros(n, np.int32)
        self._positions = np.zeros(n, np.int32)
        self._seq_ids = np.zeros(n, np.int32)
        self._wanted = np.zeros(n, np.int8)
        self.native_s = 0.0  # spent in llama.cpp by ``run``
        self.rows: list[TokenChunk] = []  # of the last batch of tokens, in its order

    def run(self, chunks: list[Chunk]) -> tuple[DecodeStatus, list[int]]:
        """Decodes token chunks as one batch, or one media chunk. Returns the status and, for every chunk, the batch
        row of its first wanted token. Anything but DONE may leave a part of the chunks in the KV cache."""
        first = chunks[0]
        if isinstance(first, MediaChunk):
            status, row = self._run_media(first)
            return status, [row]
        tokens = [chunk for chunk in chunks if isinstance(chunk, TokenChunk)]
        if len(tokens) == 1 or self._context.options.kv_unified:
            return self._run_tokens(tokens)
        # llama.cpp takes rows of sequences with cells of their own together if their numbers follow each other
        order = sorted(range(len(tokens)), key=lambda index: tokens[index].sequence.seq_id)
        status, rows = self._run_tokens([tokens[index] for index in order])
        return status, [row for _, row in sorted(zip(order, rows, strict=True))]

    def _run_tokens(self, chunks: list[TokenChunk]) -> tuple[DecodeStatus, list[int]]:
        self.rows = chunks
        rows: list[int] = []
        start = 0
        for chunk in chunks:
            tokens, seq_id = chunk.tokens, chunk.sequence.seq_id
            n = len(tokens)
            if n == 1:  # the usual case; scalars are quicker than slices
                self._tokens[start] = tokens[0]
                self._positions[start] = chunk.position
                self._seq_ids[start] = seq_id
                self._wanted[start] = chunk.n_wanted
            else:
                end = start + n
                self._tokens[start:end] = tokens
                self._positions[start:end] = range(chunk.position, chunk.position + n)
                self._seq_ids[start:end] = seq_id
                self._wanted[start:end] = 0
                self._wanted[end - chunk.n_wanted : end] = 1
            start += n
            rows.append(start - chunk.n_wanted)
        n_wanted = sum(chunk.n_wanted for chunk in chunks)
        if n_wanted > self._max_wanted:  # llama.cpp would end the process
            raise EngineError(
                f"logits of {n_wanted} tokens are wanted at once, the context has room for {self._max_wanted}"
            )
        began_s = time.perf_counter()
        status = self._context.decode_tokens(
            self._tokens[:start], self._positions[:start], self._seq_ids[:start], self._wanted[:start]
        )
        self.native_s += time.perf_counter() - began_s
        return status, rows

    def run_again(self, tokens: list[int]) -> DecodeStatus:
        """Decodes the rows of the last step of one token a chunk once more, each with the next token at the next
        position."""
        return self._context.decode_again(tokens)

    def _run_media(self, chunk: MediaChunk) -> tuple[DecodeStatus, int]:
        media = chunk.sequence.embeddings[chunk.index].result()
        n_all = len(media.rows)
        places = media.places
        if places is None:
            places = np.repeat(np.arange(n_all, dtype=np.int32)[:, None], 3, axis=1)
        n_batch = self._n_media_batch if media.causal else n_all
        for start in range(0, n_all, n_batch):
            if start and chunk.sequence.cancelled:
                return DecodeStatus.ABORTED, 0
            rows = media.rows[start : start + n_batch]
            n = len(rows)
            wanted = np.zeros(n, np.int8)
            wanted[-1] = chunk.n_wanted and start + n == n_all
            seq_ids = np.full(n, chunk.sequence.seq_id, np.int32)
            began_s = time.perf_counter()
            status = self._context.decode_embeddings(
                rows, places[start : start + n] + chunk.position, seq_ids, wanted, causal=media.causal
            )
            self.native_s += time.perf_counter() - began_s
            if status != 0:
                return status, n - 1
        return status, n - 1

    def embed(self, media: MediaSegment, cancelled: Callable[[], bool]) -> tuple[MediaEmbeddings, float]:
        """The embeddings of a media segment and the seconds they took. Any thread.

        Raises what ``embed`` raises, EngineError if the array is not what the segment promised.
        """
        if cancelled():
            raise EngineError("the request was cancelled before its picture was encoded")
        started_s = time.monotonic()
        given = media.embed()
        if not isinstance(given, MediaEmbeddings):
            given = MediaEmbeddings(given)
        rows = np.ascontiguousarray(given.rows, dtype=np.float32)
        name, expected = media.identity[:16], (media.n_tokens, self._n_embd)
        if rows.shape != expected:
            raise EngineError(
                f"media {name} has embeddings of shape {rows.shape}, "
                f"the model needs {expected}; its vision encoder belongs to another model"
            )
        if not np.isfinite(rows).all():
            raise EngineError(f"media {name} has embeddings that are not finite numbers")
        self._check_places(name, media, given.places)
        if not given.causal and media.n_tokens > self._context.n_ubatch:
            raise EngineError(
                f"media {name} has {media.n_tokens} tokens that see each other both ways, so that they are decoded "
                f"at once; raise n_batch and n_ubatch to {media.n_tokens}"
            )
        return MediaEmbeddings(rows, given.places, given.causal), time.monotonic() - started_s

    @staticmethod
    def _check_places(name: str, media: MediaSegment, places: NDArray[np.int32] | None) -> None:
        if places is None:
            if media.n_pos != media.n_tokens:
                raise EngineError(
                    f"media {name} takes {media.n_pos} positions, but its encoder places none of its tokens"
                )
            return
        expected = (media.n_tokens, 3)
        if places.shape != expected or places.min() < 0 or places.max() >= media.n_pos:
            raise EngineError(
                f"media {name} has places of shape {places.shape} up to {places.max()}; "
                f"expected {expected} below {media.n_pos}"
            )
