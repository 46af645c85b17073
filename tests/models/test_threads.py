"""How many threads pay off: found out from the time of steps, on machines that are simulated here."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from hearth.models.engine import LlamaEngine
from hearth.models.engine.threads import FIRST_REST_S, LONGEST_REST_S, ThreadChoice
from hearth.models.types import GenerationRequest, TextSegment
from tests.models.answers import result

ALONE_S = 0.08  # a step of one row on one thread


class Machine:
    """Steps take what they take on ``n_cores``, of which other programs want ``n_busy``."""

    def __init__(self, n_cores: int = 8, usual_s: float | None = None, waits_s: float = 2.0) -> None:
        self.n_cores = n_cores
        self.n_busy = 0
        self.now_s = self.began_s = time.monotonic()
        self.waits_s = waits_s
        self.threads = ThreadChoice(n_cores)
        self.threads.compare(usual_s or ALONE_S / n_cores, ALONE_S)

    def step_s(self, n_rows: int, depth: int) -> float:
        n = self.threads.n_threads
        waits_s = 0.0 if n + self.n_busy <= self.n_cores else self.waits_s
        return ALONE_S / n * (1 + 0.4 * (n_rows - 1)) * (1 + depth / 4096) + waits_s

    def run(self, n_steps: int, n_rows: int = 1, depth: int = 0) -> float:
        """Seconds of so many steps."""
        began_s = self.now_s
        for _ in range(n_steps):
            elapsed_s = self.step_s(n_rows, depth)
            self.now_s += elapsed_s
            self.threads.measured(n_rows, depth, elapsed_s, self.now_s)
        return self.now_s - began_s


@pytest.mark.parametrize(("n_cores", "n_busy", "n_left"), [(2, 1, 1), (8, 1, 4), (8, 4, 4), (8, 6, 1), (6, 5, 1)])
def test_fewer_threads_beside_busy_programs_and_all_when_they_end(n_cores: int, n_busy: int, n_left: int) -> None:
    machine = Machine(n_cores)
    machine.run(50)
    machine.n_busy = n_busy
    machine.run(8)
    assert machine.threads.n_threads == n_left
    machine.n_busy = 0
    machine.run(1 + int(2 * FIRST_REST_S * n_left / ALONE_S))
    assert machine.threads.n_threads == n_cores


def test_trying_again_becomes_rare() -> None:
    machine = Machine(2)
    machine.n_busy = 1
    elapsed_s = machine.run(3000)
    assert elapsed_s < 1.1 * 3000 * ALONE_S
    assert machine.threads._rest_s == LONGEST_REST_S


def test_a_long_text_is_no_crowd() -> None:
    machine = Machine()
    machine.run(20)
    machine.run(20, depth=65_536)  # 17 times as slow, and rightly so
    machine.run(20, n_rows=4, depth=65_536)
    machine.run(20, n_rows=16)
    assert machine.threads.n_threads == 8
    assert machine.now_s < machine.began_s + 2 + 20 * (0.17 + 0.38 + 0.07)


def test_what_is_longer_than_any_text_foretold_is_learnt() -> None:
    machine = Machine(usual_s=ALONE_S / 800)  # as if the first step had been a hundred times as quick
    machine.run(20)
    assert machine.threads.n_threads == 8
    machine.run(1000)
    assert machine.threads.n_threads == 8


def test_one_slow_step_is_an_accident() -> None:
    machine = Machine()
    for _ in range(50):
        machine.run(5)
        machine.n_busy = 1
        machine.run(1)
        machine.n_busy = 0
    assert machine.threads.n_threads == 8


def test_a_machine_that_is_busy_at_the_start() -> None:
    threads = ThreadChoice(4)
    threads.compare(3.0, 0.05)
    assert threads.n_threads == 2
    assert threads.measured(1, 0, 3.0) is False
    assert threads.measured(1, 0, 3.0) is True
    assert threads.n_threads == 1


def test_a_crowd_that_slows_little_is_noticed_too() -> None:
    machine = Machine(2, waits_s=0.1)  # two threads take less than twice as long as one
    machine.n_busy = 1
    machine.threads.compare(0.14, ALONE_S)
    assert machine.threads.n_threads == 1
    assert machine.run(1000) < 1.05 * 1000 * ALONE_S


def test_one_thread_stays_one() -> None:
    machine = Machine(1)
    machine.n_busy = 4
    machine.run(100)
    assert machine.threads.n_threads == 1


def test_answers_are_the_same_with_fewer_threads(load_engine: Callable[..., LlamaEngine]) -> None:
    engine = load_engine(n_threads=2)
    request = GenerationRequest("r", (TextSegment(tuple(range(40))),), max_tokens=20)
    expected = result(engine.submit(request)).tokens
    engine._core._threads.compare(1.0, 0.1)
    engine._core._set_threads()
    assert result(engine.submit(request)).tokens == expected
