"""The sequences of a context's KV cache: cut, copied, saved as blocks and loaded again. It decides nothing.

Sequences share all cells of the context, so that a common prefix is held once (SharedCells), or have as many each
(SeparateCells): then the attention of a chat looks at no cell of the others, and a common prefix is copied.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from hearth.models.engine.kv_state import SequenceState, StrangeStateError, read_state, write_state

if TYPE_CHECKING:
    from hearth.models.llama_context import LlamaContext

logger = logging.getLogger("hearth.kv")


class KvCells(ABC):
    """What both have. The engine's thread only. Positions are as the prompt counts them."""

    loads_at_once = True  # what ``load`` took is there on return, and not only after ``finish_load``

    def __init__(self, context: LlamaContext) -> None:
        self._context = context

    @abstractmethod
    def dump(self, seq_id: int, start: int, end: int) -> bytes | memoryview:
        """Positions [start, end) of a sequence as a block; empty if some are gone."""

    @abstractmethod
    def load(self, seq_id: int, block: bytes | memoryview, start: int, end: int, last: int) -> bool:
        """Appends positions [start, end) of a block to a sequence; ``last`` is that of the cells behind all others.
        False: the block was refused or is another one."""

    @abstractmethod
    def finish_load(self, seq_id: int) -> bool:
        """Has all that was loaded take effect. False: it was refused, and the sequence is empty."""

    @abstractmethod
    def drop_load(self, seq_id: int) -> None:
        """Forgets what was loaded and has not taken effect."""

    @abstractmethod
    def end_dump(self) -> None:
        """A sequence was saved: what was kept to save more of it may go."""

    def dump_whole(self, seq_id: int) -> bytes | memoryview:
        """All of a sequence, of a model that cannot be sliced."""
        return self._context.seq_state(seq_id)

    def load_whole(self, seq_id: int, block: bytes | memoryview) -> bool:
        """Replaces a sequence. False: refused; it is empty then."""
        if self._context.set_seq_state(seq_id, block):
            return True
        self.forget(seq_id)
        return False

    def place(self, source_id: int, target_id: int, n_positions: int) -> bool:
        """Makes ``target_id`` hold the first ``n_positions`` positions of ``source_id`` and nothing else. False: the
        model cannot forget a part of a sequence, or what these positions look at is gone; the target is empty then."""
        if source_id == target_id:
            return self.truncate(target_id, n_positions)
        self.forget(target_id)
        return not n_positions or self._copy(source_id, target_id, n_positions)

    @abstractmethod
    def _copy(self, source_id: int, target_id: int, n_positions: int) -> bool:
        """Into an empty sequence."""

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

    def clear(self) -> None:
        """Empties all sequences."""
        self._context.clear()

    def num_positions(self, seq_id: int) -> int:
        return self._context.seq_pos_max(seq_id) + 1


class SharedCells(KvCells):
    """All cells are everybody's: a prefix is shared by marking its cells, and a block passes through a sequence that
    nobody else uses."""

    def __init__(self, context: LlamaContext, scratch_id: int, *, n_swa: int = 0) -> None:
        """``n_swa`` is the sliding window in tokens, 0 if there is none."""
        super().__init__(context)
        self._scratch_id = scratch_id
        self._n_swa = n_swa

    def dump(self, seq_id: int, start: int, end: int) -> bytes | memoryview:
        """See KvCells. With a sliding window, a block may not be longer than that."""
        self._context.seq_cp(seq_id, self._scratch_id, start, end)
        is_there = self._context.seq_pos_min(self._scratch_id) == start
        is_too_long = 0 < self._n_swa < end - start
        block = self._context.seq_state(self._scratch_id) if is_there and not is_too_long else b""
        self.forget(self._scratch_id)
        return block

    def load(self, seq_id: int, block: bytes | memoryview, start: int, end: int, last: int) -> bool:
        context, scratch = self._context, self._scratch_id
        took = context.set_seq_state(scratch, block)
        if took and context.seq_pos_min(scratch) <= start and context.seq_pos_max(scratch) >= last:
            context.seq_cp(scratch, seq_id, start, end)
        else:
            took = False
        self.forget(scratch)
        return took

    def finish_load(self, seq_id: int) -> bool:  # noqa: ARG002
        return True

    def drop_load(self, seq_id: int) -> None:
        """Nothing waits."""

    def end_dump(self) -> None:
        """Nothing is kept."""

    def truncate(self, seq_id: int, n_positions: int) -> bool:
        is_cut = 0 < n_positions < self.num_positions(seq_id)
        if is_cut and not self._has_window(seq_id, n_positions):
            self.forget(seq_id)
            return False
        return super().truncate(seq_id, n_positions)

    def _copy(self, source_id: int, target_id: int, n_positions: int) -> bool:
        if not self._has_window(source_id, n_positions):
            return False
        self._context.seq_cp(source_id, target_id, 0, n_positions)
        return True

    def _has_window(self, seq_id: int, n_positions: int) -> bool:
        """Whether a sequence could be cut to ``n_positions`` and go on. With a sliding window, llama.cpp gives cells
        that are outside the window at a sequence's end to others, with ``swa_full`` too, once they are looked for."""
        return not self._n_swa or self._context.seq_pos_min(seq_id) <= max(0, n_positions - self._n_swa + 1)


