"""Rows about speed: one chat, several together, a chat beside a long prompt, our own time, guessing of tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from figures import Figure, say
from ours import FULL_CHAIN, Run, decode_rate, middle, opened, rounded, whole
from peers import batched_bench, cells, llama_bench

from hearth.bench import GREEDY, ask, ask_together, together_tokens_per_s
from hearth.models.types import Failed, Finished, GenerationRequest, TextDelta, TextSegment

SPARE = 256
STEP_US, SEQUENCE_US = 60.0, 10.0  # of our own time: allowed for a step, and for each sequence in it
CHANGED_EVERY = 25  # tokens of a copied text, of which one is another
DECOY_EVERY = 5  # tokens of a free text, of which one pair stood in the prompt with another continuation

TOGETHER_S = 0.002  # texts that come in less are read as one


def decode(run: Run) -> Iterator[Figure]:
    """One chat at a depth, its stream read from another process, against llama-bench; in turns."""
    n = run.sizes.decoded
    ratios: dict[str, list[float]] = {"greedy": [], "full chain": []}
    details: dict[str, Any] = {}
    for depth in run.sizes.depths:
        prompt = run.prompt(800, depth)
        rates: dict[str, list[float]] = {"greedy": [], "full chain": [], "llama-bench": []}
        with opened(run, n_ctx=depth + n + SPARE, n_parallel=1, n_sequences=1) as engine:
            ask(engine, prompt, 2)
            for i in range(run.repeats):
                rates["greedy"].append(decode_rate(whole(ask(engine, prompt, n), n)))
                rates["full chain"].append(decode_rate(whole(ask(engine, prompt, n, FULL_CHAIN), n)))
                rates["llama-bench"] += llama_bench(run, depth, n)
                found = ", ".join(f"{name} {speeds[-1]:.2f}" for name, speeds in rates.items())
                say(f"decode at {depth:,} {i + 1}/{run.repeats}: tokens/s {found}")
        for name, found_ratios in ratios.items():
            found_ratios.append(middle(rates[name]) / middle(rates["llama-bench"]))
        details[f"tokens_per_s_at_{depth}"] = {name: rounded(speeds, 2) for name, speeds in rates.items()}
    where = " and ".join(f"{depth:,}" for depth in run.sizes.depths)
    for name, target in (("greedy", 0.97), ("full chain", 0.95)):
        label = f"decode ÷ llama-bench at {where} tokens, {name}, the lesser"
        yield Figure("decode", label, min(ratios[name]), target, False, details)


def batch(run: Run) -> Iterator[Figure]:
    """Chats of different prompts together, against llama-batched-bench; both with separate and with unified KV."""
    ours: dict[str, list[tuple[float, float]]] = {"separate": [], "unified": []}
    peers: dict[str, list[tuple[float, float]]] = {"separate": [], "unified": []}
    for i in range(run.repeats):
        for mode in ours:
            ours[mode].append(_batch_of_ours(run, i, unified=mode == "unified"))
            peers[mode].append(batched_bench(run, unified=mode == "unified"))
        found = "; ".join(
            f"{mode} {ours[mode][-1][0]:.0f} and {ours[mode][-1][1]:.1f} tokens/s, "
            f"batched-bench {peers[mode][-1][0]:.0f} and {peers[mode][-1][1]:.1f}"
            for mode in ours
        )
        say(f"batch {i + 1}/{run.repeats}: {found}")
    for index, kind in enumerate(("prefill", "decode")):
        mine, theirs = (
            {mode: [speeds[index] for speeds in found] for mode, found in measured.items()}
            for measured in (ours, peers)
        )
        details: dict[str, Any] = {
            **{f"ours_{mode}_tokens_per_s": rounded(speeds, 2) for mode, speeds in mine.items()},
            **{f"{mode}_tokens_per_s": rounded(speeds, 2) for mode, speeds in theirs.items()},
        }
        (my_mode, my_speed), (mode, speed) = (_fastest(found) for found in (mine, theirs))
        details |= {"our_better_mode": my_mode, "better_mode": mode}
        name = f"{run.sizes.n_chats} chats of {run.sizes.chat_prompt:,}: {kind} ÷ llama-batched-bench"
        yield Figure("batch", name, my_speed / speed, 0.95, False, details)


def _fastest(speeds: dict[str, list[float]]) -> tuple[str, float]:
    """The mode that is quickest in the middle, and how quick it is."""
    return max(((mode, middle(found)) for mode, found in speeds.items()), key=lambda one: one[1])


def _batch_of_ours(run: Run, number: int, *, unified: bool) -> tuple[float, float]:
    """Tokens a second of prompts read together, and of answers to them."""
    s = run.sizes
    n_ctx = cells(run) if unified else cells(run) // s.n_chats
    prompts = [run.prompt(900 + 20 * number + chat, s.chat_prompt) for chat in range(s.n_chats)]
    options = {"n_parallel": s.n_chats, "n_sequences": s.n_chats, "kv_unified": unified}
    with opened(run, n_ctx=n_ctx, **options) as engine:
        ask(engine, run.prompt(899, 64), 2)
        read = ask_together(engine, prompts, 1)
        elapsed_s = max(one.ended_s for one in read) - min(one.submitted_s for one in read)
        answers = ask_together(engine, prompts, s.chat_answer)
        answering = together_tokens_per_s([whole(one, s.chat_answer) for one in answers])
    return s.n_chats * s.chat_prompt / elapsed_s, answering


class Listener(threading.Thread):
    """Reads a request's events and notes when text came."""

    def __init__(self, handle: Any) -> None:
        super().__init__(daemon=True)
        self._handle = handle
        self.times_s: list[float] = []
        self.last: Finished | Failed | None = None
        self.start()

    def run(self) -> None:
        for event in self._handle.events():
            if isinstance(event, TextDelta):
                self.times_s.append(time.perf_counter())
            elif isinstance(event, Finished | Failed):
                self.last = event

    def wait_for(self, n_times: int, limit_s: float = 120.0) -> None:
        deadline_s = time.monotonic() + limit_s
        while len(self.times_s) < n_times and self.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def gaps_s(self, start_s: float, end_s: float) -> list[float]:
        """Between texts that came within a time. Those that come together, as of a fast answer they do, are one."""
        gaps = np.diff([moment for moment in self.times_s if start_s <= moment <= end_s])
        return [float(gap) for gap in gaps if gap > TOGETHER_S]


