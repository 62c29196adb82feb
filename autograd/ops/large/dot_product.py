"""Scaled dot-product attention (section 3.2.1): its value and its gradient."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import shape_of
from autograd.operation import Vjp, op
from autograd.ops.softmaxes import softmax


@op
def scaled_dot_product(
    q: Array,
    k: Array,
    v: Array,
    *,
    hidden: Array | None = None,
    keep: Array | None = None,
    scale: float = 1.0,
) -> tuple[Array, Vjp]:
    """softmax(QKᵀ/√d_k) V (section 3.2.1, equation 1), for any stack of heads and sentences.

    q: [..., n, d_k], k: [..., m, d_k] and v: [..., m, d_v], with the same leading axes. hidden:
    [n, m], or what broadcasts to [..., n, m], is true where a query must not see a key; a query
    that sees none gets zeros. keep and scale are for dropout of the weights: a weight is multiplied
    by scale where keep, of the shape of hidden, is true, and else becomes 0. Returns [..., n, d_v].
    """
    p, softmax_vjp = weights_of(q, k, hidden)

    def dropped(x: Array) -> Array:
        """Dropout of the weights. It is linear, so the same map serves their gradient."""
        return x if keep is None else x * (keep.astype(x.dtype) * scale)

    def vjp(dy: Array) -> tuple[Array, Array, Array]:
        dv = _transposed(dropped(p)) @ dy
        dp = dropped(dy @ _transposed(v))
        ds = softmax_vjp(dp)
        ds /= math.sqrt(q.shape[-1])
        return ds @ k, _transposed(ds) @ q, dv

    return dropped(p) @ v, vjp


def weights_of(q: Array, k: Array, hidden: Array | None = None) -> tuple[Array, Vjp]:
    """P = softmax(QKᵀ/√d_k): [..., n, m], and the softmax's vjp.

    Each row of P has the weights of a query, with sum 1. q, k and hidden are those of
    `scaled_dot_product`. A hidden key has the weight 0.
    """
    scores = q @ _transposed(k) / math.sqrt(q.shape[-1])
    if hidden is not None:  # not -inf, for a row of nothing else would be NaN
        array_module(q).copyto(scores, np.finfo(scores.dtype).min, where=hidden)
    p, softmax_vjp = softmax.reference(scores)
    if hidden is not None:  # for such a row; in place, so that the vjp sees it too
        p *= ~hidden
    return p, softmax_vjp


def _transposed(x: Array) -> Array:
    """Each matrix of the stack transposed: [..., n, m] becomes [..., m, n]."""
    return x.swapaxes(-1, -2)


@scaled_dot_product.checked
def _check(
    q: Array,
    k: Array,
    v: Array,
    *,
    hidden: Array | None = None,
    keep: Array | None = None,
    scale: float = 1.0,
) -> None:
    of_q, of_k, of_v = map(shape_of, (q, k, v))
    one_stack = min(map(len, (of_q, of_k, of_v))) >= 2 and of_q[:-2] == of_k[:-2] == of_v[:-2]
    if not one_stack or of_q[-1] != of_k[-1] or of_k[-2] != of_v[-2] or 0 in (of_k[-2], of_q[-1]):
        raise ValueError(
            f"scaled_dot_product: q {of_q}, k {of_k} and v {of_v} are not [..., n, d_k], [..., m, "
            "d_k] and [..., m, d_v], with at least one key and one column"
        )
    weights = (*of_q[:-1], of_k[-2])
    for name, mask in (("hidden", hidden), ("keep", keep)):
        if mask is None:
            continue
        # A mask without axes would reach the reference as a bool of Python's.
        if not (hasattr(mask, "dtype") and mask.dtype.kind == "b" and mask.shape):
            raise TypeError(
                f"scaled_dot_product: {name} must be an array of booleans that broadcasts to "
                f"{weights}, not {_described(mask)}"
            )
        if not _broadcasts(tuple(mask.shape), weights):
            raise ValueError(
                f"scaled_dot_product: {name} {tuple(mask.shape)} does not broadcast to {weights}, "
                "[..., n, m]"
            )
    if shape_of(scale) or not (isinstance(scale, Real) or hasattr(scale, "dtype")):
        raise TypeError(f"scaled_dot_product: scale must be a number, not {_described(scale)}")


def _described(x: Any) -> str:
    """What x is, for a message."""
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return type(x).__name__
    return f"an array of {dtype}, of shape {shape_of(x)}"


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(shape[::-1], to[::-1], strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in pairs)
