"""likeliest_symbols: the logits of a panel of the vocabulary are looked through and forgotten."""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import block_of, blocks, of_rows, parallel_loop, plain
from autograd.cpu.products import NOTHING, multiply, room
from autograd.cpu.registers import LANES, any_reaches, larger, load, number_of
from autograd.cpu.thin import MOST_ROWS, dot_products
from autograd.cpu.vector import exp
from autograd.ops.likeliest import likeliest_symbols

PANEL = 1024  # symbols of a turn


@parallel_loop
def _panels(panel, x, weight, best, symbols, sums):
    """What each panel of the vocabulary has to say of each row.

    x [rows, d], weight [vocabulary, d]. best and symbols [rows, panels, count] get the largest
    logits, best first, and their symbols; sums [rows, panels] Σ exp(logit - the largest).
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
        _pick(logits, i, first, best[i, panel], symbols[i, panel])
        row, top, total = logits[i], best[i, panel, 0], np.float32(0)
        for j in range(width):
            total += exp(row[j] - top)
        sums[i, panel] = total


@of_rows
def _pick(logits, i, first, values, symbols):
    """The largest numbers of row i, best first, and where they are, counted from `first`."""
    _forget(values, symbols, first)
    whole = logits.shape[1] // LANES * LANES
    # The largest of each lane are as many candidates as there are lanes; of so many candidates, the
    # best ones are at least that good.
    least = np.float32(-np.inf)
    if values.size <= LANES <= whole:
        tops = load(logits, i, 0)
        for j in range(LANES, whole, LANES):
            tops = larger(tops, load(logits, i, j))
        for lane in range(LANES):
            _insert(values, symbols, number_of(tops, lane), first)
        least = values[values.size - 1]
        _forget(values, symbols, first)
    for j in range(0, whole, LANES):
        if any_reaches(load(logits, i, j), least):
            for k in range(j, j + LANES):
                if logits[i, k] >= least:
                    _insert(values, symbols, logits[i, k], first + k)
    for k in range(whole, logits.shape[1]):
        _insert(values, symbols, logits[i, k], first + k)


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
def _merge(i, best, symbols, sums, log_p, chosen):
    """The best of all panels for row i: log_p and symbols `chosen` [rows, count], best first."""
    top, total = best[i, 0, 0], np.float32(0)
    for p in range(best.shape[1]):
        top = max(top, best[i, p, 0])
    for p in range(best.shape[1]):
        total += sums[i, p] * np.exp(best[i, p, 0] - top)
    log_total = top + np.log(total)
    unknown = np.isnan(log_total)
    for k in range(log_p.shape[1]):
        log_p[i, k], chosen[i, k] = log_total if unknown else np.float32(-np.inf), k
    if unknown:
        return
    for p in range(best.shape[1]):
        for k in range(best.shape[2]):
            _insert(log_p[i], chosen[i], best[i, p, k] - log_total, symbols[i, p, k])


@likeliest_symbols.on("numpy")
def fast_likeliest_symbols(
    x: np.ndarray, weight: np.ndarray, *, count: int
) -> tuple[np.ndarray, np.ndarray]:
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x {x.shape} and weight {weight.shape} do not fit")
    if not 1 <= count <= len(weight):
        raise ValueError(f"{count} symbols of a vocabulary of {len(weight)}")
    if weight.dtype != x.dtype:
        return likeliest_symbols.reference(x, weight, count=count)
    x, weight = plain(x), plain(weight)
    panels = blocks(len(weight), PANEL)
    best, sums = np.empty((len(x), panels, count), x.dtype), np.empty((len(x), panels), x.dtype)
    symbols = np.empty(best.shape, np.int64)
    _panels(panels, x, weight, best, symbols, sums)
    log_p, chosen = np.empty((len(x), count), x.dtype), np.empty((len(x), count), np.int64)
    _merge(len(x), best, symbols, sums, log_p, chosen)
    return log_p, chosen
