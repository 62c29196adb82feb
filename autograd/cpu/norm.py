"""Dropout, LayerNorm, and both with the residual connection: one pass over memory each way.

Masks and normalised rows are not kept for the backward pass, but computed again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.checks import shape_of
from autograd.cpu.loop_writers import LoopWriter, sum_of_rows
from autograd.cpu.loops import (
    blocks,
    contiguous,
    of_rows,
    parallel_loop,
    row_loop,
    rows_of,
    rows_of_a_task,
)
from autograd.cpu.memory import empty
from autograd.cpu.philox import Mask, drawn, mask_of, write_factors
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.norm import EPSILON, add_dropout_norm, dropout, layer_norm


@parallel_loop
def drop(block, x, mask, y):
    """y = x times the factors of dropout. x and y: [rows, columns] may be one array."""
    rows = rows_of(block, len(x))
    factors, kept = drawn(mask, rows, x.shape[1])
    for i in rows:
        write_factors(factors, kept, mask, i - rows.start)
        _dropped(y[i], x[i], mask, factors[0])


@dropout.on("numpy")
def fast_dropout(x: np.ndarray, *, site: DropoutSite | None) -> tuple[np.ndarray, Vjp]:
    if site is None:
        return x, lambda dy: dy
    mask = mask_of(site)
    y = np.empty(x.shape, x.dtype)
    drop(blocks(len(x)), contiguous(x), mask, y)

    def vjp(dy: np.ndarray) -> np.ndarray:
        dy = contiguous(dy)
        drop(blocks(len(dy)), dy, mask, dy)
        return dy

    return y, vjp


@of_rows
def _sum_of(total, x, residual, mask, factors):
    """total = residual + x · factors, all [d]; x and the mask may be None."""
    for j in range(total.size):
        total[j] = residual[j]
    if x is not None:
        _add_dropped(total, x, mask, factors)


@of_rows
def _add_dropped(total, x, mask, factors):
    if mask is None:
        for j in range(total.size):
            total[j] += x[j]
    else:
        for j in range(total.size):
            total[j] += x[j] * factors[j]


@row_loop("residual x y statistics")
def _forward(task, size, residual, x, gain, bias, mask, epsilon, y, statistics):
    """y = LayerNorm(residual + Dropout(x)), and each row's mean and 1/√(variance + ε).

    residual, x and y: [tokens, d]; gain and bias: [d]; statistics: [tokens, 2].
    """
    d = y.shape[1]
    rows = rows_of(task, len(y), size)
    factors, kept = drawn(mask, rows, d)
    for i in rows:
        write_factors(factors, kept, mask, i - rows.start)
        row = y[i]
        _sum_of(row, None if x is None else x[i], residual[i], mask, factors[0])
        total = np.float32(0)
        for j in range(d):
            total += row[j]
        mean = total / np.float32(d)
        squares = np.float32(0)
        for j in range(d):
            squares += (row[j] - mean) * (row[j] - mean)
        inverse = np.float32(1) / np.sqrt(squares / np.float32(d) + epsilon)
        for j in range(d):
            row[j] = (row[j] - mean) * inverse * gain[j] + bias[j]
        statistics[i, 0], statistics[i, 1] = mean, inverse


@parallel_loop
def _backward(block, dy, residual, x, gain, mask, statistics, dx, sums):
    """Turn dy into the gradient of the residual; dx receives that of x.

    sums: [2, blocks, d] receives the gradients of gain and bias, summed over each block of rows.
    """
    d = dy.shape[1]
    rows = rows_of(block, len(dy))
    factors, kept = drawn(mask, rows, d)
    normed = np.empty(d, np.float32)
    dgain, dbias = sums[0, block], sums[1, block]
    for j in range(d):
        dgain[j] = dbias[j] = 0
    for i in rows:
        write_factors(factors, kept, mask, i - rows.start)
        _sum_of(normed, None if x is None else x[i], residual[i], mask, factors[0])
        mean, inverse = statistics[i, 0], statistics[i, 1]
        drow = dy[i]
        projection, dmean = np.float32(0), np.float32(0)
        for j in range(d):
            normed[j] = (normed[j] - mean) * inverse
            dgain[j] += drow[j] * normed[j]
            dbias[j] += drow[j]
            projection += drow[j] * gain[j] * normed[j]
            dmean += drow[j] * gain[j]
        projection /= np.float32(d)
        dmean /= np.float32(d)
        for j in range(d):
            drow[j] = (drow[j] * gain[j] - dmean - normed[j] * projection) * inverse
        if x is not None:
            _dropped(dx[i], drow, mask, factors[0])


@of_rows
def _dropped(out, row, mask, factors):
    if mask is None:
        for j in range(row.size):
            out[j] = row[j]
    else:
        for j in range(row.size):
            out[j] = row[j] * factors[j]


def _norm(
    x: np.ndarray | None,
    residual: np.ndarray,
    gain: np.ndarray,
    bias: np.ndarray,
    mask: Mask | None,
    epsilon: float,
) -> tuple[np.ndarray, Vjp]:
    """LayerNorm(residual + Dropout(x)), or LayerNorm(residual) if x is None."""
    residual, gain, bias = contiguous(residual), contiguous(gain), contiguous(bias)
    x = None if x is None else contiguous(x)
    y = empty(residual.shape, residual.dtype)
    statistics = empty((len(y), 2), y.dtype)
    size = rows_of_a_task(len(y))
    of_task = residual, x, gain, bias, mask, np.float32(epsilon), y, statistics
    _forward(blocks(len(y), size), size, *of_task)

    def vjp(dy: np.ndarray) -> tuple[np.ndarray | None, np.ndarray, LoopWriter, LoopWriter]:
        dy = contiguous(dy)
        dx = None if x is None else np.empty(dy.shape, dy.dtype)
        count = blocks(len(dy))
        sums = np.empty((2, count, dy.shape[1]), dy.dtype)
        _backward(count, dy, residual, x, gain, mask, statistics, dx, sums)
        return dx, dy, sum_of_rows(sums[0]), sum_of_rows(sums[1])

    return y, vjp


def _covers(x: np.ndarray, residual: Any, gain: Any, bias: Any, **_: Any) -> bool:
    """Whether no argument, arrays or numbers, has to be broadcast or converted: loops cannot."""
    columns = x.shape[1:]
    return (
        x.ndim == 2
        and shape_of(residual) == x.shape
        and shape_of(gain) == shape_of(bias) == columns
        and residual.dtype == gain.dtype == bias.dtype == x.dtype
    )


def _covers_norm(x: np.ndarray, gain: Any, bias: Any, **_: Any) -> bool:
    return _covers(x, x, gain, bias)


@layer_norm.on("numpy", covers=_covers_norm)
def fast_layer_norm(
    x: np.ndarray, gain: np.ndarray, bias: np.ndarray, *, epsilon: float = EPSILON
) -> tuple[np.ndarray, Vjp]:
    y, vjp = _norm(None, x, gain, bias, mask_of(None), epsilon)
    return y, lambda dy: vjp(dy)[1:]


@add_dropout_norm.on("numpy", covers=_covers)
def fast_add_dropout_norm(
    x: np.ndarray,
    residual: np.ndarray,
    gain: np.ndarray,
    bias: np.ndarray,
    *,
    site: DropoutSite | None = None,
    epsilon: float = EPSILON,
) -> tuple[np.ndarray, Vjp]:
    return _norm(x, residual, gain, bias, mask_of(site), epsilon)
