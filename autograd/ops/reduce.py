"""Reductions: sum, mean, variance and standard deviation, max and min."""

from __future__ import annotations

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op

Axis = int | tuple[int, ...] | None


def _broadcastable(dy: Array, axis: Axis, shape: tuple[int, ...], keepdims: bool) -> Array:
    """A reduction's gradient, reshaped so that it broadcasts to the argument's `shape`."""
    if axis is None or keepdims or not shape:
        return dy.reshape(dy.shape if keepdims else (1,) * len(shape))
    axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
    return dy.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)))


@op
def sum(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The sum over `axis`, or over everything."""
    xp, shape = array_module(x), x.shape

    def vjp(dy: Array) -> Array:
        return xp.broadcast_to(_broadcastable(dy, axis, shape, keepdims), shape).copy()

    return x.sum(axis=axis, keepdims=keepdims), vjp


@op
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The mean over `axis`, or over everything."""
    xp, shape = array_module(x), x.shape
    y = x.mean(axis=axis, keepdims=keepdims)
    weight = y.size / (x.size or 1)  # of each element in its mean

    def vjp(dy: Array) -> Array:
        share = _broadcastable(dy, axis, shape, keepdims) * weight
        return xp.broadcast_to(share, shape).copy()

    return y, vjp


@op
def var(
    x: Array, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False
) -> tuple[Array, Vjp]:
    """The variance over `axis`, or over everything.

    The sum of the squared deviations is divided by their number less `ddof`.
    """
    y = x.var(axis=axis, ddof=ddof, keepdims=keepdims)

    def vjp(dy: Array) -> Array:
        centred, count = _deviations(x, y, axis)
        return _broadcastable(dy, axis, x.shape, keepdims) * 2 * centred / (count - ddof)

    return y, vjp


@op
def std(
    x: Array, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False
) -> tuple[Array, Vjp]:
    """The square root of `var`; the gradient is 0 where it is 0."""
    y = x.std(axis=axis, ddof=ddof, keepdims=keepdims)

    def vjp(dy: Array) -> Array:
        centred, count = _deviations(x, y, axis)
        share = dy / ((y + (y == 0)) * (count - ddof))
        return _broadcastable(share, axis, x.shape, keepdims) * centred

    return y, vjp


def _deviations(x: Array, y: Array, axis: Axis) -> tuple[Array, float]:
    """x less its mean over `axis`, and the number of elements per result in y."""
    return x - x.mean(axis=axis, keepdims=True), x.size / (y.size or 1)


@op
def max(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The largest element along `axis`, or of all. Equal elements share the gradient."""
    y = x.max(axis=axis, keepdims=True)
    return y if keepdims else x.max(axis=axis), _to_the_chosen(x, y, axis, keepdims)


@op
def min(x: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Vjp]:
    """The smallest element along `axis`, or of all. Equal elements share the gradient."""
    y = x.min(axis=axis, keepdims=True)
    return y if keepdims else x.min(axis=axis), _to_the_chosen(x, y, axis, keepdims)


def _to_the_chosen(x: Array, y: Array, axis: Axis, keepdims: bool) -> Vjp:
    """The vjp of a reduction that chose y from the elements of x; y keeps the axes of x."""

    def vjp(dy: Array) -> Array:
        chosen = (x == y) | (x != x)  # a NaN is both maximum and minimum
        count = chosen.astype(x.dtype).sum(axis=axis, keepdims=True)
        share = _broadcastable(dy, axis, x.shape, keepdims) / count
        return array_module(x).where(chosen, share, 0)  # not a product: inf · 0 is NaN

    return vjp
