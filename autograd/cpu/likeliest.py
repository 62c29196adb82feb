"""likeliest_symbols: the logits of a panel of the vocabulary are looked through and forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.loops import block_of, blocks, of_rows, parallel_loop, plain
from autograd.cpu.products import NOTHING, multiply, room
from autograd.cpu.registers import (
    LANES,
    larger,
    largest_of,
    load,
    lowest_bit,
    number_of,
    which_reach,
)
from autograd.cpu.thin import MOST_ROWS, dot_products
from autograd.cpu.vector import exp
from autograd.ops.large.likeliest import likeliest_symbols

PANEL = 1024  # symbols of a turn


@parallel_loop
def _panels(panel, x, weight, reached, best, symbols, tops, sums):
    """What each panel of the vocabulary has to say of each row.

    x [rows, d], weight [vocabulary, d]. best and symbols [rows, panels, count] get the panel's
    logits that may be among the row's largest, best first, and their symbols; tops [rows, panels]
    the largest logit of all, sums [rows, panels] Σ exp(logit - top). reached [rows] is what `count`
    logits of a row are known to reach: a thread may read an older number, or put a lower one back,
    for each is as true as the others.
    """
    first, last = block_of(panel, len(weight), PANEL)
    rows, width = len(x), last - first
    logits = np.empty((rows, width), np.float32)
    if rows <= MOST_ROWS:
        dot_products(logits, x, weight, first)
    else:
        out, transposed = (logits, 0, 0, rows, width), (weight, first, 0, True)
        multiply(out, (x, 0, 0, False), transposed, x.shape[1], None, NOTHING, False, room(0))
    for i in range(rows):
        top = _pick(logits, i, first, reached[i], best[i, panel], symbols[i, panel])
        if best[i, panel, -1] > reached[i]:
            reached[i] = best[i, panel, -1]
        row, total = logits[i], np.float32(0)
        # Logits of -inf are all nothing; those of NaN are not.
        level = top if top > -np.inf else np.float32(0)
        for j in range(width):
            total += exp(row[j] - level)
        tops[i, panel], sums[i, panel] = top, total


@of_rows
def _pick(logits, i, first, least, values, symbols):
    """The largest numbers of row i that reach `least`, best first, and where, from `first` on.

    Returns the largest of the row, whether or not it does.
    """
    _forget(values, symbols, first)
    whole, top = logits.shape[1] // LANES * LANES, np.float32(-np.inf)
    for k in range(whole, logits.shape[1]):
        top = max(top, logits[i, k])
    if whole:
        tops = _largest_of_lanes(logits, i, whole)
        top = max(top, largest_of(tops))
        if least == -np.inf and values.size <= LANES:
            # The largest of each lane are as many candidates as there are lanes; of so many
            # candidates, the best ones are at least that good.
            for lane in range(LANES):
                _insert(values, symbols, number_of(tops, lane), first)
            least = values[values.size - 1]
            _forget(values, symbols, first)
    if top < least:
        return top
    for j in range(0, whole, LANES):
        candidates = which_reach(load(logits, i, j), least)
        while candidates:
            k = j + lowest_bit(candidates)
            _insert(values, symbols, logits[i, k], first + k)
            candidates &= candidates - 1
    for k in range(whole, logits.shape[1]):
        if logits[i, k] >= least:
            _insert(values, symbols, logits[i, k], first + k)
    return top


@of_rows
def _largest_of_lanes(logits, i, whole):
    """The largest number of each lane of row i, which has `whole` numbers, some vectors of them."""
    tops = load(logits, i, 0)
    tops1, tops2, tops3 = tops, tops, tops  # four at a time, for each waits for the one before
    for j in range(0, whole, 4 * LANES):
        tops = larger(load(logits, i, j), tops)
        tops1 = larger(load(logits, i, min(j + LANES, whole - LANES)), tops1)
        tops2 = larger(load(logits, i, min(j + 2 * LANES, whole - LANES)), tops2)
        tops3 = larger(load(logits, i, min(j + 3 * LANES, whole - LANES)), tops3)
    return larger(larger(tops, tops1), larger(tops2, tops3))


@of_rows
def _forget(values, symbols, symbol):
    for k in range(values.size):
        values[k], symbols[k] = -np.inf, symbol


@of_rows
def _insert(values, symbols, value, symbol):
    """Put a number where it belongs among the best, if it does; equals stay in their order."""
    k = values.size - 1
    if not value > values[k]:
        return
    while k > 0 and values[k - 1] < value:
        values[k], symbols[k] = values[k - 1], symbols[k - 1]
        k -= 1
    values[k], symbols[k] = value, symbol


@parallel_loop
def _merge(i, best, symbols, tops, sums, log_p, chosen):
    """The best of all panels for row i: log_p and symbols `chosen` [rows, count], best first."""
    top, total = tops[i, 0], np.float32(0)
    for p in range(best.shape[1]):
        top = max(top, tops[i, p])
    for p in range(best.shape[1]):
        total += sums[i, p] * np.exp(tops[i, p] - top)
    log_total = top + np.log(total)
    unknown = np.isnan(log_total)
    for k in range(log_p.shape[1]):
        log_p[i, k], chosen[i, k] = np.float32(0) if unknown else np.float32(-np.inf), k
    if not unknown:
        # By their logits, for logarithms of probabilities can be equal where those are not; and
        # which of the lesser ones a panel has kept depends on what was seen before it.
        for p in range(best.shape[1]):
            for k in range(best.shape[2]):
                _insert(log_p[i], chosen[i], best[i, p, k], symbols[i, p, k])
    for k in range(log_p.shape[1]):
        if log_p[i, k] == -np.inf:
            chosen[i, k] = _first_not_among(chosen[i, :k])
        log_p[i, k] -= log_total


@of_rows
def _first_not_among(symbols):
    symbol, k = 0, 0
    while k < symbols.size:
        if symbols[k] == symbol:
            symbol, k = symbol + 1, -1  # look through all of them for the next one
        k += 1
    return symbol


def _covers(x: np.ndarray, weight: np.ndarray, **_: Any) -> bool:
    return x.dtype == weight.dtype


@likeliest_symbols.on("numpy", covers=_covers)
def fast_likeliest_symbols(
    x: np.ndarray, weight: np.ndarray, *, count: int
) -> tuple[np.ndarray, np.ndarray]:
    return _found(plain(x), plain(weight), count, np.full(len(x), -np.inf, x.dtype))


def _found(
    x: np.ndarray, weight: np.ndarray, count: int, reached: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The result, for what is known of each row's logits to begin with, usually nothing."""
    panels = blocks(len(weight), PANEL)
    best = np.empty((len(x), panels, count), x.dtype)
    symbols = np.empty(best.shape, np.int64)
    tops, sums = np.empty(best.shape[:2], x.dtype), np.empty(best.shape[:2], x.dtype)
    _panels(panels, x, weight, reached, best, symbols, tops, sums)
    log_p, chosen = np.empty((len(x), count), x.dtype), np.empty((len(x), count), np.int64)
    _merge(len(x), best, symbols, tops, sums, log_p, chosen)
    return log_p, chosen
