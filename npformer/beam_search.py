"""Greedy and beam search for the best translation (section 6.1)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from autograd import to_host
from autograd.backend import Array, array_module, backend_of
from npformer.attention import LEAST_COVERAGE
from npformer.decoder import DecoderState
from npformer.ensemble import Ensemble, EnsembleState
from npformer.errors import UserError
from npformer.hypotheses import Continuations, Hypothesis, read_back, survivors
from npformer.next_tokens import NextTokens
from npformer.packed import Packed
from npformer.sampling import drawn, uniforms
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer

_PAPERS = SearchSettings()


def search(
    model: Transformer | Ensemble,
    source: Packed,
    settings: SearchSettings = _PAPERS,
    begin_id: int = 1,
    end_id: int = 2,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
    streams: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source sentence, best first.

    source: packed token ids, each sentence followed by the end id. prefixes: for each sentence the
    token ids that its translations begin with. streams: for each sentence a number of 64 bits that
    what is drawn for it depends on, by default its index. If no hypothesis of a sentence ends
    within its limit, the best unfinished ones are returned.

    The search runs on the model's device. Every few steps the host asks which sentences are done,
    and drops them; it fetches the hypotheses at the end.
    """
    limits = _limits(model, source, settings, prefixes)
    longest = int(limits.max(initial=0))
    state = model.start(source, settings.rows, capacity=max(longest, 1))
    if settings.coverage_penalty:
        state.keep_coverage()
    next_tokens = NextTokens(model, state, settings, source.lengths - 1, limits, end_id, prefixes)
    steps_between_checks = backend_of(state.sentence_ids).steps_between_checks
    live = _kind(settings)(state, limits, settings, begin_id, end_id)
    if isinstance(live, _Sampled) and streams is not None:
        live.streams = backend_of(live.ids).asarray(np.array(streams, np.uint64)[:, None])
    running = np.arange(len(source))
    trace: list[Continuations] = []
    while len(trace) < longest:
        log_p, next_ids = next_tokens(
            live.ids.reshape(-1), live.count, live.log_p.reshape(-1) > -math.inf
        )
        trace.append(live.grow(log_p, next_ids))
        if state.length % steps_between_checks == 0:
            over = to_host(live.is_over)
            if over.any():
                live.keep(np.flatnonzero(~over))
                running = running[~over]
                longest = int(limits[running].max(initial=0))
    divisors = np.array([settings.divisor(n + 1) for n in range(len(trace))])
    return read_back(trace, divisors, limits, end_id, settings)


def _kind(settings: SearchSettings) -> type[_Beam]:
    if settings.sampling:
        return _Sampled
    if settings.groups > 1:
        return _Diverse
    return _Greedy if settings.beam == 1 else _Beam


def _limits(
    model: Transformer | Ensemble,
    source: Packed,
    settings: SearchSettings,
    prefixes: Sequence[Sequence[int]] | None,
) -> np.ndarray:
    """[sentences]: the most tokens that each translation may have, including the end."""
    limits = settings.most_tokens(source.lengths - 1)
    if prefixes is not None:
        given = np.array([len(prefix) for prefix in prefixes], limits.dtype)
        limits = np.maximum(limits, given + 1)
    if model.config.positions == "learned":
        limits = np.minimum(limits, model.config.max_length)
        if prefixes is not None and (given >= limits).any():
            raise UserError(
                f"a prefix has {given.max()} tokens, and the model has learned {limits.max()} "
                "positions, of which the first token after it takes one"
            )
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
        state: DecoderState | EnsembleState,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        backend = backend_of(state.sentence_ids)
        shape = len(limits), settings.rows
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
        return self._highest(self.log_p) == -math.inf

    def _highest(self, log_p: Array) -> Array:
        """[running]: the log-probability of the best hypothesis; log_p: [running, beam]."""
        return log_p[:, 0]

    def _ranked(self, log_p: Array, ids: Array) -> Array:
        """[running, twice the beam]: the best continuations; log_p, ids: [running, beam · n]."""
        order = array_module(log_p).argsort(-log_p, axis=1, kind="stable")
        return order[:, : 2 * self.settings.rows]

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        """Take a step; next_log_p and next_ids: [running · beam, n], the top n of each row.

        The best continuations that have not ended become the new beam.
        """
        xp, beam = array_module(self.log_p), self.settings.rows
        running, n = len(self.log_p), next_ids.shape[1]
        each = xp.arange(running)[:, None]
        log_p = (self.log_p.reshape(-1, 1) + next_log_p).reshape(running, -1)
        log_p, ids = _without_nan(log_p), next_ids.reshape(running, -1)
        best = self._ranked(log_p, ids)
        log_p, rows, ids = log_p[each, best], best // n, ids[each, best]
        coverage = self._coverage_penalty()
        coverage = None if coverage is None else coverage[each, rows]
        step = Continuations(self.state.sentence_ids, log_p, rows, ids, coverage)

        ends = ids == self.end_id
        scores = log_p / self.settings.divisor(self.state.length)
        scores = scores if coverage is None else scores + coverage
        found = xp.concatenate([self.found, xp.where(ends, scores, -math.inf)], axis=1)
        self.found = xp.sort(found, axis=1)[:, -self.settings.alternatives :]

        alive = survivors(ids, self.end_id, beam, self.settings.groups)
        log_p = xp.where(ends, -math.inf, log_p)[each, alive]
        rows, self.ids = rows[each, alive], ids[each, alive]
        self._reorder(rows)
        # log P only decreases, the length penalty is largest at the limit, and the coverage penalty
        # is at most 0. So no live hypothesis of a sentence can reach a better score than this.
        bounds = self._highest(log_p) / self.divisors
        self._go_on(log_p, self.found[:, 0] >= bounds)
        return step

    def _coverage_penalty(self) -> Array | None:
        """[running, rows]: what is added to the score of a hypothesis, if there is a penalty."""
        coverage = self.state.coverage
        if coverage is None:
            return None
        xp, lengths = array_module(coverage), self.state.memory_lengths.repeat(self.state.beam)
        counts = xp.arange(coverage.shape[1]) < lengths[:, None] - 1
        logs = xp.log(xp.minimum(xp.maximum(coverage, LEAST_COVERAGE), 1.0))
        total = xp.where(counts, logs, 0.0).sum(axis=1)
        penalty: Array = self.settings.coverage_penalty * total.reshape(self.ids.shape)
        return penalty

    def _reorder(self, rows: Array) -> None:
        """Let each hypothesis continue that of row `rows` [running, beam] of its sentence."""
        first = array_module(rows).arange(len(rows))[:, None] * rows.shape[1]
        self.state.reorder((first + rows).reshape(-1))

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
        penalty = self._coverage_penalty()
        return Continuations(self.state.sentence_ids, log_p, rows, next_ids, penalty)


