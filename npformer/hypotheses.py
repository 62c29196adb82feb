"""The steps that a search has taken, and the translations that are read back from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autograd import to_host
from autograd.backend import Array, array_module


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its token ids without begin and end, and its score, log P over the penalty."""

    ids: list[int]
    score: float


class Continuations(NamedTuple):
    """One step: how the hypotheses of each running sentence are best continued, best first.

    sentences [running] says which they are; the rest is [running, count]: log_p with the new
    token, minus infinity where there is no hypothesis; rows, the row of the beam that is
    continued; ids, the new token's id. The next beam is what survives of them.
    """

    sentences: Array
    log_p: Array
    rows: Array
    ids: Array


def survivors(ids: Array, end_id: int, beam: int) -> Array:
    """The places of the best `beam` continuations that are no end; ids [..., count]."""
    ends = (ids == end_id).astype(np.int8)
    return array_module(ids).argsort(ends, axis=-1, kind="stable")[..., :beam]  # in their order


def read_back(
    trace: list[Continuations],
    divisors: np.ndarray,
    limits: np.ndarray,
    end_id: int,
    beam: int,
    alternatives: int,
) -> list[list[Hypothesis]]:
    """The best `alternatives` of each sentence, best first, after the steps of `trace`.

    divisors [steps] are the penalties of each length, limits [sentences] the lengths at which the
    sentences stop: where no hypothesis has ended, those count that are alive there.
    """
    found: list[list[Hypothesis]] = [[] for _ in limits]
    if not trace:
        return found
    log_p, rows, ids = _dense(trace, len(limits))
    exists = log_p != -np.inf  # with a model of NaN, greedy search still has its one hypothesis
    counts = exists & (ids == end_id)
    unended = ~counts.any(axis=(0, 2))  # [sentences]
    at_limit = np.arange(1, len(trace) + 1)[:, None] == limits  # [steps, sentences]
    counts |= exists & (at_limit & unended)[:, :, None]

    # By sentence, the best first, and of equals the earlier.
    step, sentence, place = np.nonzero(counts)
    scores = log_p[counts] / divisors[step]
    order = np.lexsort((-scores, sentence))
    rank = np.arange(len(order)) - np.searchsorted(sentence[order], sentence[order])
    best = order[rank < alternatives]
    step, sentence, place, scores = step[best], sentence[best], place[best], scores[best]

    # All are followed back together, each from the step that is its last.
    paths = np.empty((len(best), len(trace)), ids.dtype)
    alive = survivors(ids, end_id, beam)  # [steps, sentences, beam]
    row = np.zeros(len(best), np.int64)
    for t in reversed(range(len(trace))):
        at = np.where(t == step, place, alive[t, sentence, row])
        row, paths[:, t] = rows[t, sentence, at], ids[t, sentence, at]

    for i, last, path, score in zip(sentence, step, paths, scores.tolist(), strict=True):
        length = last if path[last] == end_id else last + 1
        found[i].append(Hypothesis(path[:length].tolist(), score))
    return found


def _dense(trace: list[Continuations], sentences: int) -> list[np.ndarray]:
    """log_p, rows and ids of all steps on the host, [steps, sentences, count]."""
    xp = array_module(trace[0].log_p)
    which, *columns = (to_host(xp.concatenate(column)) for column in zip(*trace, strict=True))
    step = np.repeat(np.arange(len(trace)), [len(taken.sentences) for taken in trace])
    dense = []
    for column, nothing in zip(columns, (-np.inf, 0, 0), strict=True):
        x = np.full((len(trace), sentences, column.shape[1]), nothing, column.dtype)
        x[step, which] = column
        dense.append(x)
    return dense
