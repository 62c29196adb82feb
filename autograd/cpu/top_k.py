"""top_k: the logits are computed for a panel of the vocabulary at a time, and never kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.cpu.lanes import largest_of_lanes
from autograd.cpu.loops import block_of, blocks, contiguous, of_rows, parallel_loop, rows_of
from autograd.cpu.memory import empty
from autograd.cpu.packed_rows import packed_rows, shape_of_packed
from autograd.cpu.products import NOTHING, WIDTH, multiply, new_workspace
from autograd.cpu.registers import (
    LANES,
    broadcast,
    exp_of,
    largest_of,
    load,
    lowest_bit,
    number_of,
    sum_of,
    which_reach,
    zeros,
)
from autograd.cpu.thin import MOST_ROWS, dot_products
from autograd.cpu.vector import exp
from autograd.ops.large.top_k import top_k

PANEL = 1024  # tokens of the vocabulary that one task takes
_ROWS = 16  # whose panels one task merges


@parallel_loop
def _panels(panel, x, weight, packed, bias, reached, best, ids, tops, sums):
    """The candidates of one panel of the vocabulary for each row.

    x: [rows, d]; weight: [vocabulary, d]; packed: its `packed_rows`, or [0, 0] if it is not packed;
    bias: [groups, vocabulary], one for as many rows each, or [0, 0] for none. best and ids: [rows,
    panels, k] receive the panel's logits that may be among the row's k largest, best first, and
    their token ids; tops: [rows, panels] the panel's largest logit, and sums: [rows, panels]
    Σ exp(logit - top). reached: [rows] is a lower bound on the k-th largest logit of a row. Threads
    share it without a lock: a stale bound is still a bound.
    """
    first, last = block_of(panel, len(weight), PANEL)
    rows, width = len(x), last - first
    logits = np.empty((rows, width), np.float32)
    if rows <= MOST_ROWS:
        dot_products(logits, x, weight, first)
    else:
        depth, out, left = x.shape[1], (logits, 0, 0, rows, width), (x, 0, 0, False)
        if len(packed):
            right = (packed, first // WIDTH * depth, 0, False)
        else:
            right = (weight, first, 0, True)
        multiply(out, left, right, depth, None, NOTHING, False, new_workspace(0))
    add_bias(logits, bias, first)
    keep_best(logits, panel, first, reached, best, ids, tops, sums)


@of_rows
def add_bias(logits, bias, first):
    """logits += bias, of one panel, [rows, width], from token `first` on.

    bias: [groups, vocabulary], one for as many rows each, or [0, 0] for none.
    """
    rows, width = logits.shape
    for i in range(rows if len(bias) else 0):
        added = bias[i * len(bias) // rows]
        for j in range(width):
            logits[i, j] += added[first + j]


@of_rows
def keep_best(logits, panel, first, reached, best, ids, tops, sums):
    """What `_panels` keeps of the logits of one panel, [rows, width], from token `first` on."""
    for i in range(len(logits)):
        top = _pick(logits, i, first, reached[i], best[i, panel], ids[i, panel])
        if best[i, panel, -1] > reached[i]:
            reached[i] = best[i, panel, -1]
        # -inf - -inf would be NaN; a row with a NaN is to stay NaN.
        shift = top if top > -np.inf else np.float32(0)
        tops[i, panel], sums[i, panel] = top, _sum_of_exponentials(logits, i, shift)


@of_rows
def _sum_of_exponentials(logits, i, shift):
    """Σ exp(logit - shift) over row i."""
    width, shifts = logits.shape[1], broadcast(shift)
    whole, total, total1 = width // LANES * LANES, zeros(), zeros()
    for j in range(0, whole - LANES, 2 * LANES):
        total += exp_of(load(logits, i, j) - shifts)
        total1 += exp_of(load(logits, i, j + LANES) - shifts)
    if whole % (2 * LANES):
        total += exp_of(load(logits, i, whole - LANES) - shifts)
    rest = np.float32(0)
    for j in range(whole, width):
        rest += exp(logits[i, j] - shift)
    return sum_of(total + total1) + rest


@of_rows
def _pick(logits, i, first, least, values, ids):
    """The largest logits of row i that are at least `least`, best first, and their token ids.

    Column 0 is token `first`. Returns the largest logit of the row, even if it is below `least`.
    """
    _forget(values, ids, first)
    whole, top = logits.shape[1] // LANES * LANES, np.float32(-np.inf)
    for k in range(whole, logits.shape[1]):
        top = max(top, logits[i, k])
    if whole:
        tops = largest_of_lanes(logits, i, whole)
        top = max(top, largest_of(tops))
        if least == -np.inf and values.size <= LANES:
            # There are at least k lanes, so the k-th largest of the lanes' maxima is a lower bound
            # on the row's k-th largest logit.
            for lane in range(LANES):
                _insert(values, ids, number_of(tops, lane), first)
            least = values[values.size - 1]
            _forget(values, ids, first)
    if top < least:
        return top
    for j in range(0, whole, LANES):
        candidates = which_reach(load(logits, i, j), least)
        while candidates:
            k = j + lowest_bit(candidates)
            _insert(values, ids, logits[i, k], first + k)
            candidates &= candidates - 1
    for k in range(whole, logits.shape[1]):
        if logits[i, k] >= least:
            _insert(values, ids, logits[i, k], first + k)
    return top


@of_rows
def _forget(values, ids, token):
    for k in range(values.size):
        values[k], ids[k] = -np.inf, token


@of_rows
def _insert(values, ids, value, token):
    """Insert a number in its place among the best, after its equals, if it is large enough."""
    k = values.size - 1
    if not value > values[k]:
        return
    while k > 0 and values[k - 1] < value:
        values[k], ids[k] = values[k - 1], ids[k - 1]
        k -= 1
    values[k], ids[k] = value, token


@parallel_loop
def _merge(block, best, ids, tops, sums, names, log_p, chosen):
    """Merge the panels of each row into log_p and `chosen`, token ids: [rows, k], best first.

    names: [vocabulary], the ids of the tokens, or [0] if these are their places.
    """
    for i in rows_of(block, len(log_p), _ROWS):
        _merge_row(i, best, ids, tops, sums, names, log_p, chosen)


@of_rows
def _merge_row(i, best, ids, tops, sums, names, log_p, chosen):
    top, total = tops[i, 0], np.float32(0)
    for p in range(best.shape[1]):
        top = max(top, tops[i, p])
    for p in range(best.shape[1]):
        total += sums[i, p] * np.exp(tops[i, p] - top)
    log_sum_exp = top + np.log(total)
    unknown = np.isnan(log_sum_exp)
    for k in range(log_p.shape[1]):
        log_p[i, k], chosen[i, k] = np.float32(0) if unknown else np.float32(-np.inf), k
    if not unknown:
        # Order by logits: rounding can make log-probabilities equal where the logits are not, and
        # which of the lower ones a panel kept depends on the bound that it read.
        for p in range(best.shape[1]):
            for k in range(best.shape[2]):
                _insert(log_p[i], chosen[i], best[i, p, k], ids[i, p, k])
    for k in range(log_p.shape[1]):
        if log_p[i, k] == -np.inf:
            chosen[i, k] = _first_not_among(chosen[i, :k])
        log_p[i, k] -= log_sum_exp
    for k in range(len(chosen[i]) if len(names) else 0):
        chosen[i, k] = names[chosen[i, k]]


@of_rows
def _first_not_among(ids):
    token, k = 0, 0
    while k < ids.size:
        if ids[k] == token:
            token, k = token + 1, -1  # compare the next one with all of them
        k += 1
    return token


@parallel_loop
def _know_nothing(task, reached):
    """The lower bounds before any logit is known."""
    reached[:] = -np.inf


def nothing_known(rows: int) -> np.ndarray:
    """Lower bounds on each row's k-th largest logit, before any logit is known."""
    reached = empty((rows,))
    _know_nothing(1, reached)
    return reached


