"""Searching for the best translation: greedy, and with a beam (section 6.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autograd import to_host
from autograd.backend import Array, array_module, backend_of
from npformer.decoder import DecoderState
from npformer.hypotheses import Continuations, Hypothesis, read_back, survivors
from npformer.packed import Packed
from npformer.transformer import Transformer

_LARGEST_PENALTY = 30  # above it the divisor of a long translation overflows
# More is a slip of the hand, and takes hours, or all memory: there is room for each token of each
# hypothesis from the beginning.
LARGEST_BEAM = 1_000
_LARGEST_EXTRA = 10_000


@dataclass(frozen=True)
class SearchSettings:
    """How to search. The defaults are the paper's.

    Attributes:
        beam: hypotheses kept for each sentence; 1 is greedy search
        length_penalty: α, 0 to 30; a longer translation is favoured the more, the larger it is
        penalty: "gnmt", log P / ((5 + n) / 6)^α (the paper; Wu et al., 2016), or "power",
            log P / n^α (fairseq's --lenpen, CTranslate2's length_penalty). n counts the end token.
        extra_length: a translation has at most this many tokens more than its source
        alternatives: how many translations of each sentence to return, at most `beam`
    """

    beam: int = 4
    length_penalty: float = 0.6
    penalty: Literal["gnmt", "power"] = "gnmt"
    extra_length: int = 50
    alternatives: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be searched with."""
        for name in ("beam", "extra_length", "alternatives"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(f"{name} must be a whole number; it is {value!r}")
        for name, most in (("beam", LARGEST_BEAM), ("extra_length", _LARGEST_EXTRA)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be 1 to {most:,}; it is {value:,}")
        alpha = self.length_penalty
        if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number):
            raise ValueError(f"length_penalty must be a number; it is {alpha!r}")
        if not 0 <= alpha <= _LARGEST_PENALTY:
            raise ValueError(f"length_penalty must be 0 to {_LARGEST_PENALTY}; it is {alpha}")
        if self.penalty not in ("gnmt", "power"):
            raise ValueError(f"penalty must be gnmt or power; it is {self.penalty!r}")
        if not 1 <= self.alternatives <= self.beam:
            raise ValueError(
                f"alternatives must lie between 1 and beam ({self.beam}); it is {self.alternatives}"
            )

    def divisor(self, length: Array) -> Array:
        """What log P of a translation of `length` tokens is divided by."""
        base = (5 + length) / 6 if self.penalty == "gnmt" else 1.0 * length
        return base**self.length_penalty


def search(
    model: Transformer,
    source: Packed,
    settings: SearchSettings = SearchSettings(),
    begin_id: int = 1,
    end_id: int = 2,
) -> list[list[Hypothesis]]:
    """The best translations of each packed source sentence, best first.

    A source sentence ends with the end token. Where no hypothesis ends in time, the best ones
    that have not ended are returned.

    All of it happens where the model lies. The host gets the hypotheses when all are there; on the
    way it only looks, now and then, which sentences are over, and drops them.
    """
    limits = _limits(model, source, settings)
    longest = int(limits.max(initial=0))
    state = model.start(source, settings.beam, capacity=max(longest, 1))
    steps_between_looks = backend_of(state.sentences).steps_between_looks
    live = (_Greedy if settings.beam == 1 else _Beam)(state, limits, settings, begin_id, end_id)
    running = np.arange(len(source))
    trace: list[Continuations] = []
    while len(trace) < longest:
        log_p, next_ids = model.likeliest(live.ids.reshape(-1), state, live.count)
        trace.append(live.grow(log_p, next_ids))
        if state.length % steps_between_looks == 0:
            over = to_host(live.is_over)
            if over.any():
                live.keep(np.flatnonzero(~over))
                running = running[~over]
                longest = int(limits[running].max(initial=0))
    divisors = np.array([settings.divisor(n + 1) for n in range(len(trace))])
    return read_back(trace, divisors, limits, end_id, settings.beam, settings.alternatives)


def _limits(model: Transformer, source: Packed, settings: SearchSettings) -> np.ndarray:
    """The most tokens that each translation may have, its end included. [sentences]."""
    limits = source.lengths - 1 + settings.extra_length
    if model.config.positions == "learned":
        limits = np.minimum(limits, model.config.max_length)
    return limits


class _Beam:
    """The hypotheses that grow, `beam` of each running sentence, best first.

    ids [running, beam] are their last token ids, log_p [running, beam] (float64) their
    probabilities, minus infinity where there is no hypothesis; found [running, alternatives] the
    scores of the best that have ended, best last; limits [running] the lengths at which sentences
    stop, and divisors the penalties there. A sentence that is over has no hypothesis that grows,
    and so finds no more while it is carried along until the host looks.
    """

    def __init__(
        self,
        state: DecoderState,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        owner = backend_of(state.sentences)
        shape = len(limits), settings.beam
        self.state, self.settings, self.end_id = state, settings, end_id
        # Twice the beam is enough: at most one continuation of each row is its end. Greedy search
        # needs to know but the likeliest.
        self.count = 1 if settings.beam == 1 else 2 * settings.beam
        self.ids = owner.module.full(shape, begin_id)
        # At first all rows of a sentence are equal, so only one of them may be continued.
        self.log_p = owner.module.full(shape, -math.inf)
        self.log_p[:, 0] = 0
        self.found = owner.module.full((len(limits), settings.alternatives), -math.inf)
        self.limits = owner.asarray(limits)
        self.divisors = owner.asarray(settings.divisor(limits))

    @property
    def is_over(self) -> Array:
        """[running]: of which sentences no hypothesis grows any more."""
        return self.log_p[:, 0] == -math.inf

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        """Take the next step; next_log_p and next_ids [running · beam, n] are each row's likeliest.

        The best continuations that have not ended are the beam from now on.
        """
        xp, beam = array_module(self.log_p), self.settings.beam
        running, n = len(self.log_p), next_ids.shape[1]
        each = xp.arange(running)[:, None]
        log_p = (self.log_p.reshape(-1, 1) + next_log_p).reshape(running, -1)
        log_p = _hypotheses(log_p)
        best = xp.argsort(-log_p, axis=1, kind="stable")[:, : self.count]
        log_p, rows, ids = log_p[each, best], best // n, next_ids.reshape(running, -1)[each, best]
        step = Continuations(self.state.sentences, log_p, rows, ids)

        ends = ids == self.end_id
        scores = log_p / self.settings.divisor(self.state.length)
        found = xp.concatenate([self.found, xp.where(ends, scores, -math.inf)], axis=1)
        self.found = xp.sort(found, axis=1)[:, -self.settings.alternatives :]

        alive = survivors(ids, self.end_id, beam)
        log_p = xp.where(ends, -math.inf, log_p)[each, alive]
        rows, self.ids = rows[each, alive], ids[each, alive]
        self.state.reorder((each * beam + rows).reshape(-1))
        # log P only falls, and divides by at most the penalty at the limit: no live hypothesis of
        # a sentence can do better than this.
        bounds = log_p[:, 0] / self.divisors
        self._go_on(log_p, self.found[:, 0] >= bounds)
        return step

    def _go_on(self, log_p: Array, is_over: Array) -> None:
        """Go on from log_p [running, beam], except with sentences that are over."""
        is_over = is_over | (self.limits <= self.state.length)
        self.log_p = array_module(log_p).where(is_over[:, None], -math.inf, log_p)

    def keep(self, running: np.ndarray) -> None:
        """Forget all running sentences but these."""
        stay = backend_of(self.log_p).asarray(running)
        self.state.keep(stay)
        self.ids, self.log_p, self.found = self.ids[stay], self.log_p[stay], self.found[stay]
        self.limits, self.divisors = self.limits[stay], self.divisors[stay]


def _hypotheses(log_p: Array) -> Array:
    """What is no number is no hypothesis."""
    return array_module(log_p).fmax(log_p, -math.inf)


class _Greedy(_Beam):
    """A beam of one: the likeliest token, then the likeliest after it, until that is the end."""

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        log_p = _hypotheses(self.log_p + next_log_p)
        rows, self.ids = array_module(next_ids).zeros_like(next_ids), next_ids
        self._go_on(log_p, next_ids[:, 0] == self.end_id)
        return Continuations(self.state.sentences, log_p, rows, next_ids)
