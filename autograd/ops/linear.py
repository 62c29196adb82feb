"""An affine map, with the ReLU that follows it in the feed-forward network."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.op import Vjp, op


@op
def linear(
    x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False
) -> tuple[Array, Vjp]:
    """xW + b, or max(0, xW + b) with `relu` (section 3.3, equation 2).

    x [tokens, d_in], weight [d_in, d_out], bias [d_out] or None; the result is [tokens, d_out].
    """
    y = x @ weight
    if bias is not None:
        y += bias
    if relu:
        array_module(x).maximum(y, 0, out=y)
    cut_off = y if relu else None  # without a ReLU no gradient needs y

    def vjp(dy: Array) -> Any:
        if cut_off is not None:
            dy *= cut_off > 0
        dx, dweight = dy @ weight.T, x.T @ dy
        return (dx, dweight) if bias is None else (dx, dweight, dy.sum(axis=0))

    return y, vjp
