"""An affine map, with the ReLU that follows it in the feed-forward network."""

from __future__ import annotations

import math
from typing import Any

from autograd.backend import Array, array_module
from autograd.checks import is_matrix, shape_of
from autograd.operation import Vjp, op


@op
def linear(
    x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False
) -> tuple[Array, Vjp]:
    """xW + b, or max(0, xW + b) with `relu` (section 3.3, equation 2).

    x: [..., d_in], usually [tokens, d_in]; weight: [d_in, d_out]; bias: [d_out] or None. Returns
    [..., d_out].
    """
    y = x @ weight
    if bias is not None:
        y += bias
    if relu:
        array_module(x).maximum(y, 0, out=y)
    cut_off = y if relu else None  # without a ReLU, no gradient needs y

    def vjp(dy: Array) -> Any:
        if cut_off is not None:
            dy[~(cut_off > 0)] = 0  # not a product: inf · 0 is NaN
        dx = dy @ weight.T
        tokens = math.prod(x.shape[:-1])
        dy = dy.reshape(tokens, weight.shape[1])
        dweight = x.reshape(tokens, weight.shape[0]).T @ dy
        return (dx, dweight) if bias is None else (dx, dweight, dy.sum(axis=0))

    return y, vjp


@linear.checked
def _check(x: Array, weight: Array, bias: Array | None = None, **_: Any) -> None:
    is_matrix("linear: weight", weight, "[d_in, d_out]")
    shape = weight.shape
    if shape_of(x)[-1:] != shape[:1]:
        raise ValueError(
            f"linear: x {shape_of(x)} and weight {shape} do not match, [tokens, d_in] and "
            "[d_in, d_out]"
        )
    if bias is not None and shape_of(bias) not in (shape[1:], (), (1,)):
        raise ValueError(
            f"linear: bias {shape_of(bias)} and weight {shape} do not match, [d_out] and "
            "[d_in, d_out]"
        )