class SeparateCells(KvCells):
    """Every sequence has cells of its own. llama.cpp hands them out and takes them whole only: parts are cut out of
    what it saves, and what is loaded is put together first."""

    loads_at_once = False

    def __init__(self, context: LlamaContext) -> None:
        super().__init__(context)
        self._dumped: tuple[int, SequenceState] | None = None  # the sequence that is being saved
        self._loaded: dict[int, list[SequenceState]] = {}  # what ``finish_load`` will append, by sequence

    def dump(self, seq_id: int, start: int, end: int) -> bytes | memoryview:
        state = self._state(seq_id, end)
        part = None if state is None else state.cut(start, end)
        if part is None or not len(part.cells) or part.positions.min() != start:
            return b""
        return write_state([part])

    def _state(self, seq_id: int, end: int) -> SequenceState | None:
        """What a sequence holds, as it was when it was last asked for if that reaches up to position ``end``."""
        if self._dumped is not None and self._dumped[0] == seq_id and self._dumped[1].positions.max() + 1 >= end:
            return self._dumped[1]
        self._dumped = None
        try:
            state = read_state(self._context.seq_state(seq_id))
        except StrangeStateError as error:
            logger.warning("the KV cache cannot be saved: %s", error)
            return None
        self._dumped = (seq_id, state)
        return state

    def end_dump(self) -> None:
        self._dumped = None

    def load(self, seq_id: int, block: bytes | memoryview, start: int, end: int, last: int) -> bool:
        try:
            state = read_state(block)
        except StrangeStateError:
            return False
        positions = state.positions
        if positions.min() > start or positions.max() < last:
            return False
        self._loaded.setdefault(seq_id, []).append(state.cut(start, end).copy())
        return True

    def finish_load(self, seq_id: int) -> bool:
        parts = self._loaded.pop(seq_id, [])
        if not parts:
            return True
        self._forget_dump(seq_id)
        try:
            if self.num_positions(seq_id):
                parts.insert(0, read_state(self._context.seq_state(seq_id)))
            state = write_state(parts, self._context.options.n_seq_max)
        except StrangeStateError as error:
            logger.warning("saved KV blocks cannot be joined: %s", error)
            self.forget(seq_id)
            return False
        return self.load_whole(seq_id, state)

    def drop_load(self, seq_id: int) -> None:
        self._loaded.pop(seq_id, None)

    def _copy(self, source_id: int, target_id: int, n_positions: int) -> bool:
        state = self._state(source_id, n_positions)
        self.end_dump()
        if state is None:
            return False
        part = write_state([state.cut(0, n_positions)], self._context.options.n_seq_max)
        return self.load_whole(target_id, part)

    def truncate(self, seq_id: int, n_positions: int) -> bool:
        self._forget_dump(seq_id)
        self.drop_load(seq_id)
        return super().truncate(seq_id, n_positions)

    def forget(self, seq_id: int) -> None:
        self._forget_dump(seq_id)
        self.drop_load(seq_id)
        super().forget(seq_id)

    def clear(self) -> None:
        self.end_dump()
        self._loaded.clear()
        super().clear()

    def _forget_dump(self, seq_id: int) -> None:
        if self._dumped is not None and self._dumped[0] == seq_id:
            self._dumped = None
