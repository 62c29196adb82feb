"""Greedy and beam search for the best translation (section 6.1)."""

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

_LARGEST_PENALTY = 30  # with more, the divisor of a long translation overflows
# More is probably a typo, and would take hours or all memory: the cache is allocated at once, with
# room for every token of every hypothesis.
LARGEST_BEAM = 1_000
_LARGEST_EXTRA = 10_000


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search. The defaults are the paper's.

    Attributes:
        beam: hypotheses kept per sentence; 1 is greedy search
        length_penalty: α, 0 to 30; the larger, the longer the translations
        penalty: "gnmt", log P / ((5 + n) / 6)^α (the paper; Wu et al., 2016), or "power",
            log P / n^α (fairseq's --lenpen, CTranslate2's length_penalty). n counts the end token.
        extra_length: a translation has at most this many tokens more than its source
        alternatives: translations returned per sentence, at most `beam`
    """

    beam: int = 4
    length_penalty: float = 0.6
    penalty: Literal["gnmt", "power"] = "gnmt"
    extra_length: int = 50
    alternatives: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for invalid settings."""
        for name in ("beam", "extra_length", "alternatives"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        for name, largest in (("beam", LARGEST_BEAM), ("extra_length", _LARGEST_EXTRA)):
            value = getattr(self, name)
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be 1 to {largest:,}, got {value:,}")
        alpha = self.length_penalty
        if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number):
            raise ValueError(f"length_penalty must be a number, got {alpha!r}")
        if not 0 <= alpha <= _LARGEST_PENALTY:
            raise ValueError(f"length_penalty must be 0 to {_LARGEST_PENALTY}, got {alpha}")
        if self.penalty not in ("gnmt", "power"):
            raise ValueError(f"penalty must be gnmt or power, got {self.penalty!r}")
        if not 1 <= self.alternatives <= self.beam:
            raise ValueError(
                f"alternatives must lie between 1 and beam ({self.beam}), got {self.alternatives}"
            )

    def divisor(self, length: Array) -> Array:
        """The length penalty: log P of a translation of `length` tokens is divided by it."""
        base = (5 + length) / 6 if self.penalty == "gnmt" else 1.0 * length
        return base**self.length_penalty


def search(
    model: Transformer,
    source: Packed,
    settings: SearchSettings = SearchSettings(),
    begin_id: int = 1,
    end_id: int = 2,
) -> list[list[Hypothesis]]:
    """The best translations of each source sentence, best first.

    source: packed token ids, each sentence followed by the end id. If no hypothesis of a sentence
    ends within its limit, the best unfinished ones are returned.

    The search runs on the model's device. Every few steps the host asks which sentences are done,
    and drops them; it fetches the hypotheses at the end.
    """
    limits = _limits(model, source, settings)
    longest = int(limits.max(initial=0))
    state = model.start(source, settings.beam, capacity=max(longest, 1))
    steps_between_checks = backend_of(state.sentence_ids).steps_between_checks
    live = (_Greedy if settings.beam == 1 else _Beam)(state, limits, settings, begin_id, end_id)
    running = np.arange(len(source))
    trace: list[Continuations] = []
    while len(trace) < longest:
        log_p, next_ids = model.top_k(live.ids.reshape(-1), state, live.count)
        trace.append(live.grow(log_p, next_ids))
        if state.length % steps_between_checks == 0:
            over = to_host(live.is_over)
            if over.any():
                live.keep(np.flatnonzero(~over))
                running = running[~over]
                longest = int(limits[running].max(initial=0))
    divisors = np.array([settings.divisor(n + 1) for n in range(len(trace))])
    return read_back(trace, divisors, limits, end_id, settings.beam, settings.alternatives)


def _limits(model: Transformer, source: Packed, settings: SearchSettings) -> np.ndarray:
    """[sentences]: the most tokens that each translation may have, including the end."""
    limits = source.lengths - 1 + settings.extra_length
    if model.config.positions == "learned":
        limits = np.minimum(limits, model.config.max_length)
    return limits


