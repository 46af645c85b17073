"""Guesses what follows, from what stood before or by a draft model; all are checked in one step. Policy only.

After Saxena 2023 (prompt lookup decoding) and Leviathan et al. 2023 (arXiv 2211.17192). The model samples at every
guessed place from its own distribution and the first difference ends the step, so the answer is the one it would have
given without guesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, count, takewhile
from operator import mul

from hearth.models.engine.prompt import Entry

LONGEST_MATCH = 3  # tokens that must agree, tried first
SHORTEST_MATCH = 2
# Rows that kernels take at once, less the one that is decoded anyway: see scheduler.ROWS_AT_ONCE. Measured, 0.5 B Q4_0,
# two cores, steps of 1, 4, 8 and 16 rows with their logits: 12.8, 33.5, 60.8 and 92.3 ms
LOOKUP_LENGTHS = (3, 7, 15)
MAX_DRAFTS = 10
SURE_MATCH = 8  # tokens that agreed, after which a text is followed over one that does not
MAX_ASTRAY = 3  # such tokens in a row, after which it is not
MIN_STEPS_MEASURED = 3  # before it is judged whether lookup pays
MIN_DRAFTS_MEASURED = 16  # the same of a draft model: its guesses must be known before as many are made as pay
PROBE_EVERY = 32  # answers steps without a guess, after which one is tried again
MAX_DRAFT_PROBE_EVERY = 1024  # the draft model's pauses double up to this: it has to read what it missed
MIN_PLAIN_STEPS = 3  # measured before a draft model is asked, which would leave nothing to compare with
MAX_PLAIN_AGE = 64  # steps with guesses, after which one without is measured again
SMOOTHING = 0.15
N_BINS = 10  # of probabilities
PRIOR_POWER = 0.25  # of a probability: what is believed at first, with hope
PRIOR_WEIGHT = 4.0  # observations that what is believed at first counts for
FORGETTING = 0.98  # by every further observation


class NgramIndex:
    """Where each run of ``LONGEST_MATCH`` and ``SHORTEST_MATCH`` tokens stood last; grows with the text.

    A text that was found is followed as long as the new one goes along with it, after a while over a changed token too.
    """

    def __init__(self) -> None:
        self._tokens: list[Entry] = []
        # by length: n-gram → index of the token after its last place. The n-gram at the very end has none after it yet
        self._after: dict[int, dict[tuple[Entry, ...], int]] = {LONGEST_MATCH: {}, SHORTEST_MATCH: {}}
        self._followed: int | None = None  # index of what should come next, if the text that was found goes on
        self._n_along = self._n_astray = 0  # tokens lately that were as there, and that were not

    def extend(self, tokens: Sequence[Entry]) -> None:
        n_before = len(self._tokens)
        self._follow(tokens)
        self._tokens.extend(tokens)
        for n, after in self._after.items():
            # a prompt of thousands of tokens comes at once and others wait meanwhile: zip is ten times a loop
            first = max(0, n_before - n)
            known = self._tokens[first:-1]
            after.update(zip(zip(*(known[k:] for k in range(n)), strict=False), count(first + n)))

    def continuation(self, n_max: int) -> list[int]:
        """What followed the last tokens when they stood before; empty if they did not."""
        if self._followed is None or self._n_along < LONGEST_MATCH:
            found = [after.get(tuple(self._tokens[-n:])) for n, after in self._after.items()]
            start = next((place for place in found if place is not None), None)
            if start is not None:
                self._followed, self._n_along, self._n_astray = start, LONGEST_MATCH, 0
        if self._followed is None:
            return []
        entries = self._tokens[self._followed : self._followed + n_max]
        return [token for token in takewhile(lambda entry: isinstance(entry, int), entries) if isinstance(token, int)]

    def _follow(self, tokens: Sequence[Entry]) -> None:
        for token in tokens:
            if self._followed is None:
                return
            if token == self._tokens[self._followed]:
                self._n_along, self._n_astray = self._n_along + 1, 0
            else:
                is_sure = self._n_along >= SURE_MATCH or self._n_astray
                self._n_along, self._n_astray = 0, self._n_astray + 1 if is_sure else MAX_ASTRAY + 1
            self._followed += 1
            if self._n_astray > MAX_ASTRAY or self._followed >= len(self._tokens):
                self._followed = None


class Trial:
    """One way of guessing: as many tokens as lately came true, and a pause where that does not pay."""

    def __init__(
        self, like: Trial | None = None, *, n_learning: int = MIN_STEPS_MEASURED, max_probe_every: int = PROBE_EVERY
    ) -> None:
        """``like`` is the same way in another text, where this one starts from. It is not judged for ``n_learning``
        steps; pauses double up to a maximum."""
        self._n_guesses: int = LOOKUP_LENGTHS[0] if like is None else like._n_guesses
        # tokens a guessing step gave per unit of cost, smoothed
        self._gain: float | None = None if like is None else like._gain
        self._n_measured: int = 0 if like is None else like._n_measured
        self._probe_every: int = PROBE_EVERY if like is None else like._probe_every
        self._n_learning, self._max_probe_every = n_learning, max_probe_every
        self._n_silent = 0

    def n_wanted(self, n_max: int) -> int:
        """How many tokens to guess in this step; 0 if they do not pay."""
        return min(self._n_guesses, n_max) if n_max > 0 and self.pays() else 0

    def pays(self) -> bool:
        """Whether to guess in this step. Asked once a step."""
        if self._n_measured >= self._n_learning and self._gain is not None and self._gain < 1.0:
            self._n_silent += 1
            if self._n_silent < self._probe_every:
                return False
            self._n_silent = 0
            self._probe_every = min(2 * self._probe_every, self._max_probe_every)
        return True

    def checked(self, n_proposed: int, n_accepted: int, gain: float) -> None:
        """Learns how many of a step's guesses came true, and how many tokens the step gave per unit of cost."""
        self._n_measured += 1
        self._gain = gain if self._gain is None else (1 - SMOOTHING * 2) * self._gain + SMOOTHING * 2 * gain
        if self._gain >= 1.0:
            self._probe_every = PROBE_EVERY
        if not n_proposed:
            return
        if n_accepted == n_proposed:
            self._n_guesses = next((n for n in LOOKUP_LENGTHS if n > self._n_guesses), LOOKUP_LENGTHS[-1])
        elif n_accepted < n_proposed // 2:
            self._n_guesses = next((n for n in reversed(LOOKUP_LENGTHS) if n < self._n_guesses), LOOKUP_LENGTHS[0])


