"""Reductions: sum, mean, max."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.op import Vjp, op

Axis = int | tuple[int, ...] | None


def _spread(dy: Array, axis: Axis, shape: tuple[int, ...], keepdims: bool) -> Array:
    """A reduction's gradient, laid out so that it broadcasts to the argument's `shape`."""
    if axis is None or keepdims:
        return dy.reshape(dy.shape if keepdims else (1,) * len(shape))
    axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
    return dy.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)))


@op
def sum(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The sum over `axis`, or over everything."""
    module, shape = array_module(x), x.shape

    def vjp(dy: Array) -> Array:
        return module.broadcast_to(_spread(dy, axis, shape, keepdims), shape).copy()

    return x.sum(axis=axis, keepdims=keepdims), vjp


@op
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The mean over `axis`, or over everything."""
    module, shape = array_module(x), x.shape
    y = x.mean(axis=axis, keepdims=keepdims)
    weight = y.size / (x.size or 1)  # of each element in its mean

    def vjp(dy: Array) -> Array:
        share = _spread(dy, axis, shape, keepdims) * weight
        return module.broadcast_to(share, shape).copy()

    return y, vjp


@op
def max(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The largest element along `axis`, or of all; equal ones share the gradient."""
    y = x.max(axis=axis, keepdims=True)

    def vjp(dy: Array) -> Array:
        winners = (x == y).astype(x.dtype)
        share = winners / winners.sum(axis=axis, keepdims=True)
        return share * _spread(dy, axis, x.shape, keepdims)

    value: Any = y if keepdims else x.max(axis=axis)
    return value, vjp
