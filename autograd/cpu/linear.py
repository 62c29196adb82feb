"""linear: bias and ReLU are fused into the product, their gradients precede it, tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.checks import shape_of
from autograd.cpu import thin
from autograd.cpu.loop_writers import sum_of_rows
from autograd.cpu.loops import (
    MANY,
    block_of,
    blocks,
    contiguous,
    of_rows,
    parallel_loop,
    row_loop,
    rows_of_a_task,
)
from autograd.cpu.memory import aligned, empty_aligned
from autograd.cpu.microkernel import HEIGHT, WIDTH
from autograd.cpu.products import (
    NOTHING,
    multiply,
    new_workspace,
    tile_of,
    tiles,
    weight_gradient,
)
from autograd.operation import Vjp
from autograd.ops.large.affine import linear

_MOST_IN_ROWS = 640
_READ_BY_ALL = 1 << 17  # numbers of a matrix that is so small that each thread may read all of it
_ROWS = 64  # rows of a partial sum: fixed, so that no sum depends on the number of threads
_ZERO = np.float32(0)


@parallel_loop
def _forward(tile, tiles, by_rows, x, weight, bias, relu, y):
    """y = xW + b, or max(0, xW + b). x: [tokens, d_in]; weight: [d_in, d_out]; bias: [d_out].

    A tile is a part of the rows, or of the columns.
    """
    tokens, d_out = y.shape
    if by_rows:
        top, bottom = tile_of(tile, tiles, tokens, HEIGHT)
        left, right = 0, d_out
    else:
        top, bottom = 0, tokens
        left, right = tile_of(tile, tiles, d_out, WIDTH)
    if tokens <= thin.MOST_ROWS:
        _thin_forward(x, weight, bias, relu, y, left, right)
    else:
        _multiply(x, weight, bias, relu, (y, top, left, bottom - top, right - left))


@row_loop("x y")
def _forward_in_rows(task, size, x, weight, bias, relu, y):
    """As `_forward`. A task has all columns of some rows."""
    first, last = block_of(task, len(x), size)
    _multiply(x, weight, bias, relu, (y, first, 0, last - first, weight.shape[1]))


@of_rows
def _multiply(x, weight, bias, relu, block):
    """Write a block of y."""
    _, top, left, _, _ = block
    floor = _ZERO if relu else NOTHING
    x_block, right = (x, top, 0, False), (weight, 0, left, False)
    multiply(block, x_block, right, len(weight), bias, floor, False, new_workspace(0))


@of_rows
def _thin_forward(x, weight, bias, relu, y, left, right):
    for i in range(len(y)):
        row = y[i]
        for j in range(left, right):
            row[j] = _ZERO if bias is None else bias[j]
    thin.add_product(y, x, weight, left, right)
    if relu:
        for i in range(len(y)):
            row = y[i]
            for j in range(left, right):
                row[j] = _ZERO if row[j] < 0 else row[j]  # NaN stays NaN


@parallel_loop
def _backward(tile, tiles, dy, y, weight, sums, dx):
    """dx = dy Wᵀ, after setting dy to 0 where y is 0, if given. sums: [blocks, d_out] of dy."""
    d_in, d_out = weight.shape
    first, last = tile_of(tile, tiles, len(dy), _ROWS)
    for start in range(first, last, _ROWS):
        total = sums[start // _ROWS]
        total[:] = 0
        for i in range(start, min(start + _ROWS, last)):
            _mask_and_sum(dy[i], None if y is None else y[i], total)
    block = (dx, first, 0, last - first, d_in)
    dy_block, transposed = (dy, first, 0, False), (weight, 0, 0, True)
    multiply(block, dy_block, transposed, d_out, None, NOTHING, False, new_workspace(0))


@of_rows
def _mask_and_sum(drow, row, total):
    if row is not None:
        for j in range(drow.size):
            drow[j] = drow[j] if row[j] > 0 else _ZERO
    for j in range(drow.size):
        total[j] += drow[j]


def covers_linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, **_: Any
) -> bool:
    return (
        x.dtype == weight.dtype
        and x.ndim == 2
        and (bias is None or (shape_of(bias) == weight.shape[1:] and bias.dtype == x.dtype))
    )


@linear.on("numpy", covers=covers_linear)
def fast_linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, relu: bool = False
) -> tuple[np.ndarray, Vjp]:
    x, weight, bias = contiguous(x), contiguous(weight), None if bias is None else contiguous(bias)
    y = empty_aligned(len(x), weight.shape[1])
    if MANY <= len(x) <= _MOST_IN_ROWS and weight.size <= _READ_BY_ALL:
        size = rows_of_a_task(len(x))
        _forward_in_rows(blocks(len(x), size), size, x, weight, bias, relu, y)
    else:
        # The longer side is cut; with few rows, each tile computes all of them.
        by_rows = len(x) > max(y.shape[1], thin.MOST_ROWS)
        count = tiles(len(x), HEIGHT) if by_rows else tiles(y.shape[1], WIDTH)
        _forward(count, count, by_rows, x, weight, bias, relu, y)
    activation = y if relu else None

    def vjp(dy: np.ndarray) -> Any:
        dy = contiguous(dy)
        count, dx = tiles(len(dy), _ROWS), aligned(*x.shape)
        sums = np.empty((blocks(len(dy), _ROWS), dy.shape[1]), dy.dtype)
        _backward(count, count, dy, activation, weight, sums, dx)
        dweight = weight_gradient(x, dy)
        return (dx, dweight) if bias is None else (dx, dweight, sum_of_rows(sums))

    return y, vjp
