"""Elementwise arithmetic. Arguments broadcast; the tape sums their gradients accordingly."""

from __future__ import annotations

import math
from typing import Any

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op
from autograd.tape import unbroadcast


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
def power(x: Array, exponent: Array) -> tuple[Array, Vjp]:
    """x ** exponent, elementwise. Where x is 0, the gradient of the exponent is 0."""
    y = x**exponent

    def into_exponent(dy: Array) -> Any:
        """dy · y · log x, as a writer, so that a constant exponent needs no logarithm."""

        def into(out: Array, add: bool) -> None:
            base = array_module(out).asarray(x, out.dtype)
            log_x = array_module(out).log(base + (base == 0))
            g = unbroadcast(dy * y * log_x, out.shape, "power")
            out[...] = out + g if add else g

        return into

    def vjp(dy: Array) -> Any:
        # For x⁰ this computes 0 · x⁰, not 0 · x⁻¹, which is NaN where x is 0.
        dx = dy * (exponent * x ** (exponent - (exponent != 0)))
        return dx, into_exponent(dy)

    return y, vjp


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
def sin(x: Array) -> tuple[Array, Vjp]:
    """The sine, of radians."""
    xp = array_module(x)
    return xp.sin(x), lambda dy: dy * xp.cos(x)


@op
def cos(x: Array) -> tuple[Array, Vjp]:
    """The cosine, of radians."""
    xp = array_module(x)
    return xp.cos(x), lambda dy: -dy * xp.sin(x)


@op
def tanh(x: Array) -> tuple[Array, Vjp]:
    """The hyperbolic tangent."""
    y = array_module(x).tanh(x)
    return y, lambda dy: dy * (1 - y * y)


@op
def sigmoid(x: Array) -> tuple[Array, Vjp]:
    """1 / (1 + exp(-x)), without overflow."""
    xp = array_module(x)
    e = xp.exp(-xp.absolute(x))
    y = xp.where(x < 0, e, 1) / (1 + e)
    return y, lambda dy: dy * y * (1 - y)


@op
def abs(x: Array) -> tuple[Array, Vjp]:
    """The absolute value, with gradient 0 at 0."""
    xp = array_module(x)
    where = xp.where  # not a product with the sign: inf · 0 is NaN
    return xp.absolute(x), lambda dy: where(x == 0, 0, where(x < 0, -dy, dy))


@op
def relu(x: Array) -> tuple[Array, Vjp]:
    """max(0, x), elementwise (section 3.3)."""
    xp = array_module(x)
    y = xp.maximum(x, 0)

    def vjp(dy: Array) -> Array:
        xp.copyto(dy, 0, where=~(y > 0))  # not a product: inf · 0 is NaN
        return dy

    return y, vjp


@op
def swish(x: Array) -> tuple[Array, Vjp]:
    """x · sigmoid(x) (Ramachandran et al., 2017); also called SiLU."""
    s, _ = sigmoid.reference(x)
    return x * s, lambda dy: dy * s * (1 + x * (1 - s))


@op
def gelu(x: Array) -> tuple[Array, Vjp]:
    """x Φ(x), with the usual tanh approximation of Φ (Hendrycks and Gimpel, 2016)."""
    c = math.sqrt(2 / math.pi)
    t = array_module(x).tanh(c * (x + 0.044715 * x**3))

    def vjp(dy: Array) -> Any:
        slope = c * (1 + 3 * 0.044715 * x * x) * (1 - t * t)
        return dy * (0.5 * (1 + t) + 0.5 * x * slope)

    return 0.5 * x * (1 + t), vjp


@op
def astype(x: Array, *, dtype: Any) -> tuple[Array, Vjp]:
    """x in another floating-point dtype; x itself if it has that dtype."""
    before = x.dtype
    return x.astype(dtype, copy=False), lambda dy: dy.astype(before, copy=False)