_NO_BIAS = np.empty((0, 0), np.float32)
_NOT_PACKED = np.empty((0, 0), np.float32)
_NO_NAMES = np.empty(0, np.int64)


def grouped(bias: np.ndarray | None, vocabulary: int) -> np.ndarray:
    """A bias as `add_bias` takes it."""
    return _NO_BIAS if bias is None else contiguous(bias).reshape(-1, vocabulary)


def _found(
    x: np.ndarray,
    weight: np.ndarray,
    k: int,
    reached: np.ndarray,
    bias: np.ndarray = _NO_BIAS,
    names: np.ndarray | None = None,
    packed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """top_k, given a lower bound on each row's k-th largest logit, usually -inf."""
    panels_of_weight = _NOT_PACKED if packed is None else packed

    def look(panels: int, *candidates: np.ndarray) -> None:
        _panels(panels, x, weight, panels_of_weight, bias, reached, *candidates)

    return likeliest_of_panels(len(x), len(weight), k, names, look)


def likeliest_of_panels(
    rows: int,
    vocabulary: int,
    k: int,
    names: np.ndarray | None,
    look: Callable[..., None],
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest of all tokens; `look(panels, best, ids, tops, sums)` finds those of panels.

    names: [vocabulary], the ids of the tokens, if these are not their places.
    """
    panels = blocks(vocabulary, PANEL)
    best, ids = empty((rows, panels, k)), empty((rows, panels, k), np.int64)
    tops, sums = empty((rows, panels)), empty((rows, panels))
    look(panels, best, ids, tops, sums)
    log_p, chosen = empty((rows, k)), empty((rows, k), np.int64)
    given = _NO_NAMES if names is None else contiguous(names)
    _merge(blocks(rows, _ROWS), best, ids, tops, sums, given, log_p, chosen)
    return log_p, chosen


def _covers(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, **_: Any) -> bool:
    return x.dtype == weight.dtype and (bias is None or x.dtype == bias.dtype)


@top_k.on("numpy", covers=_covers)
def fast_top_k(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    k: int,
    ids: np.ndarray | None = None,
    packed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    if packed is not None and packed.shape != shape_of_packed(weight):
        raise ValueError(
            f"top_k: packed is of another weight: its shape is {packed.shape}, not "
            f"{shape_of_packed(weight)}"
        )
    added = grouped(bias, len(weight))
    return _found(contiguous(x), contiguous(weight), k, nothing_known(len(x)), added, ids, packed)


def packed_weight(
    weight: np.ndarray, rows: int, earlier: np.ndarray | None = None
) -> np.ndarray | None:
    """`Backend.pack_for_top_k`, of a float32 array.

    Calls of few rows read each number of the weight once, as it lies, and no panels.
    """
    if type(weight) is not np.ndarray or weight.dtype != np.float32 or rows <= MOST_ROWS:
        return None
    return packed_rows(contiguous(weight), earlier)