def gap(run: Run) -> Iterator[Figure]:
    """How evenly a chat's tokens come while another's long prompt is read. Every token of its model shows."""
    n, cycle = run.sizes.prefix, run.cycle()
    alone_p50, alone_p95, beside_p95, beside_max, reading_s = [], [], [], [], []
    options: dict[str, Any] = {"model": run.chain_model, "n_ctx": 2 * n + 4 * SPARE, "n_parallel": 2, "n_sequences": 2}
    for i in range(run.repeats):
        with opened(run, **options) as engine:
            segments = (TextSegment(tuple(cycle[1000 * i : 1000 * i + SPARE])),)
            handle = engine.submit(GenerationRequest("running", segments, GREEDY, max_tokens=n))
            running = Listener(handle)
            running.wait_for(run.sizes.n_gaps + 5)
            alone = running.gaps_s(running.times_s[4], time.perf_counter())
            other = ask(engine, run.prompt(1100 + i, n), 1)
            beside = running.gaps_s(other.submitted_s, other.ended_s)
            handle.cancel()
            running.join(10)
        if len(beside) < 5:
            raise SystemExit(f"only {len(beside)} tokens came beside the prompt of {n}; raise --prefix")
        alone_p50.append(float(np.percentile(alone, 50)))
        alone_p95.append(float(np.percentile(alone, 95)))
        beside_p95.append(float(np.percentile(beside, 95)))
        beside_max.append(max(beside))
        reading_s.append(other.wall_s)
        say(f"gap {i + 1}/{run.repeats}: alone {alone_p50[-1]:.4f} s, beside p95 {beside_p95[-1]:.4f} s")
    with opened(run, **options) as engine:
        long_s = ask(engine, run.prompt(1099, n), 1).wall_s
    details = {
        "alone_median_s": rounded(alone_p50, 5),
        "alone_p95_s": rounded(alone_p95, 5),
        "beside_p95_s": rounded(beside_p95, 5),
        "beside_longest_s": rounded(beside_max, 5),
        "prompt_beside_s": rounded(reading_s),
        "prompt_alone_s": round(long_s, 4),
    }
    name = f"token gap while another reads {n:,} tokens, p95 ÷ alone (median)"
    yield Figure("gap", name, middle(beside_p95) / middle(alone_p50), 3.0, True, details)


