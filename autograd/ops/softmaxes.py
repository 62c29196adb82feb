"""Softmax and its logarithm, over the last axis."""

from __future__ import annotations

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op


@op
def softmax(x: Array) -> tuple[Array, Vjp]:
    """exp(x) / Σ exp(x) over the last axis. x: [..., n]."""
    y = array_module(x).exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)

    def vjp(dy: Array) -> Array:
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True))

    return y, vjp


@op
def log_softmax(x: Array) -> tuple[Array, Vjp]:
    """log softmax(x) = x - log Σ exp(x) over the last axis, without overflow. x: [..., n]."""
    xp = array_module(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    y = shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))

    def vjp(dy: Array) -> Array:
        return dy - xp.exp(y) * dy.sum(axis=-1, keepdims=True)

    return y, vjp
