"""The process that kv_torture.py kills: an assistant that first answers in old chats, then chats on until its end.

Prints a JSON object a line: what it found in the store, and every turn with the token ids that went in and came out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ours

import hearth.engine_factory
from hearth.models.types import EngineEvent, Finished, GenerationRequest, TextSegment

ANSWER_TOKENS = 24
MAX_TURNS = 5  # of a conversation
KV_DISK_GIB = 0.01  # small, so that blocks are evicted too
WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "and",
    "dog",
    "hello",
    "seeing",
    "being",
    "key",
    "lamp",
    "river",
    "stone",
    "cloud",
    "seven",
    "nine",
    "green",
    "old",
    "king",
)


class Recorder:
    """Notes what went into an engine class and what came out last."""

    def __init__(self, kind: Any) -> None:
        self.request: GenerationRequest | None = None
        self.finished: Finished | None = None
        original = kind.submit

        def submit(engine: Any, request: GenerationRequest) -> RecordedHandle:
            self.request, self.finished = request, None
            return RecordedHandle(original(engine, request), self)

        kind.submit = submit


class RecordedHandle:
    """A request's handle that shows its end to the recorder."""

    def __init__(self, handle: Any, recorder: Recorder) -> None:
        self._handle, self._recorder = handle, recorder

    def events(self) -> Iterator[EngineEvent]:
        for event in self._handle.events():
            if isinstance(event, Finished):
                self._recorder.finished = event
            yield event

    def cancel(self) -> None:
        self._handle.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--verify", nargs="*", default=[], help="conversations to be looked at first")
    parser.add_argument("--isolate", action="store_true", help="the engine in a process of its own")
    parser.add_argument("--once", action="store_true", help="end in order after looking")
    given = parser.parse_args()
    hearth.engine_factory.make_engine = ours.make_saving_all  # type: ignore[assignment]
    recorder = _recorder(given.isolate)
    from hearth.assistant import Assistant

    rng = random.Random(given.seed)
    with Assistant(
        model=str(given.model),
        data_dir=given.data,
        n_ctx=4096,
        n_threads=1,
        temperature=0.0,
        max_tokens=ANSWER_TOKENS,
        kv_disk_gib=KV_DISK_GIB,
        kv_daily_write_gib=1000.0,
        isolate_engine=given.isolate,
    ) as assistant:
        _tell("open")
        for conversation in given.verify:
            messages = assistant.conversations.messages(conversation)
            _tell("messages", conversation=conversation, messages=[(one.role, one.text) for one in messages])
            _turn(assistant, recorder, conversation, _words(rng, 30))
        _tell("verified")
        if given.once:
            return 0
        conversation, n_turns = None, 0
        while True:
            conversation = _turn(assistant, recorder, conversation, _words(rng, rng.randint(20, 120)))
            n_turns += 1
            if n_turns == MAX_TURNS or rng.random() < 0.2:
                conversation, n_turns = None, 0


def _recorder(isolate: bool) -> Recorder:
    if isolate:
        from hearth.models.engine.process import ProcessEngine

        return Recorder(ProcessEngine)
    from hearth.models.engine.engine import LlamaEngine

    return Recorder(LlamaEngine)


def _turn(assistant: Any, recorder: Recorder, conversation: str | None, question: str) -> str:
    reply = assistant.ask(question, conversation=conversation, use_memory=False)
    request, finished = recorder.request, recorder.finished
    assert request is not None
    assert finished is not None
    prompt = [token for segment in request.segments if isinstance(segment, TextSegment) for token in segment.tokens]
    _tell(
        "turn",
        conversation=reply.conversation_id,
        question=question,
        answer=reply.text,
        prompt=prompt,
        tokens=list(finished.tokens),
        memory_tokens=finished.cache.memory_tokens,
        disk_tokens=finished.cache.disk_tokens,
    )
    identity: str = reply.conversation_id
    return identity


def _words(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n))


def _tell(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