class Calibration:
    """How often a draft model's guesses come true, by the probability it gives them: small models are unsure of much
    that is obvious to the large one, and what is drawn at a temperature comes true less often than what is greedy."""

    def __init__(self) -> None:
        self._n: list[float] = [PRIOR_WEIGHT] * N_BINS
        self._n_true: list[float] = [PRIOR_WEIGHT * ((i + 0.5) / N_BINS) ** PRIOR_POWER for i in range(N_BINS)]

    def rate(self, p: float) -> float:
        """Share of guesses of probability ``p`` that come true."""
        i = min(int(p * N_BINS), N_BINS - 1)
        return self._n_true[i] / self._n[i]

    def note(self, p: float, came_true: bool) -> None:
        i = min(int(p * N_BINS), N_BINS - 1)
        self._n[i] = FORGETTING * self._n[i] + 1
        self._n_true[i] = FORGETTING * self._n_true[i] + came_true


class StepCosts:
    """What a step of answers takes by its requests and guesses, measured; shared by all requests of an engine."""

    def __init__(self) -> None:
        # how the draft model did lately, for greedy answers and for others: a new request goes on from there
        self.drafts: dict[bool, Trial] = {}
        self.calibrations = {greedy: Calibration() for greedy in (True, False)}
        self._seconds: dict[tuple[int, int], float] = {}
        self._n_plain: dict[int, int] = {}  # requests in a step → steps measured without guesses
        self._plain_age: dict[int, int] = {}  # steps since
        self._last: tuple[int, int] | None = None

    def measured(self, n_requests: int, n_guesses: int, elapsed_s: float) -> None:
        """A step of answers only, all of whose guesses came to ``n_guesses``."""
        key = self._last = (n_requests, n_guesses)
        mean = self._seconds.get(key)
        self._seconds[key] = elapsed_s if mean is None else (1 - SMOOTHING) * mean + SMOOTHING * elapsed_s
        if n_guesses:
            self._plain_age[n_requests] = self._plain_age.get(n_requests, 0) + 1
        else:
            self._n_plain[n_requests] = self._n_plain.get(n_requests, 0) + 1
            self._plain_age[n_requests] = 0

    def mixed(self) -> None:
        """A step that had something else in it: what it took says nothing about guesses."""
        self._last = None

    def plain_is_known(self, n_requests: int) -> bool:
        """Whether steps of so many requests were measured without guesses lately."""
        n_plain, age = self._n_plain.get(n_requests, 0), self._plain_age.get(n_requests, 0)
        return n_plain >= MIN_PLAIN_STEPS and age < MAX_PLAIN_AGE

    def of_guesses(self, n_own: int, draft_s: float) -> float | None:
        """What the last step cost for the request that had ``n_own`` of its guesses, in steps without any: 1 if they
        were free. What others had to wait is its cost too. None if that is not known."""
        if self._last is None:
            return None
        n_requests, n_guesses = self._last
        plain_s = self._seconds.get((n_requests, 0))
        if not plain_s or not n_guesses:
            return None
        extra_s = (self._seconds[self._last] - plain_s) * n_own / n_guesses + draft_s
        return 1.0 + n_requests * extra_s / plain_s

    def best_length(self, rates: Sequence[float], n_requests: int, draft_s: float) -> int:
        """How many guesses are worth checking in a step of ``n_requests``, the first i of which all come true with
        ``rates[i - 1]``: so many that most tokens a second are to be expected."""
        n_tokens = float(n_requests)
        best, best_speed = 0, n_tokens / (self._expected_s(n_requests, 0) + draft_s)
        for n, rate in enumerate(rates, 1):
            n_tokens += rate
            speed = n_tokens / (self._expected_s(n_requests, n) + draft_s)
            if speed > best_speed:
                best, best_speed = n, speed
        return best

    def _expected_s(self, n_requests: int, n_guesses: int) -> float:
        """What a step takes, from what was measured of others like it."""
        known = sorted(n for requests, n in self._seconds if requests == n_requests)
        if n_guesses in known or not known:
            return self._seconds.get((n_requests, n_guesses), 1.0)
        more = next((n for n in known if n > n_guesses), known[-1])  # the last: its slope goes on
        less = next((n for n in reversed(known) if n < min(more, n_guesses)), known[0])
        if more == less:
            return self._seconds[n_requests, less]
        less_s, more_s = self._seconds[n_requests, less], self._seconds[n_requests, more]
        return less_s + (more_s - less_s) * (n_guesses - less) / (more - less)

    def of_drafting(self, n_requests: int, draft_s: float) -> float | None:
        """As ``of_guesses``, where the draft model had no guess."""
        plain_s = self._seconds.get((n_requests, 0))
        return 1.0 + n_requests * draft_s / plain_s if plain_s else None


