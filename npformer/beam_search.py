"""Greedy and beam search for the best translation (section 6.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from autograd import ops, to_host
from autograd.backend import Array, array_module, backend_of
from autograd.ops.large.beam import Trace, count_of_best
from npformer.attention import LEAST_COVERAGE
from npformer.decoder import kept
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.hypotheses import Hypothesis, read_back
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
    live = _kind(settings)(next_tokens, limits, settings, begin_id, end_id)
    if isinstance(live, _Sampled) and streams is not None:
        live.streams = backend_of(live.ids).asarray(np.array(streams, np.uint64)[:, None])
    running, steps = np.arange(len(source)), 0
    while steps < longest:
        live.step()
        steps += 1
        if steps % steps_between_checks == 0:
            over = to_host(live.is_over)
            if over.any():
                live.keep(np.flatnonzero(~over))
                running = running[~over]
                longest = int(limits[running].max(initial=0))
    return read_back(live.traced(steps), _divisors(settings, steps), limits, end_id, settings)


def _divisors(settings: SearchSettings, longest: int) -> np.ndarray:
    """[longest + 1], the length penalty of each number of tokens."""
    return np.array([settings.divisor(n) for n in range(longest + 1)], np.float64)


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
    until the host drops it. All arrays stay where they are.

    Attributes:
        ids: [running, beam], int32, the last token id of each hypothesis
        log_p: [running, beam], float64, their log-probabilities; -inf where there is no hypothesis
        found: [running, alternatives], the scores of the best finished hypotheses, best last; None
            where every hypothesis goes on to its end
        limits: [running], the most tokens of a translation
        divisors: [longest + 1], the length penalty of each number of tokens
        trace: the best continuations of each step and sentence, running or not
    """

    def __init__(
        self,
        next_tokens: NextTokens,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        self.next_tokens, self.state = next_tokens, next_tokens.state
        self.settings, self.end_id = settings, end_id
        backend, sentences = backend_of(self.state.sentence_ids), len(limits)
        xp, shape, longest = backend.xp, (sentences, settings.rows), int(limits.max(initial=0))
        self.ids = xp.full(shape, begin_id, np.int32)
        # At first all rows of a group are equal, so only the first may be continued.
        self.log_p = xp.full(shape, -math.inf)
        self.log_p[:, :: settings.beam // settings.groups] = 0
        self.found: Array | None = None
        if settings.beam > 1:
            self.found = xp.full((sentences, settings.alternatives), -math.inf)
        self.limits = backend.asarray(limits.copy())
        self.divisors = backend.asarray(_divisors(settings, longest))
        best = count_of_best(settings.rows, self.chosen, settings.groups)
        in_all = longest, sentences, best
        self.trace = Trace(
            xp.full(in_all, -math.inf),
            xp.zeros(in_all, np.int32),
            xp.zeros(in_all, np.int32),
            xp.zeros(in_all) if settings.coverage_penalty else None,
        )

    @property
    def count(self) -> int:
        """Next tokens of each row that the model gives.

        Twice the beam is enough: at most one continuation of each row is the end. Greedy search
        needs only the best.
        """
        beam, tokens = self.settings.beam, self.next_tokens.model.config.vocab_size
        return 1 if beam == 1 else min(2 * beam, tokens)

    @property
    def chosen(self) -> int:
        """Of these, the next tokens of each row that its hypothesis may be continued by."""
        return self.count

    @property
    def is_over(self) -> Array:
        """[running]: true for sentences without a live hypothesis."""
        return self.log_p.max(axis=1) == -math.inf

    @property
    def histories(self) -> list[Array]:
        """What is kept of each hypothesis, [rows, ...] each: reordered in place as the beam is."""
        return self.state.histories

    def step(self) -> None:
        """Take a step: the best continuations that have not ended become the new beam."""
        next_log_p, next_ids = self._next()
        settings, state = self.settings, self.state
        ops.beam_step(
            self.log_p,
            next_log_p,
            next_ids,
            ids=self.ids,
            found=self.found,
            coverage=self._coverage_penalty(),
            limits=self.limits,
            divisors=self.divisors,
            lengths=state.lengths,
            end_id=self.end_id,
            groups=settings.groups,
            diversity=settings.diversity if settings.groups > 1 else 0.0,
            tokens=state.tokens if settings.rows > 1 else (),
            histories=self.histories if settings.rows > 1 else (),
            trace=self.trace,
            sentence_ids=state.sentence_ids,
        )

    def _next(self) -> tuple[Array, Array]:
        """The likeliest next tokens: log-probabilities and ids, [rows, chosen] each."""
        return self.next_tokens(self.ids.reshape(-1), self.count, self.log_p.reshape(-1))

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

    def traced(self, steps: int) -> Trace:
        """The first steps of the trace, on the host."""
        return Trace(*(None if x is None else to_host(x[:steps]) for x in self.trace))

    def keep(self, running: np.ndarray) -> None:
        """Keep only these of the running sentences; running: [kept], on the host."""
        stay = backend_of(self.log_p).asarray(running)
        self.state.keep(stay)
        self.ids, self.log_p = kept(self.ids, stay), kept(self.log_p, stay)
        self.found = None if self.found is None else kept(self.found, stay)
        self.limits = kept(self.limits, stay)


class _Sampled(_Beam):
    """Translations drawn at random, independently of each other.

    Attributes:
        streams: [running, 1], the stream of random numbers of each sentence
        samples: [running, rows], the index of the translation that each row belongs to
    """

    def __init__(
        self,
        next_tokens: NextTokens,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        end_id: int,
    ) -> None:
        super().__init__(next_tokens, limits, settings, begin_id, end_id)
        xp = array_module(self.ids)
        self.log_p[...] = 0
        self.found = None  # all are drawn to their ends
        self.streams = xp.arange(len(limits), dtype=np.uint64)[:, None]
        self.samples = xp.zeros_like(self.ids) + xp.arange(settings.rows)

    @property
    def count(self) -> int:
        tokens: int = self.next_tokens.model.config.vocab_size
        return min(self.settings.top_k or tokens, tokens)

    @property
    def chosen(self) -> int:
        return 1

    def _next(self) -> tuple[Array, Array]:
        next_log_p, next_ids = super()._next()
        xp, settings = array_module(self.ids), self.settings
        lengths = self.state.lengths.reshape(self.ids.shape)
        numbers = uniforms(xp, settings.seed, self.streams, self.samples, lengths)
        which = drawn(
            next_log_p,
            numbers.reshape(-1),
            temperature=settings.temperature,
            top_p=settings.top_p,
        )[:, None]
        log_p, ids = (xp.take_along_axis(x, which, axis=1) for x in (next_log_p, next_ids))
        return log_p, ids

    @property
    def histories(self) -> list[Array]:
        return [*super().histories, self.samples.reshape(-1, 1)]

    def keep(self, running: np.ndarray) -> None:
        stay = backend_of(self.log_p).asarray(running)
        self.streams, self.samples = kept(self.streams, stay), kept(self.samples, stay)
        super().keep(running)
