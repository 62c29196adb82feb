"""The steps of a search, and how the translations are traced back from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autograd import to_host
from autograd.ops.large.beam import Trace, survivors
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


def read_back(
    trace: Trace,
    divisors: np.ndarray,
    limits: np.ndarray,
    end_id: int,
    settings: SearchSettings,
) -> list[list[Hypothesis]]:
    """The best translations of each sentence, as many as `alternatives`, best first.

    trace: the continuations of each step, [steps, sentences, count], on the host. divisors: [steps
    + 1 or more], the length penalty of each number of tokens. limits: [sentences], the most tokens
    of each translation; if no hypothesis of a sentence has ended, or all were drawn at random,
    those that reach its limit count.
    """
    found: list[list[Hypothesis]] = [[] for _ in limits]
    log_p, rows, ids, coverage = trace
    steps = len(log_p)
    exists = log_p != -np.inf
    counts = exists & (ids == end_id)
    if settings.stop == "beam":
        of_group, best = settings.beam // settings.groups, ids.shape[2] // settings.groups
        counts &= np.arange(ids.shape[2]) % best < of_group
    unended = ~counts.any(axis=(0, 2))  # [sentences]
    at_limit = np.arange(1, steps + 1)[:, None] == limits  # [steps, sentences]
    alive = survivors(ids, end_id, settings.rows, settings.groups)  # [steps, sentences, beam]
    goes_on = np.zeros(ids.shape, bool)
    np.put_along_axis(goes_on, alive, True, axis=2)
    counts |= exists & goes_on & (at_limit & (unended | settings.sampling))[:, :, None]

    # Sorted by sentence, then best first; among equals the earlier one.
    step, sentence, continuation = np.nonzero(counts)
    scores = log_p[counts] / divisors[step + 1]
    if coverage is not None:
        scores = scores + coverage[counts]
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
    paths, sums = (np.empty((len(best), steps), x.dtype) for x in (ids, log_p))
    row = np.zeros(len(best), np.int64)
    for t in reversed(range(steps)):
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
    trace: Trace, sentence: int, end_id: int, settings: SearchSettings
) -> list[int] | None:
    """The token ids of a sentence's likeliest hypothesis after the last step, without the end.

    trace: [steps, sentences, count], on any device. None if the sentence has no hypothesis any
    more, because it is done.
    """
    log_p, rows, ids = (to_host(x[:, sentence]) for x in trace[:3])  # [steps, count]
    if log_p[-1, 0] == -np.inf:
        return None
    alive = survivors(ids, end_id, settings.rows, settings.groups)
    found = [int(ids[-1, 0])]
    row = rows[-1, 0]
    for step in reversed(range(len(ids) - 1)):
        at = alive[step, row]
        found.append(int(ids[step, at]))
        row = rows[step, at]
    found.reverse()
    return found[:-1] if found[-1] == end_id else found
