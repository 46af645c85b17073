"""A small model of the same vocabulary that guesses what the large one will say. It never decides: see speculation.py.

It follows the texts of the one or two requests that are answered, each in a sequence of its own context, and knows only
their ends: what a guess needs stands there. More requests at a time use the processor well enough without guesses.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hearth.models.errors import ModelFileError

if TYPE_CHECKING:
    from hearth.models.engine.sequence import Sequence
    from hearth.models.engine.speculation import Calibration
    from hearth.models.llama import LlamaModel
    from hearth.models.llama_context import ContextOptions, LlamaContext

logger = logging.getLogger("hearth.engine")

MAX_DRAFTED = 2  # requests
WINDOW_TOKENS = 2048  # of a text that the model looks back on; behind them it starts again from the second half
READ_S = 0.05  # that answers wait in a step for it to read what came before them
FIRST_READ_TOKENS = 64  # until its speed was measured
MIN_READ_TOKENS = 16  # fewer than these are read along with guessing
MIN_RATE = 0.2  # of all guesses so far coming true; what follows is not worth the time
MAX_EXTRA_TOKENS = 128  # by which padding makes vocabularies of one family differ
N_COMPARED = 2048  # tokens of the vocabularies
SMOOTHING = 0.2


@dataclass(slots=True, eq=False)
class _Followed:
    """One sequence of the draft's context: a text's first token, which many models lean on, and what comes behind
    ``start``. ``tokens`` is exactly what it holds; ``n_agreed`` of them are known to be the text's and no guesses."""

    seq_id: int
    owner: object = None
    start: int = 0
    tokens: list[int] = field(default_factory=list)
    n_agreed: int = 0
    last_used: int = 0

    def wanted(self, text: list[int]) -> list[int]:
        return [text[0], *text[self.start + 1 :]] if self.start else text

    def n_common(self, text: list[int]) -> int:
        """How many tokens need not be read again."""
        if self.start >= len(text):
            return 0
        wanted, n = self.wanted(text), self.n_agreed
        while n < len(self.tokens) and n < len(wanted) and self.tokens[n] == wanted[n]:
            n += 1
        return n


@dataclass(slots=True)
class _Draft:
    """Guesses for one request."""

    calibration: Calibration
    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    rate: float = 1.0  # of all of them coming true, expected

    def add(self, token: int, p: float) -> bool:
        """Takes a guess of probability ``p`` if it is worth checking."""
        self.rate *= self.calibration.rate(p)
        if self.rate < MIN_RATE:
            return False
        self.tokens.append(token)
        self.probabilities.append(p)
        return True


def draft_context_options(model: LlamaModel, target: LlamaContext, n_threads: int) -> ContextOptions:
    """Of the context in which ``model`` guesses for that of ``target``."""
    from hearth.models.llama_context import RopeScaling

    n_ctx = MAX_DRAFTED * _window_of(model, target)
    n_batch = max(min(target.options.n_batch, n_ctx), MAX_DRAFTED * MIN_READ_TOKENS)
    return replace(
        target.options,
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_ubatch=min(target.options.n_ubatch, n_batch),
        n_seq_max=MAX_DRAFTED,
        n_outputs_max=MAX_DRAFTED,
        n_threads=n_threads,
        kv_type="f16",
        kv_unified=True,
        rope=RopeScaling(),
    )


def _window_of(model: LlamaModel, target: LlamaContext) -> int:
    return min(WINDOW_TOKENS, target.n_ctx_seq, model.n_ctx_train)


