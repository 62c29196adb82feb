"""linear: the products are NumPy's; bias, ReLU and their gradients are one pass in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from autograd.cpu.loops import ROWS, blocks, of_rows, parallel_loop, plain
from autograd.op import Vjp
from autograd.ops.linear import linear


@parallel_loop
def _add_bias(y, bias, relu):
    """y + b, or max(0, y + b), in place. y [tokens, d], bias [d] or None."""
    for block in prange(blocks(len(y))):
        for i in range(block * ROWS, min((block + 1) * ROWS, len(y))):
            _add_bias_row(y[i], bias, relu)


@of_rows
def _add_bias_row(row, bias, relu):
    if bias is not None:
        for j in range(row.size):
            row[j] += bias[j]
    if relu:
        for j in range(row.size):
            row[j] = np.float32(0) if row[j] < 0 else row[j]  # NaN stays NaN


@parallel_loop
def _mask_and_sum(dy, y, sums):
    """dy where y > 0, in place (all of dy where y is None), and its sums over blocks of rows.

    dy and y [tokens, d], sums [blocks, d].
    """
    for block in prange(len(sums)):
        total = sums[block]
        total[:] = 0
        for i in range(block * ROWS, min((block + 1) * ROWS, len(dy))):
            _mask_and_sum_row(dy[i], None if y is None else y[i], total)


@of_rows
def _mask_and_sum_row(drow, row, total):
    if row is not None:
        for j in range(drow.size):
            drow[j] = drow[j] if row[j] > 0 else np.float32(0)
    for j in range(drow.size):
        total[j] += drow[j]


@linear.on("numpy")
def fast_linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, relu: bool = False
) -> tuple[np.ndarray, Vjp]:
    if x.ndim != 2 or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[1:]):
        return linear.reference(x, weight, bias, relu=relu)
    y = np.matmul(x, weight)
    if bias is not None or relu:
        _add_bias(y, None if bias is None else plain(bias), relu)
    activation = y if relu else None

    def vjp(dy: np.ndarray) -> Any:
        if bias is not None or relu:
            dy = plain(dy)
            sums = np.empty((blocks.py_func(len(dy)), dy.shape[1]), dy.dtype)
            _mask_and_sum(dy, activation, sums)

        def dweight(out: np.ndarray, add: bool) -> None:
            if add:
                out += x.T @ dy
            else:
                np.matmul(x.T, dy, out=out)

        dx = dy @ weight.T
        return (dx, dweight) if bias is None else (dx, dweight, sums.sum(axis=0))

    return y, vjp
