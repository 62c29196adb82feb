"""Products of a few rows, as in decoding one sentence: a matrix goes by once, and that is the time.

Nothing is copied to a better place first, for each number of the matrix is used but once a row.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import LANES, load, spread, store, sum_of, zeros

MOST = 8  # rows


@of_rows
def add_product(y, x, weight, left, right):
    """y [rows, d_out] += x [rows, d_in] · weight [d_in, d_out], in the columns left to right."""
    d_in = weight.shape[0]
    whole = left + (right - left) // LANES * LANES
    for k in range(0, d_in - 3, 4):
        for i in range(len(y)):
            a, b = spread(x[i, k]), spread(x[i, k + 1])
            c, d = spread(x[i, k + 2]), spread(x[i, k + 3])
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
    """out [rows, n] = x [rows, d] · weight[first : first + n]ᵀ, weight [more, d]."""
    n, d = out.shape[1], x.shape[1]
    whole = d // LANES * LANES
    for j in range(0, n, 4):
        # The last ones are done twice rather than by a loop of their own.
        j = max(0, min(j, n - 4))
        w = first + j
        last = first + n - 1
        second, third, fourth = min(w + 1, last), min(w + 2, last), min(w + 3, last)
        for i in range(len(x)):
            a, b, c, e = zeros(), zeros(), zeros(), zeros()
            for k in range(0, whole, LANES):
                row = load(x, i, k)
                a += row * load(weight, w, k)
                b += row * load(weight, second, k)
                c += row * load(weight, third, k)
                e += row * load(weight, fourth, k)
            out[i, j] = sum_of(a) + _rest(x, i, weight, w, whole)
            out[i, second - first] = sum_of(b) + _rest(x, i, weight, second, whole)
            out[i, third - first] = sum_of(c) + _rest(x, i, weight, third, whole)
            out[i, fourth - first] = sum_of(e) + _rest(x, i, weight, fourth, whole)


@of_rows
def _rest(x, i, weight, w, first):
    total = np.float32(0)
    for k in range(first, x.shape[1]):
        total += x[i, k] * weight[w, k]
    return total