class DraftModel:
    """Made by any thread, used by the engine's."""

    def __init__(self, model: LlamaModel, target: LlamaContext, n_threads: int) -> None:
        """To guess for the model of ``target``, whose abort flag it shares. Takes ownership of ``model``, unless this
        raises: ModelFileError if it cannot guess for that one, EngineError if there is no memory for its context."""
        from hearth.models.llama_context import LlamaContext

        _check_cuttable(model, target.model)
        self.n_vocab = _count_common_tokens(model, target.model)  # token ids that both have
        self._model = model
        self._window = _window_of(model, target)
        options = draft_context_options(model, target, n_threads)
        self._context = LlamaContext(model, options, target.abort)
        self._followed = [_Followed(seq_id) for seq_id in range(MAX_DRAFTED)]
        self._read_token_s: float | None = None  # measured
        self._guess_s = 0.0  # what the last guesses took, without what was read before
        self._clock = 0
        self._failed = False

    def guess_for(self, running: list[Sequence]) -> float:
        """Has the requests that answer take guesses, if all that run do and they are few. Returns the seconds it took.

        If anything fails there are no more guesses: the answers do not need them.
        """
        if len(running) > MAX_DRAFTED or self._failed or not all(s.is_ready and s.is_answering for s in running):
            return 0.0
        started_s = time.perf_counter()
        try:
            asking: dict[Sequence, int] = {}
            for sequence in running:
                if sequence.speculation is not None and not sequence.cancelled:
                    n = sequence.speculation.n_drafts_wanted(sequence.num_guessable, len(running))
                    if n > 0:
                        asking[sequence] = n
            if not asking:
                return 0.0
            self._guess_s = 0.0
            drafts = self._guess(asking)
            for sequence, draft in drafts.items():
                if sequence.speculation is not None:
                    share_s = self._guess_s / len(drafts)
                    sequence.speculation.take_drafts(draft.tokens, draft.probabilities, len(running), share_s)
        except Exception:
            logger.exception("the draft model %s failed; it guesses no more", self._model.path.name)
            self._failed = True
        return time.perf_counter() - started_s

    def close(self) -> None:
        self._context.close()
        self._model.close()

    def _guess(self, asking: dict[Sequence, int]) -> dict[Sequence, _Draft]:
        """Guesses for those whose texts it has read; one of the others is read on. Nothing if it is interrupted."""
        drafts: dict[Sequence, _Draft] = {}
        followed: dict[Sequence, _Followed] = {}
        unread: dict[Sequence, list[int]] = {}
        behind: list[tuple[_Followed, list[int]]] = []
        for sequence, n in asking.items():
            assert sequence.speculation is not None
            text = sequence.speculation.text
            mine = followed[sequence] = self._follow(text, sequence, [*asking], n)
            tokens = mine.wanted(text)[len(mine.tokens) :]
            if len(tokens) <= MIN_READ_TOKENS:
                drafts[sequence] = _Draft(sequence.speculation.calibration)
                unread[sequence] = tokens
            elif not behind:
                behind.append((mine, tokens))
        for mine, tokens in behind:
            self._read(mine, tokens)
        started_s = time.perf_counter()
        while unread:
            rows = self._decode([(followed[sequence], tokens) for sequence, tokens in unread.items()])
            if rows is None:
                return {}
            for sequence, row in zip([*unread], rows, strict=True):
                del unread[sequence]
                draft, mine = drafts[sequence], followed[sequence]
                if not draft.tokens:
                    mine.n_agreed = len(mine.tokens)
                token, p = self._likeliest(row)
                # a guessed end saves nothing: the model says it in the row before
                is_guess = token < self.n_vocab and not self._model.is_eog(token)
                if is_guess and draft.add(token, p) and len(draft.tokens) < asking[sequence]:
                    unread[sequence] = [token]
        self._guess_s = time.perf_counter() - started_s
        return drafts

    def _follow(self, text: list[int], sequence: Sequence, asking: list[Sequence], n_guesses: int) -> _Followed:
        """The sequence of the context that holds most of the text, cut back to what it has of it."""
        mine = next((one for one in self._followed if one.owner is sequence), None)
        if mine is None:
            free = [one for one in self._followed if one.owner not in asking]
            for one in free:
                one.owner, one.n_agreed = None, 0
            mine = max(free, key=lambda one: (one.n_common(text), -one.last_used))
            mine.owner = sequence
        self._clock += 1
        mine.last_used = self._clock
        n_kept = mine.n_common(text)
        if n_kept == 0 or len(mine.wanted(text)) + n_guesses > self._window:
            n_kept = 0
            mine.start = 0 if len(text) <= 3 * self._window // 4 else len(text) - self._window // 2
        # the last token is read in any case: what follows it is wanted
        self._cut(mine, min(n_kept, len(mine.wanted(text)) - 1))
        return mine

    def _cut(self, mine: _Followed, n_tokens: int) -> None:
        if n_tokens < len(mine.tokens):
            self._context.seq_rm(mine.seq_id, n_tokens)
            del mine.tokens[n_tokens:]
        mine.n_agreed = min(mine.n_agreed, n_tokens)

    def _read(self, mine: _Followed, tokens: list[int]) -> None:
        """Some of a text that it is behind with, so that nobody waits long."""
        n = FIRST_READ_TOKENS if self._read_token_s is None else int(READ_S / self._read_token_s)
        some = tokens[: min(max(n, MIN_READ_TOKENS), self._context.n_batch, len(tokens) - 1)]
        started_s = time.perf_counter()
        if self._decode([(mine, some)]) is not None:
            token_s = (time.perf_counter() - started_s) / len(some)
            mean = self._read_token_s
            self._read_token_s = token_s if mean is None else (1 - SMOOTHING) * mean + SMOOTHING * token_s
            mine.n_agreed = len(mine.tokens)

    def _decode(self, parts: list[tuple[_Followed, list[int]]]) -> list[int] | None:
        """Reads tokens behind what the sequences hold. The batch rows of the last ones, None if it was interrupted."""
        n = [len(tokens) for _, tokens in parts]
        ends = np.cumsum(n)
        wanted = np.zeros(ends[-1], np.int8)
        wanted[ends - 1] = 1
        status = self._context.decode_tokens(
            np.concatenate([np.array(tokens, np.int32) for _, tokens in parts]),
            np.concatenate([len(mine.tokens) + np.arange(len(tokens), dtype=np.int32) for mine, tokens in parts]),
            np.repeat(np.array([mine.seq_id for mine, _ in parts], np.int32), n),
            wanted,
        )
        for mine, tokens in parts:
            if status == 0:
                mine.tokens += tokens
            else:
                self._context.seq_rm(mine.seq_id, len(mine.tokens))
        return [int(end) - 1 for end in ends] if status == 0 else None

    def _likeliest(self, row: int) -> tuple[int, float]:
        """The likeliest token after a row and its probability; that is 0 if the model gives no numbers."""
        logits = self._context.logits(row)
        token = int(logits.argmax())
        p = 1.0 / float(np.exp(logits - logits[token]).sum())
        return token, p if p > 0 else 0.0


