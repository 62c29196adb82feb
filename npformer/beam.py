"""The live hypotheses of a search, and a step that makes each of them longer (section 6.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import proxy

import numpy as np

from autograd import ops, to_host
from autograd.backend import Array, NoRecorder, Recorder, array_module, backend_of
from autograd.ops.large.beam import Trace, count_of_best
from npformer.attention import LEAST_COVERAGE
from npformer.decoder import Room, kept
from npformer.ensemble import Ensemble
from npformer.next_tokens import NextTokens
from npformer.packed import Packed
from npformer.recorded_steps import carried
from npformer.sampling import drawn, uniforms
from npformer.search_settings import SearchSettings
from npformer.shortlist import Candidates
from npformer.transformer import Transformer

Watch = Callable[[np.ndarray, Trace], np.ndarray]
"""What looks at a search that runs, and may end it: see `search`."""


class Beam:
    """The live hypotheses of the running sentences, best first.

    A sentence that is done has no live hypothesis. It is carried along, without finding any more,
    until the host drops it. All arrays stay where they are, and everything that changes from step
    to step, and from search to search, is read from them: so a step can be recorded.

    Attributes:
        ids: [running, beam], int32, the last token id of each hypothesis
        log_p: [running, beam], float64, their log-probabilities; -inf where there is no hypothesis
        found: [running, kept_scores], the scores of the best finished hypotheses, best last; None
            where every hypothesis goes on to its end
        limits: [running], the most tokens of a translation
        divisors: [capacity + 1], the length penalty of each number of tokens
        trace: the best continuations of each step and sentence, running or not
    """

    def __init__(
        self,
        model: Transformer | Ensemble,
        room: Room,
        settings: SearchSettings,
        end_id: int,
        recorder: Recorder | None = None,
    ) -> None:
        """room: for searches that `begin`. recorder: of their steps, if they are recorded."""
        self.room, self.settings, self.end_id = room, settings, end_id
        backend = backend_of(model.buffer.values)
        xp, shape = backend.xp, (room.sentences, settings.rows)
        # What is recorded must not lie where a step has its own arrays.
        self.state = model.state_for(room, xp.empty if recorder else backend.empty)
        self._backend, self._is_recorded = backend, recorder is not None
        self.recorder: Recorder = recorder or NoRecorder()
        self._steps: dict[int, Callable[[], None]] = {}  # by the running sentences
        self._whole = (
            xp.zeros(shape, np.int32),
            xp.zeros(shape, np.float64),
            xp.zeros((room.sentences, settings.kept_scores)) if settings.beam > 1 else None,
            xp.zeros(room.sentences, np.int64),
        )
        self.divisors = xp.zeros(room.capacity + 1, np.float64)
        vocabulary = model.config.vocab_size
        # Twice the beam is enough: at most one continuation of each row is the end. Greedy search
        # needs only the best.
        self.count = 1 if settings.beam == 1 else min(2 * settings.beam, vocabulary)
        best = count_of_best(settings.rows, self._chosen, settings.groups)
        in_all = room.capacity, room.sentences, best
        self.trace = Trace(
            xp.zeros(in_all, np.float64),
            xp.zeros(in_all, np.int32),
            xp.zeros(in_all, np.int32),
            xp.zeros(in_all, np.float64) if settings.coverage_penalty else None,
        )

    @property
    def _chosen(self) -> int:
        """How many of a row's next tokens its hypothesis may be continued by."""
        return self.count

    @property
    def nbytes(self) -> int:
        """The memory of its arrays and of its recordings."""
        of_trace = sum(x.nbytes for x in self.trace if x is not None)
        return int(self.state.nbytes + of_trace + self.recorder.nbytes)

    def begin(
        self,
        model: Transformer | Ensemble,
        source: Packed,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        prefixes: Sequence[Sequence[int]] | None = None,
        streams: Sequence[int] | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        """Begin a search for the translations of other sentences, which there is room for.

        settings: may differ from those before in the length penalty, and in what the limits
        follow from.
        """
        self.settings = settings
        begin: Any = model.begin  # with the kind of state that it has made
        begin(self.state, source, candidates)
        if settings.coverage_penalty:
            self.state.keep_coverage()
        lengths = source.lengths - 1
        self.next_tokens = NextTokens(
            *(model, self.state, settings, lengths, limits, self.end_id, prefixes)
        )
        self.ids, self.log_p, self.found, self.limits = self._whole
        asarray, sentences = self._backend.asarray, len(source)
        self.ids[...] = begin_id
        # At first all rows of a group are equal, so only the first may be continued. There is room
        # for more sentences than there may be.
        self.log_p[...] = -math.inf
        self.log_p[:sentences, :: settings.beam // settings.groups] = 0
        if self.found is not None:
            self.found[...] = -math.inf
        self.limits[...] = 1
        self.limits[:sentences] = asarray(limits)
        self.divisors[...] = asarray(divisors_of(settings, self.room.capacity))
        self.trace.log_p[...] = -math.inf
        self._going_on = np.arange(sentences)
        self._running = np.arange(self._carried(sentences))
        if len(self._running) < self.room.sentences:
            self.keep(self._running)

    def _carried(self, running: int) -> int:
        """How many sentences a step has, those that are done included, if so many run."""
        return carried(running, self._backend) if self._is_recorded else running

    @property
    def steps_between_checks(self) -> int:
        """As many steps it pays to take between two calls of `drop_finished`."""
        return self._backend.steps_between_checks

    @property
    def is_over(self) -> Array:
        """[running]: true for sentences without a live hypothesis."""
        return self.log_p.max(axis=1) == -math.inf

    @property
    def histories(self) -> list[Array]:
        """What is kept of each hypothesis, [rows, ...] each: reordered in place as the beam is."""
        return self.state.histories

    def step(self) -> None:
        """Take a step: the best continuations that have not ended become the new beam.

        It is replayed if one was recorded with as many running sentences. Steps run as they are as
        long as the next tokens need the probabilities of all.
        """
        if self.next_tokens.of_all:
            self._step()
            return
        running = len(self.ids)
        if running not in self._steps:
            # With a weak reference: once this beam is not kept any more, its arrays go at once.
            self._steps[running] = self.recorder(partial(Beam._step, proxy(self)))
        self._steps[running]()

    def _step(self) -> None:
        next_log_p, next_ids = self._next()
        settings, state = self.settings, self.state
        ops.beam_step(
            self.log_p,
            next_log_p,
            next_ids,
            ids=self.ids,
            found=self.found,
            until_full=settings.stop == "beam",
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
        """The likeliest next tokens: log-probabilities and ids, [rows, as many as are chosen]."""
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

    def end(self) -> None:
        """Let go of the model, which may keep this beam for another search."""
        del self.next_tokens

    def traced(self, steps: int, sentences: int) -> Trace:
        """The first steps of the trace of the first sentences, copied to the host."""
        return Trace(
            *(None if x is None else np.array(to_host(x[:steps, :sentences])) for x in self.trace)
        )

    def drop_finished(self, steps: int, watch: Watch | None = None) -> np.ndarray:
        """Drop sentences that are done, and return the indices of those that are not.

        Where steps are recorded, for few numbers of sentences, some that are done fill up. watch:
        gets the indices of those that were not, and the trace of the `steps` so far; those that it
        gives up are done.
        """
        over = np.array(to_host(self.is_over))
        if watch:
            rows = np.flatnonzero(np.isin(self._running, self._going_on))
            trace = Trace(*(None if x is None else x[:steps] for x in self.trace))
            given_up = rows[watch(self._running[rows], trace)]
            over[given_up] = True
            self.log_p[self._backend.asarray(given_up)] = -math.inf  # it may be carried along
        going_on = np.flatnonzero(~over)
        self._going_on = running = self._running[going_on]
        count = self._carried(len(going_on))
        if 0 < count < len(over):
            stay = np.concatenate([going_on, np.flatnonzero(over)])[:count]
            self.keep(stay)
            self._running = self._running[stay]
        return running

    def keep(self, running: np.ndarray) -> None:
        """Keep only these of the running sentences; running: [kept], on the host."""
        stay = backend_of(self.log_p).asarray(running)
        self.state.keep(stay)
        self.ids, self.log_p = kept(self.ids, stay), kept(self.log_p, stay)
        self.found = None if self.found is None else kept(self.found, stay)
        self.limits = kept(self.limits, stay)


class SampledBeam(Beam):
    """Translations drawn at random, independently of each other.

    Attributes:
        streams: [running, 1], the stream of random numbers of each sentence
        samples: [running, rows], the index of the translation that each row belongs to
    """

    def __init__(
        self, model: Transformer | Ensemble, room: Room, settings: SearchSettings, end_id: int
    ) -> None:
        super().__init__(model, room, settings, end_id)
        vocabulary = model.config.vocab_size
        self.count = min(settings.top_k or vocabulary, vocabulary)

    @property
    def _chosen(self) -> int:
        return 1

    def begin(
        self,
        model: Transformer | Ensemble,
        source: Packed,
        limits: np.ndarray,
        settings: SearchSettings,
        begin_id: int,
        prefixes: Sequence[Sequence[int]] | None = None,
        streams: Sequence[int] | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        super().begin(model, source, limits, settings, begin_id, prefixes, candidates=candidates)
        xp = array_module(self.ids)
        self.log_p[...] = 0
        self.found = None  # all are drawn to their ends
        given = range(len(source)) if streams is None else streams
        self.streams = self._backend.asarray(np.array(given, np.uint64)[:, None])
        self.samples = xp.zeros_like(self.ids) + xp.arange(settings.rows)

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


def divisors_of(settings: SearchSettings, longest: int) -> np.ndarray:
    """[longest + 1], the length penalty of each number of tokens."""
    return np.array([settings.divisor(n) for n in range(longest + 1)], np.float64)
