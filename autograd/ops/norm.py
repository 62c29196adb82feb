"""Dropout, layer normalisation, and the two with the residual sum in one operation."""

from __future__ import annotations

from autograd.backend import Array, array_module
from autograd.dropout import DropoutSite
from autograd.op import Vjp, op

EPSILON = 1e-6  # tensor2tensor's; the paper does not say


@op
def dropout(x: Array, *, site: DropoutSite | None) -> tuple[Array, Vjp]:
    """Elements dropped at random and the others scaled up (Srivastava et al., 2014).

    x [rows, columns]. Without a site, x itself.
    """
    if site is None:
        return x, lambda dy: dy
    scale = site.keep_matrix(array_module(x), *x.shape).astype(x.dtype) * site.scale

    def vjp(dy: Array) -> Array:
        dy *= scale
        return dy

    return x * scale, vjp


@op
def layer_norm(
    x: Array, gain: Array, bias: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Vjp]:
    """(x - mean) / √(variance + ε) · gain + bias over the last axis (Ba et al., 2016).

    x [tokens, d], gain [d], bias [d].
    """
    module = array_module(x)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    inverse = 1 / module.sqrt(variance + epsilon)  # [tokens, 1]
    normed = centred * inverse

    def vjp(dy: Array) -> tuple[Array, Array, Array]:
        dgain, dbias = (dy * normed).sum(axis=0), dy.sum(axis=0)
        # Normalising removes the mean and the scale; so its gradient has no part along either.
        dnormed = dy * gain
        along = (dnormed * normed).mean(axis=-1, keepdims=True)
        dx = (dnormed - dnormed.mean(axis=-1, keepdims=True) - normed * along) * inverse
        return dx, dgain, dbias

    return normed * gain + bias, vjp


@op
def add_dropout_norm(
    x: Array,
    residual: Array,
    gain: Array,
    bias: Array,
    *,
    site: DropoutSite | None = None,
    epsilon: float = EPSILON,
) -> tuple[Array, Vjp]:
    """LayerNorm(residual + Dropout(x)): what surrounds every sub-layer (sections 3.1 and 5.4).

    x and residual [tokens, d], gain [d], bias [d].
    """
    dropped, dropout_vjp = dropout.reference(x, site=site)
    y, norm_vjp = layer_norm.reference(dropped + residual, gain, bias, epsilon=epsilon)

    def vjp(dy: Array) -> tuple[Array, Array, Array, Array]:
        dsum, dgain, dbias = norm_vjp(dy)
        return dropout_vjp(dsum.copy()), dsum, dgain, dbias

    return y, vjp
