"""Searching for the best translation: greedy, and with a beam (section 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from autograd import to_host
from autograd.backend import Array, array_module, backend_of
from npformer.decoder import DecoderState
from npformer.packed import Packed
from npformer.transformer import Transformer


@dataclass(frozen=True)
class SearchSettings:
    """How to search. The defaults are the paper's.

    Attributes:
        beam: hypotheses kept for each sentence; 1 is greedy search
        length_penalty: α; a longer translation is favoured the more, the larger it is
        penalty: "gnmt", log P / ((5 + n) / 6)^α (the paper; Wu et al., 2016), or "power",
            log P / n^α (fairseq's --lenpen, CTranslate2's length_penalty). n counts the end symbol.
        extra_length: a translation has at most this many symbols more than its source
        alternatives: how many translations of each sentence to return, at most `beam`
    """

    beam: int = 4
    length_penalty: float = 0.6
    penalty: Literal["gnmt", "power"] = "gnmt"
    extra_length: int = 50
    alternatives: int = 1

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam must be at least 1; it is {self.beam}")
        if self.length_penalty < 0:
            raise ValueError(f"length_penalty must not be negative; it is {self.length_penalty}")
        if self.penalty not in ("gnmt", "power"):
            raise ValueError(f"penalty must be gnmt or power; it is {self.penalty!r}")
        if self.extra_length < 1:
            raise ValueError(f"extra_length must be at least 1; it is {self.extra_length}")
        if not 1 <= self.alternatives <= self.beam:
            raise ValueError(
                f"alternatives must lie between 1 and beam ({self.beam}); it is {self.alternatives}"
            )

    def divisor(self, length: Array) -> Array:
        """What log P of a translation of `length` symbols is divided by."""
        base = (5 + length) / 6 if self.penalty == "gnmt" else 1.0 * length
        return base**self.length_penalty


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its symbols without begin and end, and its score, log P over the penalty."""

    ids: list[int]
    score: float


def search(
    model: Transformer,
    source: Packed,
    settings: SearchSettings = SearchSettings(),
    begin_id: int = 1,
    end_id: int = 2,
) -> list[list[Hypothesis]]:
    """The best translations of each packed source sentence, best first.

    A source sentence ends with the end symbol. Where no hypothesis ends in time, the best ones
    that have not ended are returned.
    """
    find = _greedy if settings.beam == 1 else _beam
    return find(model, source, settings, begin_id, end_id)


def _limits(model: Transformer, source: Packed, settings: SearchSettings) -> np.ndarray:
    """The most symbols that each translation may have, its end included. [sentences]."""
    limits = source.lengths - 1 + settings.extra_length
    if model.config.positions == "learned":
        limits = np.minimum(limits, model.config.max_length)
    return limits


def _greedy(
    model: Transformer, source: Packed, settings: SearchSettings, begin_id: int, end_id: int
) -> list[list[Hypothesis]]:
    """The likeliest symbol, then the likeliest after it, until that is the end symbol."""
    # All sentences advance together, and leave when they have ended.
    limits = _limits(model, source, settings)
    state = model.start(source, beam=1, capacity=int(limits.max(initial=1)))
    found: list[list[Hypothesis]] = [[] for _ in range(len(source))]
    running = np.arange(len(source))
    module = array_module(state.memory_lengths)
    ids = module.full(len(source), begin_id)
    chosen: list[np.ndarray] = []  # a row of symbols for each step, over all sentences
    log_p = np.zeros(len(source))
    while len(running):
        best, words = model.likeliest(ids, state, 1)
        ids = words[:, 0]
        log_p[running] += to_host(best[:, 0])
        symbols = np.full(len(source), end_id)
        symbols[running] = to_host(ids)
        chosen.append(symbols)
        ended = (symbols[running] == end_id) | (len(chosen) >= limits[running])
        for i in running[ended]:
            column = [int(step[i]) for step in chosen]
            length = len(column)
            ids_without_end = column[:-1] if column[-1] == end_id else column
            found[i] = [Hypothesis(ids_without_end, float(log_p[i] / settings.divisor(length)))]
        if ended.any():
            stay = module.asarray(np.flatnonzero(~ended))
            running, ids = running[~ended], ids[stay]
            state.keep(stay)
    return found