def _check_cuttable(draft: LlamaModel, target: LlamaModel) -> None:
    for model in (draft, target):
        if model.is_recurrent or model.is_hybrid:
            raise ModelFileError(
                f"{model.path}: a recurrent model, which cannot take a guess back; "
                + ("leave draft_model out" if model is target else "choose another draft_model")
            )


def _count_common_tokens(draft: LlamaModel, target: LlamaModel) -> int:
    """Token ids that both models have. Raises ModelFileError if these are not the same tokens."""
    n_draft, n_target = draft.n_vocab, target.n_vocab
    if abs(n_draft - n_target) > MAX_EXTRA_TOKENS:
        raise ModelFileError(
            f"{draft.path}: it has {n_draft:,} tokens, {target.path.name} has {n_target:,}; a draft model needs the "
            "same vocabulary: choose a smaller model of the same family"
        )
    n_common = min(n_draft, n_target)
    for token in {*range(0, n_common, max(n_common // N_COMPARED, 1)), n_common - 1}:
        mine, theirs = draft.token_text(token), target.token_text(token)
        if mine != theirs:
            raise ModelFileError(
                f"{draft.path}: its token {token} is {_quoted(mine)}, that of {target.path.name} is {_quoted(theirs)}; "
                "a draft model needs the same vocabulary: choose a smaller model of the same family"
            )
    return n_common


def _quoted(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))
