"""Adam's step and the gradient norm, each one pass over the flat arrays."""

from __future__ import annotations

import numpy as np
from numba import prange

from autograd.cpu.loops import of_rows, parallel_loop
from autograd.ops.adam import adam_step, squared_norm

_CHUNK = 1 << 14  # numbers that one thread takes at a time: fixed, as sums depend on it


@parallel_loop
def _step(values, grads, first, second, scale, beta1, beta2, correction, rate, epsilon):
    for chunk in prange((values.size + _CHUNK - 1) // _CHUNK):
        part = slice(chunk * _CHUNK, min((chunk + 1) * _CHUNK, values.size))
        _step_part(
            values[part],
            grads[part],
            first[part],
            second[part],
            scale,
            beta1,
            beta2,
            correction,
            rate,
            epsilon,
        )


@of_rows
def _step_part(values, grads, first, second, scale, beta1, beta2, correction, rate, epsilon):
    one = np.float32(1)
    for j in range(values.size):
        g = grads[j] * scale
        first[j] = beta1 * first[j] + (one - beta1) * g
        second[j] = beta2 * second[j] + (one - beta2) * g * g
        values[j] -= rate * first[j] / (np.sqrt(second[j] / correction) + epsilon)


@adam_step.on("numpy")
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
    scale: float = 1.0,
) -> None:
    if not values.shape == grads.shape == first.shape == second.shape == (values.size,):
        raise ValueError("values, gradients and moments must be flat and of one length")
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    numbers = (scale, beta1, beta2, correction2, rate / correction1, epsilon)
    _step(values, grads, first, second, *map(np.float32, numbers))


@parallel_loop
def _squares(x, sums):
    """The sum of squares of each chunk of x, in float64."""
    for chunk in prange(len(sums)):
        sums[chunk] = _sum_of_squares(x[chunk * _CHUNK : min((chunk + 1) * _CHUNK, x.size)])


@of_rows
def _sum_of_squares(x):
    total = 0.0
    for j in range(x.size):
        total += np.float64(x[j]) * np.float64(x[j])
    return total


@squared_norm.on("numpy")
def fast_squared_norm(x: np.ndarray) -> np.ndarray:
    sums = np.empty(-(-x.size // _CHUNK), np.float64)
    _squares(x, sums)
    return sums.sum().astype(x.dtype)
