"""The steps of a search, and how the translations are traced back from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from autograd import to_host
from autograd.backend import Array, array_module
from autograd.ops.large.beam import survivors
from npformer.search_settings import SearchSettings


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its token ids without begin and end, and its score.

    Attributes:
        score: log P divided by the length penalty, plus the coverage penalty
        log_p: the log-probability of each token, and of the end if the translation has ended
    """

    ids: list[int]
    score: float
    log_p: list[float] = field(default_factory=list, compare=False)


class Continuations(NamedTuple):
    """One step of a search: the best continuations of each running sentence, best first.

    Attributes:
        sentence_ids: [running], the indices of the running sentences
        log_p: [running, count], log-probabilities with the new token; -inf for no hypothesis
        rows: [running, count], the row of the beam that is continued
        ids: [running, count], the new token's id
        coverage: [running, count], the coverage penalty of each, if there is one
    """

    sentence_ids: Array
    log_p: Array
    rows: Array
    ids: Array
    coverage: Array | None = None


def read_back(
    trace: list[Continuations],
    divisors: np.ndarray,
    limits: np.ndarray,
    end_id: int,
    settings: SearchSettings,
) -> list[list[Hypothesis]]:
    """The best translations of each sentence, as many as `alternatives`, best first.

    divisors: [steps], the length penalty of each length. limits: [sentences], the most tokens of
    each translation; if no hypothesis of a sentence has ended, or all were drawn at random, those
    that reach its limit count.
    """
    found: list[list[Hypothesis]] = [[] for _ in limits]
    if not trace:
        return found
    dense = _Dense(trace, len(limits))
    log_p = dense([taken.log_p for taken in trace], -np.inf)
    rows, ids = dense([taken.rows for taken in trace]), dense([taken.ids for taken in trace])
    exists = log_p != -np.inf
    counts = exists & (ids == end_id)
    unended = ~counts.any(axis=(0, 2))  # [sentences]
    at_limit = np.arange(1, len(trace) + 1)[:, None] == limits  # [steps, sentences]
    alive = survivors(ids, end_id, settings.rows, settings.groups)  # [steps, sentences, beam]
    goes_on = np.zeros(ids.shape, bool)
    np.put_along_axis(goes_on, alive, True, axis=2)
    counts |= exists & goes_on & (at_limit & (unended | settings.sampling))[:, :, None]

    # Sorted by sentence, then best first; among equals the earlier one.
    step, sentence, continuation = np.nonzero(counts)
    scores = log_p[counts] / divisors[step]
    if settings.coverage_penalty:
        scores = scores + dense([taken.coverage for taken in trace])[counts]
    order = np.lexsort((-scores, sentence))
    rank = np.arange(len(order)) - np.searchsorted(sentence[order], sentence[order])
    best = order[rank < settings.alternatives]
    step, sentence, continuation, scores = (
        step[best],
        sentence[best],
        continuation[best],
        scores[best],
    )

    # Trace all of them back together, each from its last step.
    paths, sums = (np.empty((len(best), len(trace)), x.dtype) for x in (ids, log_p))
    row = np.zeros(len(best), np.int64)
    for t in reversed(range(len(trace))):
        at = np.where(t == step, continuation, alive[t, sentence, row])
        paths[:, t], sums[:, t] = ids[t, sentence, at], log_p[t, sentence, at]
        row = rows[t, sentence, at]

    for i, last, path, score, sum_ in zip(
        sentence, step, paths, scores.tolist(), sums, strict=True
    ):
        length = last if path[last] == end_id else last + 1
        of_tokens = np.diff(sum_[: last + 1], prepend=0.0)
        found[i].append(Hypothesis(path[:length].tolist(), score, of_tokens.tolist()))
    return found


def likeliest(
    trace: Sequence[Continuations], sentence: int, end_id: int, settings: SearchSettings
) -> list[int] | None:
    """The token ids of a sentence's likeliest hypothesis after the last step, without the end.

    None if it has none any more, because it is done.
    """
    found: list[int] = []
    row = None
    for step in reversed(trace):
        log_p, rows, ids = _of_sentence(step, sentence)
        if row is None and log_p[0] == -np.inf:
            return None
        alive = survivors(ids, end_id, settings.rows, settings.groups)
        at = 0 if row is None else alive[row]
        found.append(int(ids[at]))
        row = rows[at]
    found.reverse()
    return found[:-1] if found and found[-1] == end_id else found


def _of_sentence(step: Continuations, sentence: int) -> list[np.ndarray]:
    """The log-probabilities, rows and token ids of a sentence's continuations, [count] each."""
    at = int(np.searchsorted(to_host(step.sentence_ids), sentence))
    return [to_host(column[at]) for column in (step.log_p, step.rows, step.ids)]


class _Dense:
    """Brings columns of all steps to the host: [steps, sentences, n]."""

    def __init__(self, trace: list[Continuations], count: int) -> None:
        """count: of the sentences."""
        self._count = count
        self._step = np.repeat(np.arange(len(trace)), [len(t.sentence_ids) for t in trace])
        self._sentence = _joined([taken.sentence_ids for taken in trace])

    def __call__(self, column: Sequence[Any], nothing: float = 0) -> np.ndarray:
        """column: of each step [running, n]; nothing: for sentences that do not run any more."""
        found = _joined(column)
        x = np.full((len(column), self._count, found.shape[1]), nothing, found.dtype)
        x[self._step, self._sentence] = found
        return x


def _joined(arrays: Sequence[Array]) -> np.ndarray:
    return to_host(array_module(arrays[0]).concatenate(arrays))
