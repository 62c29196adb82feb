"""Adam's step and the gradient norm, each one pass over the flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.loops import block_of, blocks, contiguous, parallel_loop, rows_of
from autograd.cpu.registers import LANES, fetch
from autograd.ops.large.adam import adam_step, squared_norm

_CHUNK = 1 << 14  # numbers of one task: fixed, as sums depend on it
_RUN, _AHEAD = 64, 1024  # numbers to prefetch at a time, and how far ahead


@parallel_loop
def _step(chunk, values, grads, first, second, scale, beta1, beta2, correction, rate, epsilon):
    one = np.float32(1)
    for j in rows_of(chunk, values.size, _CHUNK):
        g = grads[j] * scale
        first[j] = beta1 * first[j] + (one - beta1) * g
        second[j] = beta2 * second[j] + (one - beta2) * g * g
        values[j] -= rate * first[j] / (np.sqrt(second[j] / correction) + epsilon)


def _covers(
    values: np.ndarray, grads: np.ndarray, first: np.ndarray, second: np.ndarray, **_: Any
) -> bool:
    return all(x.flags.carray and x.dtype == np.float32 for x in (values, grads, first, second))


@adam_step.on("numpy", covers=_covers)
def fast_adam_step(
    values: np.ndarray,
    grads: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
    scale: Any = 1.0,
    rounded: np.ndarray | None = None,
) -> None:
    if not np.isfinite(scale):
        return
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    numbers = (scale, beta1, beta2, correction2, rate / correction1, epsilon)
    _step(blocks(values.size, _CHUNK), values, grads, first, second, *map(np.float32, numbers))
    if rounded is not None:
        rounded[...] = values


@parallel_loop
def _squares(chunk, x, sums):
    """The sum of squares of each chunk of x, in float64."""
    total, (first, last) = 0.0, block_of(chunk, x.size, _CHUNK)
    whole = first + (last - first) // _RUN * _RUN
    for start in range(first, whole, _RUN):
        for j in range(start, start + _RUN, LANES):
            fetch(x.ctypes.data + 4 * (j + _AHEAD))
        for j in range(start, start + _RUN):
            total += np.float64(x[j]) * np.float64(x[j])
    for j in range(whole, last):
        total += np.float64(x[j]) * np.float64(x[j])
    sums[chunk] = total


@squared_norm.on("numpy")
def fast_squared_norm(x: np.ndarray) -> np.ndarray:
    x = contiguous(x).reshape(-1)
    sums = np.empty(blocks(x.size, _CHUNK), np.float64)
    _squares(len(sums), x, sums)
    return sums.sum().astype(x.dtype)
