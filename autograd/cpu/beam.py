"""beam_step: the best continuations of a sentence are chosen, then what is kept of its rows moves.

The loops round and break ties as the reference does: a search finds the same hypotheses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from autograd.cpu.loops import contiguous, exact_loop, of_exact_rows
from autograd.cpu.memory import empty
from autograd.ops.large.beam import Trace, beam_step

_NO_COVERAGE = np.empty((0, 0, 0))


class _Beam(NamedTuple):
    """What becomes the next beam, as `beam_step` gets it; found: [sentences, 0] for no scores.

    lengths: the tokens of each new hypothesis
    """

    log_p: np.ndarray
    ids: np.ndarray
    found: np.ndarray
    lengths: np.ndarray


class _Next(NamedTuple):
    """The next tokens of each row, [sentences · beam, n]; coverage: [sentences, 0] for none."""

    log_p: np.ndarray
    ids: np.ndarray
    coverage: np.ndarray


class _Ends(NamedTuple):
    """What ends hypotheses, and sentences."""

    id: int
    limits: np.ndarray
    divisors: np.ndarray
    until_full: bool


class _Groups(NamedTuple):
    """The groups of a beam; diversity: what a token loses for each use by an earlier one."""

    number: int
    diversity: float


class _Written(NamedTuple):
    """Where a step writes what it has chosen.

    places: [sentences], those of the sentences in the trace; rows: [sentences · beam], receive the
    row that each new hypothesis continues
    """

    trace: Trace
    places: np.ndarray
    rows: np.ndarray


@exact_loop
def _choose(sentence, beam, following, ends, groups, written):
    log_p, found, penalty = beam.log_p[sentence], beam.found[sentence], following.coverage[sentence]
    trace, place, rows = written.trace, written.places[sentence], written.rows
    n, first = following.ids.shape[1], sentence * log_p.size
    length, last = beam.lengths[first], first + log_p.size
    # Continuation j of the sentence is number j % n of those of its row j // n.
    ids, of_next = following.ids[first:last].reshape(-1), np.empty(log_p.size * n)
    _continue(of_next, log_p, following.log_p[first:last])
    of_group, count = log_p.size // groups.number, trace.ids.shape[2] // groups.number
    best, merit = np.empty(count, np.int64), np.empty(of_group * n)
    survivors, taken = np.empty(of_group, np.int64), np.empty(log_p.size, np.int64)
    for group in range(groups.number):
        begin = group * of_group
        _weigh(merit, of_next[begin * n :], ids[begin * n :], taken[:begin], groups.diversity)
        _pick(best, merit)
        best += begin * n
        _write(trace, (length - 1, place, group * count), best, of_next, ids, n, penalty)
        counted = best[: of_group if ends.until_full else count]
        _keep_scores(found, counted, of_next, ids, n, penalty, ends.id, ends.divisors[length])
        _survive(survivors, best, ids, ends.id)
        for i in range(of_group):
            j, row = survivors[i], begin + i
            taken[row] = ids[j] if of_next[j] > -np.inf else -1
            log_p[row] = of_next[j] if ids[j] != ends.id else -np.inf
            rows[first + row], beam.ids[sentence, row] = first + j // n, ids[j]
    limit = ends.limits[sentence]
    if limit <= length or _is_decided(log_p, found, ends.divisors[limit], ends.until_full):
        log_p[:] = -np.inf


@of_exact_rows
def _continue(of_next, log_p, next_log_p):
    """The log-probabilities of all continuations of a sentence; NaN becomes -inf."""
    n = next_log_p.shape[1]
    for j in range(of_next.size):
        value = log_p[j // n] + next_log_p[j // n, j % n]
        of_next[j] = value if value > -np.inf else -np.inf  # NaN is not larger


@of_exact_rows
def _weigh(merit, of_next, ids, taken, diversity):
    """What continuations are worth to a group, after others have taken tokens."""
    for j in range(merit.size):
        merit[j] = of_next[j]
        for token in taken:
            if token == ids[j]:
                merit[j] -= diversity


@of_exact_rows
def _write(trace, at, best, of_next, ids, n, penalty):
    """Write the best continuations to the trace; at: the step, the place, and the first of them."""
    step, place, first = at
    for c in range(best.size):
        j = best[c]
        trace.log_p[step, place, first + c] = of_next[j]
        trace.rows[step, place, first + c] = j // n
        trace.ids[step, place, first + c] = ids[j]
        if penalty.size:
            trace.coverage[step, place, first + c] = penalty[j // n]


@of_exact_rows
def _keep_scores(found, counted, of_next, ids, n, penalty, end_id, divisor):
    """Keep the best scores of hypotheses that end, of the continuations that count."""
    for j in counted:
        if ids[j] == end_id and found.size:
            score = of_next[j] / divisor
            if penalty.size:
                score += penalty[j // n]
            _insert(found, score)


@of_exact_rows
def _survive(survivors, best, ids, end_id):
    """Of the best continuations, as many as a group has rows: first those that do not end."""
    alive = 0
    for ended in (False, True):
        for c in range(best.size):
            if (ids[best[c]] == end_id) == ended and alive < survivors.size:
                survivors[alive] = best[c]
                alive += 1


@of_exact_rows
def _is_decided(log_p, found, divisor, until_full):
    """Whether no hypothesis can reach a better score than those that are kept, or none is left.

    With until_full, whether all scores are there.
    """
    highest = -np.inf
    for row in range(log_p.size):
        highest = max(highest, log_p[row])
    if until_full and found.size:
        return found[0] > -np.inf
    return found[0] >= highest / divisor if found.size else highest == -np.inf


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
    until_full: bool = False,
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
    nothing = empty((running, 0), np.float64)
    penalty, of_trace = (nothing, _NO_COVERAGE) if coverage is None else (coverage, trace.coverage)
    following = _Next(
        contiguous(next_log_p),
        contiguous(np.asarray(next_ids, np.int64)),
        contiguous(np.asarray(penalty, np.float64)),
    )
    ends = _Ends(
        end_id,
        contiguous(np.asarray(limits, np.int64)),
        contiguous(np.asarray(divisors, np.float64)),
        until_full,
    )
    lengths = contiguous(np.asarray(lengths, np.int32))
    _choose(
        running,
        _Beam(log_p, ids, nothing if found is None else found, lengths),
        following,
        ends,
        _Groups(groups, float(diversity)),
        _Written(
            trace._replace(coverage=of_trace),
            contiguous(np.asarray(sentence_ids, np.int32)),
            rows,
        ),
    )
    for several, whole in ((tokens, False), (histories, True)):
        for x in several:
            if x.size:
                item = x.nbytes // len(x) if whole else x.itemsize
                as_bytes = x.reshape(len(x), -1).view(np.uint8)
                _reorder(running, as_bytes, rows, lengths, beam, item)