class _Candidates:
    """The finished hypotheses of one sentence: the best few, kept apart from the live ones."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.best: list[Hypothesis] = []

    def add(self, hypothesis: Hypothesis) -> None:
        self.best.append(hypothesis)
        self.best.sort(key=lambda h: -h.score)
        del self.best[self.most :]

    def may_admit(self, bound: float) -> bool:
        """Whether a hypothesis with a score of `bound` would still be among the best."""
        return len(self.best) < self.most or self.best[-1].score < bound


def _beam(
    model: Transformer, source: Packed, settings: SearchSettings, begin_id: int, end_id: int
) -> list[list[Hypothesis]]:
    """Beam search. Rows are [running sentences, beam]; the live hypotheses fill the beam."""
    beam = settings.beam
    limits = _limits(model, source, settings)
    state = model.start(source, beam, capacity=int(limits.max(initial=1)))
    finished = [_Candidates(settings.alternatives) for _ in range(len(source))]
    running = np.arange(len(source))
    ids = np.full(len(source) * beam, begin_id)
    symbols = np.zeros((len(source), beam, 0), np.int64)  # of the live hypotheses so far
    # At first all rows of a sentence are equal, so only one of them may be continued.
    log_p = np.where(np.arange(beam) == 0, 0.0, -np.inf) * np.ones((len(source), 1))
    length = 0
    while len(running):
        length += 1
        # Twice the beam is enough: at most one continuation of each row is its end.
        following = model.likeliest(backend_of(state.memory_lengths).asarray(ids), state, 2 * beam)
        next_log_p, next_words = map(to_host, following)
        scores, rows, words = _best_continuations(next_log_p, next_words, log_p, 2 * beam)

        ends = words == end_id
        for i, j in zip(*np.nonzero(ends & np.isfinite(scores)), strict=True):
            score = float(scores[i, j] / settings.divisor(length))
            finished[running[i]].add(Hypothesis(symbols[i, rows[i, j]].tolist(), score))

        # The best `beam` that have not ended live on; a stable sort keeps their order.
        alive = np.argsort(ends, axis=1, kind="stable")[:, :beam]
        log_p = np.take_along_axis(np.where(ends, -np.inf, scores), alive, axis=1)
        rows = np.take_along_axis(rows, alive, axis=1)
        words = np.take_along_axis(words, alive, axis=1)
        symbols = np.concatenate(
            [np.take_along_axis(symbols, rows[:, :, None], axis=1), words[:, :, None]], axis=2
        )

        # log P only falls, and divides by at most the penalty at the limit: no live hypothesis
        # of a sentence can do better than this.
        bounds = log_p[:, 0] / settings.divisor(limits[running])
        at_limit = length >= limits[running]
        goes_on = ~at_limit & np.array(
            [finished[i].may_admit(b) for i, b in zip(running, bounds, strict=True)], bool
        )
        for i in np.flatnonzero(at_limit):
            if not finished[running[i]].best:
                for j in range(beam):
                    if np.isfinite(log_p[i, j]):
                        score = float(log_p[i, j] / settings.divisor(length))
                        finished[running[i]].add(Hypothesis(symbols[i, j].tolist(), score))

        _reorder(state, rows, beam)
        if not goes_on.all():
            stay = np.flatnonzero(goes_on)
            running, log_p, symbols, words = running[stay], log_p[stay], symbols[stay], words[stay]
            state.keep(backend_of(state.memory_lengths).asarray(stay))
        ids = words.reshape(-1)
    return [candidates.best for candidates in finished]


def _best_continuations(
    next_log_p: np.ndarray, symbols: np.ndarray, log_p: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `count` likeliest continuations of each sentence, best first.

    next_log_p and symbols [sentences · beam, n] are each row's likeliest next symbols, log_p
    [sentences, beam] what the rows have so far. Returns log P, the row of the beam that is
    continued, and the symbol, all [sentences, count].
    """
    sentences, n = len(log_p), symbols.shape[1]
    scores = (log_p.reshape(-1, 1) + next_log_p).reshape(sentences, -1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    words = np.take_along_axis(symbols.reshape(sentences, -1), best, axis=1)
    return np.take_along_axis(scores, best, axis=1), best // n, words


def _reorder(state: DecoderState, rows: np.ndarray, beam: int) -> None:
    """Let each row go on from the row of its beam that it continues; rows [sentences, beam]."""
    flat = (np.arange(len(rows))[:, None] * beam + rows).reshape(-1)
    if not np.array_equal(flat, np.arange(flat.size)):
        state.reorder(backend_of(state.memory_lengths).asarray(flat))
