"""Products of a few rows, as in decoding one sentence: a matrix goes by once, and that is the time.

Nothing is copied to a better place first, for each number of the matrix is used but once a row.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_rows

MOST = 8  # rows


@of_rows
def add_product(y, x, weight, left, right):
    """y [rows, d_out] += x [rows, d_in] · weight [d_in, d_out], in the columns left to right."""
    d_in = weight.shape[0]
    for k in range(0, d_in - 3, 4):
        a, b = weight[k][left:right], weight[k + 1][left:right]
        c, d = weight[k + 2][left:right], weight[k + 3][left:right]
        for i in range(len(y)):
            row = y[i][left:right]
            xa, xb, xc, xd = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            for j in range(row.size):
                row[j] += xa * a[j] + xb * b[j] + xc * c[j] + xd * d[j]
    for k in range(d_in // 4 * 4, d_in):
        a = weight[k][left:right]
        for i in range(len(y)):
            row, xa = y[i][left:right], x[i, k]
            for j in range(row.size):
                row[j] += xa * a[j]


@of_rows
def dot_products(out, x, weight, first):
    """out [rows, n] = x [rows, d] · weight[first : first + n]ᵀ, weight [more, d]."""
    for j in range(out.shape[1]):
        column = weight[first + j]
        for i in range(len(x)):
            row, total = x[i], np.float32(0)
            for k in range(column.size):
                total += row[k] * column[k]
            out[i, j] = total
