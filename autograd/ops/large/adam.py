"""A step of Adam over flat arrays, and the squared norm of one; neither has a gradient."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.checks import has_shape
from autograd.operation import function


@function
def adam_step(
    values: Array,
    grads: Array,
    first: Array,
    second: Array,
    *,
    rate: Any,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: Any,
    scale: Any = 1.0,
    rounded: Array | None = None,
) -> None:
    """Update `values` and both moments in place (Kingma and Ba, 2015, algorithm 1).

    values, grads, first, second: [n], flat. `step` counts from 1. `scale` multiplies the gradients
    without changing `grads`, so that clipping and averaging need no separate pass. If it is not
    finite, nothing is changed. rate, step and scale are numbers or 0-d arrays; arrays of rate and
    step are float64, for the bias corrections. `rounded`: [n] receives a copy of the values,
    rounded to its dtype.
    """
    xp = array_module(values)
    if not xp.isfinite(xp.asarray(scale)):
        return
    g = grads * scale
    first *= beta1
    first += (1 - beta1) * g
    second *= beta2
    g *= g
    g *= 1 - beta2
    second += g
    # The bias corrections 1 - β^t, of the root and of the step size (end of their section 2).
    root = xp.sqrt(second / _like(values, 1 - beta2**step))
    root += epsilon
    values -= _like(values, rate / (1 - beta1**step)) * first / root
    if rounded is not None:
        rounded[...] = values


def _like(values: Array, number: Any) -> Any:
    """A number as it is, and an array without axes in the dtype of `values`."""
    return number.astype(values.dtype) if hasattr(number, "astype") else number


@adam_step.checked
def _check(
    values: Array,
    grads: Array,
    first: Array,
    second: Array,
    *,
    rounded: Array | None = None,
    **_: Any,
) -> None:
    flat = (values.size,)
    has_shape("adam_step: values", values, flat, "flat")
    has_shape("adam_step: grads", grads, flat, "flat, as values")
    has_shape("adam_step: first", first, flat, "flat, as values")
    has_shape("adam_step: second", second, flat, "flat, as values")
    if rounded is not None:
        has_shape("adam_step: rounded", rounded, flat, "flat, as values")


@function
def squared_norm(x: Array) -> Array:
    """The sum of the squares of x: [n], as a 0-d array."""
    return (x * x).sum()
