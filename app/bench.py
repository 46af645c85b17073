"""Measures a model on this machine for `hearth bench`: speed of the engine, and what a restart costs with saved KV.

Sizes adapt to the model's context and to how fast a short probe was, so that a run ends in about a minute. Prompts are
made of numbered sentences: no two alike, so that nothing is found in a cache that was not put there by the run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from hearth.models.errors import EngineError, RequestError
from hearth.models.types import Failed, Finished, GenerationRequest, SamplingParams, Segment, TextSegment

if TYPE_CHECKING:
    from hearth.engine_factory import KvFolder
    from hearth.models.engine import LlamaEngine
    from hearth.models.types import ModelInfo, RequestHandle
    from hearth.settings import Settings

GREEDY = SamplingParams()
PROBE_TOKENS = 64
PREFIX_TOKENS = 4096  # of the chat that is restored, at most
PREFIX_BUDGET_S = 20.0  # for reading it once
COMPARED_TOKENS = 64  # of the answers before and after the restart
PROMPT_TOKENS = 512
DECODED_TOKENS = 128
DECODE_BUDGET_S = 10.0
PARALLEL_BUDGET_S = 15.0  # for reading the prompts of all chats
MIN_TOKENS = 16
MAX_ANSWERS = 16  # behind one another, where a model ends early
GO_ON_ROOM = 16 * MAX_ANSWERS  # tokens
KV_BUDGET_BYTES = 16 << 30  # of the temporary folder: more than any run writes
_GO_ON = "\nGo on: "
_WINDS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")

Say = Callable[[str], None]


class CanSubmit(Protocol):
    """The part of an engine that is measured here."""

    def submit(self, request: GenerationRequest) -> RequestHandle: ...


class CanTokenize(Protocol):
    """The part of an engine that prompts are made with."""

    @property
    def info(self) -> ModelInfo: ...

    def tokenize(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]: ...


class CanAskOn(CanSubmit, CanTokenize, Protocol):
    """Both."""


@dataclass(frozen=True, slots=True)
class KvBench:
    """A chat of ``prefix_tokens`` read once, and found again after a restart. Sizes are files, the index included."""

    model: str
    kv_type: str
    prefix_tokens: int
    cold_ttft_s: float
    restart_ttft_s: float
    ratio: float
    restored_tokens: int
    compared_tokens: int
    identical_tokens: int  # leading ones, of greedy answers before and after the restart
    bytes_per_token: float
    theoretical_bytes_per_token: float | None  # None: the header does not say, or the model is recurrent


@dataclass(frozen=True, slots=True)
class EngineBench:
    """Tokens a second of one chat and of ``parallel`` together; ``step_overhead_us`` is our time in a step of one."""

    model: str
    kv_type: str
    prompt_tokens: int
    decoded_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    parallel: int
    parallel_tokens_per_s: float
    step_overhead_us: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One measured request; times on ``perf_counter``."""

    submitted_s: float
    ended_s: float
    finished: Finished

    @property
    def wall_s(self) -> float:
        return self.ended_s - self.submitted_s

    @property
    def first_s(self) -> float:
        """When its first token came."""
        return self.submitted_s + self.finished.timings.ttft_s


@dataclass(frozen=True, slots=True)
class LongAnswer:
    """Answers behind one another; ``tokens`` are all behind the prompt, the questions between them included."""

    answers: tuple[Answer, ...]
    tokens: tuple[int, ...]

    @property
    def n_generated(self) -> int:
        return sum(len(answer.finished.tokens) for answer in self.answers)

    @property
    def decode_tokens_per_s(self) -> float:
        """The first token of each answer comes from its prefill and does not count."""
        decode_s = sum(answer.finished.timings.decode_s for answer in self.answers)
        return (self.n_generated - len(self.answers)) / decode_s if decode_s > 0 else 0.0


def ask(
    engine: CanSubmit, prompt: Sequence[int] | Sequence[Segment], n_tokens: int, sampling: SamplingParams = GREEDY
) -> Answer:
    """Has at most ``n_tokens`` generated behind token ids or segments. Raises the error that ended the request."""
    segments = tuple(entry for entry in prompt if not isinstance(entry, int))
    tokens = tuple(entry for entry in prompt if isinstance(entry, int))
    request = GenerationRequest("bench", segments or (TextSegment(tokens),), sampling, max_tokens=n_tokens)
    submitted_s = perf_counter()
    for event in engine.submit(request).events():
        if isinstance(event, Finished):
            return Answer(submitted_s, perf_counter(), event)
        if isinstance(event, Failed):
            raise event.error
    raise EngineError("the request ended without a result")


