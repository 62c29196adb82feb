"""Greedy and beam search for the best translation (section 6.1)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np

from autograd import ops, to_host
from autograd.backend import Array, array_module, backend_of
from npformer.attention import LEAST_COVERAGE
from npformer.decoder import DecoderState
from npformer.ensemble import Ensemble, EnsembleState
from npformer.errors import UserError
from npformer.hypotheses import Continuations, Hypothesis, read_back
from npformer.next_tokens import NextTokens
from npformer.packed import Packed
from npformer.sampling import drawn, uniforms
from npformer.search_settings import SearchSettings
from npformer.shortlist import Shortlist
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
    shortlist: Shortlist | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source sentence, best first.

    source: packed token ids, each sentence followed by the end id. prefixes: for each sentence the
    token ids that its translations begin with. streams: for each sentence a number of 64 bits that
    what is drawn for it depends on, by default its index. shortlist: where the only tokens that a
    translation may have come from; the others then have no probability. If no hypothesis of a
    sentence ends within its limit, the best unfinished ones are returned.

    The search runs on the model's device. Every few steps the host asks which sentences are done,
    and drops them; it fetches the hypotheses at the end.
    """
    limits = _limits(model, source, settings, prefixes)
    longest = int(limits.max(initial=0))
    state = model.start(source, settings.rows, capacity=max(longest, 1))
    if shortlist is not None:
        shortlist.check_sizes(model.config)
        candidates = shortlist.candidates(source, prefixes, least=2 * settings.rows)
        restrict: Callable[..., None] = model.restrict  # of a kind with its state
        restrict(state, candidates)
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
        log_p, next_ids = next_tokens(live.ids.reshape(-1), live.count, live.log_p.reshape(-1))
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
    return _Sampled if settings.sampling else _Beam


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
        found: [running, alternatives], the scores of the best finished hypotheses, best last; None
            where every hypothesis goes on to its end
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
        self.ids = backend.xp.full(shape, begin_id, np.int32)
        # At first all rows of a group are equal, so only the first may be continued.
        self.log_p = backend.xp.full(shape, -math.inf)
        self.log_p[:, :: settings.beam // settings.groups] = 0
        self.found: Array | None = None
        if settings.beam > 1:
            self.found = backend.xp.full((len(limits), settings.alternatives), -math.inf)
        self.limits = backend.asarray(limits)
        self.divisors = backend.asarray(settings.divisor(limits))

    @property
    def is_over(self) -> Array:
        """[running]: true for sentences without a live hypothesis."""
        return self.log_p.max(axis=1) == -math.inf

    @property
    def histories(self) -> list[Array]:
        """What is kept of each hypothesis, [rows, ...] each: reordered in place as the beam is."""
        return self.state.histories

    def grow(self, next_log_p: Array, next_ids: Array) -> Continuations:
        """Take a step; next_log_p and next_ids: [running · beam, n], the top n of each row.

        The best continuations that have not ended become the new beam.
        """
        settings = self.settings
        step = ops.beam_step(
            self.log_p,
            next_log_p,
            next_ids,
            found=self.found,
            coverage=self._coverage_penalty(),
            limits=self.limits,
            divisors=self.divisors,
            length=self.state.length,
            divisor=settings.divisor(self.state.length),
            end_id=self.end_id,
            groups=settings.groups,
            diversity=settings.diversity if settings.groups > 1 else 0.0,
            histories=self.histories if settings.rows > 1 else (),
        )
        self.log_p, self.ids, self.found = step.log_p, step.ids, step.found
        return Continuations(
            self.state.sentence_ids,
            step.best_log_p,
            step.best_rows,
            step.best_ids,
            step.best_coverage,
        )

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

    def keep(self, running: np.ndarray) -> None:
        """Keep only these of the running sentences; running: [kept], on the host."""
        stay = backend_of(self.log_p).asarray(running)
        self.state.keep(stay)
        self.ids, self.log_p = self.ids[stay], self.log_p[stay]
        self.found = None if self.found is None else self.found[stay]
        self.limits, self.divisors = self.limits[stay], self.divisors[stay]


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
        self.found = None  # all are drawn to their ends
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

    @property
    def histories(self) -> list[Array]:
        return [*super().histories, self.samples.reshape(-1, 1)]

    def keep(self, running: np.ndarray) -> None:
        stay = backend_of(self.log_p).asarray(running)
        self.streams, self.samples = self.streams[stay], self.samples[stay]
        super().keep(running)
