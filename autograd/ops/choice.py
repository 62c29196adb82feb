"""Choosing elements: select, where, maximum, minimum, clip. Arguments broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op
from autograd.tensor import Tensor


@op
def select(x: Array, y: Array, *, condition: Array) -> tuple[Array, Vjp]:
    """x where the condition is true, y elsewhere."""
    xp = array_module(x if hasattr(x, "dtype") else y)
    condition = xp.asarray(condition)  # CuPy's where rejects bools and lists

    def vjp(dz: Array) -> tuple[Array, Array]:
        return xp.where(condition, dz, 0), xp.where(condition, 0, dz)

    return xp.where(condition, x, y), vjp


def where(condition: Any, x: Any, y: Any) -> Any:
    """`select` in the form of np.where; TypeError if the condition is a Tensor."""
    if isinstance(condition, Tensor):
        raise TypeError(
            "where: the condition is a Tensor, which would have no gradient: write a comparison, "
            "where(x != 0, a, b)"
        )
    return select(x, y, condition=condition)


@op
def maximum(x: Array, y: Array) -> tuple[Array, Vjp]:
    """The larger of x and y, elementwise. Equal elements share the gradient.

    As in NumPy, NaN is the result where one is NaN; that one gets the gradient.
    """
    z = array_module(x if hasattr(x, "dtype") else y).maximum(x, y)
    return z, lambda dz: _shared(dz, x, y, z)


@op
def minimum(x: Array, y: Array) -> tuple[Array, Vjp]:
    """The smaller of x and y, elementwise. Equal elements share the gradient.

    As in NumPy, NaN is the result where one is NaN; that one gets the gradient.
    """
    z = array_module(x if hasattr(x, "dtype") else y).minimum(x, y)
    return z, lambda dz: _shared(dz, x, y, z)


def _shared(dz: Array, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """The gradients of x and y: dz for the one that was chosen as z, half for each if equal.

    x != x finds NaN.
    """
    first, second = (x == z) | (x != x), (y == z) | (y != y)
    # Not products with masks: inf · 0 is NaN.
    where, half = array_module(dz).where, dz * 0.5
    return where(first, where(second, half, dz), 0), where(second, where(first, half, dz), 0)


@op
def clip(x: Array, *, min: Any = None, max: Any = None) -> tuple[Array, Vjp]:
    """x limited to [min, max], elementwise; None means no bound.

    The bounds are constants: numbers, arrays or lists. The result has the dtype of x. The gradient
    is 0 where x is outside the bounds.
    """
    if min is None and max is None:
        return x.copy(), lambda dy: dy
    xp = array_module(x)
    y = _limited(x, min, max)
    # Not a product: inf · 0 is NaN. NaN (x != x) counts as within the bounds.
    return y, lambda dy: xp.where((x == y) | (x != x), dy, 0)


def _limited(x: Array, min: Any, max: Any) -> Array:
    """x limited to [min, max]; None means no bound, which CuPy's own clip refuses."""
    xp, y = array_module(x), x
    if min is not None:
        y = xp.maximum(y, _bound(min, x))
    if max is not None:
        y = xp.minimum(y, _bound(max, x))
    # With a number, NumPy returns float32 for bfloat16.
    return y if x.dtype.kind in "biu" else y.astype(x.dtype, copy=False)


@clip.checked
def _check_clip(x: Array, *, min: Any = None, max: Any = None) -> None:
    for name, bound in (("min", min), ("max", max)):
        if bound is None or isinstance(bound, int | float):
            continue
        dtype = bound.dtype if hasattr(bound, "dtype") else np.asarray(bound).dtype
        if dtype.kind not in "biuf" and dtype.name != "bfloat16":
            raise TypeError(
                f"clip: {name} must be a number, or an array or list of numbers, got {dtype}"
            )


def _bound(bound: Any, x: Array) -> Any:
    """A bound as a number or an array, in a dtype that does not promote a floating-point x."""
    if isinstance(bound, int | float):
        return bound
    return array_module(x).asarray(bound, None if x.dtype.kind in "iu" else x.dtype)
