"""beam_step: the best continuations of a sentence are chosen, then what is kept of its rows moves.

The loops round and break ties as the reference does: a search finds the same hypotheses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autograd.cpu.loops import contiguous, exact_loop, of_exact_rows
from autograd.cpu.memory import empty
from autograd.ops.large.beam import Trace, beam_step

_NO_COVERAGE = np.empty((0, 0)), np.empty((0, 0, 0))


@exact_loop
def _choose(
    sentence,
    log_p,
    next_log_p,
    next_ids,
    ids,
    found,
    coverage,
    limits,
    divisors,
    lengths,
    end_id,
    groups,
    diversity,
    rows,
    trace_log_p,
    trace_rows,
    trace_ids,
    trace_coverage,
    place,
):
    """rows: [sentences · beam] receive the row that each new hypothesis continues.

    found: [sentences, 0] if no scores are kept; coverage: [0, 0] if there is no penalty.
    """
    beam, n = log_p.shape[1], next_ids.shape[1]
    length, first = lengths[sentence * beam], sentence * beam
    of_group = beam // groups
    width, count = of_group * n, trace_ids.shape[2] // groups
    of_next, merit, best = np.empty(width), np.empty(width), np.empty(count, np.int64)
    new_log_p, taken = np.empty(beam), np.empty(beam, np.int64)
    best_log_p = trace_log_p[length - 1, place[sentence]]
    best_rows = trace_rows[length - 1, place[sentence]]
    best_ids = trace_ids[length - 1, place[sentence]]
    for group in range(groups):
        begin, alive = group * of_group, group * of_group  # rows of the beam
        for j in range(width):
            row, token = begin + j // n, next_ids[first + begin + j // n, j % n]
            value = log_p[sentence, row] + next_log_p[first + row, j % n]
            of_next[j] = value if value > -np.inf else -np.inf  # NaN is not larger
            merit[j] = of_next[j]
            for earlier in range(begin):
                if taken[earlier] == token:
                    merit[j] -= diversity
        _pick(best, merit)
        for c in range(count):
            row, value, at = begin + best[c] // n, of_next[best[c]], group * count + c
            token = next_ids[first + row, best[c] % n]
            best_log_p[at], best_rows[at], best_ids[at] = value, row, token
            if coverage.size:
                trace_coverage[length - 1, place[sentence], at] = coverage[sentence, row]
            if token == end_id and found.shape[1]:
                score = value / divisors[length]
                if coverage.size:
                    score += coverage[sentence, row]
                _insert(found[sentence], score)
        for ended in (False, True):  # those that have not ended come first in the new beam
            for c in range(count):
                row, token = best_rows[group * count + c], best_ids[group * count + c]
                if (token == end_id) == ended and alive < begin + of_group:
                    value = of_next[best[c]]
                    new_log_p[alive] = -np.inf if ended else value
                    rows[first + alive], ids[sentence, alive] = first + row, token
                    taken[alive] = token if value > -np.inf else -1
                    alive += 1
    highest = -np.inf
    for row in range(beam):
        highest = max(highest, new_log_p[row])
    is_over = highest == -np.inf
    if found.shape[1]:
        is_over = found[sentence, 0] >= highest / divisors[limits[sentence]]
    if limits[sentence] <= length:
        is_over = True
    for row in range(beam):
        log_p[sentence, row] = -np.inf if is_over else new_log_p[row]


@of_exact_rows
def _pick(best, merit):
    """The indices of the largest numbers, largest first; of equal ones the first comes first."""
    for j in range(merit.size):
        k = min(j, best.size)
        while k > 0 and merit[best[k - 1]] < merit[j]:
            if k < best.size:
                best[k] = best[k - 1]
            k -= 1
        if k < best.size:
            best[k] = j


@of_exact_rows
def _insert(scores, score):
    """Replace the least of some scores, of which the largest is the last, by a larger one."""
    k = -1
    while k + 1 < scores.size and _is_less(scores[k + 1], score):
        if k >= 0:
            scores[k] = scores[k + 1]
        k += 1
    if k >= 0:
        scores[k] = score


@of_exact_rows
def _is_less(a, b):
    """Whether a is sorted before b: NaN comes last."""
    return a < b or (np.isnan(b) and not np.isnan(a))


@exact_loop
def _reorder(sentence, x, rows, lengths, beam, item):
    """Row i of x: [sentences · beam, bytes] becomes row rows[i], which is of the same sentence.

    Of each, only `lengths` items of so many bytes are moved.
    """
    first = sentence * beam
    stays = True
    for i in range(first, first + beam):
        stays = stays and rows[i] == i
    if not stays:
        old = x[first : first + beam].copy()
        for i in range(first, first + beam):
            for j in range(min(lengths[i] * item, x.shape[1])):
                x[i, j] = old[rows[i] - first, j]


def _covers(
    log_p: np.ndarray,
    next_log_p: np.ndarray,
    next_ids: np.ndarray,
    *,
    ids: np.ndarray,
    found: np.ndarray | None,
    trace: Trace,
    tokens: Sequence[np.ndarray] = (),
    histories: Sequence[np.ndarray] = (),
    **_: Any,
) -> bool:
    written = (log_p, ids, found, *trace, *tokens, *histories)
    return (
        log_p.shape[1] > 0
        and next_ids.shape[1] > 0
        and next_log_p.dtype == np.float32
        and trace.log_p.dtype == np.float64
        and trace.rows.dtype == trace.ids.dtype == ids.dtype == np.int32
        and all(x is None or x.flags.carray for x in written)
    )


@beam_step.on("numpy", "float64", covers=_covers)
def fast_beam_step(
    log_p: np.ndarray,
    next_log_p: np.ndarray,
    next_ids: np.ndarray,
    *,
    ids: np.ndarray,
    found: np.ndarray | None,
    coverage: np.ndarray | None = None,
    limits: np.ndarray,
    divisors: np.ndarray,
    lengths: np.ndarray,
    end_id: int,
    groups: int = 1,
    diversity: float = 0.0,
    tokens: Sequence[np.ndarray] = (),
    histories: Sequence[np.ndarray] = (),
    trace: Trace,
    sentence_ids: np.ndarray,
) -> None:
    running, beam = log_p.shape
    rows = empty((running * beam,), np.int64)
    penalty, of_trace = _NO_COVERAGE if coverage is None else (coverage, trace.coverage)
    lengths = contiguous(np.asarray(lengths, np.int32))
    _choose(
        running,
        log_p,
        contiguous(next_log_p),
        contiguous(np.asarray(next_ids, np.int64)),
        ids,
        empty((running, 0), np.float64) if found is None else found,
        contiguous(np.asarray(penalty, np.float64)),
        contiguous(np.asarray(limits, np.int64)),
        contiguous(np.asarray(divisors, np.float64)),
        lengths,
        end_id,
        groups,
        float(diversity),
        rows,
        trace.log_p,
        trace.rows,
        trace.ids,
        of_trace,
        contiguous(np.asarray(sentence_ids, np.int32)),
    )
    for several, whole in ((tokens, False), (histories, True)):
        for x in several:
            if x.size:
                item = x.nbytes // len(x) if whole else x.itemsize
                as_bytes = x.reshape(len(x), -1).view(np.uint8)
                _reorder(running, as_bytes, rows, lengths, beam, item)
