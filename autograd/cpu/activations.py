"""swish and gelu. Both are x · sigmoid(z): z is x, or twice what gelu takes the tanh of.

For (1 + tanh u) / 2 = sigmoid(2u), which does not lose the digits that 1 + tanh u cancels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autograd.cpu.loops import (
    blocks,
    contiguous,
    of_numbers,
    parallel_loop,
    row_loop,
    rows_of,
    rows_of_a_task,
)
from autograd.cpu.memory import empty
from autograd.cpu.vector import exp
from autograd.operation import Vjp
from autograd.ops.arithmetic import gelu, swish

_ONE = np.float32(1)
_LINEAR = np.float32(2 * math.sqrt(2 / math.pi))  # of z, for gelu
_CUBIC, _SLOPE = np.float32(0.044715 * _LINEAR), np.float32(3 * 0.044715 * _LINEAR)


@of_numbers
def _sigmoid(z):
    e = exp(-abs(z))
    return (e if z < 0 else _ONE) / (_ONE + e)


@of_numbers
def _of_gelu(x):
    return x * (_LINEAR + _CUBIC * x * x)


@row_loop("x y")
def _swish(task, size, x, y):
    for i in rows_of(task, len(x), size):
        row, out = x[i], y[i]
        for j in range(row.size):
            out[j] = row[j] * _sigmoid(row[j])


@parallel_loop
def _swish_gradient(block, x, dy):
    """Turn dy, the gradient of swish(x), into that of x."""
    for i in rows_of(block, len(x)):
        row, drow = x[i], dy[i]
        for j in range(row.size):
            s = _sigmoid(row[j])
            drow[j] *= s * (_ONE + row[j] * (_ONE - s))


@row_loop("x y")
def _gelu(task, size, x, y):
    for i in rows_of(task, len(x), size):
        row, out = x[i], y[i]
        for j in range(row.size):
            out[j] = row[j] * _sigmoid(_of_gelu(row[j]))


@parallel_loop
def _gelu_gradient(block, x, dy):
    for i in rows_of(block, len(x)):
        row, drow = x[i], dy[i]
        for j in range(row.size):
            s = _sigmoid(_of_gelu(row[j]))
            slope = _LINEAR + _SLOPE * row[j] * row[j]  # of z
            drow[j] *= s * (_ONE + row[j] * slope * (_ONE - s))


def _covers(x: np.ndarray) -> bool:
    return x.ndim == 2


@swish.on("numpy", covers=_covers)
def fast_swish(x: np.ndarray) -> tuple[np.ndarray, Vjp]:
    return _activated(contiguous(x), _swish, _swish_gradient)


@gelu.on("numpy", covers=_covers)
def fast_gelu(x: np.ndarray) -> tuple[np.ndarray, Vjp]:
    return _activated(contiguous(x), _gelu, _gelu_gradient)


def _activated(x: np.ndarray, forward: Any, backward: Any) -> tuple[np.ndarray, Vjp]:
    y = empty(x.shape, x.dtype)
    size = rows_of_a_task(len(x))
    forward(blocks(len(x), size), size, x, y)

    def vjp(dy: np.ndarray) -> np.ndarray:
        dy = contiguous(dy)
        backward(blocks(len(dy)), x, dy)
        return dy

    return y, vjp