class Speculation:
    """The guesses of one request: by lookup where its text has stood before, else by a draft model if there is one."""

    def __init__(
        self,
        prompt: Sequence[Entry],
        costs: StepCosts,
        *,
        lookup: bool = True,
        draft_vocab: int = 0,
        greedy: bool = True,
    ) -> None:
        """``draft_vocab``: there is a draft model that knows so many tokens."""
        self.calibration = costs.calibrations[greedy]
        self._costs = costs
        self._index = NgramIndex() if lookup else None
        self._lookup = Trial(n_learning=MIN_STEPS_MEASURED)
        self._draft: Trial | None = None
        if draft_vocab:
            before = costs.drafts.get(greedy)
            self._draft = Trial(before, n_learning=MIN_DRAFTS_MEASURED, max_probe_every=MAX_DRAFT_PROBE_EVERY)
        self._greedy = greedy
        self._draft_vocab = draft_vocab
        self.text: list[int] = []  # what the draft model goes by: no pictures, nothing that it does not know
        self._guesses: list[int] | None = None  # for the next step, if they were made already
        self._draft_s: float | None = None  # what they took, if a draft model made them
        self._probabilities: list[float] = []  # that it gave them
        self._drafting = False  # the draft model was asked, which may have to read before it guesses
        self._n_paused = 0
        self._extend(prompt)

    def note(self, tokens: Sequence[int]) -> None:
        """Takes tokens of the answer."""
        self._extend(tokens)
        self._guesses = None

    def pause(self) -> None:
        """Guesses nothing for a while: there is no room."""
        self._n_paused = PROBE_EVERY
        self._guesses = self._draft_s = None

    def n_drafts_wanted(self, n_max: int, n_requests: int) -> int:
        """How many tokens, at most ``n_max``, the draft model is to guess for the next step of ``n_requests``. 0 if
        lookup knows some, if drafts do not pay, or until a step without guesses was measured to compare with."""
        if self._draft is None or self._n_paused or not self.text:
            return 0
        if self._guesses is None:
            self._guesses = self._look_up(n_max)
        if self._guesses or self._draft_s is not None or not self._costs.plain_is_known(n_requests):
            return 0
        if not self._drafting:
            self._drafting = n_max > 0 and self._draft.pays()
        return min(MAX_DRAFTS, n_max) if self._drafting else 0

    def take_drafts(self, tokens: list[int], probabilities: list[float], n_requests: int, elapsed_s: float) -> None:
        """Takes what is worth it of the draft model's guesses, which took ``elapsed_s``."""
        assert self._draft is not None
        rates = [*accumulate((self.calibration.rate(p) for p in probabilities), mul)]
        n = self._costs.best_length(rates, n_requests, elapsed_s)
        self._guesses, self._probabilities = tokens[:n], probabilities[:n]
        self._draft_s, self._drafting = elapsed_s, False
        cost = None if n else self._costs.of_drafting(n_requests, elapsed_s)
        if cost is not None:
            self._learn_of_drafts(0, 0, 1 / cost)

    def propose(self, n_max: int) -> list[int]:
        """Guesses for the next tokens; empty if there are none or they do not pay."""
        if self._n_paused:
            self._n_paused -= 1
            return []
        guesses = (self._look_up(n_max) if self._guesses is None else self._guesses)[: max(n_max, 0)]
        if not guesses:
            self._draft_s = None
        return guesses

    def expects(self, n_max: int) -> bool:
        """Whether there are guesses for the next step, which ``propose`` then gives. Without a draft model."""
        if self._n_paused:
            self._n_paused -= 1
            return False
        if self._guesses is None:
            self._guesses = self._look_up(n_max)
        return bool(self._guesses)

    def checked(self, n_proposed: int, n_accepted: int) -> None:
        """Learns how many of a step's guesses came true."""
        draft_s, self._draft_s = self._draft_s, None
        if not n_proposed:
            return
        cost = self._costs.of_guesses(n_proposed, draft_s or 0.0)
        if draft_s is None:
            gain = (1 + n_accepted) / cost if cost else 1.0 + n_accepted / n_proposed
            self._lookup.checked(n_proposed, n_accepted, gain)
            return
        for i, p in enumerate(self._probabilities[: min(n_accepted + 1, n_proposed)]):
            self.calibration.note(p, i < n_accepted)
        if cost:
            self._learn_of_drafts(n_proposed, n_accepted, (1 + n_accepted) / cost)

    def _learn_of_drafts(self, n_proposed: int, n_accepted: int, gain: float) -> None:
        assert self._draft is not None
        self._draft.checked(n_proposed, n_accepted, gain)
        self._costs.drafts[self._greedy] = self._draft

    def _extend(self, tokens: Sequence[Entry]) -> None:
        if self._index is not None:
            self._index.extend(tokens)
        if self._draft is not None:
            self.text.extend(token for token in tokens if isinstance(token, int) and token < self._draft_vocab)

    def _look_up(self, n_max: int) -> list[int]:
        n = self._lookup.n_wanted(n_max) if self._index is not None else 0
        return self._index.continuation(n) if self._index is not None and n else []
