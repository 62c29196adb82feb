"""The position-wise feed-forward network (section 3.3)."""

from __future__ import annotations

from autograd.backend import Array
from autograd.checks import is_matrix, shape_of
from autograd.dropout import DropoutSite, is_site
from autograd.operation import Vjp, op
from autograd.ops.arithmetic import gelu, relu, swish
from autograd.ops.large.affine import linear
from autograd.ops.large.norm import dropout

ACTIVATIONS = {"relu": relu, "gelu": gelu, "swish": swish}


@op
def feed_forward(
    x: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array | None = None,
    *,
    activation: str = "relu",
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    """max(0, xW₁ + b₁) W₂ + b₂ (section 3.3, equation 2), or with another activation.

    x: [..., d_model], usually [tokens, d_model]; w1: [d_model, d_ff]; b1: [d_ff]; w2: [d_ff,
    d_out], where the paper's d_out is d_model; b2: [d_out] or None. activation: "relu", "gelu" or
    "swish". With a site, the inner layer is dropped out after the activation, and x is a matrix.
    Returns [..., d_out].
    """
    h, inner_vjp = linear.reference(x, w1, b1)  # [..., d_ff]
    h, activation_vjp = ACTIVATIONS[activation].reference(h)
    h, dropout_vjp = dropout.reference(h, site=site)
    y, outer_vjp = linear.reference(h, w2, b2)

    def vjp(dy: Array) -> tuple[Array, ...]:
        dh, *of_outer = outer_vjp(dy)
        dx, dw1, db1 = inner_vjp(activation_vjp(dropout_vjp(dh)))
        return dx, dw1, db1, *of_outer

    return y, vjp


@feed_forward.checked
def _check(
    x: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array | None = None,
    *,
    activation: str = "relu",
    site: DropoutSite | None = None,
) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"feed_forward: activation must be {', '.join(ACTIVATIONS)}, got {activation!r}"
        )
    if b1 is None:
        raise TypeError("feed_forward: b1 must be an array, and only b2 may be None")
    is_site("feed_forward: site", site)
    if site is not None:
        is_matrix("feed_forward: x", x, "[tokens, d_model]")
    is_matrix("feed_forward: w1", w1, "[d_model, d_ff]")
    is_matrix("feed_forward: w2", w2, "[d_ff, d_out]")
    of_x, of_w1, of_w2 = map(shape_of, (x, w1, w2))
    if of_x[-1:] != of_w1[:1] or of_w1[1:] != of_w2[:1]:
        raise ValueError(
            f"feed_forward: x {of_x}, w1 {of_w1} and w2 {of_w2} do not match, [tokens, d_model], "
            "[d_model, d_ff] and [d_ff, d_out]"
        )
    for name, bias, of_weight in (("b1", b1, of_w1), ("b2", b2, of_w2)):
        if bias is not None and shape_of(bias) not in (of_weight[1:], (), (1,)):
            raise ValueError(
                f"feed_forward: {name} {shape_of(bias)} and its weight {of_weight} differ in "
                "columns"
            )