class _Diverse(_Beam):
    """A beam in groups, each of which avoids the tokens that those before it have chosen."""

    def __init__(
        self,
        state: DecoderState | EnsembleState,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        super().__init__(state, limits, settings, begin_id, end_id)
        self.of_group = settings.beam // settings.groups  # hypotheses
        self.log_p[:, :: self.of_group] = 0

    def _highest(self, log_p: Array) -> Array:
        return log_p.max(axis=1)

    def _ranked(self, log_p: Array, ids: Array) -> Array:
        # Twice the beam of each row is enough: all groups before the last choose less than the
        # beam, and so take no more tokens from their places.
        xp, groups = array_module(log_p), self.settings.groups
        width = ids.shape[1] // groups
        each = xp.arange(len(ids))[:, None]
        best: list[Array] = []
        chosen: list[Array] = []
        for begin in range(0, ids.shape[1], width):
            own, tokens = log_p[:, begin : begin + width], ids[:, begin : begin + width]
            merit = own
            for token in chosen:
                merit = merit - self.settings.diversity * (tokens == token)
            order = xp.argsort(-merit, axis=1, kind="stable")[:, : 2 * self.of_group]
            alive = survivors(tokens[each, order], self.end_id, self.of_group)
            alive = xp.take_along_axis(order, alive, axis=1)
            taken = xp.where(own[each, alive] > -math.inf, tokens[each, alive], -1)
            chosen += [taken[:, i : i + 1] for i in range(self.of_group)]
            best.append(order + begin)
        return xp.concatenate(best, axis=1)


class _Sampled(_Beam):
    """Translations drawn at random, independently of each other.

    Attributes:
        streams: [running, 1], the stream of random numbers of each sentence
        samples: [running, rows], the index of the translation that each row belongs to
    """

    def __init__(
        self,
        state: DecoderState | EnsembleState,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        super().__init__(state, limits, settings, begin_id, end_id)
        xp = array_module(self.ids)
        self.count = settings.top_k or sys.maxsize  # all that there are
        self.log_p[...] = 0
        self.streams = xp.arange(len(limits), dtype=np.uint64)[:, None]
        self.samples = xp.zeros_like(self.ids) + xp.arange(settings.rows)

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        xp, settings = array_module(self.ids), self.settings
        numbers = uniforms(xp, settings.seed, self.streams, self.samples, self.state.length)
        which = drawn(
            next_log_p,
            numbers.reshape(-1),
            temperature=settings.temperature,
            top_p=settings.top_p,
        )[:, None]
        one = (xp.take_along_axis(x, which, axis=1) for x in (next_log_p, next_ids))
        return super().grow(*one)

    def _reorder(self, rows: Array) -> None:
        super()._reorder(rows)
        self.samples = array_module(rows).take_along_axis(self.samples, rows, axis=1)

    def _go_on(self, log_p: Array, is_over: Array) -> None:
        super()._go_on(log_p, log_p[:, 0] == -math.inf)  # all are drawn to their ends

    def keep(self, running: np.ndarray) -> None:
        stay = backend_of(self.log_p).asarray(running)
        self.streams, self.samples = self.streams[stay], self.samples[stay]
        super().keep(running)
