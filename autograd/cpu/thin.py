"""Products of a few rows, as in decoding one sentence, limited by reading the matrix once.

The matrix is not packed first, since each of its numbers is used only once for each row. What is
read of it is multiplied by four rows at a time.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import (
    LANES,
    address,
    broadcast,
    fetch,
    load,
    store,
    store_sums,
    sum_of,
    zeros,
)

MOST_ROWS = 8
_AHEAD = 8  # rows of the weight


@of_rows
def add_product(y, x, weight, left, right):
    """y += x weight, in columns `left` to `right`.

    y: [rows, d_out]; x: [rows, d_in]; weight: [d_in, d_out].
    """
    rows, d_in = len(y), weight.shape[0]
    whole = left + (right - left) // LANES * LANES
    for k in range(0, d_in - 3, 4):
        for i in range(0, rows - 3, 4):
            a, b = _four_of(x, i, k), _four_of(x, i + 1, k)
            c, d = _four_of(x, i + 2, k), _four_of(x, i + 3, k)
            for j in range(left, whole, LANES):
                terms = _terms(weight, k, j, i == 0)  # read once, and used for four rows
                _add_terms(y, i, j, a, terms)
                _add_terms(y, i + 1, j, b, terms)
                _add_terms(y, i + 2, j, c, terms)
                _add_terms(y, i + 3, j, d, terms)
        for i in range(rows // 4 * 4, rows):
            a = _four_of(x, i, k)
            for j in range(left, whole, LANES):
                _add_terms(y, i, j, a, _terms(weight, k, j, i == 0))
    _add_rest(y, x, weight, d_in // 4 * 4, d_in, left, whole)
    _add_rest(y, x, weight, 0, d_in, whole, right)


@of_rows
def _four_of(x, i, k):
    return (
        broadcast(x[i, k]),
        broadcast(x[i, k + 1]),
        broadcast(x[i, k + 2]),
        broadcast(x[i, k + 3]),
    )


@of_rows
def _terms(weight, k, j, fetches):
    """Four rows of the weight. With `fetches`, those that come later are prefetched.

    Of each row only a part is read, which the processor's prefetchers do not foresee.
    """
    if fetches:
        ahead = min(k + _AHEAD, weight.shape[0] - 4)
        for r in range(4):
            fetch(address(weight, ahead + r, j))
    return _below(weight, k, j)


@of_rows
def _below(matrix, i, j):
    """16 numbers of row i and of each of the three rows below it, from column j on."""
    return (
        load(matrix, i, j),
        load(matrix, i + 1, j),
        load(matrix, i + 2, j),
        load(matrix, i + 3, j),
    )


@of_rows
def _add_terms(y, i, j, a, b):
    total = load(y, i, j) + a[0] * b[0]
    total += a[1] * b[1]
    total += a[2] * b[2]
    total += a[3] * b[3]
    store(y, i, j, total)


@of_rows
def _add_rest(y, x, weight, top, bottom, left, right):
    for k in range(top, bottom):
        for i in range(len(y)):
            for j in range(left, right):
                y[i, j] += x[i, k] * weight[k, j]


@of_rows
def dot_products(out, x, weight, first):
    """out: [rows, n] = x weight[first : first + n]ᵀ, for x: [rows, d] and weight: [more, d]."""
    n, rows, whole = out.shape[1], len(x), x.shape[1] // LANES * LANES
    for j in range(0, n - 3, 4):
        for i in range(0, rows - 3, 4):
            a = b = c = d = (zeros(), zeros(), zeros(), zeros())
            for k in range(0, whole, LANES):
                four = _below(weight, first + j, k)  # read once, and used for four rows
                a = _add_products(a, load(x, i, k), four)
                b = _add_products(b, load(x, i + 1, k), four)
                c = _add_products(c, load(x, i + 2, k), four)
                d = _add_products(d, load(x, i + 3, k), four)
            _store_dots(out, x, weight, first, i, j, a)
            _store_dots(out, x, weight, first, i + 1, j, b)
            _store_dots(out, x, weight, first, i + 2, j, c)
            _store_dots(out, x, weight, first, i + 3, j, d)
        for i in range(rows // 4 * 4, rows):
            a = (zeros(), zeros(), zeros(), zeros())
            for k in range(0, whole, LANES):
                a = _add_products(a, load(x, i, k), _below(weight, first + j, k))
            _store_dots(out, x, weight, first, i, j, a)
    for j in range(n // 4 * 4, n):
        for i in range(rows):
            total = zeros()
            for k in range(0, whole, LANES):
                total += load(x, i, k) * load(weight, first + j, k)
            out[i, j] = sum_of(total) + _rest(x, i, weight, first + j, whole)


@of_rows
def _add_products(sums, row, four):
    return (
        sums[0] + row * four[0],
        sums[1] + row * four[1],
        sums[2] + row * four[2],
        sums[3] + row * four[3],
    )


@of_rows
def _store_dots(out, x, weight, first, i, j, sums):
    whole = x.shape[1] // LANES * LANES
    store_sums(out, i, j, sums[0], sums[1], sums[2], sums[3])
    if whole < x.shape[1]:
        for c in range(j, j + 4):
            out[i, c] += _rest(x, i, weight, first + c, whole)


@of_rows
def _rest(x, i, weight, j, start):
    """The dot product of row i of x and row j of weight, from column `start` on."""
    total = np.float32(0)
    for k in range(start, x.shape[1]):
        total += x[i, k] * weight[j, k]
    return total
