"""Carries out chunks on the llama context: builds batches, calls encoders, moves KV. It decides nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hearth.models.engine.scheduler import Chunk, MediaChunk, TokenChunk
from hearth.models.errors import EngineError
from hearth.models.types import MediaSegment

if TYPE_CHECKING:
    from hearth.models.llama import DecodeStatus, LlamaContext


class Runner:
    """Used by the engine's thread only."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self._n_embd = context.model.n_embd_inp
        self._embedded: tuple[MediaSegment, NDArray[np.float32]] | None = None

    def prepare(self, chunks: list[Chunk]) -> None:
        """Computes the embeddings of a media chunk, timed in its sequence. Raises what ``embed`` raises, and
        EngineError if the array is not what the segment promised. The KV cache is not touched."""
        for chunk in chunks:
            if isinstance(chunk, MediaChunk):
                media = chunk.sequence.prompt.media[chunk.index]
                if self._embedded is None or self._embedded[0] is not media:
                    started_s = time.monotonic()
                    self._embedded = (media, self._embed(media))
                    chunk.sequence.encode_s += time.monotonic() - started_s

    def run(self, chunks: list[Chunk]) -> tuple[DecodeStatus, list[int]]:
        """Decodes token chunks as one batch, or one media chunk. Returns the status and, for every chunk, the batch
        row of its last token. Anything but DONE may leave a part of the chunks in the KV cache."""
        first = chunks[0]
        if isinstance(first, MediaChunk):
            status, row = self._run_media(first)
            return status, [row]
        return self._run_tokens([chunk for chunk in chunks if isinstance(chunk, TokenChunk)])

    def _run_tokens(self, chunks: list[TokenChunk]) -> tuple[DecodeStatus, list[int]]:
        lengths = [len(chunk.tokens) for chunk in chunks]
        last_rows = np.cumsum(lengths) - 1
        tokens = np.fromiter((token for chunk in chunks for token in chunk.tokens), np.int32, sum(lengths))
        positions = np.concatenate([np.arange(len(c.tokens), dtype=np.int32) + c.position for c in chunks])
        seq_ids = np.repeat(np.array([chunk.sequence.seq_id for chunk in chunks], np.int32), lengths)
        wanted = np.zeros(len(tokens), np.int8)
        wanted[last_rows] = [chunk.wants_logits for chunk in chunks]
        return self._context.decode_tokens(tokens, positions, seq_ids, wanted), last_rows.tolist()

    def _run_media(self, chunk: MediaChunk) -> tuple[DecodeStatus, int]:
        if self._embedded is None:
            raise EngineError("a media chunk was run before it was prepared")
        embeddings = self._embedded[1]
        n_batch = self._context.n_batch
        for start in range(0, len(embeddings), n_batch):
            rows = embeddings[start : start + n_batch]
            n = len(rows)
            positions = np.arange(n, dtype=np.int32) + chunk.position + start
            wanted = np.zeros(n, np.int8)
            wanted[-1] = chunk.wants_logits and start + n == len(embeddings)
            seq_ids = np.full(n, chunk.sequence.seq_id, np.int32)
            status = self._context.decode_embeddings(rows, positions, seq_ids, wanted)
            if status != 0:
                return status, n - 1
        self._embedded = None
        return status, n - 1

    def _embed(self, media: MediaSegment) -> NDArray[np.float32]:
        embeddings = np.ascontiguousarray(media.embed(), dtype=np.float32)
        expected = (media.n_tokens, self._n_embd)
        if embeddings.shape != expected:
            raise EngineError(
                f"media {media.identity[:16]} has embeddings of shape {embeddings.shape}, "
                f"the model needs {expected}; its vision encoder belongs to another model"
            )
        if not np.isfinite(embeddings).all():
            raise EngineError(f"media {media.identity[:16]} has embeddings that are not finite numbers")
        return embeddings

    def place(self, source_id: int, target_id: int, n_positions: int) -> bool:
        """Makes ``target_id`` hold the first ``n_positions`` positions of ``source_id`` and nothing else. False: the
        model cannot forget a part of a sequence; the target is empty then."""
        if source_id != target_id:
            self.forget(target_id)
            if n_positions:
                self._context.seq_cp(source_id, target_id, n_positions)
            return True
        return self.truncate(target_id, n_positions)

    def truncate(self, seq_id: int, n_positions: int) -> bool:
        """Keeps the first ``n_positions`` positions. False: impossible with this model; all are forgotten then."""
        if n_positions and self._context.seq_pos_max(seq_id) < n_positions:
            return True
        if n_positions and self._context.seq_rm(seq_id, n_positions):
            return True
        self.forget(seq_id)
        return n_positions == 0

    def forget(self, seq_id: int) -> None:
        """Empties a sequence."""
        self._context.seq_rm(seq_id, -1)

    def num_positions(self, seq_id: int) -> int:
        return self._context.seq_pos_max(seq_id) + 1