class _Beam:
    """The live hypotheses of the running sentences, best first.

    A sentence that is done has no live hypothesis. It is carried along, without finding any more,
    until the host drops it.

    Attributes:
        ids: [running, beam], the last token id of each hypothesis
        log_p: [running, beam], float64, their log-probabilities; -inf where there is no hypothesis
        found: [running, alternatives], the scores of the best finished hypotheses, best last
        limits: [running], the most tokens of a translation
        divisors: [running], the length penalty at the limit
        count: continuations of each row that are considered
    """

    def __init__(
        self,
        state: DecoderState,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        backend = backend_of(state.sentence_ids)
        shape = len(limits), settings.beam
        self.state, self.settings, self.end_id = state, settings, end_id
        # Twice the beam is enough: at most one continuation of each row is the end. Greedy search
        # needs only the best.
        self.count = 1 if settings.beam == 1 else 2 * settings.beam
        self.ids = backend.xp.full(shape, begin_id)
        # At first all rows of a sentence are equal, so only the first may be continued.
        self.log_p = backend.xp.full(shape, -math.inf)
        self.log_p[:, 0] = 0
        self.found = backend.xp.full((len(limits), settings.alternatives), -math.inf)
        self.limits = backend.asarray(limits)
        self.divisors = backend.asarray(settings.divisor(limits))

    @property
    def is_over(self) -> Array:
        """[running]: true for sentences without a live hypothesis."""
        return self.log_p[:, 0] == -math.inf

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        """Take a step; next_log_p and next_ids: [running · beam, n], the top n of each row.

        The best continuations that have not ended become the new beam.
        """
        xp, beam = array_module(self.log_p), self.settings.beam
        running, n = len(self.log_p), next_ids.shape[1]
        each = xp.arange(running)[:, None]
        log_p = (self.log_p.reshape(-1, 1) + next_log_p).reshape(running, -1)
        log_p = _without_nan(log_p)
        best = xp.argsort(-log_p, axis=1, kind="stable")[:, : self.count]
        log_p, rows, ids = log_p[each, best], best // n, next_ids.reshape(running, -1)[each, best]
        step = Continuations(self.state.sentence_ids, log_p, rows, ids)

        ends = ids == self.end_id
        scores = log_p / self.settings.divisor(self.state.length)
        found = xp.concatenate([self.found, xp.where(ends, scores, -math.inf)], axis=1)
        self.found = xp.sort(found, axis=1)[:, -self.settings.alternatives :]

        alive = survivors(ids, self.end_id, beam)
        log_p = xp.where(ends, -math.inf, log_p)[each, alive]
        rows, self.ids = rows[each, alive], ids[each, alive]
        self.state.reorder((each * beam + rows).reshape(-1))
        # log P only decreases, and the penalty is largest at the limit. So no live hypothesis of a
        # sentence can reach a better score than this.
        bounds = log_p[:, 0] / self.divisors
        self._go_on(log_p, self.found[:, 0] >= bounds)
        return step

    def _go_on(self, log_p: Array, is_over: Array) -> None:
        """Set log_p: [running, beam], and to -inf for sentences that are done."""
        is_over = is_over | (self.limits <= self.state.length)
        self.log_p = array_module(log_p).where(is_over[:, None], -math.inf, log_p)

    def keep(self, running: np.ndarray) -> None:
        """Keep only these of the running sentences; running: [kept], on the host."""
        stay = backend_of(self.log_p).asarray(running)
        self.state.keep(stay)
        self.ids, self.log_p, self.found = self.ids[stay], self.log_p[stay], self.found[stay]
        self.limits, self.divisors = self.limits[stay], self.divisors[stay]


def _without_nan(log_p: Array) -> Array:
    """-inf in place of NaN: a hypothesis whose probability is NaN is dropped."""
    return array_module(log_p).fmax(log_p, -math.inf)


class _Greedy(_Beam):
    """Greedy search: the likeliest next token at each step, until it is the end."""

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        log_p = _without_nan(self.log_p + next_log_p)
        rows, self.ids = array_module(next_ids).zeros_like(next_ids), next_ids
        self._go_on(log_p, next_ids[:, 0] == self.end_id)
        return Continuations(self.state.sentence_ids, log_p, rows, next_ids)
