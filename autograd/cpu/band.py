"""Matrices of attention weights, of which a band is seen: products and the softmax.

A band is a pair (low, high): in row i, the columns from i + low to i + high are seen. Everything
else is hidden, as with causal attention or a window; of its products, only those are computed that
are in one tile of the microkernel with others.

A block is (matrix, row, column): where it begins.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.microkernel import HEIGHT, VECTORS, WIDTH, multiply_rows
from autograd.cpu.registers import (
    LANES,
    address,
    broadcast,
    exp_of,
    first_of,
    larger,
    largest_of,
    load,
    load_some,
    store,
    store_some,
    sum_of,
    transpose,
    zeros,
)

_ONE = np.float32(1)


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
def transpose_block(out, block, n, d):
    """Write the transpose of a block: [n, d] to out: [d, n or more], in rows of whole vectors."""
    matrix, row, column = block
    whole = d // LANES * LANES
    for j in range(0, n, LANES):
        for c in range(0, whole, LANES):
            transpose(out, c, j, matrix, row + j, column + c, n - j)
        for c in range(whole, d):
            for i in range(j, j + LANES):
                out[c, i] = matrix[row + min(i, n - 1), column + c]


@of_rows
def scores(out, n, m, a, b, d, band):
    """out: [n, m] = a b, for a block a: [n, d] and b: [d, m or more], in rows of whole vectors.

    Computes the columns of the band; all others are undefined.
    """
    matrix, row, column = a
    for i in range(0, n, HEIGHT):
        rows = min(HEIGHT, n - i)
        start, _ = _seen(i, m, band)
        _, end = _seen(i + rows - 1, m, band)
        start = start // LANES * LANES
        left = address(matrix, row + i, column), matrix.shape[1], 1, rows
        _multiply((out, i, start), left, (b, 0, start), end - start, d, _ONE, False)


@of_rows
def product(out, a, turned, n, k, b, d, factor, band, add):
    """out = factor · a b, for a: [n, k] and blocks out: [n, d] and b: [k, d].

    a is zero outside of its band; if `turned`, its transpose is given. With `add`, the product is
    added to out.
    """
    matrix, row, column = out
    b_matrix, b_row, b_column = b
    whole = d // LANES * LANES
    for i in range(0, n, HEIGHT):
        rows = min(HEIGHT, n - i)
        start, _ = _seen(i, k, band)
        _, end = _seen(i + rows - 1, k, band)
        left = address(a, i, start), a.shape[1], 1, rows
        if turned:
            left = address(a, start, i), 1, a.shape[1], rows
        right, terms = (b_matrix, b_row + start, b_column), end - start
        _multiply((matrix, row + i, column), left, right, whole, terms, factor, add)
        if whole < d:
            _multiply_rest(out, a, turned, i, rows, (start, end), b, whole, d, factor, add)


@of_rows
def _multiply_rest(out, a, turned, i, rows, band, b, first, d, factor, add):
    """The columns of a product from `first` on, less than a vector, for some rows from i."""
    matrix, row, column = out
    b_matrix, b_row, b_column = b
    start, end = band
    rest = d - first
    for r in range(i, i + rows):
        total = zeros()
        for s in range(start, end):
            number = a[s, r] if turned else a[r, s]
            total += broadcast(number) * load_some(b_matrix, b_row + s, b_column + first, rest)
        total = total * broadcast(factor)
        if add:
            total += load_some(matrix, row + r, column + first, rest)
        store_some(matrix, row + r, column + first, total, rest)


@of_rows
def _multiply(out, left, right, columns, terms, factor, add):
    """Up to HEIGHT rows of a product, and its `columns`, rounded up to whole vectors.

    out and right are blocks, and left is the a of `multiply_rows`.
    """
    matrix, row, column = out
    b, b_row, b_column = right
    for c in range(0, columns, WIDTH):
        place = address(matrix, row, column + c), matrix.shape[1]
        panel = address(b, b_row, b_column + c), b.shape[1]
        if columns - c > WIDTH - LANES:
            multiply_rows(VECTORS, terms, left, panel, place, factor, add)
        else:
            multiply_rows(1, terms, left, panel, place, factor, add)


@of_rows
def softmax(scores, n, m, band, factor):
    """Softmax of factor · scores, in place; scores: [n, m]. Hidden and padded columns get 0."""
    width, nothing = scores.shape[1], np.float32(-np.inf)
    factors = broadcast(factor)
    for i in range(n):
        start, end = _seen(i, m, band)
        for j in range(start):
            scores[i, j] = nothing
        top = broadcast(nothing)
        for j in range(0, width, LANES):
            top = larger(first_of(load(scores, i, j), end - j, nothing), top)
        top = broadcast(largest_of(top))
        total = zeros()
        for j in range(0, width, LANES):
            below = first_of(load(scores, i, j), end - j, nothing) - top
            part = exp_of(below * factors)
            store(scores, i, j, part)
            total += part
        inverse = broadcast(_ONE / sum_of(total))
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
