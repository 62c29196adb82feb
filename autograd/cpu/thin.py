"""Products of a few rows, as in decoding one sentence, limited by reading the matrix once.

The matrix is not packed first, since each of its numbers is used only once for each row.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import LANES, broadcast, load, store, sum_of, zeros

MOST_ROWS = 8


@of_rows
def add_product(y, x, weight, left, right):
    """y += x weight, in columns `left` to `right`.

    y: [rows, d_out]; x: [rows, d_in]; weight: [d_in, d_out].
    """
    d_in = weight.shape[0]
    whole = left + (right - left) // LANES * LANES
    for k in range(0, d_in - 3, 4):
        for i in range(len(y)):
            a, b = broadcast(x[i, k]), broadcast(x[i, k + 1])
            c, d = broadcast(x[i, k + 2]), broadcast(x[i, k + 3])
            for j in range(left, whole, LANES):
                total = load(y, i, j) + a * load(weight, k, j)
                total += b * load(weight, k + 1, j)
                total += c * load(weight, k + 2, j)
                total += d * load(weight, k + 3, j)
                store(y, i, j, total)
    _add_rest(y, x, weight, d_in // 4 * 4, d_in, left, whole)
    _add_rest(y, x, weight, 0, d_in, whole, right)


@of_rows
def _add_rest(y, x, weight, top, bottom, left, right):
    for k in range(top, bottom):
        for i in range(len(y)):
            for j in range(left, right):
                y[i, j] += x[i, k] * weight[k, j]


@of_rows
def dot_products(out, x, weight, first):
    """out: [rows, n] = x weight[first : first + n]ᵀ, for x: [rows, d] and weight: [more, d]."""
    n, whole = out.shape[1], x.shape[1] // LANES * LANES
    for j in range(0, n, 4):
        # Four at a time; if fewer are left, the last one is repeated.
        j1, j2, j3 = min(j + 1, n - 1), min(j + 2, n - 1), min(j + 3, n - 1)
        for i in range(len(x)):
            sum0, sum1, sum2, sum3 = zeros(), zeros(), zeros(), zeros()
            for k in range(0, whole, LANES):
                row = load(x, i, k)
                sum0 += row * load(weight, first + j, k)
                sum1 += row * load(weight, first + j1, k)
                sum2 += row * load(weight, first + j2, k)
                sum3 += row * load(weight, first + j3, k)
            out[i, j] = sum_of(sum0) + _rest(x, i, weight, first + j, whole)
            out[i, j1] = sum_of(sum1) + _rest(x, i, weight, first + j1, whole)
            out[i, j2] = sum_of(sum2) + _rest(x, i, weight, first + j2, whole)
            out[i, j3] = sum_of(sum3) + _rest(x, i, weight, first + j3, whole)


@of_rows
def _rest(x, i, weight, j, start):
    """The dot product of row i of x and row j of weight, from column `start` on."""
    total = np.float32(0)
    for k in range(start, x.shape[1]):
        total += x[i, k] * weight[j, k]
    return total
