"""Native samplers as owned Python objects, over small arrays of candidates.

As ``llama.py``, this decides nothing. Give candidates only logits that are numbers or -inf: llama.cpp sorts with ``<``,
which NaN breaks. An exception that is thrown in native code ends the process, so what could throw is checked before.
"""

from __future__ import annotations

import ctypes
import json
import math
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearth.models.errors import EngineError, RequestError
from hearth.models.gbnf import check_gbnf
from hearth.models.llama import LlamaModel, json_schema_to_gbnf, native

MAX_DRY_PROTOTYPES = 4  # per model; each holds some thousand tokens
MAX_TOKEN_S = 0.5  # of processor time that a grammar may take for one token; 20 µs are usual
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data

Stage = tuple[str, tuple[Any, ...]]
"""The name of a ``llama_sampler_init_*`` and its arguments."""


class Candidates:
    """Tokens with their logits in llama.cpp's layout, which samplers change in place."""

    __slots__ = ("_data", "_ids", "_logits", "_view", "array", "pointer")

    def __init__(self, tokens: NDArray[Any], logits: NDArray[np.float32]) -> None:
        """Copies both, of shape (n,)."""
        self._view = native.llama_token_data_array()
        self.pointer = ctypes.byref(self._view)
        self._make_room(len(tokens))
        self.fill(tokens, logits)

    def _make_room(self, n: int) -> None:
        self.array = np.zeros(n, _TOKEN_DATA)
        self._ids, self._logits = self.array["id"], self.array["logit"]
        self._data = ctypes.cast(self.array.ctypes.data, native.llama_token_data_p)

    def fill(self, tokens: NDArray[Any], logits: NDArray[np.float32]) -> None:
        """Takes others, also of shape (n,), in place of those that are there."""
        n = len(tokens)
        if n > len(self.array):
            self._make_room(2 * n)
        self._ids[:n], self._logits[:n] = tokens, logits
        view = self._view
        view.data, view.size, view.selected, view.sorted = self._data, n, -1, False

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits in the order given, as long as no sampler that sorts was applied."""
        logits: NDArray[np.float32] = self._logits[: self._view.size]
        return logits

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Those that no sampler has dropped, best first if one has sorted them."""
        tokens: NDArray[np.int32] = self._ids[: self._view.size]
        return tokens

    @property
    def selected(self) -> int:
        """The token that a selecting sampler chose. Raises EngineError if none was."""
        if not 0 <= self._view.selected < self._view.size:
            raise EngineError("the sampler chose no token; the model's output may be damaged")
        return int(self._ids[self._view.selected])


class NativeSampler:
    """A native sampler, freed by ``close()`` or with the object."""

    def __init__(self, handle: Any) -> None:
        """Takes ownership."""
        self._handle = handle
        self._free = weakref.finalize(self, native.llama_sampler_free, handle)

    @classmethod
    def chain(cls, stages: Sequence[Stage]) -> NativeSampler:
        """Samplers one behind another."""
        chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
        for name, arguments in stages:
            native.llama_sampler_chain_add(chain, getattr(native, f"llama_sampler_init_{name}")(*arguments))
        return cls(chain)

    @property
    def handle(self) -> Any:
        if not self._free.alive:
            raise EngineError("the sampler is closed")
        return self._handle

    def apply(self, candidates: Candidates) -> None:
        native.llama_sampler_apply(self.handle, candidates.pointer)

    def accept(self, token: int) -> None:
        """Tells the sampler that ``token`` is part of the text now."""
        native.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        self._free()


class Grammar:
    """Where a text stands in a grammar, and what may follow."""

    def __init__(self, model: LlamaModel, gbnf: str, name: str) -> None:
        """Raises RequestError, which names ``name``, for a grammar that cannot be followed."""
        check_gbnf(gbnf, name)
        handle = native.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
        if not handle:
            raise RequestError(f"{name} was refused by llama.cpp; simplify it")
        self._sampler = NativeSampler(handle)
        self._name = name
        self._one = Candidates(np.zeros(1, np.int32), np.zeros(1, np.float32))

    def allows(self, token: int) -> bool:
        """Whether ``token`` may be next: much cheaper than asking about all. EngineError if it takes too long."""
        self._one.array[0] = (token, 1.0, 0.0)
        started_s = time.thread_time()
        self._sampler.apply(self._one)
        self._check_time(started_s)
        return not math.isinf(self._one.array["logit"][0])

    def allowed(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of ``tokens`` may be next. About 0.2..2 µs for each."""
        candidates = Candidates(tokens, np.zeros(len(tokens), np.float32))
        self._sampler.apply(candidates)
        return np.isfinite(candidates.logits)

    def accept(self, token: int) -> None:
        """Takes the next token, which must be allowed: llama.cpp ends the process if it is not."""
        started_s = time.thread_time()
        self._sampler.accept(token)
        self._check_time(started_s)

    def close(self) -> None:
        self._sampler.close()

    def _check_time(self, started_s: float) -> None:
        # every way to read the text so far is followed; with an ambiguous grammar they double with each character
        if time.thread_time() - started_s > MAX_TOKEN_S:
            raise EngineError(f"{self._name} can read this text in too many ways; make it less ambiguous")


def grammar_of_json_schema(schema: dict[str, Any]) -> str:
    """A GBNF grammar for JSON that fits the schema. Raises RequestError for a schema that cannot be one."""
    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, AssertionError) as error:
        raise RequestError(f"json_schema is not a schema that can be followed: {error}") from error


def suppressed_tokens(model: LlamaModel) -> list[int]:
    """Tokens that the model's file says never to choose."""
    count = ctypes.c_int32()
    tokens = native.llama_vocab_get_suppress_tokens(model.vocab, ctypes.byref(count))
    return list(tokens[: count.value]) if count.value else []


_dry_prototypes: weakref.WeakKeyDictionary[LlamaModel, OrderedDict[tuple[Any, ...], NativeSampler]]
_dry_prototypes = weakref.WeakKeyDictionary()


def dry_sampler(
    model: LlamaModel, multiplier: float, base: float, allowed_length: int, last_n: int, breakers: tuple[str, ...]
) -> NativeSampler:
    """A DRY sampler that has seen nothing yet.

    llama.cpp looks for each breaker in all tokens, 0.2 s for a vocabulary of 128k: this is done once and copied.
    """
    key = (multiplier, base, allowed_length, last_n, breakers)
    prototypes = _dry_prototypes.setdefault(model, OrderedDict())
    if key not in prototypes:
        strings = (ctypes.c_char_p * len(breakers))(*(breaker.encode() for breaker in breakers))
        arguments = (model.vocab, multiplier, base, allowed_length, last_n, strings, len(breakers))
        prototypes[key] = NativeSampler(native.llama_sampler_init_dry(*arguments))
        if len(prototypes) > MAX_DRY_PROTOTYPES:
            prototypes.popitem(last=False)
    prototypes.move_to_end(key)
    return NativeSampler(native.llama_sampler_clone(prototypes[key].handle))
