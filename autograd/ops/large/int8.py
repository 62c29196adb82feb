"""Operations with a matrix in 8 bits as their weight. They have no gradients.

`linear(x, weight, bias)` and others look at their weight, and are computed by these functions if it
is an `Int8Matrix`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.dropout import DropoutSite
from autograd.int8 import Int8Matrix, rounded
from autograd.operation import Vjp, function
from autograd.ops.large.affine import linear
from autograd.ops.large.feed_forward import ACTIVATIONS, feed_forward
from autograd.ops.large.lookup import embedding
from autograd.ops.large.norm import dropout
from autograd.ops.large.top_k import add_bias, likeliest, top_k
from autograd.ops.matrix_product import matmul
from autograd.tape import running_tape

_EXACT = 1024  # terms of a sum of products that float32 holds exactly: 1,024 · 127² < 2²⁴


@function
def int8_linear(
    x: Array, weight: Int8Matrix, bias: Array | None = None, *, relu: bool = False
) -> Array:
    """xW + b, or max(0, xW + b), of x and W in 8 bits.

    x: [rows, d_in]; weight: [d_in, d_out]; bias: [d_out] or None. Returns [rows, d_out].
    """
    xp = array_module(x)
    x_integers, x_scales = rounded(x)
    integers = weight.integers
    sums = xp.zeros((len(x), weight.d_out), np.int32)
    for k in range(0, weight.d_in, _EXACT):
        terms = slice(k, k + _EXACT)
        a, b = x_integers[:, terms].astype(np.float32), integers[terms].astype(np.float32)
        sums += (a @ b).astype(np.int32)
    y = sums.astype(x.dtype) * (x_scales[:, None] * weight.scales.reshape(-1)[: weight.d_out])
    if bias is not None:
        y += bias
    return xp.maximum(y, 0) if relu else y


@int8_linear.checked
def _check(x: Array, weight: Int8Matrix, bias: Array | None = None, *, relu: bool = False) -> None:
    if weight.transposed:
        raise ValueError("linear: a weight in 8 bits must have a scale for each column: matrix.T")


@function
def int8_top_k(
    x: Array,
    weight: Int8Matrix,
    bias: Array | None = None,
    *,
    k: int,
    ids: Array | None = None,
) -> tuple[Array, Array]:
    """As `top_k`; weight: [vocabulary, d]."""
    logits = int8_linear.reference(x, weight.T)
    if bias is not None:
        add_bias(logits, bias)
    return likeliest(logits, k, ids)


@int8_top_k.checked
def _check_top_k(x: Array, weight: Int8Matrix, bias: Array | None = None, **_: Any) -> None:
    if not weight.transposed:
        raise ValueError("top_k: a weight in 8 bits must have a scale for each row: matrix.T")


@function
def int8_embedding(
    table: Int8Matrix,
    positions: Array | None = None,
    *,
    ids: Array,
    position_ids: Array | None = None,
    scale: float = 1.0,
) -> Array:
    """As `embedding`, without dropout; table: [vocabulary, d]."""
    y = table.T.columns(np.maximum(ids, 0)) * scale
    y[ids < 0] = 0
    return y if positions is None else y + positions[position_ids]


@int8_embedding.checked
def _check_embedding(table: Int8Matrix, positions: Array | None = None, **_: Any) -> None:
    if not table.transposed:
        raise ValueError("embedding: a table in 8 bits must have a scale for each row: matrix.T")


def _without_gradient(y: Array) -> tuple[Array, Vjp]:
    """What an operation returns. Raises TypeError while a tape runs."""
    if running_tape() is not None:
        raise TypeError("weights in 8 bits have no gradients: load them in float32 to train")

    def vjp(dy: Array) -> Any:
        raise AssertionError("only a tape calls this")

    return y, vjp


def _product(
    x: Array, weight: Int8Matrix, bias: Array | None = None, *, relu: bool = False
) -> Array:
    """int8_linear of [..., d_in]."""
    *shape, d_in = x.shape
    y = int8_linear(x.reshape(-1, d_in), weight, bias, relu=relu)
    return y.reshape(*shape, weight.d_out)


@linear.given(1, Int8Matrix)
def _linear(
    x: Array, weight: Int8Matrix, bias: Array | None = None, *, relu: bool = False
) -> tuple[Array, Vjp]:
    return _without_gradient(_product(x, weight, bias, relu=relu))


@matmul.given(1, Int8Matrix)
def _matmul(x: Array, y: Int8Matrix) -> tuple[Array, Vjp]:
    return _without_gradient(_product(x, y))


@feed_forward.given(1, Int8Matrix)
def _feed_forward(
    x: Array,
    w1: Int8Matrix,
    b1: Array,
    w2: Int8Matrix,
    b2: Array | None = None,
    *,
    activation: str = "relu",
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    h = _product(x, w1, b1, relu=activation == "relu")
    if activation != "relu":
        h = ACTIVATIONS[activation](h)
    h, _ = dropout.reference(h, site=site)
    return _without_gradient(_product(h, w2, b2))


@embedding.given(0, Int8Matrix)
def _embedding(
    table: Int8Matrix,
    positions: Array | None = None,
    *,
    ids: Array,
    position_ids: Array | None = None,
    order: Array | None = None,
    position_order: Array | None = None,
    scale: float = 1.0,
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    y = int8_embedding(table, positions, ids=ids, position_ids=position_ids, scale=scale)
    y, _ = dropout.reference(y, site=site)
    return _without_gradient(y)


@top_k.given(1, Int8Matrix)
def _top_k(
    x: Array,
    weight: Int8Matrix,
    bias: Array | None = None,
    *,
    k: int,
    ids: Array | None = None,
    packed: Array | None = None,
) -> tuple[Array, Array]:
    found: tuple[Array, Array] = int8_top_k(x, weight, bias, k=k, ids=ids)
    return found
