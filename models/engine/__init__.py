"""The engine: requests go in, events come out, one thread owns the model's context. Native code loads on first use.

options.py       how an engine is made (EngineOptions)
loading.py       what an engine runs on, from its files: model, adapters, context, draft model
rope.py          how far a model reads and how its positions are turned for that
engine.py        LlamaEngine: the thread and its queue, for any thread to call
core.py          EngineCore: step() = schedule → run → postprocess
scheduler.py     which request runs next and what part of it: policy, no tensors
prefix_cache.py  what each KV sequence holds, which one serves a prompt best, which one goes: policy, no tensors
sequence.py      the state of one request, from submit to its last event
preparing.py     what a request needs before it is read: its place, what is saved of it, its sampler and pictures
prompt.py        segments as a flat list of cache entries, with positions
runner.py        carries out a chunk on the context: tensors, no policy
steady.py        steps of answers in which nothing is to be decided: a decode, a choice, and no more
kv_cells.py      cuts, copies, saves and loads what sequences hold, shared or separate
kv_state.py      what llama.cpp's saved states look like inside
threads.py       how many threads pay off beside other programs: policy, no threads
speculation.py   guesses of what follows, and whether they pay: policy, no tensors
draft.py         a small model that guesses
request_checks.py  parameters of a request against their ranges
sampler.py       chooses the next token of one request
logit_edits.py   biases and penalties, applied to the few tokens that they concern
truncation.py    the tokens that can be chosen at all, and log-probabilities: numpy over the vocabulary
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hearth.models.engine.options import EngineOptions

if TYPE_CHECKING:
    from hearth.models.engine.engine import LlamaEngine

__all__ = ["EngineOptions", "LlamaEngine"]


def __getattr__(name: str) -> object:
    if name == "LlamaEngine":
        from hearth.models.engine.engine import LlamaEngine

        return LlamaEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
