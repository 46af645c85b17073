"""How well and how fast a model file reads a text: perplexity, speed, and how near it is to another file of the same
model. Runs as a task.

The text is read in windows; in each, the tokens of the second half are scored, which have as much before them (as
llama.cpp's perplexity tool does). The reference writes its log-probabilities to a file; the others are compared with
them row by row: the Kullback-Leibler divergence from the reference's next-token distribution to theirs, and how often
both find the same token likeliest.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hearth.models.cpu import physical_cores
from hearth.models.errors import EngineError, RequestError
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import ContextOptions, LlamaContext
from hearth.models.tasks import Report

WINDOW_TOKENS: Final = 512
MIN_SCORED_TOKENS: Final = 8
DECODED_TOKENS: Final = 32
REPEATS: Final = 3


def score(
    report: Report,
    path: Path,
    text: str,
    max_tokens: int,
    reference: Path,
    is_reference: bool,
    n_gpu_layers: int = -1,
    n_threads: int | None = None,
) -> dict[str, Any]:
    """``reference`` is the file of log-probabilities, float32 of shape (scored tokens, vocabulary), which the reference
    model writes and the others read. ``max_tokens`` of the text are read at most.

    Raises ModelFileError, RequestError (the text is too short) and EngineError (another vocabulary).
    """
    model = LlamaModel.load(path, n_gpu_layers=n_gpu_layers)
    try:
        window = min(WINDOW_TOKENS, model.n_ctx_train, max_tokens)
        threads = n_threads or physical_cores()
        options = ContextOptions(
            n_ctx=window + DECODED_TOKENS, n_batch=window, n_ubatch=window, n_seq_max=1, n_threads=threads,
            n_threads_batch=threads,
        )  # fmt: skip
        context = LlamaContext(model, options)
        try:
            windows = _windows(model, text, max_tokens, window)
            prefill, decode = _speed(context, windows[0])
            found = _Scores(reference, sum(_n_scored(one) for one in windows), model.n_vocab, writes=is_reference)
            for index, tokens in enumerate(windows):
                report(index / len(windows), f"window {index + 1} of {len(windows)}")
                _read(context, tokens, n_wanted=_n_scored(tokens))
                for row in range(_n_scored(tokens)):
                    at = len(tokens) - 1 - _n_scored(tokens) + row
                    found.add(context.logits(at), tokens[at + 1])
            return {
                **found.result(),
                "prefill_tokens_per_s": prefill,
                "decode_tokens_per_s": decode,
                "n_params": model.n_params,
                "size_bytes": model.size_bytes,
            }
        finally:
            context.close()
    finally:
        model.close()


def _windows(model: LlamaModel, text: str, max_tokens: int, window: int) -> list[list[int]]:
    tokens = model.tokenize(text)[:max_tokens]
    start = model.tokenize("", add_bos=True) if model.add_bos else []
    step = window - len(start)
    windows = [start + tokens[at : at + step] for at in range(0, len(tokens), step)]
    if len(windows) > 1 and len(windows[-1]) < window:
        windows.pop()  # a short one would have less before its tokens
    n_scored = sum(_n_scored(one) for one in windows)
    if n_scored < MIN_SCORED_TOKENS:
        raise RequestError(
            f"the text has {len(tokens)} tokens; at least {2 * MIN_SCORED_TOKENS + 2} are needed: give a longer one"
        )
    return windows


def _n_scored(tokens: list[int]) -> int:
    return max(0, (len(tokens) - 1) // 2)


def _read(context: LlamaContext, tokens: list[int], *, n_wanted: int) -> None:
    """Decodes a window from its beginning; the ``n_wanted`` rows before the last are kept."""
    context.clear()
    n = len(tokens)
    wanted = np.zeros(n, np.int8)
    wanted[n - 1 - n_wanted : n - 1] = 1
    _decode(context, tokens, 0, wanted)


def _decode(context: LlamaContext, tokens: list[int], start: int, wanted: NDArray[np.int8]) -> None:
    n = len(tokens)
    positions = np.arange(start, start + n, dtype=np.int32)
    if context.decode_tokens(np.array(tokens, np.int32), positions, np.zeros(n, np.int32), wanted) != 0:
        raise EngineError(f"{context.model.path}: a window of {n} tokens could not be decoded")


def _speed(context: LlamaContext, tokens: list[int]) -> tuple[float, float]:
    """Tokens a second, the best of some runs: of a prompt, and one at a time."""
    last = np.zeros(len(tokens), np.int8)
    last[-1] = 1
    prefill_s, decode_s = math.inf, math.inf
    for _ in range(REPEATS):
        context.clear()
        began_s = time.perf_counter()
        _decode(context, tokens, 0, last)
        read_s = time.perf_counter()
        for offset in range(DECODED_TOKENS):
            _decode(context, tokens[-1:], len(tokens) + offset, np.ones(1, np.int8))
        prefill_s, decode_s = min(prefill_s, read_s - began_s), min(decode_s, time.perf_counter() - read_s)
    return round(len(tokens) / prefill_s, 2), round(DECODED_TOKENS / decode_s, 2)


class _Scores:
    """Sums over the scored tokens."""

    def __init__(self, reference: Path, n_rows: int, n_vocab: int, *, writes: bool) -> None:
        self._writes = writes
        expected = 4 * n_rows * n_vocab
        if not writes and reference.stat().st_size != expected:
            raise EngineError("this file has another vocabulary than the reference; compare files of one model")
        self._rows: Any = np.memmap(reference, np.float32, "w+" if writes else "r", shape=(n_rows, n_vocab))
        self._losses: list[float] = []
        self._divergences: list[float] = []
        self._n_agreed = 0

    def add(self, logits: NDArray[np.float32], token: int) -> None:
        """A row, and the token that came next."""
        log_p = log_probabilities(logits)
        row = len(self._losses)
        self._losses.append(-float(log_p[token]))
        if self._writes:
            self._rows[row] = log_p
        theirs = self._rows[row]
        self._divergences.append(divergence(theirs, log_p))
        self._n_agreed += int(np.argmax(theirs)) == int(np.argmax(log_p))

    def result(self) -> dict[str, Any]:
        n = len(self._losses)
        mean = sum(self._losses) / n
        spread = float(np.std(self._losses)) / math.sqrt(n)
        if self._writes:
            self._rows.flush()
        return {
            "n_tokens": n,
            "perplexity": _finite(math.exp(min(mean, 700.0))),
            "perplexity_error": _finite(math.exp(min(mean, 700.0)) * spread),
            "top1_agreement": round(self._n_agreed / n, 6),
            "mean_kl": _finite(sum(self._divergences) / n),
        }


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-softmax of shape (n_vocab,); tokens that cannot come keep a finite, tiny probability."""
    wide = np.asarray(logits, np.float64)
    top = float(np.max(wide))
    wide = wide - top
    return np.maximum(wide - math.log(float(np.exp(wide).sum())), -1e4).astype(np.float32)


def divergence(log_p: NDArray[np.float32], log_q: NDArray[np.float32]) -> float:
    """KL(p || q) in nats, at least 0: rounding may make it a little less."""
    p = np.asarray(log_p, np.float64)
    return max(0.0, float(np.sum(np.exp(p) * (p - log_q))))


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
