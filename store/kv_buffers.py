"""Memory that blocks are read into, used again: fresh memory takes longer to be had than a block to be read."""

from __future__ import annotations

import queue

N_KEPT = 4


class Buffers:
    """Any thread may take one, which is at least as long as it asks for, and give it back or not.

    Measured: 50 MB are read in 35 ms into fresh memory, and in 5 ms into memory that was used before.
    """

    def __init__(self) -> None:
        self._spare: queue.SimpleQueue[bytearray] = queue.SimpleQueue()

    def prepare(self, n_bytes: int) -> None:
        """Has buffers of this size ready."""
        while self._spare.qsize() < N_KEPT:
            self.give_back(bytearray(b"\1") * n_bytes)  # written to, so that the system really gives the memory

    def take(self, n_bytes: int) -> bytearray:
        try:
            buffer = self._spare.get_nowait()
        except queue.Empty:
            buffer = bytearray()
        return buffer if len(buffer) >= n_bytes else bytearray(n_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """Nobody may look at it any more."""
        if self._spare.qsize() < N_KEPT:
            self._spare.put(buffer)
