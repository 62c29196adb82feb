"""Choosing between elements: select, maximum, minimum, clip. Arguments broadcast."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op


@op
def select(x: Array, y: Array, *, condition: Array) -> tuple[Array, Vjp]:
    """x where the condition is true, y elsewhere."""
    module = array_module(x if hasattr(x, "dtype") else y)
    condition = module.asarray(condition)  # CuPy's where takes no True and no list

    def vjp(dz: Array) -> tuple[Array, Array]:
        return module.where(condition, dz, 0), module.where(condition, 0, dz)

    return module.where(condition, x, y), vjp


def where(condition: Any, x: Any, y: Any) -> Any:
    """`select` with NumPy's name and order of arguments."""
    return select(x, y, condition=condition)


@op
def maximum(x: Array, y: Array) -> tuple[Array, Vjp]:
    """The larger of x and y, elementwise; equal ones share the gradient."""
    module = array_module(x if hasattr(x, "dtype") else y)
    return module.maximum(x, y), lambda dz: _shared(dz, x > y, x == y)


@op
def minimum(x: Array, y: Array) -> tuple[Array, Vjp]:
    """The smaller of x and y, elementwise; equal ones share the gradient."""
    module = array_module(x if hasattr(x, "dtype") else y)
    return module.minimum(x, y), lambda dz: _shared(dz, x < y, x == y)


def _shared(dz: Array, first: Array, equal: Array) -> tuple[Array, Array]:
    """The gradients of two arguments: dz to the first where it is chosen, half where both are."""
    # No products with masks, for inf · 0 is no number.
    where, half = array_module(dz).where, dz * 0.5
    return (
        where(first, dz, where(equal, half, 0)),
        where(first, 0, where(equal, half, dz)),
    )


@op
def clip(x: Array, *, min: Any = None, max: Any = None) -> tuple[Array, Vjp]:
    """x, but `min` where it is smaller and `max` where it is larger; None is no bound.

    The bounds are constants, and may be arrays. Where x is cut its gradient is 0.
    """
    if min is None and max is None:
        return x.copy(), lambda dy: dy
    module = array_module(x)
    y = module.clip(x, min, max)
    return y, lambda dy: module.where(x == y, dy, 0)  # no product: inf · 0 is no number
