"""Elementwise arithmetic. Arguments broadcast; the tape sums their gradients down again."""

from __future__ import annotations

import math
from typing import Any

from autograd.backend import Array, array_module
from autograd.op import Vjp, op


@op
def add(x: Array, y: Array) -> tuple[Array, Vjp]:
    """x + y."""
    return x + y, lambda dz: (dz, dz.copy())


@op
def subtract(x: Array, y: Array) -> tuple[Array, Vjp]:
    """x - y."""
    return x - y, lambda dz: (dz, -dz)


@op
def multiply(x: Array, y: Array) -> tuple[Array, Vjp]:
    """x * y, elementwise."""
    return x * y, lambda dz: (dz * y, dz * x)


@op
def divide(x: Array, y: Array) -> tuple[Array, Vjp]:
    """x / y, elementwise."""
    z = x / y
    return z, lambda dz: (dz / y, -dz * z / y)


@op
def negative(x: Array) -> tuple[Array, Vjp]:
    """-x."""
    return -x, lambda dy: -dy


@op
def power(x: Array, *, exponent: float) -> tuple[Array, Vjp]:
    """x ** exponent, for a constant exponent."""
    return x**exponent, lambda dy: dy * (exponent * x ** (exponent - 1))


@op
def exp(x: Array) -> tuple[Array, Vjp]:
    """e to the power x."""
    y = array_module(x).exp(x)
    return y, lambda dy: dy * y


@op
def log(x: Array) -> tuple[Array, Vjp]:
    """The natural logarithm."""
    return array_module(x).log(x), lambda dy: dy / x


@op
def sqrt(x: Array) -> tuple[Array, Vjp]:
    """The square root."""
    y = array_module(x).sqrt(x)
    return y, lambda dy: dy / (2 * y)


@op
def tanh(x: Array) -> tuple[Array, Vjp]:
    """The hyperbolic tangent."""
    y = array_module(x).tanh(x)
    return y, lambda dy: dy * (1 - y * y)


@op
def relu(x: Array) -> tuple[Array, Vjp]:
    """max(0, x), elementwise (section 3.3)."""
    y = array_module(x).maximum(x, 0)
    return y, lambda dy: dy * (y > 0)


@op
def gelu(x: Array) -> tuple[Array, Vjp]:
    """x Φ(x), with the usual tanh approximation of Φ (Hendrycks and Gimpel, 2016)."""
    c = math.sqrt(2 / math.pi)
    t = array_module(x).tanh(c * (x + 0.044715 * x**3))

    def vjp(dy: Array) -> Any:
        slope = c * (1 + 3 * 0.044715 * x * x) * (1 - t * t)
        return dy * (0.5 * (1 + t) + 0.5 * x * slope)

    return 0.5 * x * (1 + t), vjp