def overhead(run: Run) -> Iterator[Figure]:
    """Time of a step that is not spent in llama.cpp, by the engine's own counters, one chat and several."""
    n = run.sizes.decoded
    for n_chats in (1, run.sizes.n_chats):
        overheads, sequences = [], 1.0
        with opened(run, n_ctx=n_chats * (SPARE + n + 128), n_parallel=n_chats, n_sequences=n_chats) as engine:
            prompts = [run.prompt(1200 + chat, SPARE) for chat in range(n_chats)]
            ask_together(engine, prompts, 2)
            for _ in range(run.repeats):
                before = engine.stats()
                ask_together(engine, prompts, n)
                after = engine.stats()
                spent = {name: after[name] - before[name] for name in before}
                overheads.append(1e6 * (spent["step_s"] - spent["native_s"]) / spent["n_steps"])
                sequences = spent["n_step_sequences"] / spent["n_steps"]
        say(f"overhead of {n_chats}: {middle(overheads):.0f} µs a step of {sequences:.1f} sequences")
        details = {"us": rounded(overheads, 1), "sequences_a_step": round(sequences, 2)}
        target = STEP_US + SEQUENCE_US * sequences
        name = f"µs a step outside llama.cpp, {n_chats} chat{'s' if n_chats > 1 else ''}"
        yield Figure("overhead", name, middle(overheads), target, True, details)


def lookup(run: Run) -> Iterator[Figure]:
    """Prompt lookup on and off, in turns, for an answer that copies the prompt and for one that does not."""
    cycle, n = run.cycle(), run.sizes.n_looked_up
    kinds = (("copying text", _copied, 1.6), ("free text", _free, 0.98))
    rates: dict[tuple[str, bool], list[float]] = {}
    shares: dict[str, float] = {}
    n_ctx = run.sizes.copied + n + SPARE
    with ExitStack() as stack:
        engines = {
            on: stack.enter_context(
                opened(run, model=run.chain_model, n_ctx=n_ctx, n_parallel=1, n_sequences=1, prompt_lookup=on)
            )
            for on in (False, True)
        }
        for kind, make_prompt, _ in kinds:
            for i in range(run.repeats + 1):  # the first one warms, and lets the costs of steps be learnt
                prompt = make_prompt(cycle, run.sizes.copied, n, 2000 * i)
                for on, engine in engines.items():
                    before = engine.stats()
                    answer = whole(ask(engine, prompt, n), n)
                    if i:
                        rates.setdefault((kind, on), []).append(decode_rate(answer))
                    if on:
                        after = engine.stats()
                        n_guessed = after["n_guessed"] - before["n_guessed"]
                        shares[kind] = (after["n_accepted"] - before["n_accepted"]) / n_guessed if n_guessed else 0.0
                if i:
                    found = f"{rates[kind, True][-1]:.1f} against {rates[kind, False][-1]:.1f}"
                    say(f"lookup, {kind} {i}/{run.repeats}: {found} tokens/s")
    for kind, _, target in kinds:
        details = {
            "with_tokens_per_s": rounded(rates[kind, True], 2),
            "without_tokens_per_s": rounded(rates[kind, False], 2),
            "guesses_that_came_true": round(shares[kind], 3),
        }
        value = middle(rates[kind, True]) / middle(rates[kind, False])
        yield Figure("lookup", f"prompt lookup ÷ without, {kind}", value, target, False, details)


def _copied(cycle: list[int], n_tokens: int, n_answer: int, start: int) -> list[int]:
    """A text that the answer will repeat, but for a token here and there, and its first token again."""
    text = list(cycle[start : start + n_tokens])
    for index in range(CHANGED_EVERY, len(text), CHANGED_EVERY):
        text[index] = cycle[(start + n_tokens + n_answer + index) % len(cycle)]
    return [*text, cycle[start]]


def _free(cycle: list[int], n_tokens: int, n_answer: int, start: int) -> list[int]:
    """A text with some pairs of words that the answer will have, each followed by something else than there."""
    answer, other = cycle[start : start + n_answer], iter(cycle[start + n_answer :])
    text: list[int] = []
    for index in range(2, n_answer - 1, DECOY_EVERY):
        text += [answer[index], answer[index + 1], next(other), next(other)]
    while len(text) < n_tokens:
        text.append(next(other))
    return [*text[: n_tokens - 1], answer[0]]
