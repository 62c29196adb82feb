"""Matrices of attention weights, of which a band is seen: products and the softmax.

A band is a pair (low, high): in row i, the columns from i + low to i + high are seen. Everything
else is hidden, as with causal attention or a window; its products are not computed.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import (
    LANES,
    broadcast,
    first_of,
    load,
    load_some,
    store,
    store_some,
    sum_of,
    zeros,
)
from autograd.cpu.scores import four_dots, shift
from autograd.cpu.vector import exp


@of_rows
def transposed(band):
    """The band of the transposed matrix."""
    low, high = band
    return -high, -low


@of_rows
def _seen(i, m, band):
    """The columns of m that are in the band of row i: the first, and the one after the last."""
    low, high = band
    return max(0, min(i + low, m)), max(0, min(i + high + 1, m))


@of_rows
def dots(out, n, m, a, a_start, b, b_start, d, band):
    """out: [n, m] = a bᵀ, for blocks of d columns; a_start is the row and column of a's block.

    Computes the columns of the band, four at a time. All others are undefined, as are up to three
    columns after the last.
    """
    row, a_column = a_start
    first, b_column = b_start
    for i in range(n):
        start, end = _seen(i, m, band)
        for j in range(start // 4 * 4, end, 4):
            rows = (
                first + j,
                first + min(j + 1, m - 1),
                first + min(j + 2, m - 1),
                first + min(j + 3, m - 1),
            )
            four_dots(out, i, j, a, row + i, a_column, b, rows, b_column, d)


@of_rows
def _sum_with(add, out, i, j):
    """What a product is added to: 16 numbers of out, or zeros without `add`."""
    return load(out, i, j) if add else zeros()


@of_rows
def _some_sum_with(add, out, i, j, count):
    """The same of the first `count` numbers alone."""
    return load_some(out, i, j, count) if add else zeros()


@of_rows
def product(out, out_start, a, n, k, b, b_start, d, factor, band, add):
    """out = factor · a b, for a: [n, k] and d columns of b; places are a row and a column.

    a is zero outside of its band. With `add`, the product is added to out.
    """
    row, column = out_start
    first, b_column = b_start
    factors = broadcast(factor)
    whole = d // LANES * LANES
    for i in range(0, n, 4):
        # Four rows of a at a time; if fewer are left, the last one is repeated.
        i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
        start, _ = _seen(i, k, band)
        _, end = _seen(i + 3, k, band)
        for c in range(0, whole, 2 * LANES):
            # Two vectors of each row, or the last one twice; the sums stay in registers.
            left, right = c, min(c + LANES, whole - LANES)
            y0, y1, y2, y3 = zeros(), zeros(), zeros(), zeros()
            z0, z1, z2, z3 = zeros(), zeros(), zeros(), zeros()
            for s in range(start, end):
                y, z = load(b, first + s, b_column + left), load(b, first + s, b_column + right)
                y0 += broadcast(a[i, s]) * y
                z0 += broadcast(a[i, s]) * z
                y1 += broadcast(a[i1, s]) * y
                z1 += broadcast(a[i1, s]) * z
                y2 += broadcast(a[i2, s]) * y
                z2 += broadcast(a[i2, s]) * z
                y3 += broadcast(a[i3, s]) * y
                z3 += broadcast(a[i3, s]) * z
            # What is added to is read before any of it is written: rows may be the same.
            y0 = y0 * factors + _sum_with(add, out, row + i, column + left)
            z0 = z0 * factors + _sum_with(add, out, row + i, column + right)
            y1 = y1 * factors + _sum_with(add, out, row + i1, column + left)
            z1 = z1 * factors + _sum_with(add, out, row + i1, column + right)
            y2 = y2 * factors + _sum_with(add, out, row + i2, column + left)
            z2 = z2 * factors + _sum_with(add, out, row + i2, column + right)
            y3 = y3 * factors + _sum_with(add, out, row + i3, column + left)
            z3 = z3 * factors + _sum_with(add, out, row + i3, column + right)
            store(out, row + i, column + left, y0)
            store(out, row + i, column + right, z0)
            store(out, row + i1, column + left, y1)
            store(out, row + i1, column + right, z1)
            store(out, row + i2, column + left, y2)
            store(out, row + i2, column + right, z2)
            store(out, row + i3, column + left, y3)
            store(out, row + i3, column + right, z3)
        if whole < d:
            # The columns that do not fill a vector.
            left, c, b_c = d - whole, column + whole, b_column + whole
            y0, y1, y2, y3 = zeros(), zeros(), zeros(), zeros()
            for s in range(start, end):
                y = load_some(b, first + s, b_c, left)
                y0 += broadcast(a[i, s]) * y
                y1 += broadcast(a[i1, s]) * y
                y2 += broadcast(a[i2, s]) * y
                y3 += broadcast(a[i3, s]) * y
            y0 = y0 * factors + _some_sum_with(add, out, row + i, c, left)
            y1 = y1 * factors + _some_sum_with(add, out, row + i1, c, left)
            y2 = y2 * factors + _some_sum_with(add, out, row + i2, c, left)
            y3 = y3 * factors + _some_sum_with(add, out, row + i3, c, left)
            store_some(out, row + i, c, y0, left)
            store_some(out, row + i1, c, y1, left)
            store_some(out, row + i2, c, y2, left)
            store_some(out, row + i3, c, y3, left)


@of_rows
def softmax(scores, n, m, band, factor):
    """Softmax of factor · scores, in place; scores: [n, m]. Hidden and padded columns get 0."""
    width = scores.shape[1]
    for i in range(n):
        start, end = _seen(i, m, band)
        for j in range(start):
            scores[i, j] = -np.inf
        shift(scores, i, 0, end, width, factor)
    flat = scores.reshape(-1)
    for j in range(n * width):
        flat[j] = exp(flat[j])
    for i in range(n):
        total = zeros()
        for j in range(0, width, LANES):
            total += load(scores, i, j)
        inverse = broadcast(np.float32(1) / sum_of(total))
        for j in range(0, width, LANES):
            store(scores, i, j, load(scores, i, j) * inverse)


@of_rows
def softmax_gradient(dp, p, n, m, band):
    """Turn dp into the gradient of the scores, p (dp - Σ dp p). Both are [n, m]."""
    for i in range(n):
        start, end = _seen(i, m, band)
        for j in range(start):
            dp[i, j] = 0
        along, none = zeros(), np.float32(0)
        for j in range(0, p.shape[1], LANES):
            along += first_of(load(dp, i, j), end - j, none) * load(p, i, j)
        along = broadcast(sum_of(along))
        for j in range(0, p.shape[1], LANES):
            above = first_of(load(dp, i, j), end - j, none) - along
            store(dp, i, j, load(p, i, j) * above)
