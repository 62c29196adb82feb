"""Attention scores: products of a query with the keys that it sees."""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import (
    LANES,
    broadcast,
    first_of,
    larger,
    largest_of,
    load,
    load_some,
    store,
    store_sums,
    zeros,
)


@of_rows
def four_dots(out, i, j, a, row, a_column, b, rows, b_column, d):
    """out[i, j : j + 4] = the products of a's `row` with four `rows` of b, of d columns each.

    They begin at a_column in a, and at b_column in b.
    """
    sum0, sum1, sum2, sum3 = zeros(), zeros(), zeros(), zeros()
    whole = d // LANES * LANES
    for c in range(0, whole, LANES):
        part = load(a, row, a_column + c)
        sum0 += part * load(b, rows[0], b_column + c)
        sum1 += part * load(b, rows[1], b_column + c)
        sum2 += part * load(b, rows[2], b_column + c)
        sum3 += part * load(b, rows[3], b_column + c)
    if whole < d:
        a_column, b_column, left = a_column + whole, b_column + whole, d - whole
        part = load_some(a, row, a_column, left)
        sum0 += part * load_some(b, rows[0], b_column, left)
        sum1 += part * load_some(b, rows[1], b_column, left)
        sum2 += part * load_some(b, rows[2], b_column, left)
        sum3 += part * load_some(b, rows[3], b_column, left)
    store_sums(out, i, j, sum0, sum1, sum2, sum3)


@of_rows
def shift(scores, i, start, seen, width, factor):
    """Replace scores of row i, from `start` on, by factor · (score - the largest of them).

    The first `seen` scores count. The rest of the `width`, a number of whole vectors, become -inf.
    """
    nothing = np.float32(-np.inf)
    top = broadcast(nothing)
    for j in range(0, width, LANES):
        top = larger(first_of(load(scores, i, start + j), seen - j, nothing), top)
    top = broadcast(largest_of(top))
    for j in range(0, width, LANES):
        below = first_of(load(scores, i, start + j), seen - j, nothing) - top
        store(scores, i, start + j, below * broadcast(factor))
