"""How many threads pay off now: fewer while other programs want the processors too. Policy only, no threads.

The threads of a decode wait for each other after every operation, some hundred times a token. While each has a
processor of its own that costs little. As soon as two take turns on one, because another program is busy on the next,
each of these waits lasts as long as a turn, and a token takes seconds instead of milliseconds. Measured, 0.5 B on two
cores beside one busy program: two threads below 1 token/s, one thread 49. Nothing says so but the time a step takes.
"""

from __future__ import annotations

import math
import time

ROOM_TOKENS = 1024  # of a text, in which its depth hardly counts
SLOW = 3.0  # times what a step usually takes, and
SLOW_S = 0.02  # so many seconds more, is slow
N_SLOW = 2  # slow steps, one soon behind the other, are no accident
HELPS = 0.7  # fewer threads take at most this share of the time of a slow step, or it was none
FIRST_REST_S, LONGEST_REST_S = 4.0, 60.0  # until all threads are tried again
SMOOTHING = 0.2


class ThreadChoice:
    """Learns from steps of answers, whose times differ little from one to the next.

    When steps become slow, half of the threads go, and again while that is still slow; later all are tried again. If
    one thread alone takes as long, it was no crowd but a longer text than any before.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._all = n_threads
        # with all threads, by rows and by how often the depth of the text is a double of ROOM_TOKENS
        self._usual_s: dict[tuple[int, int], float] = {}
        self._slow_s: list[float] = []  # times of slow steps with all threads
        self._fewer_s: list[float] = []  # of the first steps with fewer
        self._to_beat: tuple[tuple[int, int], float] | None = None  # a kind of step and its time with fewer
        self._patience = N_SLOW
        self._rest_s = FIRST_REST_S
        self._until_s = 0.0  # when all threads are tried again

    def compare(self, all_s: float, one_s: float) -> None:
        """Takes what a step of one row takes with all threads and with one, before the first request."""
        self._usual_s[1, 0] = min(all_s, one_s)
        if self._all > 1 and one_s < HELPS * all_s:
            self._slow_s = [all_s]
            self._lower(time.monotonic(), self._all // 2)

    def measured(self, n_rows: int, depth: int, elapsed_s: float, now_s: float | None = None) -> bool:
        """Learns from a step of ``n_rows`` rows, the farthest ``depth`` tokens into its text. True: ``n_threads`` is
        another one from now on."""
        before = self.n_threads
        if self._all > 1:
            kind = n_rows, (depth // ROOM_TOKENS).bit_length()
            now_s = time.monotonic() if now_s is None else now_s
            if before == self._all:
                self._with_all(kind, elapsed_s, now_s)
            else:
                self._with_fewer(kind, elapsed_s, now_s)
        return self.n_threads != before

    def _with_all(self, kind: tuple[int, int], elapsed_s: float, now_s: float) -> None:
        is_beaten = self._to_beat is not None and self._to_beat[0] == kind and self._to_beat[1] < HELPS * elapsed_s
        if is_beaten or elapsed_s > SLOW * self._bound_s(kind) + SLOW_S:
            self._slow_s.append(elapsed_s)
            if len(self._slow_s) >= self._patience:
                self._lower(now_s, self._all // 2)
            return
        self._patience, self._to_beat = N_SLOW, None
        usual_s = self._usual_s.get(kind, elapsed_s)
        self._usual_s[kind] = usual_s + SMOOTHING * (elapsed_s - usual_s)
        if self._slow_s:
            self._slow_s.pop()
        elif now_s > self._until_s + self._rest_s:
            self._rest_s = FIRST_REST_S  # all has been well for as long as the last rest

    def _with_fewer(self, kind: tuple[int, int], elapsed_s: float, now_s: float) -> None:
        if len(self._fewer_s) == N_SLOW:
            if now_s >= self._until_s:
                self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
                self._patience = 1
                self._raise()
            return
        self._fewer_s.append(elapsed_s)
        if len(self._fewer_s) < N_SLOW:
            return
        best_s = min(self._fewer_s)
        is_slow = best_s > SLOW * self._bound_s(kind) * self._all / self.n_threads + SLOW_S
        if self.n_threads > 1 and is_slow:
            helps = best_s < HELPS * min(self._slow_s, default=math.inf)
            self._lower(now_s, self.n_threads // 2 if helps else 1)
        elif best_s > HELPS * min(self._slow_s, default=math.inf):
            self._usual_s[kind] = min(self._slow_s)
            self._raise()
        else:
            self._to_beat = kind, best_s

    def _bound_s(self, kind: tuple[int, int]) -> float:
        """What a step takes on a quiet machine: as such steps did, or at most what other ones let expect."""
        known_s = self._usual_s.get(kind)
        if known_s is not None:
            return known_s
        n_rows, doubles = kind
        bounds = (
            known_s * max(1.0, n_rows / other_rows) * 2 ** max(0, doubles - other)
            for (other_rows, other), known_s in self._usual_s.items()
        )
        return min(bounds, default=math.inf)

    def _lower(self, now_s: float, n_threads: int) -> None:
        self.n_threads = max(1, n_threads)
        self._fewer_s = []
        self._until_s = now_s + self._rest_s

    def _raise(self) -> None:
        self.n_threads = self._all
        self._slow_s = []
