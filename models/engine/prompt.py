"""A request's segments as one flat list of cache entries: a token is an entry, a picture is one entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from hearth.models.errors import RequestError
from hearth.models.types import MediaSegment, Segment, TextSegment


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A picture or a sound in the KV cache. Equal spans hold equal content."""

    identity: str
    n_tokens: int
    n_pos: int


Entry = int | MediaSpan
"""What prefixes are compared by. A media span is one entry, so it matches whole or not at all."""


def entry_n_tokens(entry: Entry) -> int:
    """KV cells of an entry."""
    return entry.n_tokens if isinstance(entry, MediaSpan) else 1


def entry_n_pos(entry: Entry) -> int:
    """Positions an entry takes."""
    return entry.n_pos if isinstance(entry, MediaSpan) else 1


def count_tokens(entries: Sequence[Entry]) -> int:
    """KV cells of all entries."""
    return len(entries) + sum(span.n_tokens - 1 for span in media_spans(entries))


def count_positions(entries: Sequence[Entry]) -> int:
    """Positions that all entries take."""
    return len(entries) + sum(span.n_pos - 1 for span in media_spans(entries))


def media_spans(entries: Sequence[Entry]) -> list[MediaSpan]:
    """Those of pictures and sound. Nearly all entries are tokens, and there are thousands: to call something for each
    would take as long as a token.
    """
    return [entry for entry in entries if entry.__class__ is MediaSpan]


def is_end(entries: Sequence[Entry], end: int, n_positions: int) -> bool:
    """Whether a KV sequence that reaches up to ``n_positions`` holds ``entries``, which end at position ``end``.

    With positions in several dimensions a picture's cells stand at its first one, as far as llama.cpp tells.
    """
    last = entries[-1] if entries else 0
    first_end = end - last.n_pos + 1 if isinstance(last, MediaSpan) else end
    return first_end <= n_positions <= end


class Prompt:
    """The entries of a prompt and, for those that are media, where embeddings come from. Not changed once made."""

    def __init__(self, segments: tuple[Segment, ...], *, n_vocab: int, m_rope: bool) -> None:
        """Raises RequestError for an empty prompt, a token id outside 0..n_vocab-1, or a media span of no size."""
        self.entries: list[Entry] = []
        self.media: dict[int, MediaSegment] = {}  # by index in entries
        for segment in segments:
            if isinstance(segment, TextSegment):
                self.entries.extend(_checked_tokens(segment, n_vocab))
            else:
                self.media[len(self.entries)] = segment
                self.entries.append(_media_span(segment, m_rope))
        if not self.entries:
            raise RequestError("the prompt is empty; give at least one token")
        # of each entry; one of tokens alone stands at its index
        self._starts = list(accumulate(map(entry_n_pos, self.entries), initial=0)) if self.media else None
        self.n_tokens = count_tokens(self.entries)

    def position(self, index: int) -> int:
        """Position of the first cell of entry ``index``; of the one after the last, for ``len(entries)``."""
        return self._starts[index] if self._starts is not None else index


def _checked_tokens(segment: TextSegment, n_vocab: int) -> tuple[int, ...]:
    tokens = segment.tokens
    if tokens and not 0 <= min(tokens) <= max(tokens) < n_vocab:
        wrong = next(token for token in tokens if not 0 <= token < n_vocab)
        raise RequestError(f"token id {wrong} is not within 0..{n_vocab - 1} of this model's vocabulary")
    return tokens


def _media_span(segment: MediaSegment, m_rope: bool) -> MediaSpan:
    if segment.n_tokens < 1 or segment.n_pos < 1:
        raise RequestError(f"media {segment.identity[:16]} has {segment.n_tokens} tokens and {segment.n_pos} positions")
    if segment.n_pos != segment.n_tokens and not m_rope:
        raise RequestError(
            f"media {segment.identity[:16]} has {segment.n_tokens} tokens at {segment.n_pos} positions, but this model "
            "has them in one dimension (no M-RoPE); its encoder belongs to another model"
        )
    return MediaSpan(segment.identity, segment.n_tokens, segment.n_pos)
