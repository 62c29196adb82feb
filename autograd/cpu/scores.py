"""Attention of one query to some keys: its scores, and their exponentials."""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import (
    LANES,
    broadcast,
    exp_of,
    first_of,
    larger,
    largest_of,
    load,
    load_some,
    store,
    store_sums,
    sum_of,
    zeros,
)


@of_rows
def four_dots(out, i, j, a, row, a_column, b, rows, b_column, d):
    """out[i, j : j + 4] = the products of a's `row` with four `rows` of b, of d columns each.

    They begin at a_column in a, and at b_column in b.
    """
    sums = zeros(), zeros(), zeros(), zeros()
    pairs, whole = d // (2 * LANES) * (2 * LANES), d // LANES * LANES
    for c in range(0, pairs, 2 * LANES):  # two at a time: the loop itself costs as much as one
        sums = _add_products(sums, load(a, row, a_column + c), b, rows, b_column + c)
        column = c + LANES
        sums = _add_products(sums, load(a, row, a_column + column), b, rows, b_column + column)
    if pairs < whole:
        sums = _add_products(sums, load(a, row, a_column + pairs), b, rows, b_column + pairs)
    sum0, sum1, sum2, sum3 = sums
    if whole < d:
        a_column, b_column, left = a_column + whole, b_column + whole, d - whole
        part = load_some(a, row, a_column, left)
        sum0 += part * load_some(b, rows[0], b_column, left)
        sum1 += part * load_some(b, rows[1], b_column, left)
        sum2 += part * load_some(b, rows[2], b_column, left)
        sum3 += part * load_some(b, rows[3], b_column, left)
    store_sums(out, i, j, sum0, sum1, sum2, sum3)


@of_rows
def _add_products(sums, part, b, rows, column):
    """Add the products of a vector with one of each of four rows of b."""
    return (
        sums[0] + part * load(b, rows[0], column),
        sums[1] + part * load(b, rows[1], column),
        sums[2] + part * load(b, rows[2], column),
        sums[3] + part * load(b, rows[3], column),
    )


@of_rows
def exponentials(scores, i, start, seen, width, factor):
    """Replace scores of row i, from `start` on, by exp(factor · (score - the largest of them)).

    The first `seen` scores count. The rest of the `width`, a number of whole vectors, become 0.
    Returns their sum.
    """
    nothing, factors = np.float32(-np.inf), broadcast(factor)
    top = broadcast(nothing)
    for j in range(0, width, LANES):
        top = larger(first_of(load(scores, i, start + j), seen - j, nothing), top)
    top, total = broadcast(largest_of(top)), zeros()
    for j in range(0, width, LANES):
        below = first_of(load(scores, i, start + j), seen - j, nothing) - top
        part = exp_of(below * factors)
        store(scores, i, start + j, part)
        total += part
    return sum_of(total)
