"""The state of one request, from submit to its last event. No tensors; the engine's thread changes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from enum import Enum
from queue import SimpleQueue
from typing import TYPE_CHECKING

from hearth.models.detokenizer import Detokenizer, StopMatcher
from hearth.models.engine.prefix_cache import CachedSequence
from hearth.models.engine.prompt import Entry, Prompt
from hearth.models.engine.sampler import TokenSampler
from hearth.models.errors import HearthError
from hearth.models.types import (
    CacheReport,
    EngineEvent,
    EngineTimings,
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    MediaEmbeddings,
    PrefillProgress,
    TextDelta,
    TokenLogprobs,
    Usage,
)

if TYPE_CHECKING:
    from hearth.models.engine.disk_cache import Restore
    from hearth.models.engine.speculation import Speculation


SEND_EVERY_S = 0.04  # at most so long a word waits for the next: 25 times a second looks smooth


class Phase(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Sequence:
    """One request and what has become of it."""

    def __init__(self, request: GenerationRequest, prompt: Prompt, seed: int) -> None:
        self.request = request
        self.prompt = prompt
        self.seed = seed
        self.phase = Phase.WAITING
        self.cancelled = False
        self.is_forgotten = False  # its owner is: nothing of it is saved any more
        self.events: SimpleQueue[EngineEvent] = SimpleQueue()
        self._sink: Callable[[list[EngineEvent]], None] | None = None  # gets them instead of ``events``
        self._flush: Callable[[], None] | None = None  # has the sink pass on what it got
        self._sending = threading.Lock()  # guards both
        self._unsent: list[EngineEvent] = []
        self._sent_s = 0.0
        self._sent_text = False  # so that the first word never waits
        self.slot: CachedSequence | None = None  # its KV sequence while it runs
        self.sampler: TokenSampler | None = None
        self.speculation: Speculation | None = None
        self.restore: Restore | None = None  # what is being read from disk
        self.embeddings: dict[int, Future[MediaEmbeddings]] = {}  # of media on their way, by index in the prompt
        self.output: list[int] = []  # sampled ids; the last one is not in the KV cache yet
        self.found = CacheReport()
        self._detokenizer = Detokenizer()
        self._stops = StopMatcher(request.stop)
        self._stopped = False  # by a stop string
        self._text: list[str] = []
        self._n_texts_sent = 0
        self._logprobs: list[TokenLogprobs] = []
        self._n_logprobs_shown = 0  # of tokens up to the last that gave text
        self._n_logprobs_sent = 0
        self._lock = threading.Lock()  # guards the step from WAITING to anything else
        self.submitted_s = time.monotonic()
        self.admitted_s = self.submitted_s
        self._first_token_s: float | None = None
        self._queue_s: float | None = None
        self.restore_s = 0.0
        self.encode_s = 0.0
        self.prefill_s = 0.0

    @property
    def owner(self) -> str | None:
        """Whose saved KV blocks its own become."""
        return None if self.is_forgotten else self.request.owner

    @property
    def seq_id(self) -> int:
        """Its KV sequence. Only while it runs."""
        return self._running_slot().seq_id

    @property
    def num_entries(self) -> int:
        """Entries of the prompt and of the output so far."""
        return len(self.prompt.entries) + len(self.output)

    @property
    def num_computed_entries(self) -> int:
        """Entries that are in the KV cache: the next chunk starts here. Only while it runs."""
        return len(self._running_slot().entries)

    @property
    def entries(self) -> list[Entry]:
        """Prompt and output so far."""
        return [*self.prompt.entries, *self.output] if self.output else self.prompt.entries

    @property
    def is_answering(self) -> bool:
        """Whether its next step is one that goes on with the answer."""
        return bool(self.output) and self.num_computed_entries + 1 == self.num_entries

    @property
    def is_ready(self) -> bool:
        """Whether its next chunk can be decoded now: its cache is restored and the next picture is encoded."""
        if self.restore is not None:
            return False
        encoding = self.embeddings.get(self.num_computed_entries) if self.embeddings else None
        return encoding is None or encoding.done()

    def guesses(self, n_max: int) -> list[int]:
        """Tokens that may follow the last one, to be checked in the same step."""
        return [] if self.speculation is None else self.speculation.propose(min(n_max, self.num_guessable))

    @property
    def num_guessable(self) -> int:
        """Tokens that the answer may still have beside the one that a step gives anyway."""
        return self.request.max_tokens - len(self.output) - 1

    def entry(self, index: int) -> Entry:
        n_prompt = len(self.prompt.entries)
        return self.prompt.entries[index] if index < n_prompt else self.output[index - n_prompt]

    def position(self, index: int) -> int:
        """Position of the first cell of entry ``index``."""
        n_prompt = len(self.prompt.entries)
        return self.prompt.position(min(index, n_prompt)) + max(index - n_prompt, 0)

    def _running_slot(self) -> CachedSequence:
        if self.slot is None:
            raise RuntimeError(f"request {self.request.request_id} is not running")
        return self.slot

    def has_begun_after(self, moment_s: float) -> bool:
        """Whether its first token came later than ``moment_s``, of time.monotonic()."""
        return self._first_token_s is None or self._first_token_s > moment_s

    @property
    def num_tokens(self) -> int:
        """Prompt and output: the KV cells it takes once the last token is decoded."""
        return self.prompt.n_tokens + len(self.output)

    def admit(self) -> bool:
        """Leaves the queue. False if it was cancelled there."""
        with self._lock:
            if self.phase is not Phase.WAITING:
                return False
            self.phase = Phase.RUNNING
            self.admitted_s = time.monotonic()
            self._note_queued()
            return True

    def _note_queued(self) -> None:
        if self._queue_s is None:  # the first time; not after it was preempted
            self._queue_s = time.monotonic() - self.submitted_s

    def preempt(self) -> None:
        """Goes back to the queue with what it has; its KV sequence is taken from it."""
        with self._lock:
            self.phase = Phase.WAITING

    def cancel(self) -> None:
        """Asks for the end; a request that still waits ends at once. Any thread."""
        with self._lock:
            self.cancelled = True
            if self.phase is Phase.WAITING:
                self._note_queued()
                self._end_with(self._finished("cancelled"))

    def send(self) -> None:
        """Hands what happened to whoever reads ``events``, and has it passed on."""
        self.send_all((self,))

    @staticmethod
    def send_all(sequences: Collection[Sequence]) -> None:
        """As ``send``; what several have for the same reader is passed on once.

        Of fast answers not every token by itself, but what all have when one of them is due: a reader that wakes wants
        a processor and Python's lock, which the next step needs.
        """
        now = time.monotonic()
        if all(sequence.may_wait_s(now) > 0 for sequence in sequences):
            return
        flushes = {sequence._flush for sequence in sequences if sequence._hand_over(now)}
        for flush in flushes:
            if flush is not None:
                flush()

    def may_wait_s(self, now_s: float) -> float:
        """For how long its reader can do without what happened, from ``now_s`` of time.monotonic() on; 0 or less: it is
        due."""
        is_due = not self._sent_text or self.phase is Phase.ENDED
        return 0.0 if is_due else self._sent_s + SEND_EVERY_S - now_s

    def _hand_over(self, now_s: float) -> bool:
        """Hands what happened to the sink or to ``events``. False: nothing did."""
        self._sent_s = now_s
        self._sent_text = bool(self._text)
        self._note_text()
        unsent, self._unsent = self._unsent, []
        if not unsent:
            return False
        with self._sending:
            if self._sink is not None:
                self._sink(unsent)
            else:
                for event in unsent:
                    self.events.put(event)
        return True

    def deliver_to(self, sink: Callable[[list[EngineEvent]], None], flush: Callable[[], None] | None = None) -> None:
        """Hands what happened, and from now on what happens, to ``sink``, on the thread on which it does."""
        with self._sending:
            before: list[EngineEvent] = []
            while not self.events.empty():
                before.append(self.events.get())
            if before:
                sink(before)
            self._sink, self._flush = sink, flush
        if before and flush is not None:
            flush()

    def report_prefill(self) -> None:
        """Tells how much of the prompt is in the KV cache."""
        n_done = self._running_slot().n_tokens
        self._note_text()
        self._unsent.append(PrefillProgress(min(n_done, self.prompt.n_tokens), self.prompt.n_tokens))

    def append(self, token: int, piece: bytes) -> bool:
        """Takes a sampled token that is no end-of-generation token. True if a stop string was met."""
        self.note_token(token)
        return self._emit(self._detokenizer.push(piece))

    def note_logprobs(self, found: TokenLogprobs | None) -> None:
        """Takes the log-probabilities of the next token, if the request asked for them."""
        if found is not None:
            self._logprobs.append(found)

    def note_token(self, token: int) -> None:
        """Takes a sampled token without text."""
        if self._first_token_s is None:
            self._first_token_s = time.monotonic()
        self.output.append(token)

    def finish(self, reason: FinishReason) -> None:
        """Sends what text is left and the last event. Nothing happens if the request has ended."""
        with self._lock:
            if self.phase is Phase.ENDED:
                return
            if not self._stopped:
                self._emit(self._detokenizer.flush())
                self._show(self._stops.flush())
            self._end_with(self._finished(reason))

    def fail(self, error: HearthError) -> None:
        """Ends the request with an error. Nothing happens if it has ended."""
        with self._lock:
            if self.phase is not Phase.ENDED:
                self._end_with(Failed(error))

    def _end_with(self, event: EngineEvent) -> None:
        self.phase = Phase.ENDED
        self._note_text()
        self._unsent.append(event)
        self.send()

    def _emit(self, text: str) -> bool:
        shown, self._stopped = self._stops.push(text)
        self._show(shown)
        return self._stopped

    def _show(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._n_logprobs_shown = len(self._logprobs)

    def _note_text(self) -> None:
        """Makes one event of all text since the last."""
        new = self._text[self._n_texts_sent :]
        if new:
            shown = self._logprobs[self._n_logprobs_sent : self._n_logprobs_shown]
            self._unsent.append(TextDelta("".join(new), tuple(shown)))
            self._n_texts_sent, self._n_logprobs_sent = len(self._text), self._n_logprobs_shown

    def _finished(self, reason: FinishReason) -> Finished:
        cached = self.found.memory_tokens + self.found.disk_tokens
        return Finished(
            reason,
            "".join(self._text),
            tuple(self.output),
            Usage(self.prompt.n_tokens, cached, len(self.output)),
            self._timings(),
            self.seed,
            self.found,
            tuple(self._logprobs),
        )

    def _timings(self) -> EngineTimings:
        now = time.monotonic()
        first = self._first_token_s
        decode_s = now - first if first is not None else 0.0
        n_decoded = len(self.output) - 1  # the first token comes from the prefill
        return EngineTimings(
            queue_s=self._queue_s or 0.0,
            restore_s=self.restore_s,
            encode_s=self.encode_s,
            prefill_s=self.prefill_s,
            ttft_s=first - self.submitted_s if first is not None else 0.0,
            decode_s=decode_s,
            decode_tokens_per_s=n_decoded / decode_s if n_decoded > 0 and decode_s > 0 else 0.0,
        )


class SequenceHandle:
    """The submitter's end of a sequence (types.RequestHandle)."""

    def __init__(self, sequence: Sequence, interrupt: Callable[[], None]) -> None:
        self._sequence = sequence
        self._interrupt = interrupt

    def events(self) -> Iterator[EngineEvent]:
        """Yields until the terminal event, which is yielded too. Blocks; may be iterated once, from any thread."""
        while True:
            event = self._sequence.events.get()
            yield event
            if isinstance(event, Finished | Failed):
                return

    def deliver_to(self, sink: Callable[[list[EngineEvent]], None], flush: Callable[[], None] | None = None) -> None:
        """Instead of ``events``: ``sink`` is called with what happens, in order, mostly on the engine's thread, which
        waits meanwhile; and ``flush`` when it has for now got what there is, once for all requests that share it.
        Neither may raise."""
        self._sequence.deliver_to(sink, flush)

    def cancel(self) -> None:
        """Ends the request with Finished(reason="cancelled"), in prefill too. Any thread, any time."""
        self._sequence.cancel()
        self._interrupt()