def ask_together(
    engine: CanSubmit, prompts: Sequence[Sequence[int]], n_tokens: int, sampling: SamplingParams = GREEDY
) -> list[Answer]:
    """As ``ask``, all at once."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: ask(engine, prompt, n_tokens, sampling), prompts))


def ask_on(engine: CanAskOn, prompt: Sequence[int], n_tokens: int) -> LongAnswer:
    """As ``ask``, greedy, but goes on with another question where the model ends: ``n_tokens`` of answers in all."""
    answers = [ask(engine, prompt, n_tokens)]
    more = engine.tokenize(_GO_ON)
    tokens = list(answers[0].finished.tokens)
    while answers[-1].finished.reason == "stop" and len(answers) < MAX_ANSWERS:
        n_left = n_tokens - sum(len(one.finished.tokens) for one in answers)
        if n_left <= 0:
            break
        answers.append(ask(engine, [*prompt, *tokens, *more], n_left))
        tokens += [*more, *answers[-1].finished.tokens]
    return LongAnswer(tuple(answers), tuple(tokens))


def together_tokens_per_s(answers: Sequence[Answer]) -> float:
    """Tokens a second of all answers, from when the last has begun to when the first has ended; 0.0 if never."""
    start_s, end_s = max(answer.first_s for answer in answers), min(answer.ended_s for answer in answers)
    if end_s <= start_s:
        return 0.0
    return sum((answer.finished.usage.completion_tokens - 1) / (answer.ended_s - answer.first_s) for answer in answers)


def text_tokens(engine: CanTokenize, n_tokens: int, seed: int) -> list[int]:
    """Exactly ``n_tokens`` ids of numbered sentences; different seeds differ from the first sentence on."""
    text, number, tokens = "", seed * 10_007, list[int]()
    while len(tokens) < n_tokens:
        for _ in range(max(1, n_tokens // 32)):
            number += 1
            text += (
                f"On day {number} the keeper of lighthouse {number * 13 % 997} wrote down {number * 29 % 1009} ships "
                f"and a wind from the {_WINDS[number * 5 % 8]}, {number * 17 % 31} knots. "
            )
        tokens = engine.tokenize(text, add_bos=engine.info.add_bos)
    return tokens[:n_tokens]


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bench_kv(settings: Settings, n_tokens: int | None = None, say: Say = lambda _: None) -> KvBench:
    """Reads a chat of ``n_tokens`` (None: as fits), closes the engine, loads it again and asks the same.

    Raises ModelFileError, EngineError, RequestError for an ``n_tokens`` that the context does not hold.
    """
    from hearth.engine_factory import KvFolder
    from hearth.models.gguf_header import read_gguf_header
    from hearth.models.kv_size import kv_bytes_per_token

    place = settings.data_dir if settings.data_dir.is_dir() else None  # the user's own disk, if it is known
    with tempfile.TemporaryDirectory(prefix="hearth-bench-", dir=place) as folder:
        kv = KvFolder(Path(folder) / "kv", KV_BUDGET_BYTES)
        say("loading the model")
        with _engine(settings, kv) as engine:
            info = engine.info
            token_s, _ = _probe(engine)
            n_prefix = _prefix_size(n_tokens, info.n_ctx, token_s)
            prompt = text_tokens(engine, n_prefix, seed=1)
            say(f"reading a chat of {n_prefix:,} tokens (about {n_prefix * token_s:.0f} s)")
            cold = ask(engine, prompt, 1).finished
            say("answering it")
            before = ask_on(engine, prompt, COMPARED_TOKENS)
            say("saving it")
            engine.flush()
        n_saved = n_prefix + len(before.tokens) - 1  # the last token of an answer is not in the KV cache
        n_bytes = folder_bytes(kv.path)
        say("loading the model again")
        with _engine(settings, kv) as engine:
            after = ask_on(engine, prompt, COMPARED_TOKENS)
    found = after.answers[0].finished
    return KvBench(
        model=info.name,
        kv_type=settings.kv_type,
        prefix_tokens=n_prefix,
        cold_ttft_s=cold.timings.ttft_s,
        restart_ttft_s=found.timings.ttft_s,
        ratio=found.timings.ttft_s / cold.timings.ttft_s,
        restored_tokens=found.cache.disk_tokens,
        compared_tokens=len(before.tokens),
        identical_tokens=common_length(before.tokens, after.tokens),
        bytes_per_token=n_bytes / n_saved if found.cache.disk_tokens else 0.0,
        theoretical_bytes_per_token=kv_bytes_per_token(read_gguf_header(info.path), settings.kv_type),
    )


def bench_engine(settings: Settings, n_tokens: int | None = None, say: Say = lambda _: None) -> EngineBench:
    """Speed of one chat with a prompt of ``n_tokens`` (None: as fits), and of ``n_parallel`` chats together.

    Raises ModelFileError, EngineError, RequestError for an ``n_tokens`` that the context does not hold.
    """
    say("loading the model")
    with _engine(settings, None) as engine:
        info, parallel = engine.info, settings.n_parallel
        token_s, step_s = _probe(engine)
        n_decoded = max(MIN_TOKENS, min(DECODED_TOKENS, int(DECODE_BUDGET_S / step_s), info.n_ctx // 4))
        n_prompt = _fitting(n_tokens, PROMPT_TOKENS, info.n_ctx - n_decoded - GO_ON_ROOM, PREFIX_BUDGET_S / token_s)
        prompt = text_tokens(engine, n_prompt, seed=1)
        say(f"reading {n_prompt:,} tokens")
        cold = ask(engine, prompt, 1).finished
        say(f"answering with {n_decoded} tokens")
        stats = engine.stats()
        alone = ask_on(engine, prompt, n_decoded)
        overhead_us = _overhead_us(stats, engine.stats())
        say(f"answering {parallel} chats together")
        room = info.n_ctx // parallel - n_decoded - 2 * GO_ON_ROOM
        n_each = _fitting(None, PROMPT_TOKENS // 2, max(room, MIN_TOKENS), PARALLEL_BUDGET_S / token_s / parallel)
        prompts = [text_tokens(engine, n_each, seed=2 + chat) for chat in range(parallel)]
        ask_together(engine, prompts, 1)
        with ThreadPoolExecutor(parallel) as pool:
            together = list(pool.map(lambda each: ask_on(engine, each, n_decoded), prompts))
    began_s = min(one.answers[0].first_s for one in together)
    elapsed_s = max(one.answers[-1].ended_s for one in together) - began_s
    return EngineBench(
        model=info.name,
        kv_type=settings.kv_type,
        prompt_tokens=n_prompt,
        decoded_tokens=alone.n_generated,
        prefill_tokens_per_s=(n_prompt - cold.usage.cached_tokens) / cold.timings.prefill_s,
        decode_tokens_per_s=alone.decode_tokens_per_s,
        parallel=parallel,
        parallel_tokens_per_s=sum(one.n_generated for one in together) / elapsed_s,
        step_overhead_us=overhead_us,
    )


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two answers share."""
    n = min(len(a), len(b))
    return next((index for index in range(n) if a[index] != b[index]), n)


