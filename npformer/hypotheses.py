"""The steps of a search, and how the translations are traced back from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autograd import to_host
from autograd.backend import Array, array_module


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its token ids without begin and end, and its score.

    The score is log P divided by the length penalty.
    """

    ids: list[int]
    score: float


class Continuations(NamedTuple):
    """One step of a search: the best continuations of each running sentence, best first.

    Attributes:
        sentence_ids: [running], the indices of the running sentences
        log_p: [running, count], log-probabilities with the new token; -inf for no hypothesis
        rows: [running, count], the row of the beam that is continued
        ids: [running, count], the new token's id
    """

    sentence_ids: Array
    log_p: Array
    rows: Array
    ids: Array


def survivors(ids: Array, end_id: int, beam: int) -> Array:
    """[..., beam]: the indices of the best continuations that do not end; ids: [..., count]."""
    ends = (ids == end_id).astype(np.int8)
    return array_module(ids).argsort(ends, axis=-1, kind="stable")[..., :beam]  # still best first


def read_back(
    trace: list[Continuations],
    divisors: np.ndarray,
    limits: np.ndarray,
    end_id: int,
    beam: int,
    alternatives: int,
) -> list[list[Hypothesis]]:
    """The best `alternatives` translations of each sentence, best first.

    divisors: [steps], the length penalty of each length. limits: [sentences], the most tokens of
    each translation; if no hypothesis of a sentence has ended, those that reach its limit count.
    """
    found: list[list[Hypothesis]] = [[] for _ in limits]
    if not trace:
        return found
    log_p, rows, ids = _dense(trace, len(limits))
    exists = log_p != -np.inf
    counts = exists & (ids == end_id)
    unended = ~counts.any(axis=(0, 2))  # [sentences]
    at_limit = np.arange(1, len(trace) + 1)[:, None] == limits  # [steps, sentences]
    counts |= exists & (at_limit & unended)[:, :, None]

    # Sorted by sentence, then best first; among equals the earlier one.
    step, sentence, continuation = np.nonzero(counts)
    scores = log_p[counts] / divisors[step]
    order = np.lexsort((-scores, sentence))
    rank = np.arange(len(order)) - np.searchsorted(sentence[order], sentence[order])
    best = order[rank < alternatives]
    step, sentence, continuation, scores = (
        step[best],
        sentence[best],
        continuation[best],
        scores[best],
    )

    # Trace all of them back together, each from its last step.
    paths = np.empty((len(best), len(trace)), ids.dtype)
    alive = survivors(ids, end_id, beam)  # [steps, sentences, beam]
    row = np.zeros(len(best), np.int64)
    for t in reversed(range(len(trace))):
        at = np.where(t == step, continuation, alive[t, sentence, row])
        row, paths[:, t] = rows[t, sentence, at], ids[t, sentence, at]

    for i, last, path, score in zip(sentence, step, paths, scores.tolist(), strict=True):
        length = last if path[last] == end_id else last + 1
        found[i].append(Hypothesis(path[:length].tolist(), score))
    return found


def _dense(trace: list[Continuations], count: int) -> list[np.ndarray]:
    """log_p, rows and ids of all steps of `count` sentences, [steps, sentences, n], on the host."""
    xp = array_module(trace[0].log_p)
    which, *columns = (to_host(xp.concatenate(column)) for column in zip(*trace, strict=True))
    step = np.repeat(np.arange(len(trace)), [len(taken.sentence_ids) for taken in trace])
    dense = []
    for column, nothing in zip(columns, (-np.inf, 0, 0), strict=True):
        x = np.full((len(trace), count, column.shape[1]), nothing, column.dtype)
        x[step, which] = column
        dense.append(x)
    return dense