@contextmanager
def _engine(settings: Settings, kv: KvFolder | None) -> Iterator[LlamaEngine]:
    """The model as the settings have it, without guessing of tokens, which would measure the text."""
    from hearth.engine_factory import make_engine
    from hearth.model_choice import choose_by
    from hearth.models.engine.options import EngineOptions

    choice = choose_by(settings)
    options = EngineOptions(
        n_ctx=settings.n_ctx or choice.n_ctx,
        n_gpu_layers=settings.n_gpu_layers,
        kv_type=settings.kv_type,
        flash_attention=settings.flash_attention,
        kv_unified=settings.kv_unified,
        n_threads=settings.n_threads,
        n_parallel=settings.n_parallel,
        n_sequences=max(settings.n_parallel, EngineOptions().n_sequences),
        prompt_lookup=False,
        check_fit=settings.check_fit,
        kv_min_worth_s=0.0,
    )
    assert choice.path is not None  # of a model that is chosen by name or file
    engine = make_engine(choice.path, options, kv=kv)
    try:
        yield engine
    finally:
        engine.close()


def _probe(engine: LlamaEngine) -> tuple[float, float]:
    """Seconds of a prompt's token and of an answer's; the model is warm afterwards."""
    n_tokens = min(PROBE_TOKENS, engine.info.n_ctx // 4)
    ask(engine, text_tokens(engine, MIN_TOKENS, seed=7), 2)
    answer = ask(engine, text_tokens(engine, n_tokens, seed=8), 8).finished
    n_decoded = max(1, len(answer.tokens) - 1)
    return max(answer.timings.prefill_s, 1e-6) / n_tokens, max(answer.timings.decode_s / n_decoded, 1e-6)


def _prefix_size(n_tokens: int | None, n_ctx: int, token_s: float) -> int:
    room = n_ctx - COMPARED_TOKENS - GO_ON_ROOM
    return _fitting(n_tokens, PREFIX_TOKENS, max(room, MIN_TOKENS), PREFIX_BUDGET_S / token_s)


def _fitting(given: int | None, wanted: int, room: int, affordable: float) -> int:
    """``given`` if the context has room for it, else what is wanted, has room and can be afforded."""
    if given is None:
        return max(MIN_TOKENS, min(wanted, room, int(affordable)))
    if not MIN_TOKENS <= given <= room:
        raise RequestError(f"tokens is {given}; with this model's context it must be within {MIN_TOKENS}..{room}")
    return given


def _overhead_us(before: dict[str, float], after: dict[str, float]) -> float:
    """Our own microseconds a step between two readings of the engine's counters."""
    spent: dict[str, Any] = {name: after[name] - before[name] for name in ("step_s", "native_s", "n_steps")}
    return float(1e6 * (spent["step_s"] - spent["native_s"]) / max(spent["n_steps"], 1))
